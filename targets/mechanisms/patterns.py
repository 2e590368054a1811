"""The pairs of answers on which faulty mechanisms are known to break."""

from __future__ import annotations

import itertools

import numpy as np

from dpaudit.check import FloatArray, in_range

Pair = tuple[FloatArray, FloatArray]


def patterns(dimension: int, one_differs: bool = False) -> tuple[Pair, ...]:
    """Neighbouring answers of Ding et al. (2018, arXiv:1805.10277, StatDP), each in both orders.

    Args:
        dimension: number of answers d, at least 1.
        one_differs: whether neighbours differ in one answer only; else each may move by 1.

    Returns:
        Pairs of (d,): all ones against one answer down, and one up; where all may differ also one up
        and the rest down, one down and the rest up, half and half, all up, all down, and (half ones,
        half zeros) against its complement. Of patterns that coincide in low dimension one is kept.
    """
    in_range("dimension", dimension, 1, np.inf)
    half = dimension // 2

    def split(left: float, right: float, first: int) -> FloatArray:
        return np.array([left] * first + [right] * (dimension - first))

    flat = split(1.0, 1.0, 0)
    found = [(flat, split(0.0, 1.0, 1)), (flat, split(2.0, 1.0, 1))]
    if not one_differs:
        found += [(flat, split(2.0, 0.0, 1)), (flat, split(0.0, 2.0, 1)), (flat, split(2.0, 0.0, half))]
        found += [(flat, split(2.0, 2.0, 0)), (flat, split(0.0, 0.0, 0))]
        found.append((split(1.0, 0.0, half), split(0.0, 1.0, half)))
    both = itertools.chain.from_iterable(((a, b), (b, a)) for a, b in found)
    return tuple({(tuple(a), tuple(b)): (a, b) for a, b in both}.values())
