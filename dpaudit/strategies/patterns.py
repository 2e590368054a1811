"""Pairs of lists of records to try before anything is drawn."""

from __future__ import annotations

from typing import Any

from dpaudit.claim import Adjacency
from dpaudit.strategies.elements import Element
from dpaudit.strategies.neighbours import Neighbours

RUNS = (1, 2, 3, 127, 255)
"""Sizes of the shared part: one record more has a neighbour, a pair, three at the cap, an int8, a uint8."""


def list_patterns(
    one: Element[Any], adjacency: Adjacency, *, min_size: int = 0, max_size: int = 300
) -> tuple[Neighbours[list[Any]], ...]:
    """Return the pairs of lists to try first, the smallest first.

    Each edge of the domain alone, runs of its last edge (the cap) that pass 3, 128 and 256 records, and
    each value outside of the domain alone and beside an edge.

    Args:
        one: the domain of one record. Without edges there are no patterns.
        adjacency: under REPLACE_ONE the record added is exchanged for an edge instead.
        min_size: least length of the shorter list.
        max_size: greatest length of the longer list.

    Returns:
        Pairs of lists, each directly followed by itself in the other order.
    """
    if not one.edges:
        return ()
    low, high = one.edges[0], one.edges[-1]
    replaced = adjacency is Adjacency.REPLACE_ONE
    differing = [(low, high)] if replaced and len(one.edges) > 1 else [(None, edge) for edge in one.edges[:4]]
    differing = [(low, edge) for edge in one.edges[1:4]] if replaced else differing
    shared: list[tuple[list[Any], Any, Any]] = [([], other, new) for other, new in differing]
    shared += [([high] * n, low, high) for n in RUNS]
    shared += [([low] * 3, high, low)]
    shared += [(rest, low, odd) for odd in one.strange for rest in ([], [low, high])]
    pairs = []
    for rest, other, new in shared:
        if len(rest) < min_size or len(rest) >= max_size:
            continue
        pairs.append(
            Neighbours(
                first=[*rest, other] if replaced else list(rest),
                second=[*rest, new],
                index=len(rest),
                adjacency=adjacency,
                outside=not one.contains(new),
            )
        )
    return tuple(each for pair in pairs for each in (pair, pair.swapped()))
