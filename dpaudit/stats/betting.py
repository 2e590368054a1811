"""What to believe of scores before they are seen: the cells they fall into, learned from the past alone.

Cells hold equal shares of all past scores, so that only the order of scores counts. The belief is a
posterior mixture over shifts of any strength and over rare strong leaks. No belief can make a certified bet
invalid (see `certified`); a good one wins sooner.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr

from dpaudit.check import BoolArray, FloatArray, IntArray, in_range
from dpaudit.stats.certified import Pair
from dpaudit.stats.tradeoff import TradeOff

CELLS = 64
_FIRST_PAIRS = 8
_GROWTH, _SETTLED, _LATER_GROWTH = 1.5, 5_000, 4.0
_SHIFTS = np.geomspace(0.02, 8.0, 72)
_RARE = tuple((share, shift) for share in (0.01, 0.03, 0.1, 0.3) for shift in (2.0, 4.0, 8.0))
_RARE_PRIOR = 0.2
_DOUBT = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorePlan:
    """What is expected of scores, fixed before any is seen: two normals.

    Attributes:
        centre: midway between the means without and with the canary.
        spread: standard deviation of either.
        mu: distance of the means over `spread`.
    """

    centre: float
    spread: float
    mu: float

    def __post_init__(self) -> None:
        """Refuse a plan that no score can follow."""
        in_range("spread", self.spread, 0.0, float("inf"), open_low=True, open_high=True)
        in_range("mu", self.mu, 0.0, 40.0, open_low=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Consecutive pairs for which the belief stays the same.

    Attributes:
        beliefs: (j, k, 2) probabilities of cells under each candidate, for out and in.
        weights: (j,) of the candidates, by what was seen before this round.
        cell_out: (n,) cell of each score without the canary.
        cell_in: (n,) cell of each score with it.
    """

    beliefs: FloatArray
    weights: FloatArray
    cell_out: IntArray
    cell_in: IntArray

    def belief(self, against: Pair) -> FloatArray | None:
        """(k, 2) mean of the candidates that the curve forbids; None where it forbids none."""
        weights = np.where(forbidden(self.beliefs, against.curve), self.weights, 0.0)
        if weights.sum() <= 1e-12:
            return None
        mean = np.tensordot(weights / weights.sum(), self.beliefs, axes=1)
        result: FloatArray = (1 - _DOUBT) * mean + _DOUBT * mean.mean(axis=1, keepdims=True)
        return result


def forbidden(beliefs: FloatArray, curve: TradeOff) -> BoolArray:
    """(j,) whether some threshold between cells is above the curve."""
    rates = np.cumsum(beliefs[:, ::-1], axis=1)[:, :-1]
    fpr, tpr = np.minimum(rates[..., 0], 1.0), rates[..., 1]
    above: BoolArray = np.any(tpr > curve.tpr(fpr) * (1 + 1e-9), axis=1)
    return above


def rounds(scores_out: FloatArray, scores_in: FloatArray, plan: ScorePlan | None) -> Iterator[Round]:
    """Pairs in rounds that grow by half, fourfold after 5,000; the first eight only teach.

    With a plan there is one round of all.

    Args:
        scores_out: (n,) in observation order.
        scores_in: (n,) likewise.
        plan: what to expect, instead of learning it.
    """
    if plan is not None:
        yield _planned(scores_out, scores_in, plan)
        return
    candidates, prior = _candidates()
    log_weight, log_belief = np.log(prior), np.log(candidates)
    start = min(_FIRST_PAIRS, scores_in.size)
    while start < scores_in.size:
        growth = _GROWTH if start < _SETTLED else _LATER_GROWTH
        end = min(scores_in.size, max(start + 1, int(start * growth)))
        past = np.sort(np.concatenate([scores_out[:start], scores_in[:start]]))
        edges = np.quantile(past, np.arange(1, CELLS) / CELLS, method="weibull")
        cell_out, cell_in = (_cell(edges, s[start:end]) for s in (scores_out, scores_in))
        weights = np.exp(log_weight - log_weight.max())
        yield Round(beliefs=candidates, weights=weights / weights.sum(), cell_out=cell_out, cell_in=cell_in)
        seen = np.stack([np.bincount(c, minlength=CELLS) for c in (cell_out, cell_in)], axis=1)
        log_weight = log_weight + np.tensordot(log_belief, seen.astype(np.float64), axes=2)
        start = end


