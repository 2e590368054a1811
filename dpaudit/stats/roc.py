"""Disclosure metrics of membership scores: ROC, area, TPR at FPR, each with its interval.

They speak of records drawn like these against this one model. Records of one run share the model, so that
none of this bounds epsilon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from dpaudit.check import BoolArray, FloatArray
from dpaudit.errors import UsageError
from dpaudit.estimate import Rate
from dpaudit.stats.binomial import two_sided

_POINTS = 160
_FALSE_POSITIVES_NEEDED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Roc:
    """Every operating point, ties taken together.

    Attributes:
        fpr: (t,) ascending from 0 to 1.
        tpr: (t,) ascending from 0 to 1.
        threshold: (t,) records with a score at or above it are called members; the first is inf.
    """

    fpr: FloatArray
    tpr: FloatArray
    threshold: FloatArray


def _halves(scores: FloatArray, member: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Scores of members and of others, those that are NaN (the attack cannot say) left out."""
    scores, member = np.asarray(scores, dtype=np.float64), np.asarray(member, dtype=np.bool_)
    if scores.shape != member.shape or scores.ndim != 1:
        raise UsageError(
            f"Expected scores and member of one shape (n,), found {scores.shape}, {member.shape}."
        )
    said = ~np.isnan(scores)
    return scores[said & member], scores[said & ~member]


def roc(scores: FloatArray, member: BoolArray) -> Roc:
    """All operating points, in O(n log n).

    Args:
        scores: (n,) higher means member; NaN where the attack cannot say.
        member: (n,) the truth.

    Raises:
        UsageError: shapes differ, or one of the two groups is empty.
    """
    inside, outside = _halves(scores, member)
    if not inside.size or not outside.size:
        raise UsageError(
            f"Expected scores of members and of others, found {inside.size} and {outside.size}. Score both."
        )
    values = np.unique(np.concatenate([inside, outside]))[::-1]
    hits = inside.size - np.searchsorted(np.sort(inside), values, side="left")
    false = outside.size - np.searchsorted(np.sort(outside), values, side="left")
    return Roc(
        fpr=np.concatenate([[0.0], false / outside.size]),
        tpr=np.concatenate([[0.0], hits / inside.size]),
        threshold=np.concatenate([[np.inf], values]),
    )


def _mid_ranks(values: FloatArray) -> FloatArray:
    """Ranks from 1, tied values sharing the mean of theirs."""
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: FloatArray = (np.cumsum(count) - (count - 1) / 2)[inverse]
    return ranks


def auc(scores: FloatArray, member: BoolArray, *, alpha: float) -> tuple[float, float, float]:
    """Area under the ROC and its interval, in O(n log n).

    DeLong, DeLong and Clarke-Pearson 1988 (Biometrics 44) by mid-ranks (Sun and Xu 2014), on the logit scale;
    where the variance estimate is 0 (complete separation) a Clopper-Pearson interval on the smaller group.

    Returns:
        Value, lower and upper end; asymptotic, not exact.

    Raises:
        UsageError: as for `roc`.
    """
    roc(scores, member)
    inside, outside = _halves(scores, member)
    m, n = inside.size, outside.size
    ranks = _mid_ranks(np.concatenate([inside, outside]))
    above = (ranks[:m] - _mid_ranks(inside)) / n
    below = 1.0 - (ranks[m:] - _mid_ranks(outside)) / m
    value = float(above.mean())
    variance = above.var(ddof=1) / m + below.var(ddof=1) / n if m > 1 and n > 1 else 0.0
    if variance <= 0 or not 0 < value < 1:
        least = min(m, n)
        low, high = two_sided(round(value * least), least, alpha)
        return value, min(float(low), value), max(float(high), value)
    half = -ndtri(alpha / 2) * np.sqrt(variance) / (value * (1 - value))
    logit = np.log(value / (1 - value))
    low, high = 1 / (1 + np.exp(-(logit + np.array([-half, half]))))
    return value, float(low), float(high)


def smallest_fpr(n_others: int) -> float:
    """Smallest FPR at which n non-members can honestly be read: ten false positives' worth."""
    return _FALSE_POSITIVES_NEEDED / n_others if n_others else 1.0


def tpr_at_fpr(
    scores: FloatArray, member: BoolArray, fpr: float, *, alpha: float
) -> tuple[float, float, float] | None:
    """Largest TPR with at most that share of false positives, and its exact interval at that threshold.

    The threshold is where the non-members put it, so that the interval is exact in the members given it. What
    share of other non-members would pass it is not in the interval: with ten of them below, that share is
    known to about a third of itself.

    Returns:
        Value, lower and upper end; None where there are fewer non-members than 10 / fpr.

    Raises:
        UsageError: as for `roc`.
    """
    points = roc(scores, member)
    inside, outside = _halves(scores, member)
    if fpr < smallest_fpr(outside.size) * (1 - 1e-9):
        return None
    at = int(np.searchsorted(points.fpr, fpr + 1e-12, side="right")) - 1
    hits = round(float(points.tpr[at]) * inside.size)
    low, high = two_sided(hits, inside.size, alpha)
    return hits / inside.size, float(low), float(high)


