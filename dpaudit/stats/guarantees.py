"""What may be claimed of a release: (epsilon, delta), several such pairs, Gaussian or Renyi privacy.

Each is a family with one parameter, and each bounds the probability p of an event on one data set by a
concave function of its probability q on a neighbour. The tangent of that function at a q that was chosen
beforehand is what `event_test` tests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from dpaudit.check import FloatArray, in_range
from dpaudit.errors import UsageError
from dpaudit.stats.event_test import Line

MOST = 300.0
"""Where searches for an epsilon end."""
_LEAST_Q = 1e-12


class Guarantee(Protocol):
    """A claim, as the member of a family that has the claimed parameter."""

    @property
    def claimed(self) -> float:
        """The parameter that is claimed."""

    @property
    def symbol(self) -> str:
        """Name of the parameter."""

    @property
    def delta(self) -> float:
        """Delta at which an epsilon is stated beside the parameter."""

    @property
    def most(self) -> float:
        """Largest parameter that is searched."""

    def line(self, parameter: float, at: float) -> Line:
        """A line that every event obeys under the parameter; the tightest one at q = `at`."""

    def least(self, p: ArrayLike, q: ArrayLike) -> FloatArray:
        """Least parameter that allows probabilities p and q of an event, negative where p < q; broadcasts."""

    def words(self) -> str:
        """The claim, for a reader."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproximateDP:
    """(epsilon, delta)-differential privacy; pure at delta 0 (Dwork et al. 2006).

    Attributes:
        claimed: epsilon.
        delta: in [0, 1).
    """

    claimed: float
    delta: float = 0.0

    def __post_init__(self) -> None:
        """Refuse an impossible claim."""
        in_range("epsilon", self.claimed, 0.0, math.inf, open_high=True)
        in_range("delta", self.delta, 0.0, 1.0, open_high=True)

    @property
    def symbol(self) -> str:
        """See `Guarantee`."""
        return "epsilon"

    @property
    def most(self) -> float:
        """See `Guarantee`."""
        return max(MOST, 2 * self.claimed)

    def line(self, parameter: float, at: float) -> Line:
        """See `Guarantee`; the same wherever the event lies."""
        return Line(slope=math.exp(min(parameter, 700.0)), intercept=self.delta)

    def least(self, p: ArrayLike, q: ArrayLike) -> FloatArray:
        """See `Guarantee`."""
        return _epsilon(p, q, self.delta)

    def words(self) -> str:
        """See `Guarantee`."""
        return f"({self.claimed:g}, {self.delta:g})-DP" if self.delta else f"{self.claimed:g}-DP"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeveralDP:
    """Several (epsilon, delta) at once: points of the privacy profile of one mechanism.

    Its parameter is the factor by which all epsilons would have to grow; 1 is claimed.

    Attributes:
        points: (epsilon, delta) pairs, the first of which is the one that is stated.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        """Refuse an impossible claim."""
        if not self.points:
            raise UsageError("Expected points of a privacy profile, found none. State epsilon and delta.")
        for epsilon, delta in self.points:
            in_range("epsilon", epsilon, 0.0, math.inf, open_low=True, open_high=True)
            in_range("delta", delta, 0.0, 1.0, open_high=True)

    @property
    def claimed(self) -> float:
        """See `Guarantee`."""
        return 1.0

    @property
    def symbol(self) -> str:
        """See `Guarantee`."""
        return "factor of epsilon"

    @property
    def delta(self) -> float:
        """See `Guarantee`."""
        return self.points[0][1]

    @property
    def most(self) -> float:
        """See `Guarantee`."""
        return MOST / min(epsilon for epsilon, _ in self.points)

    def line(self, parameter: float, at: float) -> Line:
        """See `Guarantee`: the point that allows least at q = `at`."""
        lines = [Line(slope=math.exp(min(parameter * e, 700.0)), intercept=d) for e, d in self.points]
        return min(lines, key=lambda line: line.slope * at + line.intercept)

    def least(self, p: ArrayLike, q: ArrayLike) -> FloatArray:
        """See `Guarantee`."""
        each = [_epsilon(p, q, delta) / epsilon for epsilon, delta in self.points]
        return np.asarray(np.max(each, axis=0), dtype=np.float64)

    def words(self) -> str:
        """See `Guarantee`."""
        return " and ".join(f"({epsilon:g}, {delta:g})-DP" for epsilon, delta in self.points)


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianDP:
    """mu-Gaussian differential privacy: p <= Phi(Phi^-1(q) + mu) (Dong, Roth & Su 2019, arXiv:1905.02383).

    Attributes:
        claimed: mu.
        delta: at which an epsilon is stated beside mu.
    """

    claimed: float
    delta: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse an impossible claim."""
        in_range("mu", self.claimed, 0.0, 40.0, open_low=True)
        in_range("delta", self.delta, 0.0, 1.0, open_high=True)

    @property
    def symbol(self) -> str:
        """See `Guarantee`."""
        return "mu"

    @property
    def most(self) -> float:
        """See `Guarantee`."""
        return 60.0

    def line(self, parameter: float, at: float) -> Line:
        """See `Guarantee`: the tangent at q = `at`, whose slope is e^(mu x - mu^2 / 2), x = -Phi^-1(q)."""
        at = min(max(at, _LEAST_Q), 1 - _LEAST_Q)
        x = -float(ndtri(at))
        # A slope of 0 is no line; that of e^-700 allows more, but by nothing that can be counted.
        exponent = min(max(parameter * x - parameter**2 / 2, -700.0), 700.0)
        slope = math.exp(exponent)
        return Line(slope=slope, intercept=float(ndtr(parameter - x)) - slope * at)

    def least(self, p: ArrayLike, q: ArrayLike) -> FloatArray:
        """See `Guarantee`."""
        with np.errstate(invalid="ignore"):
            result: FloatArray = np.nan_to_num(ndtri(np.asarray(p)) - ndtri(np.asarray(q)), nan=0.0)
        return result

    def words(self) -> str:
        """See `Guarantee`."""
        return f"{self.claimed:.4g}-GDP"


