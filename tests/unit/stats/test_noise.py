import math

import numpy as np
import pytest
from scipy.stats import chi2

from dpaudit.accounting import LedgerFamily
from dpaudit.claim import Phase
from dpaudit.errors import UsageError
from dpaudit.evidence import NoiseSample, Replay
from dpaudit.stats.noise import contradictions, effective_sensitivity, replay, too_small

LEDGER = (Phase(noise_multiplier=2.0, sample_rate=1.0, steps=10),)
FAMILY = LedgerFamily(
    ledger=LEDGER, delta=1e-5, claimed_epsilon=LedgerFamily(ledger=LEDGER, delta=1e-5).epsilon(1.0)
)
COUNTS = (20, 300, 5000)


def measured(squares, *, sensitivity=1.0, counts=COUNTS, claimed=2.0):
    return Replay(
        sensitivity=sensitivity,
        sensitivity_where="batch 0",
        noise=tuple(
            NoiseSample(where=f"p{i}", sum_of_squares=s, count=n, claimed_std=claimed)
            for i, (s, n) in enumerate(zip(squares, counts, strict=True))
        ),
        executions=4,
        steps=1,
    )


def drawn(*ratios, seed=0, **more):
    rng = np.random.default_rng(seed)
    squares = [r**2 * float(np.sum(rng.normal(0, 2, n) ** 2)) for r, n in zip(ratios, COUNTS, strict=True)]
    return measured(squares, **more)


def test_correct_noise_is_bounded_closely_and_not_refuted():
    found = replay(drawn(1, 1, 1), FAMILY, alpha=0.05)
    assert 0.9 * found.claimed_epsilon < found.epsilon_lower < found.claimed_epsilon
    assert found.p_value > 0.05
    assert found.claimed_epsilon < found.detectable < 1.2 * found.claimed_epsilon
    assert found.n_observations == sum(COUNTS)


def test_bound_and_p_value_equal_their_naive_twin():
    evidence = drawn(0.97, 1, 0.97, seed=3)
    ratios = [s.sum_of_squares / 4 for s in evidence.noise]
    pooled = chi2.cdf(sum(ratios), sum(COUNTS))
    worst = min(chi2.cdf(r, n) for r, n in zip(ratios, COUNTS, strict=True))
    found = replay(evidence, FAMILY, alpha=0.05)
    assert found.p_value == pytest.approx(min(1, 2 * pooled, 6 * worst), rel=1e-6)
    limits = [np.sqrt(sum(ratios) / chi2.ppf(0.025, sum(COUNTS)))]
    limits += [np.sqrt(r / chi2.ppf(0.05 / 6, n)) for r, n in zip(ratios, COUNTS, strict=True)]
    assert found.epsilon_lower == pytest.approx(FAMILY.epsilon(min(limits)), rel=2e-3)


@pytest.mark.parametrize("ratios", [(0.9, 0.9, 0.9), (1, 1, 0.9), (1, 0.7, 1), (0.2, 1, 1)])
def test_less_noise_is_refuted_everywhere_or_in_one_parameter(ratios):
    found = replay(drawn(*ratios), FAMILY, alpha=0.05)
    assert found.p_value < 0.01
    assert found.claimed_epsilon < found.epsilon_lower <= FAMILY.epsilon(min(ratios)) * 1.05


def test_a_parameter_without_noise_has_no_finite_epsilon():
    found = replay(drawn(1, 0, 1), FAMILY, alpha=0.05)
    assert found.epsilon_lower == math.inf
    assert found.p_value == 0.0


def test_single_precision_is_not_a_leak_but_more_is():
    assert effective_sensitivity(drawn(1, 1, 1, sensitivity=1.0001)) == 1.0
    assert effective_sensitivity(drawn(1, 1, 1, sensitivity=0.9995)) == 1.0
    assert replay(drawn(1, 1, 1, sensitivity=1.0001), FAMILY, alpha=0.05).p_value > 0.05
    leak = replay(drawn(1, 1, 1, sensitivity=1.5), FAMILY, alpha=0.05)
    assert leak.epsilon_lower == pytest.approx(FAMILY.epsilon(1 / 1.5), rel=0.06)
    assert leak.p_value < 1e-6
    less = replay(drawn(1, 1, 1, sensitivity=0.5), FAMILY, alpha=0.05)
    assert less.epsilon_lower < FAMILY.epsilon(1.9)


