"""The words of the domain grammar: what each stands for, and what its arguments may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hypothesis.strategies import SearchStrategy

from dpaudit.check import in_range
from dpaudit.claim import Adjacency
from dpaudit.errors import UsageError
from dpaudit.strategies import (
    Element,
    Neighbours,
    answer_patterns,
    boolean,
    category,
    integer,
    joint,
    list_patterns,
    neighbouring_answers,
    neighbouring_lists,
    neighbouring_users,
    neighbouring_values,
    real,
    record,
    texts,
    user_patterns,
    value_patterns,
    vector,
)
from dpaudit.strategies.containers import as_array_of, frame_of, table
from dpaudit.strategies.elements import uniform

MOST = 100_000
"""The largest size of anything in a domain; a domain is for drawing, not for filling memory."""
MOST_COLUMNS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a form of the grammar stands for; attributes as for `dpaudit.domains.Domain`."""

    adjacency: Adjacency
    pairs: SearchStrategy[Neighbours[Any]]
    patterns: tuple[Neighbours[Any], ...]
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the caller of `parse` wants of any domain.

    Attributes:
        adjacency: the relation between the data sets; the form's own if None.
        inside: nothing outside of the domain.
    """

    adjacency: Adjacency | None
    inside: bool

    def of(self, one: Element[Any]) -> Element[Any]:
        """Return the element, without what lies outside of it if so wanted."""
        return one.within() if self.inside else one


def whole(name: str, value: object, low: float, high: float = MOST) -> int:
    """Return `value` if it is a whole number in [low, high], else raise `UsageError`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"Expected {name} to be a whole number, found {shown(value)}. Write {name}=5.")
    return int(in_range(name, value, low, high, remedy="Choose a size within."))


def number(name: str, value: object) -> float:
    """Return `value` as a float if it is a number other than NaN, else raise `UsageError`."""
    try:
        found = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        raise UsageError(f"Expected {name} to fit a float, found {shown(value)}... . Use inf.") from None
    if math.isnan(found):
        raise UsageError(f"Expected {name} to be a number, found {shown(value)}. Write {name}=1.5.")
    return found


def part(name: str, value: object) -> Element[Any]:
    """Return `value` if it is an element, else raise `UsageError`."""
    if not isinstance(value, Element):
        raise UsageError(
            f"Expected {name} to be an element, found {shown(value)}. Write {name} as float(0, 10)."
        )
    return value


def shown(value: object) -> str:
    """Return what was found, in words if it is an element."""
    return value.summary if isinstance(value, Element) else repr(value)[:60]


# --- elements: signatures are the grammar ---------------------------------------------------------


def _float(low: object = -math.inf, high: object = math.inf) -> Element[float]:
    least, most = number("low", low), number("high", high)
    in_range("low", least, -math.inf, most, remedy="Write the lower bound first: float(0, 10).")
    if math.isinf(least) and least == most:
        raise UsageError(f"Expected a finite number between low and high, found {least} alone. Widen them.")
    return real(least, most)


def _int(low: object = None, high: object = None) -> Element[int]:
    limit = 2**63
    # float(..., inf) is how an open bound reads elsewhere, so it may be written here too.
    least, most = (
        None if end is None or end in (-math.inf, math.inf) else whole(name, end, -limit, limit - 1)
        for name, end in (("low", low), ("high", high))
    )
    if least is not None and most is not None:
        in_range("low", least, -math.inf, most, remedy="Write the lower bound first: int(0, 5).")
    return integer(least, most)


def _bool() -> Element[bool]:
    return boolean()


def _category(*names: object) -> Element[Any]:
    if not names:
        raise UsageError('Expected category to name its values, found none. Write category("f", "m").')
    for name in names:
        if isinstance(name, Element):
            raise UsageError(
                f'Expected the values of category to be constants, found {shown(name)}. Write category("f").'
            )
    return category(*names)


def _text(max_size: object = None) -> Element[str]:
    return texts(None if max_size is None else whole("max_size", max_size, 0))


