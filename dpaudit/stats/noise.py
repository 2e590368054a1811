"""Noise that was measured, against the sensitivity that was measured: the effective noise multiplier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import chdtri, gammainc

from dpaudit.check import FloatArray
from dpaudit.errors import UsageError
from dpaudit.estimate import Estimate
from dpaudit.evidence import Replay
from dpaudit.stats.family import Family
from dpaudit.stats.inversion import Found, check_inputs, conclude, detectable_epsilon, epsilon_at

_SMALLEST = 1e-14
SENSITIVITY_TOLERANCE = 1e-3
"""Within this of the clipping norm a measured sensitivity counts as exactly that: clipping in single
precision misses it by up to 1e-4, which is arithmetic and not a leak."""


def effective_sensitivity(evidence: Replay) -> float:
    """Measured sensitivity over the clipping norm, 1 where it is within the evidence's tolerance of 1."""
    return _snapped(evidence.sensitivity, evidence)


def _snapped(measured: float, evidence: Replay) -> float:
    return 1.0 if abs(measured - 1.0) <= max(SENSITIVITY_TOLERANCE, evidence.tolerance) else measured


def _sensitivities(evidence: Replay) -> FloatArray:
    """(k,) by how much a record can move each parameter with data; all of it, where that was not measured."""
    total = effective_sensitivity(evidence)
    used = [sample for sample in evidence.noise if sample.count > 0 and sample.claimed_std > 0]
    within = [total if s.sensitivity is None else _snapped(s.sensitivity, evidence) for s in used]
    limited: FloatArray = np.minimum(np.array(within), total)
    return limited


def _movement(evidence: Replay, within: FloatArray) -> FloatArray:
    """(k,) by how much one and the same record moved each parameter with data; none if that is not known."""
    if len(evidence.movement) != len(evidence.noise):
        return np.zeros_like(within)
    pairs = zip(evidence.noise, evidence.movement, strict=True)
    together = np.array([m for s, m in pairs if s.count > 0 and s.claimed_std > 0], dtype=np.float64)
    length = float(np.linalg.norm(together))
    snapped: FloatArray = together * (_snapped(length, evidence) / length) if length > 0 else together
    return snapped


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


def contradictions(evidence: Replay, *, level: float) -> dict[str, float]:
    """Parameters whose noise is too small for what a record can move in them, and all of them together.

    Args:
        evidence: of k parameters.
        level: of each test.

    Returns:
        P-values below the level, by name; those over all parameters last.
    """
    squares, counts = _ratios(evidence)
    if not counts.size:
        return {}
    names = [sample.where for sample in evidence.noise if sample.count > 0 and sample.claimed_std > 0]
    within = _sensitivities(evidence)
    p_values = [_lower_tail(q, n, s) for q, n, s in zip(squares, counts, within, strict=True)]
    names += ["all parameters", "a record in all parameters"]
    p_values += [_pooled(squares, counts, within, 1.0)]
    p_values += [_one_record(squares, counts, _movement(evidence, within), 1.0)]
    return {name: p for name, p in zip(names, p_values, strict=True) if p < level}


def _lower_tail(square: float, count: float, scale: float) -> float:
    """P(chi-square of `count` <= square / scale^2); 1 where nothing can move, 0 where there is no bound."""
    if scale == 0:
        return 1.0
    return 0.0 if not math.isfinite(scale) else float(gammainc(count / 2, square / scale**2 / 2))


def _pooled(squares: FloatArray, counts: FloatArray, within: FloatArray, scale: float) -> float:
    """P-value of "the noise of every parameter is at least `scale` times what a record can move in it".

    Each parameter in units of its own movement, so that groups with clips and noise of their own are judged
    by these. Parameters that no record moves do not count.
    """
    moved = within > 0
    if not moved.any():
        return 1.0
    if not np.isfinite(within).all():
        return 0.0
    total = float((squares[moved] / within[moved] ** 2).sum())
    return _lower_tail(total, float(counts[moved].sum()), scale)


