"""Columns of a table and of a register as codes that mean the same in both."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dpaudit.check import IntArray
from dpaudit.errors import UsageError, nearest
from dpaudit.scoring.binary_columns import read_parquet
from dpaudit.scoring.columns import Kind, Labels
from dpaudit.scoring.csv_columns import read_csv

_PARQUET = (".parquet", ".pq")
_LARGEST = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Columns of one file, in its order of rows; an empty cell is a value like any other.

    Attributes:
        path: of the file.
        columns: by name.
        sha256: of the file.
    """

    path: Path
    columns: Mapping[str, Labels]
    sha256: str

    def __len__(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values())).codes)


def read(path: Path, wanted: Sequence[str]) -> Source:
    """Read columns of a CSV (comma, semicolon or tab) or, with pyarrow, a Parquet file.

    A million rows of four columns take one to two seconds.

    Raises:
        UsageError: no such file or column (with the nearest name), a column named twice, or cells that are
            missing.
    """
    if not path.is_file():
        raise UsageError(f"Expected a table at {path}, found no such file. Check the path.")
    double = sorted({name for name in wanted if wanted.count(name) > 1})
    if double:
        raise UsageError(f"Expected each column once, found {double[0]!r} twice. Name it in one place.")

    def choose(header: list[str]) -> dict[str, Kind]:
        for name in wanted:
            if name not in header:
                raise UsageError(f"Expected a column {name!r} in {path}, found none: {nearest(name, header)}")
        return dict.fromkeys(wanted, Kind.LABEL)

    table = (read_parquet if path.suffix.lower() in _PARQUET else read_csv)(path, choose)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Source(path=path, columns=table.labels, sha256=digest)


def alike(one: Labels, other: Labels) -> tuple[IntArray, IntArray]:
    """Codes (n,) and (m,) of two columns of which equal ones mean equal text."""
    known = {name: code for code, name in enumerate(one.names)}
    mapping = np.array([known.setdefault(name, len(known)) for name in other.names], dtype=np.int64)
    return one.codes, mapping[other.codes]


def keys(columns: Sequence[IntArray]) -> IntArray:
    """One number (n,) for each combination of codes, equal where all are; not all numbers occur."""
    key = columns[0]
    for column in columns[1:]:
        width = int(column.max(initial=0)) + 1
        if int(key.max(initial=0)) >= _LARGEST // width:
            key = combined([key])
        key = key * width + column
    return key


def combined(columns: Sequence[IntArray]) -> IntArray:
    """One code (n,) from 0 for each combination that occurs; costs a sort."""
    return np.unique(keys(columns), return_inverse=True)[1].astype(np.int64)


def times(key: IntArray) -> IntArray:
    """How often each number that occurs does; costs a sort."""
    ordered = np.sort(key)
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    return np.diff(ends, prepend=-1)
