"""Records of a stated domain: what lies inside, what lies outside of it, and what to try first.

A strategy alone cannot say whether a value that it drew belongs to the domain. An `Element` can, so a
pair says of itself whether the claim covers it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any, Generic, TypeVar

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from dpaudit.check import in_range
from dpaudit.strategies.neighbours import fresh
from dpaudit.strategies.numbers import INT64, finite_floats, special_floats, special_integers
from dpaudit.strategies.texts import special_texts

S = TypeVar("S")

SHORT = 16
"""Values of the longest row that is drawn value by value; Hypothesis gives up on thousands of choices."""


def repeated(value: S, count: int) -> list[S]:
    """Return a list of copies, so that code which changes one record does not change the others."""
    return [fresh(value) for _ in range(count)]


def differs(one: object, other: object) -> bool:
    """Whether two records differ; NaN does not differ from itself, and 0.0 does from -0.0."""
    return repr(one) != repr(other)


def _always(value: object) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Element(Generic[S]):
    """The domain of one record, or of one field of a record.

    Attributes:
        inside: strategy for values of the domain.
        outside: strategy for values that are not of the domain; None if there are none, or none are
            wanted.
        contains: whether a value is of the domain.
        edges: values of the domain to try first, the least one first and the greatest one last.
        strange: values outside of it to try first.
        dtype: of an array of such values.
        width: number of values in a row of such an array; None if it has one.
        summary: the domain in words, such as "a number in [0, 10]".
    """

    inside: st.SearchStrategy[S]
    outside: st.SearchStrategy[S] | None = None
    contains: Callable[[S], bool] = _always
    edges: tuple[S, ...] = ()
    strange: tuple[S, ...] = ()
    dtype: str = "float64"
    width: int | None = None
    summary: str = "a record"

    @property
    def every(self) -> st.SearchStrategy[S]:
        """Values inside and, where there are any, outside of the domain."""
        return self.inside if self.outside is None else st.one_of(self.inside, self.outside)

    @property
    def array_dtype(self) -> str:
        """Dtype of an array in which each value is one entry; a tuple is an object."""
        return self.dtype if self.width is None else "object"

    def another(self, than: S, drawn: S) -> S:
        """Return `drawn`, or the first edge that differs from `than` where `drawn` does not."""
        if differs(than, drawn):
            return drawn
        return next((edge for edge in self.edges if differs(than, edge)), drawn)

    def within(self) -> Element[S]:
        """Return the same domain without what lies outside of it."""
        return replace(self, outside=None, strange=())


def element(drawn: st.SearchStrategy[S] | Element[S]) -> Element[S]:
    """Return `drawn` if it is an Element; a strategy becomes one in which everything lies inside."""
    return drawn if isinstance(drawn, Element) else Element(inside=drawn)


def real(low: float = -math.inf, high: float = math.inf) -> Element[float]:
    """Finite numbers in [low, high]; outside: NaN, infinities, and `special_floats` beyond the bounds."""
    in_range("low", low, -math.inf, high)

    def contains(value: float) -> bool:
        return math.isfinite(value) and low <= value <= high

    others = [value for value in special_floats(low, high) if not contains(value)]
    beyond = [v for bound, v in ((low, low - 1.0), (high, high + 1.0)) if math.isfinite(bound)]
    strange = (math.nan, math.inf, -math.inf, *(v for v in beyond if not contains(v)))
    return Element(
        inside=finite_floats(low, high),
        # Two branches make NaN likely. Neither is a constant, which would shrink better than 0.0 does.
        outside=st.one_of(st.sampled_from(strange[:3]), st.sampled_from([*strange[3:], *others])),
        contains=contains,
        edges=tuple(map(float, _ends(low, high))),
        strange=strange,
        summary=f"a number in [{_shortest(low)}, {_shortest(high)}]",
    )


def integer(low: int | None = None, high: int | None = None) -> Element[int]:
    """Integers in [low, high]; outside: `special_integers` beyond the bounds, such as 128 or -1."""
    if low is not None and high is not None:
        in_range("low", low, -math.inf, high)

    def contains(value: int) -> bool:
        return (low is None or low <= value) and (high is None or value <= high)

    special = special_integers(low, high)
    others = [value for value in special if not contains(value)]
    # What int64 cannot hold would not fit an array of them.
    ordinary = st.integers(INT64[0] if low is None else low, INT64[1] if high is None else high)
    within = [value for value in special if contains(value)]
    bounds = tuple(
        v
        for v in map(int, _ends(-math.inf if low is None else low, math.inf if high is None else high))
        if contains(v)
    )
    return Element(
        inside=st.one_of(ordinary, st.sampled_from(within)) if within else ordinary,
        outside=st.sampled_from(others) if others else None,
        contains=contains,
        edges=bounds,
        strange=tuple(b + d for b in bounds for d in (-1, 1) if b + d in others),
        dtype="int64",
        summary=f"an integer in [{'-inf' if low is None else low}, {'inf' if high is None else high}]",
    )


def boolean() -> Element[bool]:
    """True and False."""
    return Element(inside=st.booleans(), edges=(False, True), dtype="bool", summary="True or False")


def category(*names: Any) -> Element[Any]:
    """One of a few values; outside: values that are not among them."""
    numeric = all(type(name) is int and INT64[0] < name < INT64[1] for name in names)
    unseen: tuple[Any, ...] = (max(names) + 1, min(names) - 1) if numeric else ("unseen", "", "other")
    # Without the type, True would count as the category 1.
    known = {(type(name), name) for name in names}
    outside = tuple(value for value in unseen if (type(value), value) not in known)
    return Element(
        inside=st.sampled_from(names),
        outside=st.sampled_from(outside) if outside else None,
        contains=lambda value: (type(value), value) in known,
        edges=tuple({(type(name), name): name for name in names}.values()),
        strange=outside[:1],
        dtype="int64" if numeric else "object",
        summary=f"one of {', '.join(map(repr, names))}",
    )


def texts(max_size: int | None = None) -> Element[str]:
    """Strings, with `special_texts` among them; outside: longer ones than `max_size`."""
    special = [v for v in special_texts() if max_size is None or len(v) <= max_size]
    longer = [] if max_size is None else [v for v in special_texts(max_size) if len(v) > max_size]
    return Element(
        inside=st.one_of(st.text(max_size=max_size), st.sampled_from(special)),
        outside=st.sampled_from(longer) if longer else None,
        contains=lambda value: max_size is None or len(value) <= max_size,
        edges=("",) if max_size == 0 else ("", "a"),
        strange=tuple(longer[:1]),
        dtype="object",
        summary="a text" if max_size is None else f"a text of at most {max_size} characters",
    )


def joint(parts: Sequence[Element[Any]]) -> Element[tuple[Any, ...]]:
    """Tuples of one value of each part; outside: one of the values is."""
    odd = [st.tuples(st.just(i), part.outside) for i, part in enumerate(parts) if part.outside is not None]
    inside = st.tuples(*(part.inside for part in parts))
    edges: tuple[tuple[Any, ...], ...] = ()
    if all(part.edges for part in parts):
        edges = (tuple(part.edges[0] for part in parts), tuple(part.edges[-1] for part in parts))
    dtypes = {part.array_dtype for part in parts}
    return Element(
        inside=inside,
        outside=st.builds(_put, inside, st.one_of(odd)) if odd else None,
        contains=lambda value: all(part.contains(v) for part, v in zip(parts, value, strict=True)),
        edges=edges,
        strange=tuple(
            _put(edges[0], (i, part.strange[0])) for i, part in enumerate(parts) if part.strange and edges
        )[:3],
        dtype="object" if "object" in dtypes else str(np.result_type(*dtypes)),
        width=len(parts),
        summary=f"({', '.join(_shared(parts))})",
    )


def uniform(part: Element[Any], length: int) -> Element[tuple[Any, ...]]:
    """Tuples of `length` values of one part; long ones repeat a few values, save one of them."""
    if length <= SHORT:
        return joint([part] * length)
    few = st.lists(part.inside, min_size=1, max_size=SHORT // 2)
    inside = few.map(lambda values: tuple(islice(cycle(values), length)))
    at = st.integers(0, length - 1)
    outside = None if part.outside is None else st.builds(_put, inside, st.tuples(at, part.outside))
    ends = part.edges if len(part.edges) < 2 else (part.edges[0], part.edges[-1])
    edges = tuple((edge,) * length for edge in ends)
    return Element(
        inside=st.one_of(inside, st.builds(_put, inside, st.tuples(at, part.inside))),
        outside=outside,
        contains=lambda value: all(map(part.contains, value)),
        edges=edges,
        strange=tuple(_put(edges[0], (0, odd)) for odd in part.strange[:3]) if edges else (),
        dtype=part.array_dtype,
        width=length,
        summary=f"({length} times {part.summary})",
    )


def converted(base: Element[Any], convert: Callable[[Any], S], back: Callable[[S], Any]) -> Element[S]:
    """The same domain in another form, such as dicts in place of tuples.

    Args:
        base: the domain.
        convert: from a value of `base` to the new form.
        back: from the new form to a value of `base`.
    """
    return Element(
        inside=base.inside.map(convert),
        outside=None if base.outside is None else base.outside.map(convert),
        contains=lambda value: base.contains(back(value)),
        edges=tuple(map(convert, base.edges)),
        strange=tuple(map(convert, base.strange)),
        dtype=base.dtype,
        summary=base.summary,
    )


def record(fields: Mapping[str, st.SearchStrategy[Any] | Element[Any]]) -> Element[dict[str, Any]]:
    """Dicts with one value of each field; outside: one of the values is."""
    parts = [element(part) for part in fields.values()]
    made = converted(
        joint(parts),
        lambda values: dict(zip(fields, values, strict=True)),
        lambda row: tuple(row[name] for name in fields),
    )
    named = [f"{name} {part.summary}" for name, part in zip(fields, parts, strict=True)]
    return replace(made, dtype="object", summary=f"a record of {', '.join(named)}")


def vector(part: Element[Any], length: int) -> Element[NDArray[Any]]:
    """Arrays (length,) of values of one part; outside: one of the values is."""
    made = converted(
        uniform(part, length), lambda row: as_array(row, part.dtype), lambda row: tuple(row.tolist())
    )
    return replace(made, dtype="object", summary=f"an array ({length},) of {part.summary}")


def as_array(values: Sequence[Any], dtype: str) -> NDArray[Any]:
    """Return values as an array (n,): of dtype object, each stays the object that it is."""
    if dtype != "object":
        with np.errstate(over="ignore"):
            return np.array(values, dtype=dtype)
    held = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        held[i] = value
    return held


def as_rows(records: Sequence[Any], dtype: str, width: int | None) -> NDArray[Any]:
    """Return records as an array (n, width); (n,) if `width` is None."""
    if width is None:
        return as_array(records, dtype)
    return as_array([value for row in records for value in row], dtype).reshape(-1, width)


def _put(base: tuple[Any, ...], at: tuple[int, Any]) -> tuple[Any, ...]:
    return (*base[: at[0]], at[1], *base[at[0] + 1 :])


def _ends(low: float, high: float) -> tuple[float, ...]:
    """The bounds, each once; where one is infinite, a number at distance 1 from the other instead."""
    if math.isinf(low) and math.isinf(high):
        return (0, 1)
    ends = (high - 1 if math.isinf(low) else low), (low + 1 if math.isinf(high) else high)
    return tuple(dict.fromkeys(ends))


def _shortest(bound: float) -> str:
    short = f"{bound:g}"
    return short if float(short) == bound else repr(float(bound)).removesuffix(".0")


def _shared(parts: Sequence[Element[Any]]) -> list[str]:
    summaries = [part.summary for part in parts]
    if len(summaries) > 1 and len(set(summaries)) == 1:
        return [f"{len(summaries)} times {summaries[0]}"]
    return summaries