def balanced_accuracy(scores: FloatArray, member: BoolArray, *, alpha: float) -> tuple[float, float, float]:
    """Largest mean of TPR and TNR over thresholds, with a band that holds over all of them.

    Dvoretzky-Kiefer-Wolfowitz with Massart's constant, alpha/2 to each group.

    Raises:
        UsageError: as for `roc`.
    """
    points = roc(scores, member)
    inside, outside = _halves(scores, member)
    value = float(np.max(points.tpr - points.fpr)) / 2 + 0.5
    margins = np.sqrt(np.log(4 / alpha) / (2 * np.array([inside.size, outside.size])))
    half = float(margins.sum()) / 2
    return value, max(value - half, 0.0), min(value + half, 1.0)


def rates(
    scores: FloatArray,
    member: BoolArray,
    *,
    source: str,
    alpha: float,
    slice: str = "all",
    fprs: Sequence[float] = (0.001, 0.01, 0.1),
    fine: bool = False,
) -> tuple[Rate, ...]:
    """AUC, balanced accuracy and TPR at those FPRs that the data allow, as rows of a report.

    Args:
        scores: (n,) higher means member; NaN where the attack cannot say.
        member: (n,) the truth.
        source: the attack.
        alpha: what each interval may miss with.
        slice: the group of records.
        fprs: in (0, 1); those below `smallest_fpr` give no row.
        fine: whether the slice is one of many small ones.

    Returns:
        Rows; none where one of the two groups is empty.
    """
    inside, outside = _halves(scores, member)
    if not inside.size or not outside.size:
        return ()
    found = {
        "auc": auc(scores, member, alpha=alpha),
        "balanced_accuracy": balanced_accuracy(scores, member, alpha=alpha),
    } | {f"tpr_at_fpr_{fpr:g}": tpr_at_fpr(scores, member, fpr, alpha=alpha) for fpr in fprs}
    return tuple(
        Rate(
            name=name,
            value=value[0],
            lower=value[1],
            upper=value[2],
            alpha=alpha,
            source=source,
            slice=slice,
            n=inside.size + outside.size,
            fine=fine,
        )
        for name, value in found.items()
        if value is not None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A thinned ROC, at most 160 points, with pointwise exact limits of TPR; all of shape (t,)."""

    fpr: FloatArray
    tpr: FloatArray
    lower: FloatArray
    upper: FloatArray


def band(scores: FloatArray, member: BoolArray, *, alpha: float) -> Band:
    """The ROC for a figure: half its points spread over log FPR, half over FPR.

    Raises:
        UsageError: as for `roc`.
    """
    points = roc(scores, member)
    inside, outside = _halves(scores, member)
    wanted = np.concatenate(
        [np.geomspace(1 / outside.size, 1, _POINTS // 2), np.linspace(0, 1, _POINTS // 2)]
    )
    index = np.unique(np.clip(np.searchsorted(points.fpr, wanted, side="right") - 1, 0, points.fpr.size - 1))
    hits = np.round(points.tpr[index] * inside.size)
    low, high = two_sided(hits, inside.size, alpha)
    return Band(fpr=points.fpr[index], tpr=points.tpr[index], lower=low, upper=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Densities of scores on common bins; all of shape (bins,)."""

    centre: FloatArray
    inside: FloatArray
    outside: FloatArray


def histogram(scores: FloatArray, member: BoolArray, *, bins: int = 60) -> Histogram:
    """Densities of the scores of members and others between the 0.5 % and 99.5 % quantiles of all.

    Raises:
        UsageError: as for `roc`.
    """
    roc(scores, member)
    inside, outside = _halves(scores, member)
    both = np.concatenate([inside, outside])
    finite = both[np.isfinite(both)]
    low, high = np.quantile(finite, [0.005, 0.995]) if finite.size else (0.0, 0.0)
    edges = np.linspace(low, high if high > low else low + 1.0, bins + 1)
    width = edges[1] - edges[0]
    counts = [np.histogram(np.clip(part, edges[0], edges[-1]), edges)[0] for part in (inside, outside)]
    return Histogram(
        centre=(edges[:-1] + edges[1:]) / 2,
        inside=counts[0] / (inside.size * width),
        outside=counts[1] / (outside.size * width),
    )
