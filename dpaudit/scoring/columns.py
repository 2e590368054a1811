"""Named columns out of files that nobody vouches for: what is accepted, by kind of cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpaudit.check import BoolArray, FloatArray, IntArray
from dpaudit.errors import UsageError

MOST_ROWS = 50_000_000
MOST_BYTES = 4 << 30
MOST_COLUMNS = 1_000
FLAGS = {"0": False, "1": True, "false": False, "true": True, "0.0": False, "1.0": True}
FLAGS_WANTED = "0 or 1, or false or true"

Arrays = dict[str, NDArray[Any]]


class Kind(StrEnum):
    """How the cells of a column are read."""

    NUMBER = "number"
    FLAG = "flag"
    LABEL = "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """A column of names.

    Attributes:
        codes: (n,) index into `names`.
        names: each name once, in order of first appearance or sorted.
    """

    codes: IntArray
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The columns that were asked for, each of n rows, by kind; and those that were passed over."""

    numbers: Mapping[str, FloatArray]
    flags: Mapping[str, BoolArray]
    labels: Mapping[str, Labels]
    ignored: tuple[str, ...] = ()


Choose = Callable[[list[str]], Mapping[str, Kind]]
"""From the names in a file to those that are read and how; raises `UsageError` if it is the wrong file."""


def guarded_size(path: Path) -> int:
    """Bytes of a file that is there, is a file and is not empty.

    Raises:
        UsageError: none of that, or more than 4 GiB.
    """
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"Expected a file of scores at {path}, found: {reason}. Check the path.") from None
    if not path.is_file():
        raise UsageError(f"Expected {path} to be a file of scores, found a folder. Name the file in it.")
    if size == 0:
        raise UsageError(f"Expected scores in {path}, found an empty file. Write the scores again.")
    if size > MOST_BYTES:
        raise UsageError(
            f"Expected {path} to have at most {MOST_BYTES} bytes, found {size}. Split it by model."
        )
    return size


def distinct(header: list[str], path: Path) -> list[str]:
    """The names of a header, none of them twice and not absurdly many.

    Raises:
        UsageError: either of these.
    """
    if len(header) > MOST_COLUMNS:
        raise UsageError(
            f"Expected at most {MOST_COLUMNS} columns in {path}, found {len(header)}. "
            "Keep those that are needed."
        )
    double = sorted({name for name in header if header.count(name) > 1})
    if double:
        raise UsageError(f"Expected distinct column names in {path}, found {double[0]!r} twice. Rename one.")
    return header


def table_of(
    arrays: Arrays, kinds: Mapping[str, Kind], path: Path, *, ignored: tuple[str, ...] = ()
) -> Table:
    """Interpret arrays of shape (n,) by kind.

    Raises:
        UsageError: another shape, different lengths, no rows, or cells that do not fit the kind.
    """
    first = next(iter(kinds))
    for name in kinds:
        if arrays[name].ndim != 1 or arrays[name].shape != arrays[first].shape:
            raise UsageError(
                f"Expected {name} of {path} to have the shape (n,) of {first}, found {arrays[name].shape} "
                f"and {arrays[first].shape}. Save one value for each score."
            )
    if not arrays[first].size:
        raise UsageError(f"Expected scores in {path}, found none. Write the scores again.")
    return Table(
        numbers={n: numbers_of(arrays[n], n, path) for n, kind in kinds.items() if kind is Kind.NUMBER},
        flags={n: flags_of(arrays[n], n, path) for n, kind in kinds.items() if kind is Kind.FLAG},
        labels={n: labels_of(arrays[n]) for n, kind in kinds.items() if kind is Kind.LABEL},
        ignored=ignored,
    )


def numbers_of(array: NDArray[Any], name: str, path: Path) -> FloatArray:
    """An array of any shape as float64.

    Raises:
        UsageError: text that is no number.
    """
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"Expected {name} of {path} to hold numbers, found: {error}. Repair it.") from None


def flags_of(array: NDArray[Any], name: str, path: Path) -> BoolArray:
    """An array of any shape as flags.

    Raises:
        UsageError: something other than 0 and 1, or false and true.
    """
    if array.dtype.kind == "b":
        return array.astype(np.bool_)
    values, index = np.unique(array, return_inverse=True)
    read = [FLAGS.get(text.lower()) for text in _texts(values)]
    if None in read:
        found = _texts(values)[read.index(None)]
        raise UsageError(
            f"Expected {name} of {path} to be {FLAGS_WANTED}, found {found!r}. Write 1 for members."
        )
    return np.array(read, dtype=np.bool_)[index].reshape(array.shape)


def labels_of(array: NDArray[Any]) -> Labels:
    """An array (n,) of names or numbers as labels."""
    names, codes = np.unique(array, return_inverse=True)
    return Labels(codes=codes.astype(np.int64).ravel(), names=_texts(names))


def _texts(values: NDArray[Any]) -> tuple[str, ...]:
    return tuple(v.decode("latin-1") if isinstance(v, bytes) else str(v) for v in values.tolist())