def _tuple(*elements: object) -> Element[tuple[Any, ...]]:
    if not elements:
        raise UsageError("Expected tuple to have elements, found none. Write tuple(float(0, 1), int(0, 5)).")
    in_range("the number of elements of tuple", len(elements), 1, MOST_COLUMNS)
    return joint([part("an element of tuple", one) for one in elements])


def _row(element: object, columns: object) -> Element[Any]:
    return vector(part("the element of array", element), whole("columns", columns, 1, MOST_COLUMNS))


ELEMENTS: Mapping[str, Callable[..., Element[Any]]] = {
    "float": _float,
    "int": _int,
    "bool": _bool,
    "category": _category,
    "text": _text,
    "tuple": _tuple,
    "array": _row,
}


# --- data sets -------------------------------------------------------------------------------------


def _sizes(min_size: object, max_size: object) -> dict[str, int]:
    most = whole("max_size", max_size, 1)
    return {"min_size": whole("min_size", min_size, 0, most), "max_size": most}


def _between(wanted: Wanted, sizes: Mapping[str, int]) -> Adjacency:
    """As wanted; else add-remove, or replace-one where every data set has the same size."""
    fixed = sizes["min_size"] == sizes["max_size"]
    if fixed and wanted.adjacency is Adjacency.ADD_REMOVE:
        raise UsageError(
            f"Expected data sets of more than one size to add a record, found min_size={sizes['min_size']} "
            f"and max_size={sizes['max_size']}. Widen the sizes, or use the adjacency replace-one."
        )
    return wanted.adjacency or (Adjacency.REPLACE_ONE if fixed else Adjacency.ADD_REMOVE)


def _rows_of(
    wanted: Wanted,
    one: Element[Any],
    sizes: Mapping[str, int],
    convert: Callable[[list[Any]], Any] | None,
    summary: str,
) -> Built:
    """Data sets of records, of which one differs, in whatever form `convert` gives them."""
    adjacency = _between(wanted, sizes)
    kept = wanted.of(one)
    pairs: SearchStrategy[Neighbours[Any]] = neighbouring_lists(kept, adjacency=adjacency, **sizes)
    patterns: tuple[Neighbours[Any], ...] = list_patterns(kept, adjacency, **sizes)
    if convert is not None:
        pairs = pairs.map(lambda pair: pair.mapped(convert))
        patterns = tuple(pair.mapped(convert) for pair in patterns)
    how = "one more record" if adjacency is Adjacency.ADD_REMOVE else "another value of one record"
    many = f"{sizes['min_size']} to {sizes['max_size']} records"
    also = "" if kept.outside is None else "; values outside of the domain are tried too"
    return Built(
        adjacency=adjacency,
        pairs=pairs,
        patterns=patterns,
        summary=f"{summary} of {many}, each {one.summary}; neighbours have {how}{also}",
    )


def _list(wanted: Wanted, /, element: object, min_size: object = 0, max_size: object = 300) -> Built:
    one = part("the element of list", element)
    return _rows_of(wanted, one, _sizes(min_size, max_size), None, "lists")


def _array(
    wanted: Wanted, /, element: object, columns: object = None, min_size: object = 0, max_size: object = 300
) -> Built:
    one = part("the element of array", element)
    if columns is not None:
        one = uniform(one, whole("columns", columns, 1, MOST_COLUMNS))
    return _rows_of(wanted, one, _sizes(min_size, max_size), as_array_of(one), "arrays")


def _fields(form: str, fields: Mapping[str, object]) -> dict[str, Element[Any]]:
    if not fields:
        raise UsageError(f"Expected {form} to have fields, found none. Write {form}(age=int(0, 120)).")
    in_range(f"the number of fields of {form}", len(fields), 1, MOST_COLUMNS)
    return {name: part(name, one) for name, one in fields.items()}


