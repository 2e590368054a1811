"""Extracted secrets as evidence: levels under the null and under a claim, limits, rates, coverage."""

import numpy as np
import pytest

from dpaudit import extraction
from dpaudit.accounting import family_for
from dpaudit.asking import Extracted
from dpaudit.attacks.extraction.planted import Extraction, rank_p_values
from dpaudit.canary import Canaries
from dpaudit.claim import Adjacency, Claim
from dpaudit.protocols import View
from dpaudit.secret import Format, Secrets
from dpaudit.stats.family import EpsilonDeltaFamily

ATTACK = Extraction()
PIN = Format(name="pin", slots=(tuple((digit,) for digit in range(10)),) * 3)
K = 39


def found(p_values, member=None, queries=None, size=1000.0):
    p_values = np.asarray(p_values, dtype=np.float64)
    return Extracted(
        member=np.ones(len(p_values), dtype=bool) if member is None else np.asarray(member),
        size=np.full(len(p_values), size),
        p_values=p_values,
        n_references=K,
        queries=np.full(len(p_values), np.inf) if queries is None else np.asarray(queries, dtype=np.float64),
        n=100,
        p=0.5,
        leaked=(4, 1),
        beside=(5, 0),
        said=(0, 0),
    )


def pure(epsilon):
    def family_of(adjacency):
        return EpsilonDeltaFamily(
            base_epsilon=epsilon, delta=0.0, adjacency=adjacency, claimed_epsilon=epsilon
        )

    return family_of


def ranks_of_a_biased_model(rng, runs, canaries=12):
    """Runs of a model that never saw a record, but finds some secrets likelier than others."""
    taste = np.argsort(np.random.default_rng(0).normal(size=PIN.size)).astype(float)
    x = np.full((canaries, 4), 1.0)
    places = Secrets.at((PIN,), np.zeros(canaries), np.ones(canaries), np.full(canaries, 4))
    weight = 10 ** np.arange(2, -1, -1)
    for _ in range(runs):
        _, planted = places.plant(x, np.arange(canaries), rng)
        rows = [taste[planted.candidates(row, K) @ weight] for row in range(canaries)]
        yield rank_p_values(np.stack(rows))


def test_ranks_of_secrets_that_were_left_out_are_even():
    ranks = np.concatenate(list(ranks_of_a_biased_model(np.random.default_rng(5), 150)))
    for level in (0.025, 0.1, 0.5):
        attained = float((ranks <= level + 1e-9).mean())
        print(f"level {level}: attained {attained:.4f} over {ranks.size} secrets")
        assert abs(attained - level) < 4 * np.sqrt(level * (1 - level) / ranks.size)


@pytest.mark.parametrize(("one", "runs"), [(True, 1), (False, 4)])
def test_true_claims_are_refuted_at_most_as_often_as_alpha_says(one, runs):
    """Secrets that stand first as often as the claim allows, all of a run together or not at all."""
    alpha, audits, claim, canaries = 0.1, 100, 1.0, 20
    rng = np.random.default_rng(6)
    first = np.exp(claim) / (np.exp(claim) + K) if one else np.exp(claim) / (K + 1)
    rejected = 0
    for _ in range(audits):
        hits = rng.random((runs, canaries if one else 1)) < first
        drawn = np.where(hits, 1, rng.integers(2, K + 2, size=(runs, canaries))) / (K + 1)
        seen = [found(values) for values in drawn]
        (estimate,) = extraction.estimates(ATTACK, seen, pure(claim), one=one, alpha=alpha)
        rejected += estimate.p_value <= alpha
    print(f"one={one}: refuted {rejected} of {audits} true claims at level {alpha}")
    assert rejected <= alpha * audits + 3 * np.sqrt(audits * alpha * (1 - alpha))


def test_secrets_that_all_stand_out_refute_a_claim_by_more_than_the_logarithm_of_their_number():
    first = found(np.full(30, 1 / (K + 1)))
    (one,) = extraction.estimates(ATTACK, [first], pure(1.0), one=True, alpha=0.05)
    assert one.adjacency is Adjacency.REPLACE_ONE and one.epsilon_lower > np.log(30) and one.p_value < 1e-6
    assert one.epsilon_lower == one.ceiling
    (several,) = extraction.estimates(ATTACK, [first] * 5, pure(1.0), one=False, alpha=0.05)
    assert several.adjacency is Adjacency.ADD_REMOVE and several.epsilon_lower > 1 and several.p_value < 0.01


