"""A likelihood ratio that knows how little few shadows say: normal-inverse-gamma priors, Student-t densities.

After BaVarIA (arXiv:2603.11799), which puts the conjugate prior in the place of LiRA's switch between one
variance for all records and one for each. The parameters of the prior are estimated by moments over the
records: no option is left to tune.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, gammaln, polygamma

from dpaudit.attacks.membership.logodds import members, odds_of
from dpaudit.check import BoolArray, FloatArray
from dpaudit.evidence import Access
from dpaudit.protocols import View

_MOST_FREEDOM = 1e4
_LEAST_VARIANCE = 1e-8
_FEWEST_FOR_A_LINE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Bavaria:
    """Ratio of the Student-t predictive densities of the log-odds, in against out.

    The prior mean of a record's log-odds with it in lies on a line over those without it, and the other way
    round: so that a record which all shadows had in, or none, still has a score.
    """

    name: str = "bavaria"
    access: Access = Access.FINAL_MODEL
    shadows: int = 16

    def scores(self, targets: Sequence[View], shadows: Sequence[View]) -> FloatArray:
        """(targets, n) log-ratios; NaN where the shadows had everything in, or nothing.

        Cost (targets + shadows) * n.
        """
        phi, member, observed = odds_of(shadows), members(shadows), odds_of(targets)
        if not member.any() or member.all():
            return np.full(observed.shape, np.nan)
        inside, outside = _summary(phi, member), _summary(phi, ~member)
        result = np.zeros(observed.shape)
        for sign, side, other in ((1.0, inside, outside), (-1.0, outside, inside)):
            freedom, variance = _variance_prior(side, other, observed, phi)
            centre, spread = _mean_prior(side, other, variance)
            result += sign * _predictive(observed, side, centre, variance / spread, freedom, variance)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Count, mean and sum of squares about it, of the log-odds on one side; all of shape (n,)."""

    count: FloatArray
    mean: FloatArray
    squares: FloatArray


def _summary(phi: FloatArray, side: BoolArray) -> Summary:
    count = side.sum(axis=0).astype(np.float64)
    mean = (side * phi).sum(axis=0) / np.maximum(count, 1.0)
    return Summary(count=count, mean=mean, squares=(side * (phi - mean) ** 2).sum(axis=0))


def _crossing(side: Summary, other: Summary) -> tuple[float, float, float]:
    """Intercept, slope and error variance of a line from the other side's means to this one's."""
    both = (side.count > 0) & (other.count > 0)
    if both.sum() < _FEWEST_FOR_A_LINE:
        # One shadow: no record is on both sides, but its members are a random half.
        return float(side.mean[side.count > 0].mean() - other.mean[other.count > 0].mean()), 1.0, 0.0
    x, y = other.mean[both], side.mean[both]
    spread = float(x.var())
    slope = float(((x - x.mean()) * (y - y.mean())).mean()) / spread if spread > 0 else 0.0
    intercept = float(y.mean() - slope * x.mean())
    return intercept, slope, float(((y - intercept - slope * x) ** 2).mean())


def _variance_prior(
    side: Summary, other: Summary, observed: FloatArray, phi: FloatArray
) -> tuple[float, float]:
    """Degrees of freedom and scale of the prior of a variance, by moments of log variances (Smyth 2004)."""
    usable = (side.count > 1) & (side.squares > 0)
    if not usable.any():
        # No model twice on this side of any record: take the spread from both sides, or from the targets.
        squares, count = side.squares + other.squares, side.count + other.count
        freedom = float((count - (side.count > 0) - (other.count > 0)).sum())
        between = float(np.median((observed[:, None] - phi[None]) ** 2)) / (2 * 0.4549)
        pooled = float(squares.sum()) / freedom if freedom > 0 else between
        return 4.0, max(pooled, _LEAST_VARIANCE)
    half = (side.count[usable] - 1.0) / 2.0
    logs = np.log(side.squares[usable] / (2.0 * half))
    centred = logs - digamma(half) + np.log(half)
    excess = float(centred.var() - polygamma(1, half).mean())
    freedom = 2.0 * _inverse_trigamma(excess) if excess > 0 else _MOST_FREEDOM
    freedom = min(freedom, _MOST_FREEDOM)
    scale = np.exp(centred.mean() + digamma(freedom / 2.0) - np.log(freedom / 2.0))
    return freedom, max(float(scale), _LEAST_VARIANCE)


def _inverse_trigamma(value: float) -> float:
    """Where trigamma has this value, by Newton's method on its reciprocal, nearly a line (Smyth 2004)."""
    x = 0.5 + 1.0 / value
    for _ in range(50):
        at = float(polygamma(1, x))
        step = at * (1.0 - at / value) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-10 * x:
            break
    return x


def _mean_prior(side: Summary, other: Summary, variance: float) -> tuple[FloatArray, FloatArray]:
    """Prior mean (n,) of one side from the other one, and the variance of its error (n,)."""
    intercept, slope, error = _crossing(side, other)
    known, have = other.count > 0, side.count > 0
    overall = float(side.mean[have].mean())
    between = max(float(side.mean[have].var()), variance)
    # The error of the line contains that of the records' own means; what is left is the prior's.
    sampled = variance * float((1.0 / side.count[have]).mean())
    crossed = max(error - sampled, variance / float(other.count.max()))
    centre = np.where(known, intercept + slope * other.mean, overall)
    return centre, np.where(known, crossed, between)


def _predictive(
    x: FloatArray, side: Summary, centre: FloatArray, weight: FloatArray, freedom: float, variance: float
) -> FloatArray:
    """Log-density (targets, n) of the Student-t that a normal-inverse-gamma prior and the shadows predict.

    Posterior: weight k + n, mean (k m0 + n m) / (k + n), freedom v + n, sum of squares
    v s0 + S + k n (m - m0)^2 / (k + n).
    """
    total = weight + side.count
    mean = (weight * centre + side.count * side.mean) / total
    degrees = freedom + side.count
    off = weight * side.count * (side.mean - centre) ** 2 / total
    scale = (freedom * variance + side.squares + off) / degrees * (1.0 + 1.0 / total)
    density: FloatArray = (
        gammaln((degrees + 1.0) / 2.0)
        - gammaln(degrees / 2.0)
        - 0.5 * np.log(degrees * np.pi * scale)
        - (degrees + 1.0) / 2.0 * np.log1p((x - mean) ** 2 / (degrees * scale))
    )
    return density
