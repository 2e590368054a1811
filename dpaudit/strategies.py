"""Hypothesis strategies for testing private code: neighbours, special floats, gradients, ledgers.

Special values are written out rather than hoped for: a lower clip that is missing, a NaN that passes
`np.clip`, a sum that wraps, are found by the inputs below and seldom by uniformly random ones.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dpaudit.check import FloatArray, in_range
from dpaudit.claim import Adjacency, Ledger, Phase

try:
    from hypothesis import strategies as st
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "dpaudit.strategies needs Hypothesis, which is not installed: run `pip install hypothesis`.",
        name="hypothesis",
    ) from None

T = TypeVar("T")
S = TypeVar("S")

REPEATS = (2, 3, 12, 25, 127, 255)
"""Lengths of runs of one value; one record more overflows int8 or uint8, as a count or a sum of tens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours(Generic[T]):
    """Two data sets that differ in one record.

    Attributes:
        first: one data set.
        second: the other; which of the two is larger under add/remove is drawn too.
        index: position of the record that differs, in the larger data set.
        adjacency: the relation between them.
    """

    first: T
    second: T
    index: int
    adjacency: Adjacency


def special_floats(low: float = -math.inf, high: float = math.inf) -> tuple[float, ...]:
    """Return the floats at which clipping and counting code goes wrong, given the bounds it clips to.

    Args:
        low: lower bound of the domain.
        high: upper bound of the domain.

    Returns:
        Both zeros, the bounds and one ulp to either side of them, the smallest and largest
        magnitudes, infinities and NaN. Values outside the bounds are among them on purpose.
    """
    around = [
        b
        for bound in (float(low), float(high))
        for b in (bound, math.nextafter(bound, -math.inf), math.nextafter(bound, math.inf))
    ]
    tiny, big = 5e-324, sys.float_info.max
    every = [0.0, -0.0, *around, tiny, -tiny, big, -big, math.inf, -math.inf, math.nan]
    return tuple({repr(value): value for value in every}.values())


def numbers(
    low: float, high: float, *, finite: bool = False, inside: bool = False
) -> st.SearchStrategy[float]:
    """Numbers in [low, high], with `special_floats` as likely as ordinary ones.

    Args:
        low: lower bound of the domain.
        high: upper bound of the domain.
        finite: leave out NaN and the infinities.
        inside: leave out what is outside the bounds, and NaN.
    """
    in_range("low", low, -math.inf, high)
    special = [
        value
        for value in special_floats(low, high)
        if (math.isfinite(value) or not finite) and (low <= value <= high or not inside)
    ]
    return st.one_of(st.floats(low, high, allow_nan=False), st.sampled_from(special))


def neighbouring_lists(
    elements: st.SearchStrategy[S],
    *,
    adjacency: Adjacency = Adjacency.ADD_REMOVE,
    min_size: int = 0,
    max_size: int = 300,
) -> st.SearchStrategy[Neighbours[list[S]]]:
    """Pairs of lists that differ in one record, with long runs of one value among them.

    Args:
        elements: strategy for one record.
        adjacency: ADD_REMOVE: the longer list has one record more, at any position.
            REPLACE_ONE: equal lengths, one record exchanged (it may be drawn equal).
        min_size: least length of the shorter list; 0 includes the empty data set.
        max_size: greatest length of the longer list.
    """
    in_range("max_size", max_size, min_size + 1, math.inf)
    return _neighbours(_records(elements, min_size, max_size - 1), elements, adjacency)


