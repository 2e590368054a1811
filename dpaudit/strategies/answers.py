"""Vectors of query answers on neighbouring data sets, and the patterns that break noisy comparisons."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from dpaudit.check import FloatArray, in_range
from dpaudit.claim import Adjacency
from dpaudit.strategies.neighbours import Neighbours

DRAWN = 100
"""Answers that are drawn one by one; further ones repeat them, for Hypothesis gives up on thousands."""


def answer_patterns(
    dimension: int, movable: int | None = None, sensitivity: float = 1.0
) -> tuple[Neighbours[FloatArray], ...]:
    """Return the pairs of query answers on which faulty comparisons are known to break.

    The patterns of Ding et al. (2018, arXiv:1805.10277, StatDP), which DP-Sniper (Bichsel et al. 2021)
    uses too. In units of the sensitivity, all answers are 1 in one data set; in the other the first is
    0, or 2, or the first is 2 and the rest 0, the reverse, half are 2 and half 0, all are 2, all are 0.
    Then an X: half 1 and half 0 against half 0 and half 1. Added to theirs: all but the last are 0, which is
    2, for code that answers in order has lost most at the last one.

    Args:
        dimension: number of answers.
        movable: how many answers, the first ones, may move; all if None.
        sensitivity: largest movement of one answer.

    Returns:
        Pairs of arrays (dimension,), each directly followed by itself in the other order; no pair twice.
    """
    in_range("dimension", dimension, 1, np.inf)
    m = dimension if movable is None else min(movable, dimension)
    in_range("movable", m, 1, dimension)
    half = m // 2
    ones, rest = [1.0] * m, [1.0] * (dimension - m)
    others = [
        [0.0, *ones[1:]],
        [2.0, *ones[1:]],
        [2.0] + [0.0] * (m - 1),
        [0.0] + [2.0] * (m - 1),
        [2.0] * half + [0.0] * (m - half),
        [2.0] * m,
        [0.0] * m,
        [0.0] * (m - 1) + [2.0],
    ]
    crossed = ([1.0] * half + [0.0] * (m - half), [0.0] * half + [1.0] * (m - half))
    pairs = [(ones, other) for other in others] + ([crossed] if m > 1 else [])
    found: dict[tuple[float, ...], Neighbours[FloatArray]] = {}
    for first, second in pairs:
        made = Neighbours(
            first=np.array([*first, *rest]) * sensitivity,
            second=np.array([*second, *rest]) * sensitivity,
            index=0,
            adjacency=Adjacency.REPLACE_ONE,
        )
        for each in (made, made.swapped()):
            found.setdefault((*each.first, *each.second), each)
    return tuple(found.values())


def neighbouring_answers(
    dimension: int, *, sensitivity: float = 1.0, movable: int | None = None
) -> st.SearchStrategy[Neighbours[FloatArray]]:
    """Pairs of query answers, (dimension,) each, that differ by at most `sensitivity` per answer.

    `answer_patterns` are a third of them.

    Args:
        dimension: number of answers.
        sensitivity: largest movement of one answer.
        movable: how many answers may move; all if None.
    """
    patterns = answer_patterns(dimension, movable, sensitivity)
    at_most = dimension if movable is None else min(movable, dimension)
    steps = st.sampled_from((-1.0, 1.0, 0.0)) | st.floats(-1.0, 1.0)
    drawn, shifted = min(dimension, DRAWN), min(at_most, DRAWN)
    moves = st.lists(steps, min_size=shifted, max_size=shifted)
    flat = st.just([1.0])
    bases = st.lists(st.floats(-10.0, 10.0), min_size=drawn, max_size=drawn)

    def pair(base: list[float], move: list[float], start: int) -> Neighbours[FloatArray]:
        first = np.resize(base, dimension) * sensitivity
        second = first.copy()
        where = (start + np.arange(at_most)) % dimension
        second[where] += np.resize(move, at_most) * sensitivity
        return Neighbours(first=first, second=second, index=start, adjacency=Adjacency.REPLACE_ONE)

    starts = st.integers(0, dimension - 1)
    # Copies, so that code which changes its input does not change the next example.
    known = st.sampled_from(patterns).map(lambda found: found.mapped(np.copy))
    return st.one_of(known, st.builds(pair, flat, moves, starts), st.builds(pair, bases, moves, starts))
