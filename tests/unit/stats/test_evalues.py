import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpaudit.accounting import EpsilonDeltaFamily, GaussianFamily, family_for
from dpaudit.claim import Adjacency, Claim, Phase
from dpaudit.errors import UsageError
from dpaudit.evidence import Access, TwoSample
from dpaudit.stats import betting, certified, evalues
from dpaudit.stats.tradeoff import EpsilonDelta, Gaussian, gaussian_mu


def runs(scores_out, scores_in):
    return TwoSample(
        scores_in=np.asarray(scores_in, float),
        scores_out=np.asarray(scores_out, float),
        source="t",
        access=Access.FINAL_MODEL,
    )


def gaussian_runs(n, mu, seed=0):
    rng = np.random.default_rng(seed)
    return runs(rng.normal(size=n), rng.normal(size=n) + mu)


def claimed(epsilon, delta=1e-5):
    return GaussianFamily(mu=gaussian_mu(epsilon, delta), delta=delta, claimed_epsilon=epsilon)


def plan(mu):
    return evalues.ScorePlan(centre=mu / 2, spread=1.0, mu=mu)


def naive_wealth(curve, scores_out, scores_in, mu):
    """Multiply the certified payoffs of one planned bet, pair by pair."""
    round_ = next(betting.rounds(scores_out, scores_in, plan(mu)))
    payoff = np.exp(certified.numeraire(round_.belief(certified.pair(curve)), certified.pair(curve)))
    edges = betting._planned_edges(plan(mu)) + mu / 2
    wealth, path = 1.0, []
    for out, inside in zip(scores_out, scores_in, strict=True):
        wealth *= payoff[sum(out > edges), 0] * payoff[sum(inside > edges), 1]
        path.append(math.log(wealth))
    return path


def naive_threshold_betting(epsilon, delta, scores_out, scores_in, threshold, rate):
    """The (epsilon, delta) bet of the literature: 1 + rate (1{in above} - e^eps 1{out above} - delta)."""
    wealth = best = 1.0
    for out, inside in zip(scores_out, scores_in, strict=True):
        wealth *= 1 + rate * ((inside > threshold) - math.exp(epsilon) * (out > threshold) - delta)
        best = max(best, wealth)
    return best


def test_wealth_is_the_product_of_payoffs():
    evidence = gaussian_runs(60, 1.5)
    played = list(betting.rounds(evidence.scores_out, evidence.scores_in, plan(1.5)))
    found = evalues.log_wealth(Gaussian(mu=0.5), played)
    assert found == pytest.approx(
        naive_wealth(Gaussian(mu=0.5), evidence.scores_out, evidence.scores_in, 1.5)
    )


def test_bare_claims_are_refuted_about_as_soon_as_by_the_best_fixed_bet():
    evidence = gaussian_runs(500, gaussian_mu(8.0, 1e-5))
    best = 0.0
    for epsilon in np.arange(0.2, 4.0, 0.1):
        top = max(
            naive_threshold_betting(epsilon, 1e-5, evidence.scores_out, evidence.scores_in, t, share)
            for t in (1.5, 2.0, 2.5)
            for share in (0.2 / math.exp(epsilon), 0.5 / math.exp(epsilon))
        )
        best = epsilon if top >= 20 else best
    found = evalues.anytime(evidence, EpsilonDeltaFamily(base_epsilon=8.0, delta=1e-5), alpha=0.05)
    assert found.epsilon_lower > best - 0.3
    assert "nothing beyond" in found.assumptions[-1]


def test_bound_is_where_the_wealth_reaches_one_over_alpha():
    evidence = gaussian_runs(200, 2.0)
    found = evalues.anytime(evidence, claimed(8.0), alpha=0.05)
    played = list(betting.rounds(evidence.scores_out, evidence.scores_in, None))
    mu = gaussian_mu(found.epsilon_lower, 1e-5)
    assert evalues.log_wealth(Gaussian(mu=mu), played).max() >= math.log(20) - 0.01
    assert evalues.log_wealth(Gaussian(mu=mu * 1.01), played).max() < math.log(20)


@pytest.mark.parametrize("n", [9, 300, 4000])
def test_looks_see_the_wealth_of_some_moments_and_of_all_in_short_rounds(n):
    evidence = gaussian_runs(n, 1.2)
    played = list(betting.rounds(evidence.scores_out, evidence.scores_in, None))
    counts = evalues._counts(played)
    wealth = evalues.log_wealth(Gaussian(mu=0.8), played)
    found = evalues._largest(Gaussian(mu=0.8), played, counts)
    everywhere = max(wealth.max(), 0.0)
    assert found <= everywhere + 1e-9
    if n <= 300:
        assert found == pytest.approx(everywhere, abs=1e-9)
    # The last moment is always looked at.
    assert found >= wealth[-1] - 1e-9


def test_wealth_grows_as_the_projection_says():
    mu_null, mu = 0.5, 1.6
    played = next(betting.rounds(np.zeros(1), np.zeros(1), plan(mu)))
    against = certified.pair(Gaussian(mu=mu_null))
    belief = played.belief(against)
    growth = float(np.sum(betting.planned_cells(plan(mu), mu) * certified.numeraire(belief, against)))
    evidence = gaussian_runs(20_000, mu)
    planned = betting.rounds(evidence.scores_out, evidence.scores_in, plan(mu))
    total = evalues.log_wealth(Gaussian(mu=mu_null), list(planned))[-1]
    assert total / 20_000 == pytest.approx(growth, rel=0.03)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([np.tanh, np.exp, lambda x: 7 * x - 3]))
