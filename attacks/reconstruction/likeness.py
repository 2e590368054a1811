"""How much one picture or record is like another: PSNR, SSIM, and which of several it is nearest to."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment
from scipy.special import stdtrit

from dpaudit.check import BoolArray, FloatArray, IntArray
from dpaudit.likeness import Score
from dpaudit.stats import binomial

BEST_PSNR = 100.0
"""In dB: beyond this, differences are those of single precision."""
_LEVEL = 0.95
Numbers = NDArray[np.float32] | NDArray[np.float64]


def psnr(rebuilt: Numbers, originals: Numbers, span: float) -> FloatArray:
    """Peak signal-to-noise ratio (n,) in dB, 10 log10(span^2 / MSE), at most 100; of records (n, ...)."""
    apart = np.asarray(rebuilt, dtype=np.float64) - np.asarray(originals, dtype=np.float64)
    error = np.square(apart.reshape(len(apart), -1)).mean(axis=1)
    return np.asarray(10 * np.log10(span**2 / np.maximum(error, span**2 * 10 ** (-BEST_PSNR / 10))))


def ssim(rebuilt: Numbers, originals: Numbers, span: float) -> FloatArray:
    """Mean structural similarity (n,) of pictures (n, h, w), in [-1, 1] (Wang et al. 2004, IEEE TIP 13(4)).

    With the paper's constants 0.01 and 0.03 and its Gaussian window of 1.5 pixels, eleven pixels wide or as
    wide as the picture; beyond its edges a picture is mirrored.
    """
    x, y = (np.asarray(each, dtype=np.float64) for each in (rebuilt, originals))
    radius = max(1, min(5, (min(x.shape[1:]) - 1) // 2))

    def window(values: FloatArray) -> FloatArray:
        smooth: FloatArray = gaussian_filter(values, (0, 1.5, 1.5), radius=(0, radius, radius))
        return smooth

    a, b = window(x), window(y)
    variances = window(x * x) - a * a + window(y * y) - b * b
    covariance = window(x * y) - a * b
    c, d = (0.01 * span) ** 2, (0.03 * span) ** 2
    map_ = (2 * a * b + c) * (2 * covariance + d) / ((a * a + b * b + c) * (variances + d))
    return np.asarray(map_.mean(axis=(1, 2)), dtype=np.float64)


def matched(rebuilt: Numbers, originals: Numbers) -> IntArray:
    """Which of k >= b rebuilt records is taken for each original (b, ...), so that errors are least: (b,).

    Which record of an update is which nobody can say: they are added up.
    """
    flat, wanted = (
        np.asarray(each, dtype=np.float64).reshape(len(each), -1) for each in (rebuilt, originals)
    )
    cost = np.square(flat).sum(1) - 2 * wanted @ flat.T
    _, chosen = linear_sum_assignment(cost)
    return np.asarray(chosen, dtype=np.int64)


def summed_up(
    name: str,
    values: FloatArray,
    *,
    blind: float | None = None,
    bound: float | None = None,
    low: float = -math.inf,
    high: float = math.inf,
) -> Score:
    """Mean over records with a t-interval, cut to the range that the measure can have."""
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    lower = upper = None
    if n > 1:
        half = float(stdtrit(n - 1, 0.5 + _LEVEL / 2)) * float(values.std(ddof=1)) / math.sqrt(n)
        lower, upper = max(mean - half, low), min(mean + half, high)
    return Score(name=name, mean=mean, lower=lower, upper=upper, n=n, blind=blind, bound=bound)


def share(name: str, hits: BoolArray, *, blind: float | None = None) -> Score:
    """Share of records (n,) with an exact interval (Clopper and Pearson 1934)."""
    n, right = len(hits), int(np.sum(hits))
    if not n:
        return Score(name=name, mean=math.nan, lower=None, upper=None, n=0, blind=blind)
    low, high = binomial.two_sided(right, n, 1 - _LEVEL)
    return Score(name=name, mean=right / n, lower=float(low), upper=float(high), n=n, blind=blind)