def test_one_run_gives_no_ranks_and_nothing_gives_no_estimate():
    assert list(extraction.estimates(ATTACK, [found([0.5])], pure(1.0), one=False, alpha=0.05)) == []
    assert list(extraction.estimates(ATTACK, [], pure(1.0), one=True, alpha=0.05)) == []


def test_what_is_guessed_blindly_is_what_the_best_blind_model_does():
    """A model that spreads its probability over as many secrets as p and n allow finds exactly these."""
    each = found([0.5], size=1000.0)
    for n in (1, 10, 100, 10_000):
        within = next(m for m in range(1000, -1, -1) if m == 0 or 1 - (1 - 1 / m) ** n >= each.p)
        kappa = float(extraction.guessed_blindly(each, np.array([n]))[0, 0])
        assert within / 1000 <= kappa <= (within + 1) / 1000


def test_rates_have_exact_intervals_and_the_limits_of_the_claim():
    seen = found([1 / 40, 0.5, 0.2, 1 / 40], [True, True, True, False], [50, 101, np.inf, 1])
    by_name = {(r.name, r.slice): r for r in extraction.rates(ATTACK, [seen], pure(1.0), alpha=0.05)}
    first, feasible = by_name["extraction_success", "all"], by_name["extraction_rate_100_queries", "all"]
    assert (first.value, first.n, feasible.value, feasible.n) == (
        pytest.approx(1 / 3),
        3,
        pytest.approx(1 / 3),
        3,
    )
    assert first.limit == pytest.approx(np.e / 40)
    kappa = 1 / (1000 * (1 - 0.5 ** (1 / 100)))
    assert feasible.limit == pytest.approx(np.e * kappa)
    assert 0 < first.lower < first.value < first.upper < 1
    unsaid = by_name["extracted_pii_precision_rate", "all"]
    assert np.isnan(unsaid.value) and unsaid.lower is None and unsaid.upper is None
    assert by_name["extracted_pii_rate", extraction.LEFT_OUT].fine


def test_without_a_claim_nothing_is_allowed_or_forbidden():
    def family_of(adjacency):
        return family_for(None, adjacency=adjacency)

    assert {r.limit for r in extraction.rates(ATTACK, [found([0.5])], family_of, alpha=0.05)} == {None}
    assert not any("limit" in curve.kind for curve in extraction.curves(ATTACK, [found([0.5])], family_of))

    def replaced(adjacency):
        claim = Claim(epsilon=1.0, delta=0.0, adjacency=Adjacency.REPLACE_ONE)
        return family_for(claim, adjacency=adjacency)

    assert {r.limit for r in extraction.rates(ATTACK, [found([0.5])], replaced, alpha=0.05)} == {None}


def test_curves_are_shares_that_a_claim_bounds():
    seen = found(np.full(8, 1 / 40), np.arange(8) < 4, np.full(8, 1000))
    by_kind = {curve.kind: curve for curve in extraction.curves(ATTACK, [seen], pure(1.0))}
    assert set(by_kind) == {f"{k}{e}" for k in ("exposure", "extraction") for e in ("", "-out", "-limit")}
    assert by_kind["exposure"].y == (1.0,) * len(by_kind["exposure"].x)
    come = by_kind["extraction"]
    assert all((share == 1.0) == (n >= 1000) for n, share in zip(come.x, come.y, strict=True))
    assert list(by_kind["exposure-limit"].y) == sorted(by_kind["exposure-limit"].y, reverse=True)


def view(scores):
    x, y = np.zeros((4, 2)), np.arange(4)
    member = np.array([True, False, True, False])
    canaries = Canaries(x=x, y=y, member=member, canary=member, test_x=x, test_y=y)
    return View(
        canaries=canaries, scores=scores, test_accuracy=0.0, train_accuracy=0.0, n_parameters=0, claim=None
    )


def test_coverage_says_why_nothing_ran():
    classes, tokens = view(np.log(np.full((4, 3), 1 / 3))), view(np.full((4, 1), -1.0))
    assert extraction.ran(ATTACK, {0: classes})[0] == "NOT APPLICABLE"
    assert "no secret was planted" in extraction.ran(ATTACK, {0: tokens})[1]
    assert extraction.not_asked("a", classes).status == "NOT APPLICABLE"
    assert extraction.not_asked("a", tokens).status == extraction.not_asked("a", None).status == "NOT RUN"
