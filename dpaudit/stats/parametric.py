"""Two normal samples: the tightest bound if scores really are normal, and no guarantee if they are not.

Where Andrew et al. 2024 (arXiv:2302.03098) plug in fitted moments, the distance of the means over the common
deviation is inverted exactly here, by the non-central t law (Johnson and Welch 1940, Biometrika 31).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import f as f_law
from scipy.stats import nct

from dpaudit.check import FloatArray, finite, in_range
from dpaudit.errors import UsageError
from dpaudit.estimate import Estimate
from dpaudit.evidence import TwoSample
from dpaudit.stats.family import Family
from dpaudit.stats.inversion import Found, check_inputs, conclude, detectable_epsilon, epsilon_at
from dpaudit.stats.tradeoff import Gaussian, TradeOff

_REACH = np.linspace(-6.0, 6.0, 481)


def gauss_t(evidence: TwoSample, family: Family, *, alpha: float) -> Estimate:
    """Bound from (m1 - m0) / s, exact for two normal samples of one variance.

    A member of the family is rejected when no two normals as far apart as the data stay under its curve.

    Args:
        evidence: n1 runs with and n0 without the canary.
        family: under the adjacency of the evidence.
        alpha: error probability, if the scores are normal.

    Returns:
        An estimate with `guarantee` False; its assumptions say how normal the scores look. With fewer than
        two runs of each kind, or scores without any spread, one that says so. 40 curves of the family.

    Raises:
        UsageError: no runs of one kind, scores that are not finite, delta = 0, or another adjacency.
    """
    check_inputs(evidence.adjacency, family, alpha)
    in_range("delta", family.delta, 0.0, 1.0, open_low=True, remedy="No two normals satisfy a pure claim.")
    inside, outside = finite("scores_in", evidence.scores_in), finite("scores_out", evidence.scores_out)
    if (inside.size == 0) != (outside.size == 0):
        raise UsageError(
            f"Expected runs of both kinds, found {inside.size} with and {outside.size} without the canary. "
            "Train some of the other kind."
        )
    found, looks = Found(), "too few or constant scores to judge normality by"
    spread = [float(np.var(s)) if s.size >= 2 else 0.0 for s in (inside, outside)]
    if min(spread) > 0:
        found = _invert(inside, outside, family, alpha)
        looks = _looks(inside, outside)
    estimate = conclude(
        evidence,
        family,
        found,
        alpha=alpha,
        method="normal scores, non-central t (not a guarantee)",
        n=inside.size + outside.size,
        assumptions=("the runs are independent", f"scores are normal with one variance: {looks}"),
    )
    return replace(estimate, guarantee=False)


def _invert(inside: FloatArray, outside: FloatArray, family: Family, alpha: float) -> Found:
    n1, n0 = inside.size, outside.size
    freedom = n1 + n0 - 2
    unit = math.sqrt(n1 * n0 / (n1 + n0))
    pooled = math.sqrt((np.var(inside) * n1 + np.var(outside) * n0) / freedom)
    statistic = unit * float(inside.mean() - outside.mean()) / pooled

    def p_value(scale: float) -> float:
        return _t_tail(statistic, freedom, unit * largest_mu(family.curve(scale)))

    claimed = unit * largest_mu(family.curve(family.claimed_scale))
    critical = _t_quantile(1 - alpha, freedom, claimed)
    return Found(
        epsilon_lower=epsilon_at(p_value, family, alpha),
        p_value=p_value(family.claimed_scale),
        # Normal scores may be any number of deviations apart.
        ceiling=family.epsilon(family.scales[0]),
        detectable=detectable_epsilon(
            lambda scale: _t_tail(critical, freedom, unit * largest_mu(family.curve(scale))), family
        ),
    )


def largest_mu(curve: TradeOff) -> float:
    """Largest distance of two unit normals that stay under a curve: the least Phi^-1(TPR) - Phi^-1(FPR)."""
    if isinstance(curve, Gaussian):
        return curve.mu
    return max(0.0, float(np.min(ndtri(np.clip(curve.tpr(ndtr(_REACH)), 1e-300, 1 - 1e-16)) - _REACH)))


def _t_tail(statistic: float, freedom: int, shift: float) -> float:
    """P(T >= statistic) for non-central t; normal where series lose their digits."""
    exact = float(nct.sf(statistic, freedom, shift))
    if math.isfinite(exact):
        return exact
    bend = 1 - 1 / (4 * freedom)
    return float(ndtr(-(statistic * bend - shift) / math.sqrt(1 + statistic**2 / (2 * freedom))))


def _t_quantile(level: float, freedom: int, shift: float) -> float:
    low, high = shift - 60.0, 3 * shift + 60.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_tail(middle, freedom, shift) > 1 - level else (low, middle)
    return high


def _looks(inside: FloatArray, outside: FloatArray) -> str:
    """P-values of what is assumed, in words."""
    normal = min(1.0, 2 * min(anderson_darling(inside), anderson_darling(outside)))
    ratio = float(np.var(inside, ddof=1) / np.var(outside, ddof=1))
    one_tail = float(f_law.sf(ratio, inside.size - 1, outside.size - 1))
    variance = 2 * min(one_tail, 1 - one_tail)
    return f"Anderson-Darling p = {normal:.2g}, equal variances p = {variance:.2g}"


def anderson_darling(sample: FloatArray) -> float:
    """P-value of normality with both moments unknown (D'Agostino and Stephens 1986, table 4.9).

    Args:
        sample: (n,) with some spread; below 8 values 1 is returned, because nothing can be seen.
    """
    n = sample.size
    if n < 8:
        return 1.0
    z = np.sort((sample - sample.mean()) / sample.std(ddof=1))
    weights = (2 * np.arange(1, n + 1) - 1) / n
    log_low = np.log(np.maximum(ndtr(z), 1e-300))
    log_high = np.log(np.maximum(ndtr(-z[::-1]), 1e-300))
    squared = (-n - float(weights @ (log_low + log_high))) * (1 + 0.75 / n + 2.25 / n**2)
    if squared < 0.2:
        return 1 - math.exp(-13.436 + 101.14 * squared - 223.73 * squared**2)
    if squared < 0.34:
        return 1 - math.exp(-8.318 + 42.796 * squared - 59.938 * squared**2)
    if squared < 0.6:
        return math.exp(0.9177 - 4.279 * squared - 1.38 * squared**2)
    return math.exp(1.2937 - 5.709 * min(squared, 150.0) + 0.0186 * min(squared, 150.0) ** 2)