def test_sensitivity_that_is_unbounded_absent_or_unknown():
    assert replay(drawn(1, 1, 1, sensitivity=math.inf), FAMILY, alpha=0.05).epsilon_lower == math.inf
    assert replay(drawn(1, 1, 1, sensitivity=0.0), FAMILY, alpha=0.05).epsilon_lower == 0.0
    assert replay(drawn(1, 1, 1, sensitivity=math.nan), FAMILY, alpha=0.05).epsilon_lower is None


def test_nothing_measured_is_not_zero():
    found = replay(measured([], counts=()), FAMILY, alpha=0.05)
    assert (found.epsilon_lower, found.p_value, found.ceiling) == (None, None, 0.0)
    unclaimed = replay(drawn(1, 1, 1, claimed=0.0), FAMILY, alpha=0.05)
    assert unclaimed.epsilon_lower is None


def test_p_values_per_parameter():
    evidence = drawn(1, 0.5, 1)
    values = too_small(evidence)
    assert list(values) == ["p0", "p1", "p2"]
    assert values["p1"] == pytest.approx(chi2.cdf(evidence.noise[1].sum_of_squares / 4, 300))
    assert values["p1"] < 1e-6 < values["p2"]
    assert too_small(evidence, scale=0.5)["p1"] > 1e-3


def test_sums_that_are_not_numbers_are_refused():
    with pytest.raises(UsageError, match="'p1'"):
        replay(measured([80.0, math.nan, 2e4]), FAMILY, alpha=0.05)


def grouped(deviations, movement, *, seed=0):
    """Groups with a clip and noise of their own: what one record does in each, and in all together."""
    rng = np.random.default_rng(seed)
    samples = tuple(
        NoiseSample(
            where=f"g{i}",
            sum_of_squares=float(np.sum(rng.normal(0, s, n) ** 2)),
            count=n,
            claimed_std=2.0,
            sensitivity=m,
        )
        for i, (s, m, n) in enumerate(zip(deviations, movement, COUNTS, strict=True))
    )
    total = float(np.linalg.norm(movement))
    return Replay(
        sensitivity=total,
        sensitivity_where="group",
        noise=samples,
        executions=4,
        steps=1,
        movement=tuple(movement),
    )


def test_groups_with_noise_in_proportion_to_their_clips_are_not_accused():
    movement = np.array([0.1, 0.3, np.sqrt(1 - 0.1)])
    enough = grouped(2.0 * movement * np.sqrt(3), movement)
    assert contradictions(enough, level=1e-3) == {}
    assert replay(enough, FAMILY, alpha=0.05).p_value > 0.05


def test_groups_that_are_each_clipped_in_full_are():
    movement = np.ones(3)
    found = contradictions(grouped(2.0 * movement, movement), level=1e-9)
    assert list(found) == ["a record in all parameters"]
    # 1 / sqrt(3) of the noise that such a record needs.
    bound = replay(grouped(2.0 * movement, movement), FAMILY, alpha=0.05).epsilon_lower
    assert 0.8 * FAMILY.epsilon(3**-0.5) < bound <= FAMILY.epsilon(3**-0.5)


def test_a_parameter_that_no_record_moves_needs_no_noise():
    movement = np.array([0.0, 0.6, 0.8])
    assert contradictions(grouped([0.0, 2.0, 2.0], movement), level=1e-3) == {}


def test_the_bound_for_one_record_keeps_its_level_whatever_the_groups():
    movement = np.array([0.5, 0.5, np.sqrt(0.5)])
    # mu = 1/2 exactly, spread unevenly over the groups.
    for shares in ([0.8, 0.1, 0.1], [0.05, 0.9, 0.05], [0.1, 0.2, 0.7]):
        deviations = movement / np.sqrt(np.array(shares) / 4)
        hits = [
            "a record in all parameters" in contradictions(grouped(deviations, movement, seed=s), level=0.05)
            for s in range(400)
        ]
        assert np.mean(hits) <= 0.05