def neighbouring_arrays(
    elements: st.SearchStrategy[float] | None = None,
    *,
    columns: int | None = None,
    adjacency: Adjacency = Adjacency.ADD_REMOVE,
    dtype: DTypeLike = np.float64,
    min_size: int = 0,
    max_size: int = 300,
) -> st.SearchStrategy[Neighbours[NDArray[Any]]]:
    """Pairs of arrays that differ in one row: (n,), or (n, columns) where `columns` is given.

    Args:
        elements: strategy for one number; `numbers(0, 1)` with all special floats if None.
        columns: length of a row.
        adjacency: as for `neighbouring_lists`.
        dtype: of the arrays; numbers that it cannot hold overflow to infinity.
        min_size: least number of rows of the smaller array.
        max_size: greatest number of rows of the larger array.
    """
    number = numbers(0.0, 1.0) if elements is None else elements
    row: st.SearchStrategy[Any] = number if columns is None else st.tuples(*[number] * columns)
    shape = (-1,) if columns is None else (-1, columns)

    def array(rows: list[Any]) -> NDArray[Any]:
        with np.errstate(over="ignore"):
            return np.array(rows, dtype=np.float64).astype(dtype).reshape(shape)

    pairs = neighbouring_lists(row, adjacency=adjacency, min_size=min_size, max_size=max_size)
    return pairs.map(lambda pair: _mapped(pair, array))


def neighbouring_answers(
    dimension: int, *, sensitivity: float = 1.0, movable: int | None = None
) -> st.SearchStrategy[Neighbours[FloatArray]]:
    """Pairs of query answers, (dimension,) each, that differ by at most `sensitivity` per answer.

    The patterns of Ding et al. (2018, arXiv:1805.10277, StatDP), on which faulty mechanisms are known
    to break, are among them: all answers equal, against each one up, down or still.

    Args:
        dimension: number of answers.
        sensitivity: largest movement of one answer.
        movable: how many answers may move; all if None.
    """
    at_most = dimension if movable is None else min(movable, dimension)
    steps = st.sampled_from((-1.0, 1.0, 0.0)) | st.floats(-1.0, 1.0)
    moves = st.lists(steps, min_size=at_most, max_size=at_most)
    flat = st.just([1.0] * dimension)
    bases = flat | st.lists(st.floats(-10.0, 10.0), min_size=dimension, max_size=dimension)

    def pair(base: list[float], move: list[float], start: int) -> Neighbours[FloatArray]:
        first = np.array(base) * sensitivity
        second = first.copy()
        where = (start + np.arange(at_most)) % dimension
        second[where] += np.array(move) * sensitivity
        return Neighbours(first=first, second=second, index=start, adjacency=Adjacency.REPLACE_ONE)

    return st.builds(pair, bases, moves, st.integers(0, dimension - 1))


def gradients(
    *,
    max_batch: int = 8,
    max_dimension: int = 16,
    min_batch: int = 0,
    max_grad_norm: float = 1.0,
    finite: bool = True,
    largest: float = 1e30,
    dtype: DTypeLike = np.float32,
) -> st.SearchStrategy[NDArray[Any]]:
    """Per-record gradients (b, d) whose rows are chosen to upset clipping.

    Rows are zero, tiny (down to subnormal), huge, of norm exactly `max_grad_norm` or one ulp off,
    in one coordinate only, equal to the row before, its negative, or ordinary.

    Args:
        max_batch: largest b.
        max_dimension: largest d; the least is 1.
        min_batch: least b; 0 includes the empty Poisson batch.
        max_grad_norm: the clipping norm that the code under test uses.
        finite: False adds rows with a NaN or an infinity in one coordinate.
        largest: magnitude of the huge rows.
        dtype: of the array.
    """
    kinds = [*_ROWS, *([] if finite else ["nan", "inf", "-inf"])]

    def batch(dimension: int, drawn: list[str], seed: int) -> NDArray[Any]:
        rng = np.random.default_rng(seed)
        rows = np.zeros((len(drawn), dimension))
        for i, kind in enumerate(drawn):
            rows[i] = _row(kind, rows[i - 1] if i else rows[i], max_grad_norm, largest, rng)
        with np.errstate(over="ignore", under="ignore"):
            return rows.astype(dtype)

    return st.builds(
        batch,
        st.integers(1, max_dimension),
        st.lists(st.sampled_from(kinds), min_size=min_batch, max_size=max_batch),
        st.integers(0, 2**32 - 1),
    )


