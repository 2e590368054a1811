"""Probabilities of what is said to be above a noisy threshold: integrals over the threshold's noise."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from dpaudit.check import FloatArray
from dpaudit.targets.mechanisms.exact import log_laplace, log_laplace_cdf, panels

Rows = NDArray[np.int8]


@functools.cache
def flag_rows(answers: int, cutoff: int | None) -> Rows:
    """All rows of flags (k, answers): 1 above, 0 below, and -1 after the `cutoff`-th 1."""
    found: list[tuple[int, ...]] = []
    most = answers if cutoff is None else min(cutoff, answers)
    for tops in range(most + 1):
        for places in itertools.combinations(range(answers), tops):
            row = [0] * answers
            for place in places:
                row[place] = 1
            if tops == cutoff:
                row[places[-1] + 1 :] = [-1] * (answers - places[-1] - 1)
            found.append(tuple(row))
    return np.array(found, dtype=np.int8)


def log_chances(
    rows: Rows, leads: FloatArray, threshold_scale: float, answer_scale: float, *, refresh: bool
) -> FloatArray:
    """Log probability of each row when answers and threshold are noisy; (k,).

    Args:
        rows: of flags, (k, d).
        leads: answers less the threshold, (d,).
        threshold_scale: scale of the threshold's noise rho.
        answer_scale: scale of the answers' noise.
        refresh: whether rho is drawn again after every 1. A row then is a product over its stretches.
    """
    rate = 1 / threshold_scale + leads.size / answer_scale
    # Beyond all kinks rho decays at its own rate at least; far answers can be said to be on the wrong side.
    rho, weights = panels(np.append(leads, 0.0), threshold_scale, rate)
    rho_law = log_laplace(rho, threshold_scale) + weights
    above = log_laplace_cdf(leads[:, None] - rho, answer_scale)
    below = log_laplace_cdf(rho - leads[:, None], answer_scale)
    if not refresh:
        return _shared_rho(rows, leads, above, below, rho_law)
    starts = np.concatenate(
        [np.zeros((len(rows), 1), dtype=int), np.cumsum(rows == 1, axis=1)[:, :-1]], axis=1
    )
    total = np.zeros(len(rows))
    for stretch in range(int(starts.max()) + 1):
        here = starts == stretch
        joint = ((rows == 1) & here) @ above + ((rows == 0) & here) @ below + rho_law
        total += np.where((here & (rows >= 0)).any(axis=1), logsumexp(joint, axis=1), 0.0)
    return total


def _shared_rho(
    rows: Rows, leads: FloatArray, above: FloatArray, below: FloatArray, rho_law: FloatArray
) -> FloatArray:
    """One integral for all rows that say the same of equal answers: of 1,024 rows often a few dozen."""
    _, first, same = np.unique(leads, return_index=True, return_inverse=True)
    member = (same[:, None] == np.arange(first.size)).astype(np.int64)
    counts = np.hstack([(rows == 1) @ member, (rows == 0) @ member])
    kinds, which = np.unique(counts, axis=0, return_inverse=True)
    joint = kinds @ np.vstack([above[first], below[first]]) + rho_law
    return np.asarray(logsumexp(joint, axis=1)[which.ravel()])


def step_chances(rows: Rows, leads: FloatArray, threshold_scale: float) -> FloatArray:
    """Log probability of each row when the threshold alone is noisy, in closed form; (k,).

    Answer i is above if rho <= leads[i], so a row has rho in (largest lead below, least lead above].

    Args:
        rows: of flags without refresh, (k, d).
        leads: answers less the threshold, (d,).
        threshold_scale: scale of rho.
    """
    high = np.where(rows == 1, leads, math.inf).min(axis=1)
    low = np.where(rows == 0, leads, -math.inf).max(axis=1)
    left, right = (np.exp(log_laplace_cdf(x, threshold_scale)) for x in (low, high))
    right_tail, left_tail = (np.exp(log_laplace_cdf(-x, threshold_scale)) for x in (high, low))
    # Differences of the smaller tails keep their digits.
    chance = np.where(low > 0, left_tail - right_tail, right - left)
    with np.errstate(divide="ignore"):
        return np.where(low < high, np.log(np.maximum(chance, 0.0)), -math.inf)
