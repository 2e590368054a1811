"""Exact privacy: of finite laws by enumeration, of noise behind a shared threshold by quadrature.

Nothing here samples. Integrands are products of Laplace distribution functions: analytic between
known kinks, so that Gauss-Legendre panels that end at the kinks converge to rounding error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from dpaudit.check import FloatArray, in_range
from dpaudit.errors import UsageError
from dpaudit.targets.mechanisms.protocols import PairwiseMechanism

REACH = 50.0
"""Panels go on for this many decay lengths beyond the outermost kink; what is left is below 1e-20."""


def hockey_stick(log_p: ArrayLike, log_q: ArrayLike, epsilon: float) -> float:
    """Sum of max(0, p - e^epsilon q) over the outcomes: the least delta for p against q.

    Args:
        log_p: log probabilities of the outcomes on one data set, (k,); -inf for what cannot happen.
        log_q: those on the other.
        epsilon: at least 0.
    """
    p, q = np.asarray(log_p, dtype=np.float64), np.asarray(log_q, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        behind = np.where(q == -math.inf, -math.inf, epsilon + q - p)
    return float(np.sum(np.exp(p) * -np.expm1(np.minimum(np.where(p == -math.inf, 0.0, behind), 0.0))))


def finite_epsilon(log_p: ArrayLike, log_q: ArrayLike, delta: float = 0.0) -> float:
    """The least epsilon at which two finite laws are (epsilon, delta)-close, in both directions.

    Args:
        log_p: log probabilities of the outcomes, (k,).
        log_q: of the same outcomes on the neighbour, (k,).
        delta: at least 0.

    Returns:
        At delta 0 the largest |log p - log q|, infinite where one law alone allows an outcome.
    """
    in_range("delta", delta, 0.0, 1.0, open_high=True)
    p, q = np.asarray(log_p, dtype=np.float64), np.asarray(log_q, dtype=np.float64)
    possible = (p > -math.inf) | (q > -math.inf)
    if delta == 0:
        return float(np.abs(p[possible] - q[possible]).max(initial=0.0))
    both = (p > -math.inf) & (q > -math.inf)
    largest = float(np.abs(p[both] - q[both]).max(initial=0.0))
    return invert_profile(lambda e: max(hockey_stick(p, q, e), hockey_stick(q, p, e)), delta, high=largest)


def invert_profile(profile: Callable[[float], float], delta: float, *, high: float) -> float:
    """The root of a falling privacy profile at `delta`; 0 below it, infinite where `high` is not enough."""
    if profile(0.0) <= delta:
        return 0.0
    if profile(high) > delta:
        return math.inf
    return float(brentq(lambda epsilon: profile(epsilon) - delta, 0.0, high, xtol=1e-300))


def epsilon_over(
    mechanism: PairwiseMechanism, pairs: Iterable[tuple[ArrayLike, ArrayLike]], delta: float = 0.0
) -> float:
    """The largest `pair_epsilon` over `pairs`: what an auditor that tries these pairs could find at most."""
    found = [mechanism.pair_epsilon(first, second, delta) for first, second in pairs]
    if not found:
        raise UsageError("Expected at least one pair of neighbours, found none. See `patterns`.")
    return max(found)


def panels(kinks: FloatArray, decay: float, rate: float) -> tuple[FloatArray, FloatArray]:
    """Nodes and log weights for an integral over the line of what is analytic between `kinks`.

    Args:
        kinks: where the integrand has no derivative, (m,), in any order.
        decay: length in which the integrand falls by e beyond the outermost kink, at most.
        rate: largest logarithmic derivative of the integrand.

    Returns:
        Nodes, (n,), and the logarithms of their weights, (n,): 16 Gauss-Legendre points to a panel,
        which is exact to rounding where the integrand changes by less than e^10 in it.
    """
    inner = np.unique(kinks)
    ends = np.concatenate([[inner[0] - REACH * decay], inner, [inner[-1] + REACH * decay]])
    pieces = np.maximum(1, np.ceil(np.diff(ends) * rate / 10)).astype(int)
    cuts = [np.linspace(a, b, n + 1)[:-1] for a, b, n in zip(ends[:-1], ends[1:], pieces, strict=True)]
    edges = np.concatenate([*cuts, ends[-1:]])
    points, weights = np.polynomial.legendre.leggauss(16)
    half = np.diff(edges)[:, None] / 2
    nodes = edges[:-1, None] + half * (points + 1)
    with np.errstate(divide="ignore"):  # kinks one subnormal apart: a panel of no width
        return nodes.ravel(), np.log(half * weights).ravel()


def log_laplace(x: ArrayLike, scale: float) -> FloatArray:
    """Log density of Laplace noise of this scale."""
    return np.asarray(-np.abs(x) / scale - math.log(2 * scale))


def log_laplace_cdf(x: ArrayLike, scale: float) -> FloatArray:
    """Log of P[noise <= x]; accurate in both tails."""
    z = np.asarray(x, dtype=np.float64) / scale
    return np.where(z < 0, np.minimum(z, 0.0) - math.log(2), np.log1p(-np.exp(-np.abs(z)) / 2))
