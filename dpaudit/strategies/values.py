"""Neighbouring single values, as in the local model: any two, or two that are near each other."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations
from typing import Any, TypeVar

from hypothesis import strategies as st

from dpaudit.check import in_range
from dpaudit.claim import Adjacency
from dpaudit.strategies.elements import Element, element
from dpaudit.strategies.neighbours import Neighbours, both_orders

S = TypeVar("S")

MOST_EDGES = 4


def neighbouring_values(
    elements: st.SearchStrategy[S] | Element[S], *, step: float | None = None
) -> st.SearchStrategy[Neighbours[S]]:
    """Pairs of any two values; two numbers at most `step` apart if that is given.

    Args:
        elements: strategy or Element for one value.
        step: largest distance, exactly: not even rounding passes it. A whole number if the values are.
    """
    one = element(elements)
    if step is None:
        others = st.one_of(one.every, *([st.sampled_from(one.edges)] if one.edges else []))
        return st.builds(
            lambda first, second: value_pair(one, first, one.another(first, second)), others, others
        )
    in_range("step", step, 0.0, math.inf, open_low=True, open_high=True)

    def near(first: Any, move: float, swap: bool) -> Neighbours[S]:
        ways = [moved(first, move, step), moved(first, -move, step), *_edges_near(one, first, step)]
        beyond = one.outside is not None
        kept = [each for each in ways if one.contains(each) or (beyond and math.isfinite(each))]
        made = value_pair(one, first, kept[0] if kept else first)
        return made.swapped() if swap else made

    starts = st.one_of(one.inside, *([st.sampled_from(one.edges)] if one.edges else []))
    moves = st.sampled_from((1.0, -1.0)) | st.floats(-1.0, 1.0)
    return st.builds(near, starts, moves, st.booleans())


def moved(value: Any, move: float, step: float) -> Any:
    """Return `value` + `move` * `step`, rounded so that it is at most `step` away; `move` is in [-1, 1]."""
    if isinstance(value, int):
        return value + max(-int(step), min(int(step), round(move * step)))
    second = value + move * step
    while math.isfinite(second) and abs(Fraction(second) - Fraction(value)) > Fraction(step):
        second = math.nextafter(second, value)
    return second


def _edges_near(one: Element[Any], value: Any, step: float) -> list[Any]:
    return [edge for edge in one.edges if 0 < abs(Fraction(edge) - Fraction(value)) <= Fraction(step)]


def value_pair(one: Element[S], first: S, second: S) -> Neighbours[S]:
    """Return two values as neighbours, flagged if either lies outside of the domain."""
    outside = not (one.contains(first) and one.contains(second))
    return Neighbours(first=first, second=second, index=0, adjacency=Adjacency.REPLACE_ONE, outside=outside)


def value_patterns(one: Element[Any], step: float | None = None) -> tuple[Neighbours[Any], ...]:
    """Return the pairs of values to try first, each followed by itself in the other order.

    Without a step: the edges of the domain against each other, then what lies outside against an edge.
    With one: a step in from each edge, and a step out.
    """
    if not one.edges:
        return ()
    edges = one.edges if len(one.edges) <= MOST_EDGES else (*one.edges[: MOST_EDGES - 1], one.edges[-1])
    if step is None:
        pairs = [*combinations(edges, 2), *((edges[0], odd) for odd in one.strange)]
    else:
        pairs = [(edge, near) for edge in edges for near in _edges_near(one, edge, step)][:1]
        pairs += [(edge, moved(edge, move, step)) for edge in edges for move in (1.0, -1.0)]
    made = [value_pair(one, *pair) for pair in pairs]
    kept = sorted((p for p in made if one.outside is not None or not p.outside), key=lambda p: p.outside)
    return both_orders(kept)
