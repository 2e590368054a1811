"""How well a record can be rebuilt from noisy gradients by an adversary with no prior at all.

Such an adversary's best reconstruction of a record x from one step with noise multiplier sigma is
N(x, sigma^2 |x|^2 I), whatever the model (Riess et al. 2024, arXiv:2402.12861; first as Ziller et al.). Its
mean squared error is sigma^2 |x|^2 / N times a chi-square of N degrees, for N values in a record. Whoever
knows anything of the data beforehand, be it that pixels lie between black and white, is not bound by it.
"""

from __future__ import annotations

import numpy as np
from scipy.special import digamma, gammaincc

from dpaudit.check import FloatArray, in_range


def expected_psnr(norms: FloatArray, size: int, *, noise_multiplier: float, span: float) -> FloatArray:
    """Expected peak signal-to-noise ratio in dB of the best reconstruction without a prior.

    Args:
        norms: (n,) Euclidean norm |x| of each record, as the model is given it.
        size: N, values in a record.
        noise_multiplier: sigma of the step, noise over clipping norm.
        span: between the smallest and the largest value that a record can have.

    Returns:
        (n,) E[10 log10(span^2 / MSE)], with E[ln chi^2_N] = digamma(N / 2) + ln 2.

    Raises:
        UsageError: no noise, no values, or no span.
    """
    in_range("noise_multiplier", noise_multiplier, 0.0, float("inf"), open_low=True)
    in_range("size", size, 1, float("inf"))
    in_range("span", span, 0.0, float("inf"), open_low=True)
    error = np.log(noise_multiplier**2 * np.maximum(norms, 1e-300) ** 2 / size)
    expected = error + digamma(size / 2) + np.log(2.0)
    return np.asarray(10.0 / np.log(10.0) * (2 * np.log(span) - expected), dtype=np.float64)


def chance_of_error_below(
    error: FloatArray, norm: float, size: int, *, noise_multiplier: float
) -> FloatArray:
    """Chance (k,) that its mean squared error is at most `error`: P(N/2, N error / (2 sigma^2 |x|^2))."""
    in_range("noise_multiplier", noise_multiplier, 0.0, float("inf"), open_low=True)
    scaled = np.asarray(error, dtype=np.float64) * size / (2 * noise_multiplier**2 * norm**2)
    return np.asarray(1.0 - gammaincc(size / 2, scaled), dtype=np.float64)
