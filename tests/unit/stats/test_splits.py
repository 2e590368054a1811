import itertools
import math

import numpy as np
import pytest

from dpaudit.accounting import EpsilonDeltaFamily, GaussianFamily, family_for
from dpaudit.claim import Adjacency, Claim, Phase
from dpaudit.errors import UsageError
from dpaudit.evidence import Access, TwoSample
from dpaudit.stats import splits, two_sample
from dpaudit.stats.binomial import lower, upper
from dpaudit.stats.tradeoff import gaussian_mu

GAUSSIAN = GaussianFamily(mu=gaussian_mu(4.0, 1e-5), delta=1e-5, claimed_epsilon=4.0)
BARE = EpsilonDeltaFamily(base_epsilon=4.0, delta=1e-5, claimed_epsilon=4.0)


def runs(scores_in, scores_out):
    return TwoSample(
        scores_in=np.asarray(scores_in, float),
        scores_out=np.asarray(scores_out, float),
        source="t",
        access=Access.FINAL_MODEL,
    )


def gaussian_runs(n, mu, seed=0):
    rng = np.random.default_rng(seed)
    return runs(rng.normal(size=n) + mu, rng.normal(size=n))


def naive_split_epsilon(inside, outside, delta, alpha, rng):
    """Choose among all thresholds and both directions on one half by loops; count on the other."""

    def part(n):
        return rng.permutation(n) < min(max(round(n / 2), 1), n - 1)

    pick_in, pick_out = part(len(inside)), part(len(outside))
    best = (-math.inf, None)
    for sign, threshold in itertools.product((1, -1), [*inside[pick_in], *outside[pick_out]]):
        caught, free = (
            (inside[pick_in], outside[pick_out]) if sign == 1 else (-outside[pick_out], -inside[pick_in])
        )
        t = sign * threshold
        if t not in free:
            continue
        tpr = lower(sum(x > t for x in caught), len(caught), 0.05)
        fpr = upper(sum(x > t for x in free), len(free), 0.05)
        value = math.log(max(tpr - delta, 1e-300)) - math.log(fpr)
        if value > best[0]:
            best = (value, (sign, t))
    sign, t = best[1]
    caught, free = (
        (inside[~pick_in], outside[~pick_out]) if sign == 1 else (-outside[~pick_out], -inside[~pick_in])
    )
    tpr = float(lower(sum(x > t for x in caught), len(caught), alpha / 2))
    fpr = float(upper(sum(x > t for x in free), len(free), alpha / 2))
    return max(
        0.0, math.log(max(tpr - delta, 1e-300) / fpr), math.log(max(1 - fpr - delta, 1e-300) / (1 - tpr))
    )


@pytest.mark.parametrize("seed", range(4))
def test_split_sample_equals_its_naive_twin(seed):
    evidence = gaussian_runs(60, 4.0, seed)
    found = splits.split_sample(evidence, BARE, alpha=0.05, rng=np.random.default_rng(seed))
    naive = naive_split_epsilon(
        evidence.scores_in, evidence.scores_out, 1e-5, 0.05, np.random.default_rng(seed)
    )
    assert naive > 0
    assert found.epsilon_lower == pytest.approx(naive, rel=2e-3)
    assert found.epsilon_lower <= naive + 1e-12


def test_median_is_that_of_single_splits_at_half_the_level():
    evidence = gaussian_runs(80, 3.0)
    rng = np.random.default_rng(7)
    single = [splits.split_sample(evidence, GAUSSIAN, alpha=0.025, rng=rng).epsilon_lower for _ in range(9)]
    many = splits.multi_split(evidence, GAUSSIAN, alpha=0.05, rng=np.random.default_rng(7), splits=9)
    assert many.epsilon_lower == pytest.approx(np.median(single), rel=2e-3)


def test_p_value_and_bound_agree():
    for seed in range(6):
        evidence = gaussian_runs(100, 2.0, seed)
        for family in (GAUSSIAN, BARE):
            one = splits.split_sample(evidence, family, alpha=0.05, rng=np.random.default_rng(seed))
            many = splits.multi_split(evidence, family, alpha=0.05, rng=np.random.default_rng(seed))
            for found in (one, many):
                assert (found.p_value <= 0.05) == (found.epsilon_lower > 4.0)


def test_scores_that_tell_by_being_low_are_used():
    rng = np.random.default_rng(0)
    # Without the canary three in four scores are far below anything else.
    outside = np.where(rng.random(400) < 0.75, -10.0, 0.0) + rng.normal(size=400)
    evidence = runs(rng.normal(size=400), outside)
    assert splits.multi_split(evidence, BARE, alpha=0.05, rng=rng).epsilon_lower > 2.5


def test_ceiling_is_that_of_perfect_scores():
    for estimator in (splits.split_sample, splits.multi_split):
        perfect = estimator(
            runs(np.arange(60.0) + 99, np.arange(60.0)), BARE, alpha=0.05, rng=np.random.default_rng(0)
        )
        assert perfect.epsilon_lower == pytest.approx(perfect.ceiling, abs=0.2)
        assert perfect.ceiling < two_sample.grid(gaussian_runs(60, 9.0), BARE, alpha=0.05).ceiling + 1.0


def test_detectable_is_detected():
    family = GaussianFamily(mu=gaussian_mu(1.0, 1e-5), delta=1e-5, claimed_epsilon=1.0)
    rng = np.random.default_rng(0)
    found = splits.split_sample(gaussian_runs(400, 0.0), family, alpha=0.05, rng=rng)
    truth = gaussian_mu(found.detectable, 1e-5)
    caught = [
        splits.split_sample(gaussian_runs(400, truth, seed), family, alpha=0.05, rng=rng).p_value <= 0.05
        for seed in range(60)
    ]
    # The threshold is learned, which costs a little of what the best one would show.
    assert 0.65 < np.mean(caught) <= 1.0
    beyond = splits.split_sample(gaussian_runs(400, 0.0), BARE, alpha=0.05, rng=rng)
    assert beyond.detectable is None


def test_ledgers_few_ties_and_missing_runs():
    rng = np.random.default_rng(0)
    ledger = (Phase(noise_multiplier=2.0, sample_rate=1.0, steps=1),)
    family = family_for(Claim(epsilon=2.773, delta=1e-5, ledger=ledger), adjacency=Adjacency.ADD_REMOVE)
    assert splits.multi_split(gaussian_runs(500, 4.0), family, alpha=0.05, rng=rng).epsilon_lower > 2.773
    assert splits.split_sample(runs([1.0], [0.0]), BARE, alpha=0.05, rng=rng).epsilon_lower is None
    assert splits.split_sample(runs([1.0, 1.0], [0.0, 0.0]), BARE, alpha=0.05, rng=rng).epsilon_lower == 0.0
    assert splits.split_sample(runs(np.ones(90), np.ones(90)), BARE, alpha=0.05, rng=rng).epsilon_lower == 0.0
    with pytest.raises(UsageError, match="both kinds"):
        splits.split_sample(runs([], [1.0]), BARE, alpha=0.05, rng=rng)
    with pytest.raises(UsageError, match="splits=1"):
        splits.multi_split(gaussian_runs(9, 1.0), BARE, alpha=0.05, rng=rng, splits=1)
    with pytest.raises(UsageError, match=r"share=1\.0"):
        splits.split_sample(gaussian_runs(9, 1.0), BARE, alpha=0.05, rng=rng, share=1.0)