def _cell(edges: FloatArray, scores: FloatArray) -> IntArray:
    """Cell of each score; the middle one where many edges are the same, as with ties."""
    left, right = np.searchsorted(edges, scores, "left"), np.searchsorted(edges, scores, "right")
    return (left + right) // 2


def _planned(scores_out: FloatArray, scores_in: FloatArray, plan: ScorePlan) -> Round:
    edges = _planned_edges(plan)
    cells = [np.searchsorted(edges, (s - plan.centre) / plan.spread) for s in (scores_out, scores_in)]
    return Round(
        beliefs=planned_cells(plan, plan.mu)[None], weights=np.ones(1), cell_out=cells[0], cell_in=cells[1]
    )


def planned_cells(plan: ScorePlan, mu: float) -> FloatArray:
    """(k, 2) probabilities of a plan's cells where the means are mu apart instead, about the same centre."""
    cells = _cells_between(_planned_edges(plan)[None] + mu / 2, np.array([mu]), np.ones(1))[0]
    cells = np.maximum(cells, 1e-12)
    result: FloatArray = cells / cells.sum(axis=0)
    return result


def _planned_edges(plan: ScorePlan) -> FloatArray:
    edges: FloatArray = _pooled_quantiles(np.array([plan.mu]), np.ones(1))[0] - plan.mu / 2
    return edges


@lru_cache(maxsize=1)
def _candidates() -> tuple[FloatArray, FloatArray]:
    """(j, k, 2) cell probabilities of all candidates, and their (j,) prior weights."""
    rare_share, rare_shift = np.array(_RARE).T
    rare = _cells(rare_shift, rare_share)
    mirrored = rare[:, ::-1, ::-1]
    beliefs = np.concatenate([_cells(_SHIFTS, np.ones_like(_SHIFTS)), rare, mirrored])
    beliefs = np.maximum(beliefs, 1e-12)
    others = 2 * len(_RARE)
    prior = np.concatenate(
        [np.full(_SHIFTS.size, (1 - _RARE_PRIOR) / _SHIFTS.size), np.full(others, _RARE_PRIOR / others)]
    )
    return beliefs / beliefs.sum(axis=1, keepdims=True), prior


def _cells(shift: FloatArray, share: FloatArray) -> FloatArray:
    """(j, k, 2) for out N(0, 1) and in (1 - share) N(0, 1) + share N(shift, 1), in cells of equal mass."""
    return _cells_between(_pooled_quantiles(shift, share), shift, share)


def _cells_between(edges: FloatArray, shift: FloatArray, share: FloatArray) -> FloatArray:
    nothing, all_ = np.zeros((len(edges), 1)), np.ones((len(edges), 1))
    out, inside = _distributions(edges, shift[:, None], share[:, None])
    cumulative = np.stack([np.concatenate([nothing, f, all_], axis=1) for f in (out, inside)], axis=2)
    result: FloatArray = np.diff(cumulative, axis=1)
    return result


def _pooled_quantiles(shift: FloatArray, share: FloatArray) -> FloatArray:
    """(j, k - 1) edges between cells that are equally likely when in and out are."""
    target = np.arange(1, CELLS) / CELLS
    low, high = np.full((shift.size, CELLS - 1), -9.0), np.full((shift.size, CELLS - 1), 9.0 + shift.max())
    for _ in range(60):
        middle = (low + high) / 2
        out, inside = _distributions(middle, shift[:, None], share[:, None])
        under = (out + inside) / 2 < target
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    result: FloatArray = (low + high) / 2
    return result


def _distributions(x: FloatArray, shift: FloatArray, share: FloatArray) -> tuple[FloatArray, FloatArray]:
    out = ndtr(x)
    return out, (1 - share) * out + share * ndtr(x - shift)