def test_only_the_order_of_scores_counts(seed, transform):
    evidence = gaussian_runs(60, 2.5, seed)
    played = list(betting.rounds(evidence.scores_out, evidence.scores_in, None))
    other = list(betting.rounds(transform(evidence.scores_out), transform(evidence.scores_in), None))
    moved = np.concatenate(
        [np.abs(one.cell_in - two.cell_in) for one, two in zip(played, other, strict=True)]
    )
    # Quantiles are interpolated between scores, so that a few may fall beside an edge.
    assert moved.max() <= 6
    assert np.mean(moved == 0) > 0.7


def test_rounds_use_the_past_alone():
    evidence = gaussian_runs(80, 1.0)
    changed_in, changed_out = evidence.scores_in.copy(), evidence.scores_out.copy()
    changed_in[40:], changed_out[40:] = -9.0, 9.0
    before = list(betting.rounds(evidence.scores_out, evidence.scores_in, None))
    after = list(betting.rounds(changed_out, changed_in, None))
    seen = 8
    for one, two in zip(before, after, strict=True):
        if seen <= 40:
            assert np.array_equal(one.weights, two.weights)
        upto = max(0, 40 - seen)
        assert np.array_equal(one.cell_in[:upto], two.cell_in[:upto])
        seen += one.cell_in.size


def test_every_family_has_its_curve_bet_against():
    ledger = (Phase(noise_multiplier=1.0, sample_rate=0.02, steps=500),)
    claim = Claim(epsilon=2.773, delta=1e-5, ledger=ledger)
    family = family_for(claim, adjacency=Adjacency.ADD_REMOVE)
    for mu, refuted in ((3.0, True), (0.2, False)):
        evidence = gaussian_runs(150, mu)
        played = list(betting.rounds(evidence.scores_out, evidence.scores_in, None))
        wealth = evalues.log_wealth(family.curve(family.claimed_scale), played)
        assert (wealth.max() >= math.log(20)) == refuted


def test_p_value_and_bound_agree():
    for seed in range(3):
        found = evalues.anytime(gaussian_runs(150, 1.2, seed), claimed(2.0), alpha=0.05)
        assert (found.p_value <= 0.05) == (found.epsilon_lower > 2.0)


def test_ceiling_is_above_and_detectable_is_detected():
    family = claimed(2.0)
    found = evalues.anytime(gaussian_runs(200, 0.0, 1), family, alpha=0.05)
    assert found.epsilon_lower == 0.0
    assert found.ceiling > 8.0
    truth = gaussian_mu(found.detectable, 1e-5)
    caught = []
    for seed in range(60):
        evidence = gaussian_runs(200, truth, seed)
        played = list(betting.rounds(evidence.scores_out, evidence.scores_in, None))
        caught.append(evalues.log_wealth(family.curve(1.0), played).max() >= math.log(20))
    assert np.mean(caught) == pytest.approx(0.9, abs=0.15)
    assert evalues.anytime(gaussian_runs(50, 1.0), claimed(2.0), alpha=0.05, plan=plan(3.0)).detectable


def test_ties_and_constant_scores_show_nothing_they_should_not():
    assert evalues.anytime(runs(np.zeros(100), np.zeros(100)), claimed(1.0), alpha=0.05).epsilon_lower == 0
    # Scores of two values that always tell are worth a lot.
    told = evalues.anytime(runs(np.zeros(100), np.ones(100)), claimed(1.0), alpha=0.05)
    assert told.epsilon_lower > 2.0


def test_few_and_missing_runs():
    family = claimed(1.0)
    assert evalues.anytime(gaussian_runs(3, 9.0), family, alpha=0.05).epsilon_lower == 0.0
    assert evalues.anytime(runs([], []), family, alpha=0.05).epsilon_lower is None
    for scores in ((np.zeros(5), []), ([], np.zeros(5))):
        with pytest.raises(UsageError, match="both kinds"):
            evalues.anytime(runs(*scores), family, alpha=0.05)
    with pytest.raises(UsageError, match="scores_in to be finite"):
        evalues.anytime(runs([0.0], [math.nan]), family, alpha=0.05)
    with pytest.raises(UsageError, match="spread"):
        evalues.ScorePlan(centre=0.0, spread=0.0, mu=1.0)
    with pytest.raises(UsageError, match="neighbours"):
        evalues.anytime(replace(gaussian_runs(9, 1.0), adjacency=Adjacency.REPLACE_ONE), family, alpha=0.05)


def test_surplus_runs_are_left_out():
    evidence = gaussian_runs(60, 2.0)
    more = runs(np.concatenate([evidence.scores_out, np.full(30, 99.0)]), evidence.scores_in)
    assert (
        evalues.anytime(more, claimed(4.0), alpha=0.05).epsilon_lower
        == evalues.anytime(evidence, claimed(4.0), alpha=0.05).epsilon_lower
    )


def test_forbidden_beliefs_are_those_above_the_curve():
    beliefs = np.stack([betting.planned_cells(plan(1.0), mu) for mu in (0.5, 0.99, 1.01, 3.0)])
    assert betting.forbidden(beliefs, Gaussian(mu=1.0)).tolist() == [False, False, True, True]
    assert betting.forbidden(beliefs, EpsilonDelta(epsilon=9.0, delta=0.5)).tolist() == [False] * 4
