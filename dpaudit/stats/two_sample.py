"""Independent runs with and without the canary: thresholds placed by the scores themselves, yet exact.

Clopper-Pearson audits (Jagielski et al. 2020, arXiv:2006.07709; Nasr et al. 2021, arXiv:2101.04535) need a
threshold fixed in advance. Taking the largest bound over all thresholds errs in 4-10 % of audits at nominal
5 %. Thresholds at fixed order statistics of the scores of one side do not: the share of that side beyond the
(k + 1)-th largest of n is at most Beta(k + 1, n - k) whatever its law, and given the threshold the hits on
the other side are binomial.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import betainccinv, betaincinv

from dpaudit.check import FloatArray, IntArray, finite
from dpaudit.estimate import Estimate
from dpaudit.evidence import TwoSample
from dpaudit.stats.binomial import least_above, lower, tail, upper
from dpaudit.stats.family import SCALE_TOLERANCE, Family, search
from dpaudit.stats.inversion import LEAST_P, Found, check_inputs, conclude, detectable_epsilon
from dpaudit.stats.tradeoff import TradeOff

_ASSUMED = ("the runs are independent", "the canary was in or out irrespective of everything else")
_NODES = 15

_Points = Callable[[float], tuple[FloatArray, FloatArray]]
"""From a level to lower limits of TPR and upper limits of FPR, (points,) each, all of which hold at once."""


def order_statistics(n: int) -> IntArray:
    """Numbers of false positives k = 0, 1, 2, 4, ... up to n/2 at which thresholds are placed."""
    powers = 2 ** np.arange(max(1, int(np.log2(max(n, 2)))), dtype=np.int64)
    ks: IntArray = np.concatenate([[0], powers[powers <= n // 2]]).astype(np.int64)
    return ks[ks < n]


def _hits(caught: FloatArray, free: FloatArray) -> IntArray:
    """(ks,) scores above the (k + 1)-th largest of `free`; ties do not count, which is conservative."""
    thresholds = np.sort(free)[::-1][order_statistics(free.size)]
    return np.asarray(
        caught.size - np.searchsorted(np.sort(caught), thresholds, side="right"), dtype=np.int64
    )


def _direction(hits: IntArray, n_caught: int, n_free: int, alpha: float) -> tuple[FloatArray, FloatArray]:
    """Limits at all order statistics of one side, alpha divided over them and over TPR and FPR."""
    ks = order_statistics(n_free)
    each = alpha / (2 * ks.size)
    return lower(hits, n_caught, each), betainccinv(ks + 1.0, n_free - ks, each)


def grid(evidence: TwoSample, family: Family, *, alpha: float) -> Estimate:
    """Bound from order-statistic thresholds in both directions.

    Each direction ("in" is told by high scores, "out" by low ones) spends alpha/2, divided equally over its
    log2(n) thresholds and over TPR and FPR. With an `EpsilonDeltaFamily` it assumes nothing else.

    Args:
        evidence: n1 runs with and n0 without the canary.
        family: under the adjacency of the evidence.
        alpha: error probability.

    Returns:
        An estimate; where one side is empty one that says so. 30 curves of the family.

    Raises:
        UsageError: scores that are not finite, or another adjacency.
    """
    check_inputs(evidence.adjacency, family, alpha)
    inside, outside = finite("scores_in", evidence.scores_in), finite("scores_out", evidence.scores_out)
    n1, n0 = inside.size, outside.size

    def points(high: IntArray, low: IntArray, level: float) -> tuple[FloatArray, FloatArray]:
        forward, backward = _direction(high, n1, n0, level / 2), _direction(low, n0, n1, level / 2)
        return np.concatenate([forward[0], backward[0]]), np.concatenate([forward[1], backward[1]])

    found = Found()
    if n1 and n0:
        high, low = _hits(inside, outside), _hits(-outside, -inside)
        all_high, all_low = np.full_like(high, n1), np.full_like(low, n0)
        found = _invert(
            lambda level: points(high, low, level),
            lambda level: points(all_high, all_low, level),
            _either(_power_of(family, n1, n0, alpha / 2), _power_of(family, n0, n1, alpha / 2)),
            family,
            alpha,
        )
    return conclude(
        evidence, family, found, alpha=alpha, method="order-statistic grid", n=n1 + n0, assumptions=_ASSUMED
    )


def at_threshold(evidence: TwoSample, family: Family, threshold: float, *, alpha: float) -> Estimate:
    """Bound at one threshold that was fixed before the scores were seen; both directions, alpha/2 each.

    Args:
        evidence: as for `grid`.
        family: under the adjacency of the evidence.
        threshold: scores above it are called "in".
        alpha: error probability.

    Returns:
        An estimate without `detectable`, which depends on where the threshold lies.

    Raises:
        UsageError: as for `grid`.
    """
    check_inputs(evidence.adjacency, family, alpha)
    inside, outside = finite("scores_in", evidence.scores_in), finite("scores_out", evidence.scores_out)
    n1, n0 = inside.size, outside.size

    def points(hit: int, false: int, level: float) -> tuple[FloatArray, FloatArray]:
        good = lower([hit, n0 - false], [n1, n0], level / 4)
        return good, upper([false, n1 - hit], [n0, n1], level / 4)

    found = Found()
    if n1 and n0:
        hit, false = int((inside > threshold).sum()), int((outside > threshold).sum())
        found = _invert(
            lambda level: points(hit, false, level), lambda level: points(n1, 0, level), None, family, alpha
        )
    return conclude(
        evidence,
        family,
        found,
        alpha=alpha,
        method=f"Clopper-Pearson at threshold {threshold:g}",
        n=n1 + n0,
        assumptions=(*_ASSUMED, "the threshold was fixed before the scores were seen"),
    )


def _invert(
    points: _Points, best: _Points, power: Callable[[float], float] | None, family: Family, alpha: float
) -> Found:
    return Found(
        epsilon_lower=_epsilon(points(alpha), family),
        p_value=_p_value(points, family.curve(family.claimed_scale)),
        ceiling=_epsilon(best(alpha), family),
        detectable=None if power is None else detectable_epsilon(power, family),
    )


def _room(limits: tuple[FloatArray, FloatArray], curve: TradeOff) -> float:
    """By how much the limits stay below a curve; negative where they refute it."""
    return float(np.min(curve.tpr(limits[1]) - limits[0]))


def _epsilon(limits: tuple[FloatArray, FloatArray], family: Family) -> float:
    low, high = family.scales
    if _room(limits, family.curve(high)) >= 0:
        return 0.0
    root = search(lambda s: _room(limits, family.curve(s)), low, high, start=family.claimed_scale)
    return family.epsilon(min(root * (1 + SCALE_TOLERANCE), high))


def _p_value(points: _Points, curve: TradeOff) -> float:
    """Least level at which the limits refute a curve, by bisection of its logarithm."""
    low, high = np.log(LEAST_P), 0.0
    if _room(points(1.0 - 1e-12), curve) >= 0:
        return 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if _room(points(float(np.exp(middle))), curve) < 0 else (middle, high)
    return float(np.exp(high))


def _power_of(family: Family, n_caught: int, n_free: int, alpha: float) -> Callable[[float], float]:
    """Power of the best single order statistic when the member at a scale is attacked optimally."""
    ks = order_statistics(n_free)
    each = alpha / (2 * ks.size)
    bar = family.curve(family.claimed_scale).tpr(betainccinv(ks + 1.0, n_free - ks, each))
    needed = least_above(bar, n_caught, each)
    levels = (np.arange(_NODES) + 0.5) / _NODES
    shares = betaincinv(ks[:, None] + 1.0, n_free - ks[:, None], levels)

    def power(truth: float) -> float:
        reached = tail(np.minimum(needed, n_caught)[:, None], n_caught, family.curve(truth).tpr(shares))
        return float(np.where(needed <= n_caught, reached.mean(axis=1), 0.0).max())

    return power


def _either(first: Callable[[float], float], second: Callable[[float], float]) -> Callable[[float], float]:
    return lambda scale: max(first(scale), second(scale))