def _records(wanted: Wanted, /, *, min_size: object = 0, max_size: object = 300, **fields: object) -> Built:
    kept = _fields("records", fields)
    return _rows_of(wanted, record(kept), _sizes(min_size, max_size), None, "lists of dicts")


def _columns(wanted: Wanted, /, *, min_size: object = 0, max_size: object = 300, **fields: object) -> Built:
    kept = _fields("columns", fields)
    return _rows_of(wanted, record(kept), _sizes(min_size, max_size), table(kept), "dicts of arrays")


def _frame(wanted: Wanted, /, *, min_size: object = 0, max_size: object = 300, **fields: object) -> Built:
    kept = _fields("frame", fields)
    return _rows_of(wanted, record(kept), _sizes(min_size, max_size), frame_of(kept), "pandas DataFrames")


def _users(wanted: Wanted, /, element: object, max_records: object = 5, max_users: object = 300) -> Built:
    adjacency = wanted.adjacency or Adjacency.ADD_REMOVE
    one = wanted.of(part("the element of users", element))
    sizes = {
        "max_records": whole("max_records", max_records, 1, 10_000),
        "max_users": whole("max_users", max_users, 1),
    }
    how = "one more user" if adjacency is Adjacency.ADD_REMOVE else "other rows for one user"
    also = "" if wanted.inside else "; users with more records are tried too"
    return Built(
        adjacency=adjacency,
        pairs=neighbouring_users(one, adjacency=adjacency, inside=wanted.inside, **sizes),
        patterns=user_patterns(one, adjacency, inside=wanted.inside, **sizes),
        summary=f"lists of (user, record) rows of up to {max_users} users with 1 to {max_records} records "
        f"each, a record being {one.summary}; neighbours have {how}{also}",
    )


def _value(wanted: Wanted, /, element: object, step: object = None) -> Built:
    stated = part("the element of value", element)
    one = wanted.of(stated)
    if step is None:
        if wanted.adjacency is Adjacency.ADD_REMOVE:
            raise UsageError(
                "Expected adjacency replace-one for value(...), found add-remove. "
                "One value is replaced, never removed: leave the adjacency out."
            )
        how, apart = "any other value", None
    else:
        apart = number("step", step)
        in_range("step", apart, 0.0, math.inf, open_low=True, open_high=True, remedy="Write step=1.")
        if one.dtype not in ("float64", "int64") or not isinstance(one.edges[0], int | float):
            raise UsageError(f"Expected step with a float or an int, found {stated.summary}. Leave step out.")
        if one.dtype == "int64":
            apart = whole("step", step, 1)
        how = f"a value at most {apart:g} away"
    return Built(
        adjacency=wanted.adjacency or Adjacency.REPLACE_ONE,
        pairs=neighbouring_values(one, step=apart),
        patterns=value_patterns(one, step=apart),
        summary=f"{stated.summary}; its neighbour is {how}",
    )


def _answers(
    wanted: Wanted, /, dimension: object, sensitivity: object = 1.0, movable: object = None
) -> Built:
    size = whole("dimension", dimension, 1, 10_000)
    most = size if movable is None else whole("movable", movable, 1, size)
    unit = number("sensitivity", sensitivity)
    in_range("sensitivity", unit, 0.0, 1e300, open_low=True)
    adjacency = wanted.adjacency or Adjacency.REPLACE_ONE
    drawn = neighbouring_answers(size, sensitivity=unit, movable=most)
    return Built(
        adjacency=adjacency,
        pairs=drawn.map(lambda pair: replace(pair, adjacency=adjacency)),
        patterns=tuple(replace(pair, adjacency=adjacency) for pair in answer_patterns(size, most, unit)),
        summary=f"{size} query answers; in neighbours {most} may move by up to {unit:g} each",
    )


CONTAINERS: Mapping[str, Callable[..., Built]] = {
    "list": _list,
    "array": _array,
    "records": _records,
    "columns": _columns,
    "frame": _frame,
    "users": _users,
    "value": _value,
    "answers": _answers,
}
