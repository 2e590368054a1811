"""Whether noise that was measured is what it is said to be: normal, independent, drawn anew.

Every function returns a p-value that is valid, or conservative, for independent normal noise of an unknown
deviation. None depends on how large the noise is: that is the business of `noise`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import erfc, kolmogorov, ndtr
from scipy.stats import binom

from dpaudit.check import FloatArray

_TAILS = (2.0, 3.0, 4.0)
_LEAST = 400
_LAGS = 16
LARGEST = 16


def two_sided(z: float) -> float:
    """P(|Z| >= |z|) of a standard normal."""
    return float(erfc(abs(z) / math.sqrt(2.0)))


def normal(z: FloatArray, *, rounding: float = 0.0) -> float:
    """P-value of "z is a sample of a normal law", by distance of distributions and by its tails.

    Kolmogorov's test with an estimated deviation is conservative; the number of values beyond 2, 3 and 4
    deviations is binomial. Bonferroni over these 4. 1.0 for fewer than 400 values.

    Args:
        z: (n,) values, standardised roughly.
        rounding: relative rounding error of the values, which a distance below it may be due to.
    """
    n = z.size
    deviation = float(np.sqrt(np.mean(z**2))) if n else 0.0
    if n < _LEAST or not deviation > 0 or not math.isfinite(deviation):
        return 1.0
    ordered = np.sort(z / deviation)
    law = ndtr(ordered)
    grid = np.arange(n + 1) / n
    distance = max(float(np.max(grid[1:] - law)), float(np.max(law - grid[:-1])))
    p_values = [float(kolmogorov(math.sqrt(n) * max(distance - rounding, 0.0)))]
    for tail in _TAILS:
        beyond = int((np.abs(ordered) > tail).sum())
        # The deviation is itself estimated: allow it an error of six of its own.
        slack = 6.0 / math.sqrt(2 * n) + rounding
        more = binom.sf(beyond - 1, n, two_sided(tail * (1 - slack)))
        fewer = binom.cdf(beyond, n, two_sided(tail * (1 + slack)))
        p_values.append(min(1.0, 2.0 * float(min(more, fewer))))
    return min(1.0, len(p_values) * min(p_values))


def directions(z: FloatArray) -> FloatArray | None:
    """Draws (T, d) of one parameter, each brought to the length sqrt(d): what is left is its direction.

    None if a draw is zero or not finite. The direction of independent normal noise is uniform whatever its
    deviation, which may differ over parameters and steps.
    """
    lengths = np.linalg.norm(z, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        return None
    evened: FloatArray = z * (math.sqrt(z.shape[1]) / lengths)
    return evened


def uncorrelated_steps(parts: Sequence[FloatArray]) -> float:
    """P-value of "no two of these draws are correlated", whatever their distance in time.

    Args:
        parts: `directions` (T, d_i) of each parameter. Costs T^2 d.
    """
    t, d = len(parts[0]), sum(part.shape[1] for part in parts)
    if t < 2 or d < 16:
        return 1.0
    joined = np.concatenate(parts, axis=1)
    products = (joined @ joined.T)[np.triu_indices(t, 1)]
    return min(1.0, products.size * product_p_value(float(np.abs(products).max()), d))


def shared(one: FloatArray, other: FloatArray) -> float:
    """P-value of "two parameters share no noise", coordinate for coordinate: `directions` (T, d) of each."""
    return product_p_value(abs(float((one * other).sum())), one.size)


def product_p_value(total: float, coordinates: int) -> float:
    """P(|sum of inner products| >= total) of independent `directions` of so many coordinates in all, at most.

    An inner product with a uniform direction of length sqrt(d) is strictly sub-Gaussian: a scaled symmetric
    Beta variable (Marchal and Arbel 2017, arXiv:1705.00048). So is a sum of such, and Chernoff's bound holds.
    """
    return min(1.0, 2.0 * math.exp(-(total**2) / (2.0 * coordinates)))


def independent_coordinates(z: FloatArray) -> float:
    """P-value of "the coordinates of each vector are independent and of mean 0", in their given order.

    Correlation with the coordinate 1 to 16 places on, and the sum of all: shared or smooth noise shows
    in one of them. Summed over the draws, which are independent. Bonferroni over these 17.

    Args:
        z: (T, d) noise of one parameter.
    """
    t, d = z.shape
    if d < 32 or not np.isfinite(z).all() or not z.any(axis=1).all():
        return 1.0
    unit = z / np.sqrt(np.mean(z**2, axis=1, keepdims=True))
    scores = [float(unit.sum() / math.sqrt(t * d))]
    for lag in range(1, min(_LAGS, d // 2) + 1):
        n = t * (d - lag)
        score = float((unit[:, :-lag] * unit[:, lag:]).sum() / math.sqrt(n))
        # Sums of products have heavier tails than a normal; Bernstein's inequality pays for them.
        scores.append(score / math.sqrt(1.0 + abs(score) / math.sqrt(n)))
    return min(1.0, len(scores) * min(two_sided(score) for score in scores))


def same_values(earlier: FloatArray, values: FloatArray, *, rounding: float) -> int | None:
    """The first of earlier noise vectors whose largest values are these, whatever their order or sign.

    For independent noise, sixteen gaps between order statistics would have to agree by chance.

    Args:
        earlier: (n, 16) largest magnitudes, each sorted.
        values: (16,) likewise.
        rounding: relative error of the values.
    """
    if not len(earlier) or values.size < LARGEST or not values.all():
        return None
    same = np.flatnonzero((np.abs(earlier - values) <= rounding * values).all(axis=1))
    return int(same[0]) if same.size else None


def tied(largest: FloatArray) -> bool:
    """Whether eight of the 16 largest magnitudes agree to 1e-5: a law with atoms, such as one cut off.

    The 16 largest of a million normal values spread over more than half a deviation, so that the chance is
    below 1e-20 for these.
    """
    if largest.size < LARGEST or not largest.any():
        return False
    ordered = np.sort(largest)
    return bool((ordered[7:] - ordered[:-7] <= 1e-5 * ordered[7:]).any())


def largest(z: FloatArray) -> FloatArray:
    """The 16 largest magnitudes of a vector, sorted: what is left of it under any order and sign."""
    magnitudes = np.abs(np.asarray(z, dtype=np.float64)).ravel()
    if magnitudes.size < 4 * LARGEST:
        return np.zeros(0)
    kept: FloatArray = np.sort(np.partition(magnitudes, -LARGEST)[-LARGEST:])
    return kept
