"""Columns of a CSV file, a block at a time and without pandas."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from operator import methodcaller
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from dpaudit.check import BoolArray, FloatArray, IntArray
from dpaudit.errors import UsageError
from dpaudit.scoring.columns import (
    FLAGS,
    FLAGS_WANTED,
    MOST_ROWS,
    Choose,
    Kind,
    Labels,
    Table,
    distinct,
    guarded_size,
)

LONGEST_LINE = 1 << 16
_BLOCK = 1 << 22
_CHUNK = 1 << 16

_Columns = list[Sequence[str]]


def read_csv(path: Path, choose: Choose) -> Table:
    """Read a CSV with a header; comma, semicolon or tab, whichever the header has most of.

    A million rows of three columns take about a second. Only columns that are chosen are converted.

    Raises:
        UsageError: not text, a wrong header, or a cell that is not what its column holds, with its row.
    """
    guarded_size(path)
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = next(_lines(file, path), "")
            separator = max(",;\t", key=first.count)
            header = [name.strip() for name in next(csv.reader([first], delimiter=separator), [])]
            kinds = choose(distinct(header, path))
            return _table(_columns(file, header, separator, path), header, kinds, path)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"Expected {path} to be text in UTF-8, found byte {error.object[error.start]:#x}. "
            "Save it as CSV, or give the file the ending of its format."
        ) from None
    except (csv.Error, OSError) as error:
        raise UsageError(f"Expected {path} to be CSV, found: {error}. Write it again.") from None


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """Lines of bounded length, so that a file without line ends does not fill the memory."""
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE and not line.endswith("\n"):
            raise UsageError(
                f"Expected lines of fewer than {LONGEST_LINE} characters in {path}, found a longer one. "
                "Write one row a line."
            )
        yield line


def _columns(file: TextIO, header: list[str], separator: str, path: Path) -> Iterator[_Columns]:
    """Columns of successive blocks of rows.

    Without quotes a block is split as a whole, which is several times faster than row by row.
    """
    done, separators = 0, methodcaller("count", separator)
    while block := file.read(_BLOCK):
        block += next(_lines(file, path), "")
        if '"' in block:
            again = chain((f"{line}\n" for line in block.split("\n")), _lines(file, path))
            yield from _quoted(csv.reader(again, delimiter=separator), len(header), path, done)
            return
        lines = [line for line in block.split("\n") if line]
        if set(map(separators, lines)) - {len(header) - 1}:
            counts = [separators(line) + 1 for line in lines]
            wrong = next(i for i, count in enumerate(counts) if count != len(header))
            raise _ragged(len(header), counts[wrong], done + wrong, path)
        done += len(lines)
        if lines:
            cells = separator.join(lines).split(separator)
            yield [cells[i :: len(header)] for i in range(len(header))]


def _quoted(reader: Iterator[list[str]], width: int, path: Path, done: int) -> Iterator[_Columns]:
    while chunk := list(islice(reader, _CHUNK)):
        rows = [row for row in chunk if row]
        wrong = next((i for i, row in enumerate(rows) if len(row) != width), None)
        if wrong is not None:
            raise _ragged(width, len(rows[wrong]), done + wrong, path)
        done += len(rows)
        if rows:
            yield list(zip(*rows, strict=True))


def _ragged(width: int, found: int, row: int, path: Path) -> UsageError:
    return UsageError(
        f"Expected {width} cells in every row of {path}, found {found} in data row {row + 1}. "
        "Quote cells that hold the separator."
    )


def _table(blocks: Iterator[_Columns], header: list[str], kinds: Mapping[str, Kind], path: Path) -> Table:
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in kinds}
    seen: dict[str, dict[str, int]] = {name: {} for name, kind in kinds.items() if kind is Kind.LABEL}
    done = 0
    for block in blocks:
        for name, kind in kinds.items():
            column = block[header.index(name)]
            if kind is Kind.LABEL:
                parts[name].append(_codes(column, seen[name]))
            else:
                convert = _floats if kind is Kind.NUMBER else _flags
                parts[name].append(convert(column, name, path, done))
        done += len(block[0])
        if done > MOST_ROWS:
            raise UsageError(f"Expected at most {MOST_ROWS} rows in {path}, found more. Split it by model.")
    if not done:
        raise UsageError(f"Expected rows below the header of {path}, found none. Write the scores again.")
    whole = {name: np.concatenate(part) for name, part in parts.items()}
    return Table(
        numbers={name: whole[name] for name, kind in kinds.items() if kind is Kind.NUMBER},
        flags={name: whole[name] for name, kind in kinds.items() if kind is Kind.FLAG},
        labels={name: Labels(codes=whole[name], names=tuple(codes)) for name, codes in seen.items()},
        ignored=tuple(name for name in header if name not in kinds),
    )


def _codes(column: Sequence[str], seen: dict[str, int]) -> IntArray:
    """Number names in the order in which they are met."""
    new = [name for name in dict.fromkeys(column) if name not in seen]
    seen.update(zip(new, range(len(seen), len(seen) + len(new)), strict=True))
    return np.fromiter(map(seen.__getitem__, column), np.int64, len(column))


def _flags(column: Sequence[str], name: str, path: Path, done: int) -> BoolArray:
    read = {text: FLAGS.get(text.strip().lower()) for text in set(column)}
    if None in read.values():
        row = next(i for i, text in enumerate(column) if read[text] is None)
        raise UsageError(
            f"Expected {name} to be {FLAGS_WANTED}, found {column[row][:40]!r} in data row {done + row + 1} "
            f"of {path}. Write 1 for members."
        )
    return np.fromiter(map(read.__getitem__, column), np.bool_, len(column))


def _floats(column: Sequence[str], name: str, path: Path, done: int) -> FloatArray:
    try:
        return np.fromiter(map(float, column), np.float64, len(column))
    except ValueError:
        row = next(i for i, text in enumerate(column) if not _is_float(text))
        raise UsageError(
            f"Expected {name} to be a number, found {column[row][:40]!r} in data row {done + row + 1} "
            f"of {path}. Remove or repair that row."
        ) from None


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
