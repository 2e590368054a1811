"""Guesses about the canaries of one run: how many are made, how many are right, how many a claim allows.

The coins of one run are guessed from one release, so that the guesses depend on one another. Nothing here
assumes otherwise: both limits hold for every mechanism that satisfies the claim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, expit, gammaln, ndtr, ndtri, xlog1py, xlogy

from dpaudit.check import BoolArray, FloatArray, IntArray, in_range
from dpaudit.errors import UsageError
from dpaudit.evidence import OneRun
from dpaudit.stats.binomial import tail
from dpaudit.stats.tradeoff import Gaussian, TradeOff

_CENTRE_SHARE = 0.8
_STALLED = 1e-13
_ROUNDING = 1e-15
_LANES = 24
_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class GuessPlan:
    """Numbers of guesses that are tried, and the share of alpha that each may spend.

    Attributes:
        guesses: (r,) ascending.
        shares: (r,) positive, with sum 1.
    """

    guesses: tuple[int, ...]
    shares: tuple[float, ...]


def guess_plan(canaries: int, guesses: int | Sequence[int] | None = None) -> GuessPlan:
    """Numbers of guesses for so many canaries, from nothing but that number.

    By default about 5 sqrt(m), near the best for scores of every tried strength (50 of 100, 160 of 1,000,
    1,600 of 1e5), gets 0.8 of alpha; a quarter of it, four times it and all m share the rest, for leaks of
    other shapes. Given numbers share alpha evenly.

    Args:
        canaries: m.
        guesses: pre-registered number or numbers, in [1, m].

    Raises:
        UsageError: a number outside [1, m], or none.
    """
    if guesses is not None:
        given = (guesses,) if isinstance(guesses, int) else tuple(guesses)
        if not given:
            raise UsageError(
                f"Expected guesses to hold a number, found {given!r}. Leave it out for the default."
            )
        for number in given:
            in_range("guesses", number, 1, canaries, remedy="There are no more coins than canaries.")
        chosen = tuple(sorted(set(given)))
        return GuessPlan(guesses=chosen, shares=(1.0 / len(chosen),) * len(chosen))
    centre = min(canaries, max(1, round(5 * math.sqrt(canaries))))
    others = sorted({n for n in (centre // 4, 4 * centre, canaries) if 8 <= n <= canaries} - {centre})
    share = (1 - _CENTRE_SHARE) / len(others) if others else 0.0
    shares = {**dict.fromkeys(others, share), centre: _CENTRE_SHARE if others else 1.0}
    return GuessPlan(guesses=tuple(sorted(shares)), shares=tuple(shares[n] for n in sorted(shares)))


def right_guesses(evidence: OneRun, guesses: IntArray, *, rng: np.random.Generator | None = None) -> IntArray:
    """How many guesses are right when r are made: members at the top, non-members at the bottom.

    The guesses are divided as the scores are by the middle of their quartiles, which is in halves unless
    scores have few values or one long tail; it depends on no coin. Ties at the edge of abstention count as
    they would in the worst order, or are broken by `rng`. They are never broken by position, which may
    follow the coins. Costs a sort.

    Args:
        evidence: m canaries.
        guesses: (r,) numbers of guesses.
        rng: for breaking ties at random.
    """
    scores, included = evidence.scores, np.asarray(evidence.included, dtype=np.bool_)
    if rng is not None:
        order = rng.permutation(scores.size)
        scores, included = scores[order], included[order]
    order = np.argsort(-scores, kind="stable")
    falling, inside = -scores[order], included[order]
    middle = (falling[falling.size // 4] + falling[(3 * falling.size) // 4]) / 2
    share = np.clip(np.searchsorted(falling, middle, "left") / falling.size, 0.25, 0.75)
    upper = np.round(guesses * share + 1e-9).astype(np.int64)
    tied = rng is None
    top = _right_at_top(falling, inside, upper, worst=tied)
    bottom = _right_at_top(-falling[::-1], ~inside[::-1], guesses - upper, worst=tied)
    return top + bottom


def _right_at_top(ascending: FloatArray, right: BoolArray, count: IntArray, *, worst: bool) -> IntArray:
    """(r,) how many of the first `count` are right; the least over all orders of ties if `worst`."""
    before = np.concatenate([[0], np.cumsum(right)])
    if not worst:
        return np.asarray(before[count], dtype=np.int64)
    edge = ascending[np.maximum(count - 1, 0)]
    start, end = np.searchsorted(ascending, edge, "left"), np.searchsorted(ascending, edge, "right")
    wrong_there = (end - start) - (before[end] - before[start])
    found = before[start] + np.maximum(count - start - wrong_there, 0)
    return np.where(count > 0, found, 0).astype(np.int64)


def pure_tail(
    epsilon: float, delta: float, *, canaries: int, guesses: IntArray, correct: IntArray
) -> FloatArray:
    """P(at least `correct` of `guesses` right) under (epsilon, delta), at most; shape (r,).

    P(B >= v) + 2 m delta max_i P(v - i <= B < v) / i with B ~ Bin(r, e^eps / (1 + e^eps))
    (Steinke, Nasr and Jagielski 2023, arXiv:2305.08846, theorem 5.2). The maximum is the largest mean of
    binomial weights over a window that ends at v - 1; that mean rises with the window and then falls, so
    that the window is found by bisection. Costs O(log m) per element.

    Args:
        epsilon: of the claim.
        delta: of the claim.
        canaries: m, the number of coins.
        guesses: (r,) how many guesses were made, the rest abstained from.
        correct: (r,) how many of them are right.
    """
    accuracy = float(expit(epsilon))
    bound = tail(correct, guesses, accuracy)
    if delta > 0:
        bound = bound + 2.0 * canaries * delta * _densest_window(guesses, correct, accuracy)
    result: FloatArray = np.minimum(bound, 1.0)
    return result


def _densest_window(guesses: IntArray, correct: IntArray, accuracy: float) -> FloatArray:
    """Max over 1 <= i <= v of P(v - i <= B < v) / i; 0 for v = 0."""
    top = np.asarray(correct, dtype=np.float64) - 1.0
    low, high = np.ones_like(top), np.maximum(top + 1.0, 1.0)
    while np.any(low < high):
        width = np.floor((low + high) / 2)
        grows = _weight(top - width, guesses, accuracy) > _window(top, width, guesses, accuracy)
        low, high = np.where(grows, width + 1.0, low), np.where(grows, high, width)
        low = np.minimum(low, high)
    result: FloatArray = np.where(top >= 0, _window(top, low, guesses, accuracy), 0.0)
    return result


def _weight(at: FloatArray, trials: IntArray, accuracy: float) -> FloatArray:
    """Binomial weights, 0 below 0."""
    k = np.maximum(at, 0.0)
    ways = gammaln(trials + 1.0) - gammaln(k + 1.0) - gammaln(trials - k + 1.0)
    weight: FloatArray = np.exp(ways + xlogy(k, accuracy) + xlog1py(trials - k, -accuracy))
    return np.where(at >= 0, weight, 0.0)


def _window(top: FloatArray, width: FloatArray, trials: IntArray, accuracy: float) -> FloatArray:
    """Mean binomial weight of `width` values that end at `top`."""
    last = np.maximum(top, 0.0)
    below = np.where(top >= width, bdtr(np.maximum(top - width, 0.0), trials, accuracy), 0.0)
    mean = (bdtr(last, trials, accuracy) - below) / width
    # One weight is exact where a difference of two distribution functions has no digits left.
    result: FloatArray = np.where(width == 1, _weight(last, trials, accuracy), mean)
    return result


def least_fpr(curve: TradeOff, tpr: FloatArray) -> FloatArray:
    """Least FPR at which a curve allows a TPR in [0, 1]; never too large, by rounding or otherwise.

    Curves hold in both directions, because neighbours do: then the least FPR is 1 - tpr(1 - TPR).
    """
    if isinstance(curve, Gaussian):
        exact: FloatArray = ndtr(ndtri(tpr) - curve.mu)
        return exact
    result: FloatArray = np.maximum(1.0 - curve.tpr(1.0 - tpr) - _ROUNDING, 0.0)
    return result


def curve_rejects(
    curve: TradeOff,
    *,
    canaries: int,
    guesses: IntArray,
    correct: IntArray,
    level: FloatArray,
    options: int = 2,
) -> BoolArray:
    """Whether so many right guesses have probability below `level` under f-DP; shape (n,).

    Mahloujifar, Melis and Chaudhuri 2025 (arXiv:2410.22235, algorithm 3). With g_i and h_i the chances that
    a random canary is guessed right (wrong) and at least i guesses are right, f-DP says
    h_i >= (k - 1) fbar^-1(g_{i+1}). Starting from a tail of `level`, the least mass is followed down to 0
    right guesses; more than everything is a contradiction. All elements go in step. A walk ends where mass
    stops growing, which errs to the safe side, after hundreds of counts for 1e6 canaries.

    Args:
        curve: f, as its largest TPR.
        canaries: m, the number of games.
        guesses: (n,) games in which a guess was made, fixed in advance.
        correct: (n,) right guesses.
        level: (n,) tested levels.
        options: k, equally likely candidates per game; 2 for in or out.
    """
    total, start, tau = np.broadcast_arrays(
        np.asarray(guesses, dtype=np.float64), np.asarray(correct, dtype=np.float64), np.asarray(level)
    )
    rejected = np.zeros(total.size, dtype=np.bool_)
    lane = np.flatnonzero(start > 0)
    total, index = total[lane], start[lane] - 1.0
    right, wrong = tau[lane] * start[lane] / canaries, tau[lane] * (total - start[lane]) / canaries
    while lane.size:
        more = np.maximum(wrong, (options - 1) * least_fpr(curve, right))
        gain = index / (total - index) * (more - wrong)
        right, wrong = right + gain, more
        contradiction = right + wrong > total / canaries
        rejected[lane[contradiction]] = True
        goes_on = ~contradiction & (gain > _STALLED * right) & (index > 0)
        lane, total, index = lane[goes_on], total[goes_on], index[goes_on] - 1.0
        right, wrong = right[goes_on], wrong[goes_on]
    return rejected


def curve_tail(
    curve: TradeOff, *, canaries: int, guesses: IntArray, correct: IntArray, options: int = 2
) -> FloatArray:
    """Least level at which `curve_rejects` rejects, within 0.3 % above; 1 where none does. Shape (r,)."""
    low, high = np.full(len(guesses), np.log(1e-14)), np.zeros(len(guesses))
    for _ in range(_ROUNDS):
        levels = np.linspace(low, high, _LANES, axis=1)
        rejected = curve_rejects(
            curve,
            canaries=canaries,
            guesses=np.repeat(guesses, _LANES),
            correct=np.repeat(correct, _LANES),
            level=np.exp(levels).ravel(),
            options=options,
        ).reshape(levels.shape)
        # The first that is rejected; the last one stands for 1 where none is.
        first = np.where(rejected.any(axis=1), rejected.argmax(axis=1), _LANES - 1)
        row = np.arange(len(guesses))
        low, high = levels[row, np.maximum(first - 1, 0)], levels[row, first]
    result: FloatArray = np.exp(high)
    return result


def accuracy_allowed(curve: TradeOff, *, canaries: int, guesses: IntArray) -> FloatArray:
    """(r,) share of right guesses of the best guesser where every canary leaks alike what a curve allows.

    The most suspicious r/2 are called members and the least suspicious r/2 not; the threshold is where
    (FPR + TPR) / 2 is r / 2m.
    """
    share = np.asarray(guesses, dtype=np.float64) / canaries
    low, high = np.full_like(share, -745.0), np.zeros_like(share)
    for _ in range(60):
        middle = (low + high) / 2
        fpr = np.exp(middle)
        over = fpr + curve.tpr(fpr) > share
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    fpr = np.exp(low)
    tpr = curve.tpr(fpr)
    result: FloatArray = tpr / np.maximum(fpr + tpr, 1e-300)
    return result
