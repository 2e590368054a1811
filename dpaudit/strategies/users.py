"""Neighbouring data sets in which one whole user differs: user-level privacy."""

from __future__ import annotations

import math
from typing import TypeVar

from hypothesis import strategies as st

from dpaudit.check import in_range
from dpaudit.claim import Adjacency
from dpaudit.strategies.elements import Element, element, repeated
from dpaudit.strategies.neighbours import Neighbours

S = TypeVar("S")
Rows = list[tuple[int, S]]

CROWDS = (2, 3, 127, 255)
"""Numbers of users with the same single record."""


def neighbouring_users(
    elements: st.SearchStrategy[S] | Element[S],
    *,
    adjacency: Adjacency = Adjacency.ADD_REMOVE,
    max_records: int = 5,
    max_users: int = 300,
    inside: bool = False,
) -> st.SearchStrategy[Neighbours[list[tuple[int, S]]]]:
    """Pairs of lists of (user, record) rows that differ in all rows of one user.

    Users are numbered from 0; rows come user by user, or in turns. One user may have more rows than
    `max_records`, which is flagged as outside: code that bounds contributions must cut them.

    Args:
        elements: strategy or Element for one record.
        adjacency: ADD_REMOVE: the larger data set has one user more. REPLACE_ONE: one user's rows are
            exchanged for others, perhaps of another number.
        max_records: greatest number of rows of one user in the stated domain.
        max_users: greatest number of users of the larger data set.
        inside: leave out what is outside of the domain.
    """
    in_range("max_records", max_records, 1, math.inf)
    in_range("max_users", max_users, 1, math.inf)
    one = element(elements).within() if inside else element(elements)
    each = st.lists(one.inside, min_size=1, max_size=max_records)
    crowds = [n for n in CROWDS if n < max_users]
    others: st.SearchStrategy[list[list[S]]] = st.lists(each, max_size=max_users - 1)
    if crowds:
        others |= st.builds(lambda value, n: repeated([value], n), one.inside, st.sampled_from(crowds))
    counts = (1, max_records, *(() if inside else (max_records + 1, 10 * max_records, max_records + 128)))
    values = st.one_of(one.inside, *([st.sampled_from(one.edges)] if one.edges else []))
    full = st.builds(repeated, values, st.sampled_from(counts))
    differing = st.one_of(full, st.lists(one.every, min_size=1, max_size=max_records))

    def pair(
        rest: list[list[S]], from_end: int, new: list[S], other: list[S], turns: bool, swap: bool
    ) -> Neighbours[Rows[S]]:
        return user_pair(
            one, rest, new, other if adjacency is Adjacency.REPLACE_ONE else None,
            at=len(rest) - from_end % (len(rest) + 1), turns=turns, swap=swap, max_records=max_records,
        )  # fmt: skip

    return st.builds(pair, others, st.integers(0, 1000), differing, differing, st.booleans(), st.booleans())


def user_pair(
    one: Element[S],
    rest: list[list[S]],
    new: list[S],
    other: list[S] | None,
    *,
    at: int,
    turns: bool,
    swap: bool,
    max_records: int,
) -> Neighbours[Rows[S]]:
    """Return two data sets of which the second has the records `new` of a further user.

    Args:
        one: the domain of one record.
        rest: the records of each of the other users.
        new: the records of the user who differs.
        other: what this user has in the first data set; None: the user is not in it.
        at: where this user's rows come among those of the others.
        turns: rows come in turns rather than user by user.
        swap: exchange the two data sets.
        max_records: rows of one user that lie in the domain.
    """
    first = ordered(rest, other, at, turns)
    second = ordered(rest, new, at, turns)
    larger = first if len(first) > len(second) else second
    drawn = [*rest, new, *([] if other is None else [other])]
    made = Neighbours(
        first=first,
        second=second,
        index=next(i for i, (user, _) in enumerate(larger) if user == len(rest)),
        adjacency=Adjacency.ADD_REMOVE if other is None else Adjacency.REPLACE_ONE,
        outside=any(len(each) > max_records or not all(map(one.contains, each)) for each in drawn),
    )
    return made.swapped() if swap else made


def ordered(rest: list[list[S]], new: list[S] | None, at: int, turns: bool) -> Rows[S]:
    """Rows of the users 0, 1, ... and of one more, who comes after `at` of them."""
    users = list(enumerate(rest))
    if new is not None:
        users.insert(at, (len(rest), new))
    rows = [(turn, user, value) for user, records in users for turn, value in enumerate(records)]
    if turns:
        rows.sort(key=lambda row: row[0])
    return [(user, value) for _, user, value in rows]
