"""Noise that was measured, against the sensitivity that was measured: the effective noise multiplier."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import chdtri, gammainc

from dpaudit.check import FloatArray
from dpaudit.errors import UsageError
from dpaudit.estimate import Estimate
from dpaudit.evidence import Replay
from dpaudit.stats.family import Family
from dpaudit.stats.inversion import Found, check_inputs, conclude, detectable_epsilon, epsilon_at

SENSITIVITY_TOLERANCE = 1e-3
"""Within this of the clipping norm a measured sensitivity counts as exactly that: clipping in single
precision misses it by up to 1e-4, which is arithmetic and not a leak."""


def effective_sensitivity(evidence: Replay) -> float:
    """Measured sensitivity over the clipping norm, 1 where it is within `SENSITIVITY_TOLERANCE` of 1."""
    measured = evidence.sensitivity
    return 1.0 if abs(measured - 1.0) <= SENSITIVITY_TOLERANCE else measured


def _ratios(evidence: Replay) -> tuple[FloatArray, FloatArray]:
    """(k,) sums of squares over the claimed variances, and (k,) counts; parameters without data left out."""
    used = [sample for sample in evidence.noise if sample.count > 0 and sample.claimed_std > 0]
    for sample in used:
        if not (math.isfinite(sample.sum_of_squares) and sample.sum_of_squares >= 0):
            raise UsageError(
                f"Expected sum_of_squares of {sample.where!r} to be finite and >= 0, found "
                f"{sample.sum_of_squares!r}. Measure the noise again."
            )
    squares = np.array([sample.sum_of_squares / sample.claimed_std**2 for sample in used])
    return squares, np.array([sample.count for sample in used], dtype=np.float64)


def too_small(evidence: Replay, *, scale: float = 1.0) -> dict[str, float]:
    """P-value per parameter of "the noise has at least the claimed deviation", not adjusted for their number.

    One-sided chi-square: n s^2 / (scale sigma)^2 against its lower tail. Sensitivity is not looked at.

    Args:
        evidence: of k parameters.
        scale: factor on the claimed deviations.

    Returns:
        By name, of the parameters with data and a positive claimed deviation. Use `multiplicity.holm` on it.
    """
    names = [sample.where for sample in evidence.noise if sample.count > 0 and sample.claimed_std > 0]
    squares, counts = _ratios(evidence)
    values = gammainc(counts / 2, squares / scale**2 / 2)
    return dict(zip(names, values.tolist(), strict=True))


def replay(evidence: Replay, family: Family, *, alpha: float) -> Estimate:
    """Bound from the deviation of the noise over the sensitivity, both measured on the real step.

    Two tests share alpha equally: all coordinates pooled (most power where all noise is too small) and the
    worst parameter, corrected for their number (most power where one is left out). A record may put its
    whole clipped gradient into one parameter, so that parameter's multiplier is the mechanism's.

    Args:
        evidence: k parameters; noise of independent coordinates.
        family: under the adjacency of the evidence; its scale is effective over claimed multiplier.
        alpha: error probability.

    Returns:
        An estimate: inf where a parameter got no noise, and one that says so where nothing was measured.

    Raises:
        UsageError: another adjacency, or sums of squares that are not numbers.
    """
    check_inputs(evidence.adjacency, family, alpha)
    squares, counts = _ratios(evidence)
    sensitivity = effective_sensitivity(evidence)
    if not counts.size or math.isnan(sensitivity):
        found = Found()
    elif sensitivity <= 0:
        found = Found(epsilon_lower=0.0, p_value=1.0)
    elif math.isinf(sensitivity) or not squares.all():
        found = Found(epsilon_lower=math.inf, p_value=0.0, ceiling=math.inf)
    else:
        found = _chi_square(squares, counts, sensitivity, family, alpha)
    return conclude(
        evidence,
        family,
        found,
        alpha=alpha,
        method=f"measured noise over measured sensitivity ({evidence.sensitivity:.4g} clipping norms)",
        n=int(counts.sum()),
        assumptions=(
            "the noise is normal and its coordinates are independent",
            "a record can reach the measured sensitivity within one parameter",
            "all steps are like the replayed ones",
        ),
    )


def _chi_square(
    squares: FloatArray, counts: FloatArray, sensitivity: float, family: Family, alpha: float
) -> Found:
    pooled, n = float(squares.sum()), float(counts.sum())

    def p_value(scale: float) -> float:
        allowed = (scale * sensitivity) ** 2
        together = float(gammainc(n / 2, pooled / allowed / 2))
        worst = float(gammainc(counts / 2, squares / allowed / 2).min())
        return min(1.0, 2 * together, 2 * counts.size * worst)

    def power(scale: float) -> float:
        # The pooled test alone: noise scaled everywhere.
        critical = chdtri(n, 1 - alpha / 2) * family.claimed_scale**2
        return float(gammainc(n / 2, critical / (scale**2) / 2))

    return Found(
        epsilon_lower=epsilon_at(p_value, family, alpha),
        p_value=p_value(family.claimed_scale),
        # Noise can be measured down to none.
        ceiling=math.inf,
        detectable=detectable_epsilon(power, family),
    )