@dataclass(frozen=True, slots=True, kw_only=True)
class RenyiDP:
    """Renyi privacy: D_order(P || Q) <= epsilon in both directions (Mironov 2017, arXiv:1702.07476).

    Seeing only whether an event happened cannot raise the divergence, so that the divergence of two coins
    with probabilities p and q is bounded too. The set of such (p, q) is convex.

    Attributes:
        claimed: epsilon at this order.
        order: above 1.
        delta: at which an (epsilon, delta) is stated beside it.
    """

    claimed: float
    order: float
    delta: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse an impossible claim."""
        in_range("epsilon", self.claimed, 0.0, math.inf, open_low=True, open_high=True)
        in_range("order", self.order, 1.0, 1e4, open_low=True)
        in_range("delta", self.delta, 0.0, 1.0, open_high=True)

    @property
    def symbol(self) -> str:
        """See `Guarantee`."""
        return f"Renyi epsilon of order {self.order:g}"

    @property
    def most(self) -> float:
        """See `Guarantee`."""
        return max(MOST, 2 * self.claimed)

    def line(self, parameter: float, at: float) -> Line:
        """See `Guarantee`: the tangent at the largest p that is allowed at q = `at`."""
        at = min(max(at, _LEAST_Q), 1 - 1e-9)
        if parameter <= 0 or self.least(1 - 1e-12, at) <= parameter:
            # Nothing between q and 1 is refuted there, or everything above q is.
            return Line(slope=1.0, intercept=0.0 if parameter <= 0 else 1.0)
        p = brentq(lambda p: float(self.least(p, at)) - parameter, at, 1 - 1e-12, xtol=1e-15)
        slope = self._slope(p, at)
        return Line(slope=slope, intercept=p - slope * at)

    def least(self, p: ArrayLike, q: ArrayLike) -> FloatArray:
        """See `Guarantee`."""
        p, q = np.broadcast_arrays(np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64))
        both = np.maximum(_coin_divergence(p, q, self.order), _coin_divergence(q, p, self.order))
        result: FloatArray = np.where(p > q, both, -both)
        return result

    def words(self) -> str:
        """See `Guarantee`."""
        return f"({self.order:g}, {self.claimed:g})-RDP"

    def _slope(self, p: float, q: float) -> float:
        """dp/dq along the direction of the divergence that binds at (p, q)."""
        a = self.order
        forward = _coin_divergence(np.array(p), np.array(q), a) >= _coin_divergence(
            np.array(q), np.array(p), a
        )
        # Both are quotients of x^a - y^a and x^(a - 1) - y^(a - 1), whose powers overflow: x^a is taken out.
        hit, miss = (p / q, (1 - p) / (1 - q)) if forward else (q / p, (1 - q) / (1 - p))
        large, log_small = max(hit, miss), -abs(math.log(hit) - math.log(miss))
        ratio = large * math.expm1(a * log_small) / math.expm1((a - 1) * log_small)
        return (a - 1) / a * ratio if forward else a / (a - 1) / ratio


def _epsilon(p: ArrayLike, q: ArrayLike, delta: float) -> FloatArray:
    """Least epsilon with p <= e^epsilon q + delta; -inf where p <= delta."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.maximum(np.asarray(p) - delta, 0.0) / np.asarray(q)
        result: FloatArray = np.log(np.nan_to_num(ratio, nan=0.0, posinf=np.inf))
    return result


def _coin_divergence(p: FloatArray, q: FloatArray, order: float) -> FloatArray:
    """Renyi divergence of a coin with probability p from one with q, both in [0, 1]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        hit = order * np.log(p) + (1 - order) * np.log(q)
        miss = order * np.log1p(-p) + (1 - order) * np.log1p(-q)
        hit, miss = np.where(p == 0, -np.inf, hit), np.where(p == 1, -np.inf, miss)
        result: FloatArray = np.logaddexp(hit, miss) / (order - 1)
    return np.maximum(result, 0.0)
