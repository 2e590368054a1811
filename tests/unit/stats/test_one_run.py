import math
import time
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from dpaudit.accounting import EpsilonDeltaFamily, GaussianFamily, family_for
from dpaudit.claim import Adjacency, Claim, Phase
from dpaudit.errors import UsageError
from dpaudit.evidence import Access, Guesses, OneRun
from dpaudit.stats import one_run
from dpaudit.stats.guessing import curve_rejects, guess_plan, right_guesses
from dpaudit.stats.tradeoff import gaussian_epsilon, gaussian_mu

REPLACE = Adjacency.REPLACE_ONE


def gaussian_run(m, mu, seed=0):
    rng = np.random.default_rng(seed)
    inside = rng.random(m) < 0.5
    return OneRun(
        scores=rng.normal(size=m) + mu * inside, included=inside, source="t", access=Access.FINAL_MODEL
    )


def claimed(epsilon, delta=1e-5):
    return GaussianFamily(
        mu=gaussian_mu(epsilon, delta), delta=delta, adjacency=REPLACE, claimed_epsilon=epsilon
    )


def naive_curve_rejects(m, r, c, mu, tau):
    h, g = tau * (r - c) / m, tau * c / m
    for i in range(c - 1, -1, -1):
        if g + h > r / m:
            return True
        larger = max(h, scipy.stats.norm.cdf(scipy.stats.norm.ppf(g) - mu))
        g += i / (r - i) * (larger - h)
        h = larger
    return g + h > r / m


