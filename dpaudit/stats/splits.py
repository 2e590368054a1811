"""Runs with and without the canary, half of them spent on choosing the threshold.

The order-statistic grid (`two_sample.grid`) needs no half and is the default. These are here because the
literature reports them, and because a threshold learned on one half survives odd shapes of scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri
from scipy.stats import binom

from dpaudit.check import BoolArray, FloatArray, IntArray, finite, in_range
from dpaudit.errors import UsageError
from dpaudit.estimate import Estimate
from dpaudit.evidence import TwoSample
from dpaudit.stats.binomial import least_above, lower, tail, upper
from dpaudit.stats.family import EpsilonDeltaFamily, Family
from dpaudit.stats.inversion import LEAST_P, Found, check_inputs, conclude, detectable_epsilon, epsilon_at

_CANDIDATES = 128
_NODES = 15
_ASSUMED = ("the runs are independent", "thresholds were chosen on other runs than they were used on")


def split_sample(
    evidence: TwoSample, family: Family, *, alpha: float, rng: np.random.Generator, share: float = 0.5
) -> Estimate:
    """Bound by Clopper-Pearson at the threshold and in the direction that did best on a random half.

    Args:
        evidence: n1 runs with and n0 without the canary.
        family: under the adjacency of the evidence.
        alpha: error probability.
        rng: draws the half; must not be tried again until the result pleases.
        share: of the runs that is spent on choosing.

    Returns:
        An estimate; with fewer than two runs of each kind one that says so. 40 curves of the family.

    Raises:
        UsageError: no runs of one kind, scores that are not finite, an impossible share, another adjacency.
    """
    return _estimate(evidence, family, alpha, rng, share, 1)


def multi_split(
    evidence: TwoSample,
    family: Family,
    *,
    alpha: float,
    rng: np.random.Generator,
    splits: int = 11,
    share: float = 0.5,
) -> Estimate:
    """Median bound of many random splits at alpha/2 each, which does not depend on the luck of one.

    Twice the median of p-values is a p-value however dependent they are (Meinshausen, Meier and Buehlmann
    2009, arXiv:0811.2177).

    Args:
        evidence: as for `split_sample`.
        family: under the adjacency of the evidence.
        alpha: error probability.
        rng: draws the halves.
        splits: how many; odd.
        share: of the runs that is spent on choosing in each split.

    Returns:
        An estimate, as `split_sample`. Costs a sort per split and 40 curves of the family.

    Raises:
        UsageError: as for `split_sample`, or an impossible number of splits.
    """
    in_range("splits", splits, 3, 10_001, remedy="One split is `split_sample`.")
    return _estimate(evidence, family, alpha, rng, share, splits | 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """Hits of the chosen rule on the runs that did not choose it; (splits,) each."""

    hits: IntArray
    false: IntArray
    n_caught: IntArray
    n_free: IntArray

    def limits(self, level: FloatArray | float) -> tuple[FloatArray, FloatArray]:
        """Lower limits of TPR and upper limits of FPR that hold together at a level."""
        half = np.asarray(level) / 2
        return lower(self.hits, self.n_caught, half), upper(self.false, self.n_free, half)


def _estimate(
    evidence: TwoSample,
    family: Family,
    alpha: float,
    rng: np.random.Generator,
    share: float,
    splits: int,
) -> Estimate:
    check_inputs(evidence.adjacency, family, alpha)
    in_range("share", share, 0.0, 1.0, open_low=True, open_high=True)
    inside, outside = finite("scores_in", evidence.scores_in), finite("scores_out", evidence.scores_out)
    if (inside.size == 0) != (outside.size == 0):
        raise UsageError(
            f"Expected runs of both kinds, found {inside.size} with and {outside.size} without the canary. "
            "Train some of the other kind."
        )
    found = Found()
    if min(inside.size, outside.size) >= 2:
        bare = isinstance(family, EpsilonDeltaFamily)
        counts = [_split(inside, outside, family.delta if bare else None, share, rng) for _ in range(splits)]
        together = _Counts(
            hits=np.concatenate([c.hits for c in counts]),
            false=np.concatenate([c.false for c in counts]),
            n_caught=np.concatenate([c.n_caught for c in counts]),
            n_free=np.concatenate([c.n_free for c in counts]),
        )
        found = _invert(together, family, alpha)
    method = "split sample" if splits == 1 else f"median of {splits} split samples"
    return conclude(
        evidence,
        family,
        found,
        alpha=alpha,
        method=method,
        n=inside.size + outside.size,
        assumptions=_ASSUMED,
    )


def _split(
    inside: FloatArray, outside: FloatArray, delta: float | None, share: float, rng: np.random.Generator
) -> _Counts:
    """Choose threshold and direction on one part and count on the other."""
    chosen_in, chosen_out = _part(inside.size, share, rng), _part(outside.size, share, rng)
    forward = _best(inside[chosen_in], outside[chosen_out], delta)
    backward = _best(-outside[chosen_out], -inside[chosen_in], delta)
    caught, free = inside[~chosen_in], outside[~chosen_out]
    threshold = forward[0]
    if backward[1] > forward[1]:
        caught, free, threshold = -free, -caught, backward[0]
    return _Counts(
        hits=np.array([np.count_nonzero(caught > threshold)]),
        false=np.array([np.count_nonzero(free > threshold)]),
        n_caught=np.array([caught.size]),
        n_free=np.array([free.size]),
    )


def _part(n: int, share: float, rng: np.random.Generator) -> BoolArray:
    """(n,) a random part of the given share, leaving at least one on either side."""
    size = min(max(round(n * share), 1), n - 1)
    return rng.permutation(n) < size


def _best(caught: FloatArray, free: FloatArray, delta: float | None) -> tuple[float, float]:
    """Threshold with the largest bound, and that bound: log ratio for a delta, else the normal distance."""
    caught, free = np.sort(caught), np.sort(free)
    above = np.unique(np.round(np.geomspace(1, free.size, min(_CANDIDATES, free.size))).astype(np.int64))
    thresholds = free[free.size - above]
    limits = _Counts(
        hits=caught.size - np.searchsorted(caught, thresholds, side="right"),
        false=free.size - np.searchsorted(free, thresholds, side="right"),
        n_caught=np.full(thresholds.size, caught.size),
        n_free=np.full(thresholds.size, free.size),
    ).limits(0.1)
    if delta is None:
        value = ndtri(np.maximum(limits[0], 1e-300)) - ndtri(limits[1])
    else:
        value = np.log(np.maximum(limits[0] - delta, 1e-300)) - np.log(limits[1])
    best = int(np.argmax(value))
    return float(thresholds[best]), float(value[best])


def _invert(counts: _Counts, family: Family, alpha: float) -> Found:
    splits = counts.hits.size
    each = alpha if splits == 1 else alpha / 2
    limits = counts.limits(each)
    perfect = replace(counts, hits=counts.n_caught, false=np.zeros_like(counts.n_free))

    def bound(at: tuple[FloatArray, FloatArray]) -> float:
        def p_value(scale: float) -> float:
            rejected = np.median(at[0] > family.curve(scale).tpr(at[1]))
            return alpha / 2 if rejected else 2 * alpha

        return epsilon_at(p_value, family, alpha)

    p_values = _p_values(counts, family)
    return Found(
        epsilon_lower=bound(limits),
        p_value=min(1.0, float(np.median(p_values)) * (1 if splits == 1 else 2)),
        ceiling=bound(perfect.limits(each)),
        detectable=detectable_epsilon(
            _power_of(family, int(counts.n_caught[0]), int(counts.n_free[0]), each), family
        ),
    )


def _p_values(counts: _Counts, family: Family) -> FloatArray:
    """(splits,) least level at which each split refutes the claim."""
    curve = family.curve(family.claimed_scale)
    low, high = np.full(counts.hits.size, np.log(LEAST_P)), np.zeros(counts.hits.size)
    for _ in range(40):
        middle = (low + high) / 2
        tpr, fpr = counts.limits(np.exp(middle))
        refuted = tpr > curve.tpr(fpr)
        low, high = np.where(refuted, low, middle), np.where(refuted, middle, high)
    result: FloatArray = np.exp(high)
    return result


def _power_of(family: Family, n_caught: int, n_free: int, level: float) -> Callable[[float], float]:
    """Power of one split at the best FPR, where the member at a scale is attacked optimally."""
    rates = np.geomspace(0.3 / n_free, 0.5, 24)[:, None]
    false = binom.ppf((np.arange(_NODES) + 0.5) / _NODES, n_free, rates)
    bar = family.curve(family.claimed_scale).tpr(upper(false, n_free, level / 2))
    high = least_above(bar, n_caught, level / 2)

    def power(scale: float) -> float:
        reached = tail(np.minimum(high, n_caught), n_caught, family.curve(scale).tpr(rates))
        return float(np.where(high <= n_caught, reached, 0.0).mean(axis=1).max())

    return power