def phases(
    *,
    noise: tuple[float, float] = (0.5, 10.0),
    rate: tuple[float, float] = (1e-4, 1.0),
    max_steps: int = 1000,
    norm: tuple[float, float] = (1e-3, 100.0),
) -> st.SearchStrategy[Phase]:
    """Settings of a stretch of DP-SGD training.

    Args:
        noise: least and greatest noise multiplier.
        rate: least and greatest sampling rate.
        max_steps: greatest number of steps; the least is 1.
        norm: least and greatest clipping norm.
    """
    return st.builds(
        Phase,
        noise_multiplier=st.floats(*noise),
        sample_rate=st.floats(*rate),
        steps=st.integers(1, max_steps),
        max_grad_norm=st.floats(*norm),
    )


def ledgers(
    phase: st.SearchStrategy[Phase] | None = None, *, max_phases: int = 3
) -> st.SearchStrategy[Ledger]:
    """Ledgers of one to `max_phases` phases; some repeat a phase, as a resumed run does."""
    one = phases() if phase is None else phase
    repeated = st.builds(lambda p, n: (p,) * n, one, st.integers(1, max_phases))
    return st.lists(one, min_size=1, max_size=max_phases).map(tuple) | repeated


_ROWS = (
    "zero",
    "ordinary",
    "unit",
    "above",
    "below",
    "one-hot",
    "huge",
    "tiny",
    "subnormal",
    "same",
    "opposite",
)


def _row(kind: str, before: FloatArray, norm: float, largest: float, rng: np.random.Generator) -> FloatArray:
    """One gradient row (d,) of the named kind; `before` is the row above it."""
    ordinary = rng.normal(size=before.shape)
    unit = ordinary / np.linalg.norm(ordinary)
    single = np.zeros_like(ordinary)
    single[rng.integers(single.size)] = 1.0
    special = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
    if kind in special:
        return np.asarray(np.where(single == 1.0, special[kind], ordinary))
    rows: dict[str, FloatArray] = {
        "zero": 0.0 * single,
        "ordinary": ordinary * 10.0 ** rng.uniform(-2, 3),
        "unit": unit * norm,
        "above": unit * norm * (1 + 2.0**-23),
        "below": unit * norm * (1 - 2.0**-24),
        "one-hot": single * norm * 10.0 ** rng.uniform(0, 6),
        "huge": unit * largest,
        "tiny": unit * 1e-30,
        "subnormal": single * 1.5e-45,
        "same": before,
        "opposite": -before,
    }
    return rows[kind]


def _records(elements: st.SearchStrategy[S], least: int, most: int) -> st.SearchStrategy[list[S]]:
    """Lists of records, some of them with a run of one value."""
    plain = st.lists(elements, min_size=least, max_size=most)
    runs = [n for n in REPEATS if least <= n <= most]
    if not runs:
        return plain
    repeated = st.builds(lambda value, n: [value] * n, elements, st.sampled_from(runs))
    mixed = st.builds(lambda run, rest: (run + rest)[:most], repeated, st.lists(elements, max_size=3))
    return plain | mixed


def _neighbours(
    records: st.SearchStrategy[list[S]], elements: st.SearchStrategy[S], adjacency: Adjacency
) -> st.SearchStrategy[Neighbours[list[S]]]:
    def pair(shorter: list[S], at: int, new: S, other: S, swap: bool) -> Neighbours[list[S]]:
        index = at % (len(shorter) + 1)
        with_new = [*shorter[:index], new, *shorter[index:]]
        replaced = adjacency is Adjacency.REPLACE_ONE
        without = [*shorter[:index], other, *shorter[index:]] if replaced else shorter
        first, second = (without, with_new) if swap else (with_new, without)
        return Neighbours(first=first, second=second, index=index, adjacency=adjacency)

    return st.builds(pair, records, st.integers(0, 1000), elements, elements, st.booleans())


def _mapped(pair: Neighbours[S], convert: Callable[[S], T]) -> Neighbours[T]:
    return Neighbours(
        first=convert(pair.first), second=convert(pair.second), index=pair.index, adjacency=pair.adjacency
    )