def naive_correct(evidence, r):
    order = sorted(range(evidence.scores.size), key=lambda i: -evidence.scores[i])
    middle = (evidence.scores[order[len(order) // 4]] + evidence.scores[order[3 * len(order) // 4]]) / 2
    n_top = round(r * min(max(np.mean(evidence.scores > middle), 0.25), 0.75) + 1e-9)
    top, bottom = order[:n_top], order[len(order) - (r - n_top) :]
    return sum(evidence.included[i] for i in top) + sum(not evidence.included[i] for i in bottom)


def test_f_dp_bound_is_where_the_recursion_starts_to_reject():
    evidence = gaussian_run(200, 1.7)
    correct = naive_correct(evidence, 60)
    low, high = 0.0, 5.0
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (middle, high) if naive_curve_rejects(200, 60, correct, middle, 0.05) else (low, middle)
    found = one_run.f_dp(evidence, claimed(8.0), alpha=0.05, guesses=60)
    assert found.epsilon_lower == pytest.approx(gaussian_epsilon(low, 1e-5), rel=3e-3)
    assert found.epsilon_lower <= gaussian_epsilon(low, 1e-5) + 1e-9


def test_epsilon_delta_bound_is_where_the_published_p_value_is_alpha():
    rng = np.random.default_rng(1)
    inside = rng.random(100) < 0.5
    scores = np.where(rng.random(100) < 0.9, inside, ~inside) + 1e-3 * rng.random(100)
    evidence = OneRun(scores=scores, included=inside, source="t", access=Access.FINAL_MODEL)
    correct = naive_correct(evidence, 100)
    pure = EpsilonDeltaFamily(base_epsilon=1.0, delta=0.0, adjacency=REPLACE, claimed_epsilon=1.0)
    found = one_run.epsilon_delta(evidence, pure, alpha=0.05, guesses=100)
    p_value = scipy.stats.binom.sf(correct - 1, 100, 1 / (1 + math.exp(-found.epsilon_lower)))
    assert p_value == pytest.approx(0.05, rel=0.01)
    assert found.p_value == pytest.approx(scipy.stats.binom.sf(correct - 1, 100, 1 / (1 + math.exp(-1))))


def test_grid_pays_for_its_size():
    evidence = gaussian_run(400, 1.2)
    alone = [one_run.f_dp(evidence, claimed(4.0), alpha=0.05 / 3, guesses=r) for r in (30, 90, 400)]
    grid = one_run.f_dp(evidence, claimed(4.0), alpha=0.05, guesses=[30, 90, 400])
    assert grid.epsilon_lower == pytest.approx(max(e.epsilon_lower for e in alone), rel=2e-3)
    assert grid.p_value == pytest.approx(min(1.0, 3 * min(e.p_value for e in alone)), rel=0.02)


def test_p_value_and_bound_agree():
    for seed in range(4):
        evidence = gaussian_run(300, 2.0, seed)
        for estimator in (one_run.f_dp, one_run.epsilon_delta):
            found = estimator(evidence, claimed(1.5), alpha=0.05)
            assert (found.p_value <= 0.05) == (found.epsilon_lower > 1.5)


def test_ceiling_is_the_bound_of_a_perfect_guesser():
    perfect = gaussian_run(500, 100.0)
    for estimator in (one_run.f_dp, one_run.epsilon_delta):
        found = estimator(perfect, claimed(4.0), alpha=0.05, guesses=300)
        assert found.epsilon_lower == pytest.approx(found.ceiling)
    # The published cap log(r / ln(1 / alpha)), with nothing lost to delta.
    pure = EpsilonDeltaFamily(base_epsilon=4.0, delta=0.0, adjacency=REPLACE, claimed_epsilon=4.0)
    cap = one_run.epsilon_delta(perfect, pure, alpha=0.05, guesses=500).ceiling
    assert cap == pytest.approx(math.log(500 / math.log(20)), abs=0.01)


def test_detectable_is_caught_nine_times_in_ten():
    family = claimed(1.0)
    design = one_run.f_dp(gaussian_run(500, 0.0), family, alpha=0.05, guesses=110)
    truth = gaussian_mu(design.detectable, 1e-5)
    caught = []
    for seed in range(300):
        right = right_guesses(gaussian_run(500, truth, seed), np.array([110]))
        caught += curve_rejects(
            family.curve(1.0),
            canaries=500,
            guesses=np.array([110]),
            correct=right,
            level=np.array([0.05]),
        ).tolist()
    assert np.mean(caught) == pytest.approx(0.9, abs=0.06)
    assert (
        one_run.f_dp(gaussian_run(500, 0.0), replace(family, claimed_epsilon=None), alpha=0.05).detectable
        is None
    )


def test_ledger_families_are_audited_on_their_own_curve():
    ledger = (Phase(noise_multiplier=1.0, sample_rate=1.0, steps=1),)
    claim = Claim(epsilon=10.0, delta=1e-5, adjacency=REPLACE, ledger=ledger)
    evidence = gaussian_run(400, 2.0)
    whole = one_run.f_dp(evidence, family_for(claim, adjacency=REPLACE), alpha=0.05)
    plain = one_run.f_dp(evidence, claimed(10.0), alpha=0.05)
    assert whole.epsilon_lower == pytest.approx(plain.epsilon_lower, rel=0.01)
    assert "ledger" in whole.assumptions[-1]


def test_a_curve_is_worth_more_than_its_epsilon():
    evidence = gaussian_run(1000, gaussian_mu(8.0, 1e-5))
    curve = one_run.f_dp(evidence, claimed(8.0), alpha=0.05)
    bare = one_run.epsilon_delta(evidence, claimed(8.0), alpha=0.05)
    assert curve.epsilon_lower > bare.epsilon_lower + 1
    assert "nothing beyond" in bare.assumptions[-1]


def test_choices_with_two_candidates_are_guesses_of_coins():
    games = Guesses(
        successes=45,
        trials=60,
        baseline=0.5,
        unit="run",
        source="t",
        access=Access.FINAL_MODEL,
        adjacency=REPLACE,
    )
    evidence = gaussian_run(200, 1.0)
    family = claimed(4.0)
    two = one_run.choices(games, family, alpha=0.05, canaries=200)
    found = one_run._invert(
        one_run._curve_test(family, 200, 2), family, guess_plan(200, 60), np.array([45]), 0.05
    )
    assert two.epsilon_lower == pytest.approx(found.epsilon_lower)
    assert two.p_value == found.p_value
    assert evidence.scores.size == two.n_observations


def test_more_candidates_say_more():
    def bound(k, right):
        games = Guesses(
            successes=right,
            trials=100,
            baseline=1 / k,
            unit="run",
            source="t",
            access=Access.FINAL_MODEL,
            adjacency=REPLACE,
        )
        return one_run.choices(games, claimed(8.0), alpha=0.05)

    assert bound(100, 60).epsilon_lower > bound(10, 60).epsilon_lower > bound(2, 60).epsilon_lower
    assert bound(100, 60).detectable is not None
    with pytest.raises(UsageError, match="baseline"):
        bound(2.5, 60)
    with pytest.raises(UsageError, match="successes=101"):
        bound(2, 101)


@pytest.mark.parametrize("estimator", [one_run.f_dp, one_run.epsilon_delta])
def test_few_canaries_give_no_bound_rather_than_an_error(estimator):
    for m in (2, 3, 5):
        inside = np.arange(m) % 2 == 0
        evidence = OneRun(scores=inside.astype(float), included=inside, source="t", access=Access.FINAL_MODEL)
        found = estimator(evidence, claimed(1.0), alpha=0.01)
        assert found.epsilon_lower == 0.0 and found.p_value > 0.01
    nothing = OneRun(scores=np.zeros(0), included=np.zeros(0, bool), source="t", access=Access.FINAL_MODEL)
    assert estimator(nothing, claimed(1.0), alpha=0.05).epsilon_lower is None


def test_evidence_that_the_theorem_does_not_cover_is_refused_in_one_line():
    good = gaussian_run(100, 1.0)
    wrong = {
        "both kinds, found 100 of 100": replace(good, included=np.ones(100, bool)),
        "both kinds, found 0 of 100": replace(good, included=np.zeros(100, bool)),
        "inclusion_probability=0.5, found 0.3": replace(good, inclusion_probability=0.3),
        "found 90 of 100": replace(good, included=np.arange(100) < 90),
        "finite, found nan at position 3": replace(
            good, scores=np.where(np.arange(100) == 3, np.nan, good.scores)
        ),
        "one shape": replace(good, included=good.included[:50]),
    }
    for message, evidence in wrong.items():
        for estimator in (one_run.f_dp, one_run.epsilon_delta):
            with pytest.raises(UsageError, match=message) as raised:
                estimator(evidence, claimed(1.0), alpha=0.05)
            assert "\n" not in str(raised.value)


def test_scores_that_all_tie_show_nothing():
    evidence = replace(gaussian_run(1000, 3.0), scores=np.zeros(1000))
    assert one_run.f_dp(evidence, claimed(1.0), alpha=0.05).epsilon_lower == 0.0
    assert one_run.f_dp(evidence, claimed(1.0), alpha=0.05, rng=np.random.default_rng(0)).epsilon_lower == 0.0


@pytest.mark.slow
def test_a_million_canaries_take_seconds():
    evidence = gaussian_run(10**6, 1.0)
    for estimator in (one_run.f_dp, one_run.epsilon_delta):
        started = time.process_time()
        estimator(evidence, claimed(4.0), alpha=0.05)
        assert time.process_time() - started < 4.0