def _one_record(squares: FloatArray, counts: FloatArray, movement: FloatArray, scale: float) -> float:
    """P-value of "no record moves the release by more than 1/scale deviations of its noise".

    Such a record has mu^2 = sum_l delta_l^2 / s_l^2 <= 1. With f_l = n_l / n and the statistic
    T = sum_l (f_l / delta_l^2) S_l of sums of squares S_l, Jensen's inequality gives
    E exp(-t T) <= (1 + 2 t)^(-n/2) for any deviations s_l that obey this, so Chernoff's bound is that of
    one chi-square, exp(-n/2 (r - 1 - log r)) at r = T/n, and close where noise is in proportion to what the
    record moves in a coordinate. Where it is not, confidence limits for the k deviations at once are closer.
    Groups with a clip and noise of their own are thus judged by what a record does to all of them together.

    Args:
        squares: (k,) sums of squares.
        counts: (k,) numbers of coordinates.
        movement: (k,) what the record moves in each parameter; parameters that it does not move do not count.
        scale: factor on the claimed deviations.
    """
    moved = movement > 0
    if not moved.any():
        return 1.0
    if not np.isfinite(movement).all() or not squares[moved].all():
        return 0.0
    n = float(counts[moved].sum())
    weights = counts[moved] / n / movement[moved] ** 2
    r = float((weights * squares[moved]).sum()) / n / scale**2
    chernoff = 1.0 if r >= 1 else math.exp(-n / 2 * (r - 1 - math.log(r)))
    limits = _by_limits(squares[moved] / movement[moved] ** 2, counts[moved], scale)
    return min(1.0, 2 * chernoff, 2 * limits)


def _by_limits(squares: FloatArray, counts: FloatArray, scale: float) -> float:
    """Smallest level at which lower confidence limits put sum_l delta_l^2 / s_l^2 above 1 / scale^2."""

    def above(log_level: float) -> bool:
        quantiles = chdtri(counts, 1 - math.exp(log_level) / counts.size)
        return float((quantiles / squares).sum()) > scale**-2

    low, high = math.log(_SMALLEST), 0.0
    if not above(high):
        return 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if above(middle) else (middle, high)
    return math.exp(high)


def replay(evidence: Replay, family: Family, *, alpha: float) -> Estimate:
    """Bound from the deviation of the noise over the sensitivity, both measured on the real step.

    Tests share alpha equally: all coordinates pooled, each parameter in units of what a record moves in it
    (most power where all noise is too small), the worst parameter, corrected for their number (most power
    where one is left out), and the record that moved the release the farthest, where it is known how.

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
    elif math.isinf(sensitivity) or not squares[_sensitivities(evidence) > 0].all():
        found = Found(epsilon_lower=math.inf, p_value=0.0, ceiling=math.inf)
    else:
        found = _chi_square(squares, counts, evidence, family, alpha)
    return conclude(
        evidence,
        family,
        found,
        alpha=alpha,
        method=f"measured noise over measured sensitivity ({evidence.sensitivity:.4g} clipping norms)",
        n=int(counts.sum()),
        assumptions=(
            "the noise is normal and its coordinates are independent",
            "what was measured within a parameter is what one record can move there",
            "all steps are like the replayed ones",
        ),
    )


def replays(parts: Sequence[tuple[Replay, Family]], *, alpha: float) -> Estimate:
    """The largest of the bounds from several optimizers of one run, each at an equal share of alpha.

    Args:
        parts: what was replayed of each, and the family of its own steps.
        alpha: error probability of all together (Bonferroni).

    Returns:
        As from `replay`, with a p-value for all optimizers together.
    """
    found = [replay(evidence, family, alpha=alpha / len(parts)) for evidence, family in parts]
    best = max(found, key=lambda e: -1.0 if e.epsilon_lower is None else e.epsilon_lower)
    p_values = [e.p_value for e in found if e.p_value is not None]
    known = [e.detectable for e in found if e.detectable is not None]
    return replace(
        best,
        alpha=alpha,
        p_value=min(1.0, len(found) * min(p_values)) if p_values else None,
        detectable=max(known) if len(known) == len(found) else None,
        n_observations=sum(e.n_observations for e in found),
    )


def _chi_square(
    squares: FloatArray, counts: FloatArray, evidence: Replay, family: Family, alpha: float
) -> Found:
    n, within = float(counts.sum()), _sensitivities(evidence)
    movement = _movement(evidence, within)
    known = bool(movement.any())
    tests = 3 if known else 2

    def p_value(scale: float) -> float:
        together = _pooled(squares, counts, within, scale)
        worst = min(_lower_tail(q, n, scale * s) for q, n, s in zip(squares, counts, within, strict=True))
        one = _one_record(squares, counts, movement, scale) if known else 1.0
        return min(1.0, tests * together, tests * counts.size * worst, tests * one)

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
