"""Trade-off curves: the largest true-positive rate that a claim allows at each false-positive rate.

A mechanism satisfies a claim exactly when no test of "in" against "out" lies above its curve
(f-DP: Dong, Roth and Su 2019, arXiv:1905.02383). `tpr` below is 1 - f.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_ndtr, ndtr, ndtri

from dpaudit.check import FloatArray, in_range

_BISECTIONS = 60
_LARGEST_EXPONENT = 700.0
_SAME_SLOPE = 1e-12


class TradeOff(Protocol):
    """What a claim allows a test."""

    def tpr(self, fpr: FloatArray) -> FloatArray:
        """Largest TPR at each FPR; any shape in, the same shape out. Non-decreasing, within [fpr, 1]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EpsilonDelta:
    """The curve of an (epsilon, delta) guarantee about which nothing else is known.

    min(1, e^eps a + delta, 1 - e^-eps (1 - delta - a)) (Kairouz, Oh and Viswanath 2015, arXiv:1311.0776).
    """

    epsilon: float
    delta: float

    def tpr(self, fpr: FloatArray) -> FloatArray:
        """See `TradeOff.tpr`."""
        fpr = np.asarray(fpr, dtype=np.float64)
        steep = np.exp(min(self.epsilon, _LARGEST_EXPONENT)) * fpr + self.delta
        flat = 1.0 - np.exp(-self.epsilon) * (1.0 - self.delta - fpr)
        result: FloatArray = np.clip(np.minimum(steep, flat), fpr, 1.0)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaussian:
    """The curve of mu-Gaussian differential privacy, Phi(Phi^-1(a) + mu) (arXiv:1905.02383)."""

    mu: float

    def tpr(self, fpr: FloatArray) -> FloatArray:
        """See `TradeOff.tpr`."""
        result: FloatArray = ndtr(ndtri(np.asarray(fpr, dtype=np.float64)) + self.mu)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyProfile:
    """The curve under a set of (epsilon, delta) guarantees that hold together, as an accountant gives them.

    Each guarantee bounds the test in both directions, so the curve is the least of 2k lines.

    Attributes:
        epsilons: (k,) ascending; negative ones are allowed and bound what the others do not.
        deltas: (k,) non-increasing.
    """

    epsilons: tuple[float, ...]
    deltas: tuple[float, ...]

    def tpr(self, fpr: FloatArray) -> FloatArray:
        """See `TradeOff.tpr`. Costs O(n log k), once O(k log k), and O(n + k) memory."""
        fpr = np.asarray(fpr, dtype=np.float64)
        forward, reverse = _envelopes(self)
        result: FloatArray = np.clip(np.minimum(forward.least(fpr), reverse.least(fpr)), fpr, 1.0)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lines:
    """Lines of which the least is wanted, steepest last.

    Attributes:
        slopes: (k,) ascending.
        intercepts: (k,) of the same lines.
        ends: (k - 1,) ascending abscissae, at which the least line changes to the one before, from the last.
    """

    slopes: FloatArray
    intercepts: FloatArray
    ends: FloatArray

    def least(self, at: FloatArray) -> FloatArray:
        """Least of the lines at each abscissa in [0, 1]; rounding may pick one just above it."""
        index = self.slopes.size - 1 - np.searchsorted(self.ends, at, side="left")
        value: FloatArray = self.slopes[index] * at + self.intercepts[index]
        return value


@lru_cache(maxsize=64)
def _envelopes(profile: PrivacyProfile) -> tuple[_Lines, _Lines]:
    """The lines of all guarantees forwards and backwards; remembered, being asked for thousands of times."""
    epsilons, deltas = np.asarray(profile.epsilons), np.asarray(profile.deltas)
    backward = np.exp(-epsilons)
    return (
        _lines(np.exp(np.minimum(epsilons, _LARGEST_EXPONENT)), deltas),
        _lines(backward, 1.0 - backward * (1.0 - deltas)),
    )


def _lines(slopes: FloatArray, intercepts: FloatArray) -> _Lines:
    order = np.argsort(slopes)
    slopes, intercepts = slopes[order], intercepts[order]
    # Of slopes that differ by rounding alone the crossing is noise: they are taken as the steepest of them.
    apart = np.diff(slopes) > _SAME_SLOPE * slopes[1:]
    intercepts = np.minimum.reduceat(intercepts, np.flatnonzero(np.concatenate([[True], apart])))
    slopes = slopes[np.concatenate([apart, [True]])]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        crossings = -np.diff(intercepts) / np.diff(slopes)
    # Steeper lines are least further left.
    ends = np.maximum.accumulate(np.nan_to_num(crossings, nan=0.0, posinf=1.0, neginf=0.0)[::-1])
    return _Lines(slopes=slopes, intercepts=intercepts, ends=ends)


def gaussian_delta(mu: ArrayLike, epsilon: ArrayLike) -> FloatArray:
    """Delta of mu-GDP at epsilon: Phi(-e/mu + mu/2) - e^e Phi(-e/mu - mu/2).

    Balle and Wang 2018 (arXiv:1805.06530), evaluated in logarithms so that it neither overflows nor
    cancels. Broadcasts; any shapes.

    Args:
        mu: non-negative.
        epsilon: any sign.
    """
    mu, epsilon = np.broadcast_arrays(np.asarray(mu, dtype=np.float64), np.asarray(epsilon, dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = epsilon / mu
        first = log_ndtr(-ratio + mu / 2)
        second = epsilon + log_ndtr(-ratio - mu / 2)
        delta = np.exp(first) * -np.expm1(np.minimum(second - first, 0.0))
        at_zero = np.maximum(-np.expm1(epsilon), 0.0)
    delta = np.where(mu == 0, at_zero, np.where(np.isinf(mu), 1.0, delta))
    result: FloatArray = np.where(np.isposinf(epsilon) & np.isfinite(mu), 0.0, np.nan_to_num(delta))
    return result


@lru_cache(maxsize=4096)
def gaussian_epsilon(mu: float, delta: float) -> float:
    """Epsilon >= 0 of mu-GDP at delta; inf for infinite mu, and for positive mu at delta = 0."""
    in_range("mu", mu, 0.0, float("inf"))
    in_range("delta", delta, 0.0, 1.0, open_high=True)
    if mu == 0.0 or float(gaussian_delta(mu, 0.0)) <= delta:
        return 0.0
    if np.isinf(mu) or delta == 0.0:
        return float("inf")
    # delta <= Phi(-e/mu + mu/2) gives the upper end.
    low, high = 0.0, mu * mu / 2 - mu * float(ndtri(delta)) + 1e-9
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if float(gaussian_delta(mu, middle)) > delta else (low, middle)
    return high


@lru_cache(maxsize=4096)
def gaussian_mu(epsilon: float, delta: float) -> float:
    """Largest mu for which mu-GDP implies (epsilon, delta); 0 at delta = 0, inf at infinite epsilon."""
    in_range("epsilon", epsilon, 0.0, float("inf"))
    in_range("delta", delta, 0.0, 1.0, open_high=True)
    if np.isinf(epsilon):
        return float("inf")
    if delta == 0.0:
        return 0.0
    low, high = 0.0, 1.0
    while float(gaussian_delta(high, epsilon)) < delta:
        high *= 2
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if float(gaussian_delta(middle, epsilon)) <= delta else (low, middle)
    return low
