"""Exact Clopper-Pearson limits of a proportion (Clopper and Pearson 1934, Biometrika 26)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc, betaincinv

from dpaudit.check import FloatArray
from dpaudit.errors import UsageError


def _checked(successes: ArrayLike, trials: ArrayLike) -> tuple[FloatArray, FloatArray]:
    good, total = np.broadcast_arrays(
        np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    )
    bad = (good < 0) | (good > total)
    if np.any(bad):
        raise UsageError(
            f"Expected successes={good[bad].flat[0]:g} in [0, trials={total[bad].flat[0]:g}]. Count again."
        )
    return good, total


def lower(successes: ArrayLike, trials: ArrayLike, alpha: ArrayLike) -> FloatArray:
    """One-sided lower limits: the proportion is at or above them with probability >= 1 - alpha.

    Args:
        successes: counts; broadcasts with the others.
        trials: counts; 0 trials give the limit 0.
        alpha: error probability.

    Raises:
        UsageError: more successes than trials.
    """
    good, total = _checked(successes, trials)
    limits = betaincinv(np.maximum(good, 1.0), np.maximum(total - good, 0.0) + 1.0, alpha)
    result: FloatArray = np.where(good > 0, limits, 0.0)
    return result


def upper(successes: ArrayLike, trials: ArrayLike, alpha: ArrayLike) -> FloatArray:
    """One-sided upper limits; 0 trials give the limit 1. See `lower`."""
    good, total = _checked(successes, trials)
    return 1.0 - lower(total - good, total, alpha)


def two_sided(successes: ArrayLike, trials: ArrayLike, alpha: float) -> tuple[FloatArray, FloatArray]:
    """Both limits at alpha/2 each."""
    return lower(successes, trials, alpha / 2), upper(successes, trials, alpha / 2)


def tail(successes: ArrayLike, trials: ArrayLike, probability: ArrayLike) -> FloatArray:
    """P(at least `successes` of `trials`) at a success probability: the exact one-sided p-value."""
    good, total = _checked(successes, trials)
    at_least = betainc(np.maximum(good, 1.0), np.maximum(total - good, 0.0) + 1.0, probability)
    result: FloatArray = np.where(good > 0, at_least, 1.0)
    return result


def least_above(bar: ArrayLike, trials: int, alpha: float) -> FloatArray:
    """Least counts whose lower limit is above each bar in [0, 1]; trials + 1 where none is. Shape of `bar`.

    `lower` rises with the count and exceeds a bar exactly where `tail` at the bar falls below alpha, so that
    log2(trials) tails of all bars together find the counts.
    """
    level = np.asarray(bar, dtype=np.float64)
    low, high = np.zeros_like(level), np.full_like(level, trials + 1.0)
    while np.any(high - low > 1):
        middle = np.minimum(np.floor((low + high) / 2), trials)
        enough = tail(middle, trials, level) < alpha
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high
