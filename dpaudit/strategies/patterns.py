"""Pairs of data sets of records or users to try before anything is drawn."""

from __future__ import annotations

from typing import Any

from dpaudit.claim import Adjacency
from dpaudit.strategies.elements import Element, differs, repeated
from dpaudit.strategies.neighbours import Neighbours, both_orders, fresh
from dpaudit.strategies.users import user_pair

RUNS = (1, 2, 3, 127, 255)
"""Sizes of the shared part: one record more has a neighbour, a pair, three at the cap, an int8, a uint8."""
SWITCHES = (4, 5, 9, 10, 19, 20, 29, 30, 49, 50, 99, 100)
"""The same: one record more or less crosses a number at which code likes to do something else."""
TOPS = (127, 255, 32_767, 65_535)
"""Sums that a whole number of a fixed size may just hold."""


def list_patterns(
    one: Element[Any], adjacency: Adjacency, *, min_size: int = 0, max_size: int = 300
) -> tuple[Neighbours[list[Any]], ...]:
    """Return the pairs of lists to try first, the smallest first.

    Each edge of the domain alone, runs of its last edge (the cap) that pass 3, 128 and 256 records, and
    each value outside of the domain alone and beside an edge.

    Args:
        one: the domain of one record. Without edges there are no patterns.
        adjacency: under REPLACE_ONE the record added is exchanged for an edge instead.
        min_size: least length of the shorter list; what is shorter is filled up with the first edge.
        max_size: greatest length of the longer list.

    Returns:
        Pairs of lists, each directly followed by itself in the other order.
    """
    if not one.edges:
        return ()
    low, high = one.edges[0], one.edges[-1]
    replaced = adjacency is Adjacency.REPLACE_ONE
    differing = [(low, edge) for edge in one.edges[0 if adjacency is Adjacency.ADD_REMOVE else 1 : 4]]
    shared: list[tuple[list[Any], Any, Any]] = [([], other, new) for other, new in differing]
    shared += [(repeated(high, n), low, high) for n in RUNS]
    shared += [(repeated(low, 3), high, low)]
    shared += [(repeated(high, n), low, high) for n in SWITCHES]
    shared += [(part, low, 1) for part in _filled(one, max_size)]
    shared += [(rest, low, odd) for odd in one.strange for rest in ([], [low, high])]
    pairs = []
    for part, other, new in shared:
        rest = [*part, *repeated(low, min_size - replaced - len(part))]
        if len(rest) >= max_size or (replaced and not differs(other, new)):
            continue
        pairs.append(
            Neighbours(
                first=fresh([*rest, other] if replaced else rest),
                second=[*rest, new],
                index=len(rest),
                adjacency=adjacency,
                outside=not one.contains(new),
            )
        )
    return both_orders(pairs)


def _filled(one: Element[Any], max_size: int) -> list[list[Any]]:
    """Whole numbers of the domain whose sum is just what a fixed size holds, so that 1 more is too much."""
    high = one.edges[-1]
    whole = isinstance(high, int) and not isinstance(high, bool) and high > 1 and one.contains(1)
    if not whole:
        return []
    parts = [[*repeated(high, top // high), *([top % high] if top % high else [])] for top in TOPS]
    return [part for part in parts if len(part) < max_size and one.contains(part[-1])]


def user_patterns(
    one: Element[Any],
    adjacency: Adjacency,
    *,
    max_records: int = 5,
    max_users: int = 300,
    inside: bool = False,
) -> tuple[Neighbours[list[tuple[int, Any]]], ...]:
    """Return the pairs of user data to try first: a user with one row, with all allowed, with too many.

    Args:
        one: the domain of one record. Without edges there are no patterns.
        adjacency: under REPLACE_ONE the user had one row of the first edge before.
        max_records: greatest number of rows of one user in the domain.
        max_users: greatest number of users of the larger data set.
        inside: leave out the user with too many rows.

    Returns:
        Pairs of lists of (user, record) rows, each directly followed by itself in the other order.
    """
    if not one.edges:
        return ()
    low, high = one.edges[0], one.edges[-1]
    differing = [[high], repeated(high, max_records), *([odd] for odd in one.strange)]
    differing += [] if inside else [repeated(high, max_records + 1), repeated(high, 10 * max_records)]
    crowds: list[list[list[Any]]] = [repeated([high], n) for n in (0, 2, 127) if n < max_users]
    pairs = [
        user_pair(
            one,
            rest,
            new,
            [low] if adjacency is Adjacency.REPLACE_ONE else None,
            at=len(rest),
            turns=False,
            swap=False,
            max_records=max_records,
        )
        for rest in crowds
        for new in differing
    ]
    return both_orders(pairs)
