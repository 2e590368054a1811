"""Tail bounds for sums of independent terms with known laws: valid p-values at every sample size."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp

from dpaudit.check import FloatArray

_LARGEST_TILT = 1e6


def at_least(values: FloatArray, log_weights: FloatArray, times: FloatArray, total: float) -> float:
    """Bound on P(sum of independent terms >= total) by exponential tilting (Chernoff 1952).

    Never below the exact probability; above it by a factor of about z sqrt(2 pi) at z deviations. Any tilt
    gives a valid bound, so that the search for the best one cannot make it wrong.

    Args:
        values: (groups, k) the values that a term of each group takes.
        log_weights: (groups, k) logarithms of their probabilities; -inf where padded.
        times: (groups,) terms of each group.
        total: what was observed.

    Returns:
        At most 1. Costs about 20 passes over the values.
    """
    used = times > 0
    values, log_weights, times = values[used], log_weights[used], times[used]
    if not times.size:
        return 1.0 if total <= 0 else 0.0
    top = np.where(np.isfinite(log_weights), values, -np.inf).max(axis=1)
    most = float(times @ top)
    if total > most + 1e-9 * (1 + abs(most)):
        return 0.0

    def slope(tilt: float) -> float:
        """Derivative of the logarithm of the bound."""
        tilted = log_weights + tilt * values
        share = np.exp(tilted - logsumexp(tilted, axis=1, keepdims=True))
        return float(times @ (share * values).sum(axis=1)) - total

    def log_bound(tilt: float) -> float:
        return float(times @ logsumexp(log_weights + tilt * values, axis=1)) - tilt * total

    if slope(0.0) >= 0:
        return 1.0
    high = 1.0 / max(float(np.ptp(values)), 1e-300)
    while slope(high) < 0 and high < _LARGEST_TILT:
        high *= 2
    best = brentq(slope, 0.0, high, rtol=1e-3, xtol=1e-12, disp=False) if slope(high) > 0 else high
    return min(1.0, math.exp(min(log_bound(best), 0.0)))


def at_most(values: FloatArray, log_weights: FloatArray, times: FloatArray, total: float) -> float:
    """Bound on P(sum <= total); see `at_least`."""
    return at_least(-values, log_weights, times, -total)


def either(values: FloatArray, log_weights: FloatArray, times: FloatArray, total: float) -> float:
    """Two-sided p-value: twice the smaller of both bounds."""
    tails = (bound(values, log_weights, times, total) for bound in (at_least, at_most))
    return min(1.0, 2 * min(tails))
