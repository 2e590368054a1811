"""A pair of neighbouring data sets, and pairs of a user's own kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from hypothesis import strategies as st

from dpaudit.claim import Adjacency

T = TypeVar("T")
S = TypeVar("S")

_CONSTANT = (int, float, str, bool, type(None))
UNKNOWN = -1
"""The index of a pair in which no single position differs, or none is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours(Generic[T]):
    """Two data sets that differ in one record, or in what else the privacy unit is.

    Attributes:
        first: one data set.
        second: the other; which of the two is larger under add/remove is drawn too.
        index: position of the record that differs, in the larger data set; the user's first row where a
            whole user differs; -1 where there is no such position.
        adjacency: the relation between them.
        outside: whether a record lies outside of the stated domain, such as NaN or 11 in [0, 10].
            Mostly it is the one that differs. What fails on such pairs only is a lack of checks, which
            the claim may not cover.
    """

    first: T
    second: T
    index: int
    adjacency: Adjacency
    outside: bool = False

    def swapped(self) -> Neighbours[T]:
        """Return the same pair in the other order."""
        return Neighbours(
            first=self.second,
            second=self.first,
            index=self.index,
            adjacency=self.adjacency,
            outside=self.outside,
        )

    def mapped(self, convert: Callable[[T], S]) -> Neighbours[S]:
        """Return the pair with both data sets converted, such as from lists to arrays."""
        return Neighbours(
            first=convert(self.first),
            second=convert(self.second),
            index=self.index,
            adjacency=self.adjacency,
            outside=self.outside,
        )


def neighbouring(
    data: st.SearchStrategy[T],
    edit: Callable[[T], st.SearchStrategy[T]],
    *,
    adjacency: Adjacency = Adjacency.ADD_REMOVE,
    contains: Callable[[T], bool] | None = None,
) -> st.SearchStrategy[Neighbours[T]]:
    """Pairs of a type of one's own, such as graphs: a data set, and one that `edit` makes of it.

    Args:
        data: strategy for one data set.
        edit: given a data set, the strategy for its neighbours. It must not change its argument.
        adjacency: what an edit is.
        contains: whether a data set lies in the stated domain; all do if None.
    """

    def pair(first: T, second: T, swap: bool) -> Neighbours[T]:
        outside = contains is not None and not (contains(first) and contains(second))
        made = Neighbours(first=first, second=second, index=UNKNOWN, adjacency=adjacency, outside=outside)
        return made.swapped() if swap else made

    return data.flatmap(lambda first: st.builds(pair, st.just(first), edit(first), st.booleans()))


def fresh(value: T) -> T:
    """Return a deep copy; much faster than `deepcopy` on lists and dicts of numbers and strings."""
    made: Any = value
    if type(made) is list:
        made = [each if isinstance(each, _CONSTANT) else fresh(each) for each in made]
    elif type(made) is dict:
        made = {name: each if isinstance(each, _CONSTANT) else fresh(each) for name, each in made.items()}
    elif not isinstance(made, _CONSTANT):
        made = deepcopy(made)
    copied: T = made
    return copied


def both_orders(pairs: Iterable[Neighbours[T]]) -> tuple[Neighbours[T], ...]:
    """Return each pair followed by itself in the other order, sharing no data with it."""
    return tuple(each for pair in pairs for each in (pair, pair.swapped().mapped(fresh)))


def wrapped(drawn: Any, adjacency: Adjacency) -> Neighbours[Any] | None:
    """Return what a user's strategy drew as Neighbours; None if it is neither that nor a 2-tuple."""
    if isinstance(drawn, Neighbours):
        return drawn
    if isinstance(drawn, tuple) and len(drawn) == 2:
        return Neighbours(first=drawn[0], second=drawn[1], index=UNKNOWN, adjacency=adjacency)
    return None
