"""Neighbouring lists, arrays and tables of records."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st
from numpy.typing import DTypeLike, NDArray

from dpaudit.check import in_range
from dpaudit.claim import Adjacency
from dpaudit.errors import UsageError
from dpaudit.strategies.elements import Element, as_array, as_rows, element, record, repeated, uniform
from dpaudit.strategies.neighbours import Neighbours, fresh
from dpaudit.strategies.numbers import numbers

S = TypeVar("S")

REPEATS = (2, 3, 12, 25, 127, 255)
"""Lengths of runs of one value; one record more overflows int8 or uint8, as a count or a sum of tens."""


def neighbouring_lists(
    elements: st.SearchStrategy[S] | Element[S],
    *,
    adjacency: Adjacency = Adjacency.ADD_REMOVE,
    min_size: int = 0,
    max_size: int = 300,
) -> st.SearchStrategy[Neighbours[list[S]]]:
    """Pairs of lists that differ in one record, with long runs of one value among them.

    Args:
        elements: strategy for one record; or an Element, whose outside values are then drawn mostly for
            the record that differs, and are flagged.
        adjacency: ADD_REMOVE: the longer list has one record more, at any position.
            REPLACE_ONE: equal lengths, one record exchanged; for another one, if the domain has two.
        min_size: least length of the shorter list; 0 includes the empty data set.
        max_size: greatest length of the longer list; under REPLACE_ONE it may be `min_size`.
    """
    alone = adjacency is Adjacency.REPLACE_ONE
    in_range("max_size", max_size, max(min_size, 1) if alone else min_size + 1, math.inf)
    one = element(elements)
    shared = _records(one, max(min_size - 1, 0) if alone else min_size, max_size - 1)

    def pair(rest: list[S], from_end: int, new: S, other: S, swap: bool) -> Neighbours[list[S]]:
        index = len(rest) - from_end % (len(rest) + 1)
        longer = [*rest[:index], new, *rest[index:]]
        other = one.another(new, other)
        made = Neighbours(
            first=fresh([*rest[:index], other, *rest[index:]] if alone else rest),
            second=longer,
            index=index,
            adjacency=adjacency,
            outside=not all(map(one.contains, [*longer, other] if alone else longer)),
        )
        return made.swapped() if swap else made

    return st.builds(pair, shared, st.integers(0, 1000), one.every, one.every, st.booleans())


def neighbouring_arrays(
    elements: st.SearchStrategy[Any] | Element[Any] | None = None,
    *,
    columns: int | None = None,
    adjacency: Adjacency = Adjacency.ADD_REMOVE,
    dtype: DTypeLike | None = None,
    min_size: int = 0,
    max_size: int = 300,
) -> st.SearchStrategy[Neighbours[NDArray[Any]]]:
    """Pairs of arrays that differ in one row: (n,), or (n, columns) where `columns` is given.

    Args:
        elements: strategy or Element for one number, or for a tuple of `columns` values;
            `numbers(0, 1)` with all special floats if None.
        columns: length of a row.
        adjacency: as for `neighbouring_lists`.
        dtype: of the arrays; numbers that it cannot hold overflow to infinity. That of the Element,
            float64 for a strategy, if None.
        min_size: least number of rows of the smaller array.
        max_size: greatest number of rows of the larger array.
    """
    number = element(numbers(0.0, 1.0) if elements is None else elements)
    row = number if columns is None else uniform(number, columns)

    convert = as_array_of(row, dtype)
    pairs = neighbouring_lists(row, adjacency=adjacency, min_size=min_size, max_size=max_size)
    return pairs.map(lambda pair: pair.mapped(convert))


def neighbouring_records(
    fields: Mapping[str, st.SearchStrategy[Any] | Element[Any]],
    *,
    adjacency: Adjacency = Adjacency.ADD_REMOVE,
    min_size: int = 0,
    max_size: int = 300,
) -> st.SearchStrategy[Neighbours[list[dict[str, Any]]]]:
    """Pairs of lists of dicts that differ in one dict; arguments as for `neighbouring_lists`.

    Args:
        fields: name of each field, and the strategy or Element for its values.
        adjacency: as for `neighbouring_lists`.
        min_size: least number of records of the smaller list.
        max_size: greatest number of records of the larger list.
    """
    return neighbouring_lists(record(fields), adjacency=adjacency, min_size=min_size, max_size=max_size)


def neighbouring_columns(
    fields: Mapping[str, st.SearchStrategy[Any] | Element[Any]],
    *,
    adjacency: Adjacency = Adjacency.ADD_REMOVE,
    min_size: int = 0,
    max_size: int = 300,
) -> st.SearchStrategy[Neighbours[dict[str, NDArray[Any]]]]:
    """Pairs of tables, each a dict of arrays (n,), that differ in one row.

    Args:
        fields: name of each column, and the strategy or Element for its values. The dtype of a column is
            that of its Element; float64 for a strategy.
        adjacency: as for `neighbouring_lists`.
        min_size: least number of rows of the smaller table.
        max_size: greatest number of rows of the larger table.
    """
    pairs = neighbouring_records(fields, adjacency=adjacency, min_size=min_size, max_size=max_size)
    return pairs.map(lambda pair: pair.mapped(table(fields)))


def as_array_of(row: Element[Any], dtype: DTypeLike | None = None) -> Callable[[list[Any]], NDArray[Any]]:
    """Return the function that turns a list of records into an array (n,) or (n, width of the record)."""

    def array(records: list[Any]) -> NDArray[Any]:
        made = as_rows(records, row.dtype, row.width)
        with np.errstate(over="ignore"):
            return made if dtype is None else made.astype(dtype)

    return array


def frame_of(
    fields: Mapping[str, st.SearchStrategy[Any] | Element[Any]],
) -> Callable[[list[dict[str, Any]]], Any]:
    """Return the function that turns a list of dicts into a pandas DataFrame.

    Raises:
        UsageError: pandas is not installed.
    """
    try:
        import pandas
    except ModuleNotFoundError:
        raise UsageError(
            "Expected pandas for frame(...), found none. Run `pip install pandas`, or write columns(...)."
        ) from None
    columns = table(fields)
    return lambda records: pandas.DataFrame(columns(records))


def table(
    fields: Mapping[str, st.SearchStrategy[Any] | Element[Any]],
) -> Callable[[list[dict[str, Any]]], dict[str, NDArray[Any]]]:
    """Return the function that turns a list of dicts into a dict of arrays (n,)."""
    dtypes = {name: element(part).array_dtype for name, part in fields.items()}
    return lambda records: {name: as_array([row[name] for row in records], dtypes[name]) for name in dtypes}


def _records(one: Element[S], least: int, most: int) -> st.SearchStrategy[list[S]]:
    """Lists of records, some of them with a run of one value; few with values outside of the domain."""
    plain = st.lists(one.inside, min_size=least, max_size=most)
    wide = [] if one.outside is None else [st.lists(one.every, min_size=least, max_size=most)]
    runs = [n for n in REPEATS if least <= n <= most]
    if not runs:
        return st.one_of(plain, *wide)
    values = [one.inside, *([st.sampled_from(one.edges)] if one.edges else [])]
    mixed = [
        st.builds(
            lambda value, n, rest: [*repeated(value, n), *rest][:most],
            value,
            st.sampled_from(runs),
            st.just([]) | st.lists(one.inside, max_size=3),
        )
        for value in values
    ]
    return st.one_of(plain, *mixed, *wide)
