"""Columns and arrays of npz, npy and Parquet files; objects are refused, never unpickled."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from dpaudit.documents import bomb
from dpaudit.errors import UsageError
from dpaudit.scoring.columns import (
    MOST_BYTES,
    MOST_COLUMNS,
    MOST_ROWS,
    Arrays,
    Choose,
    Table,
    distinct,
    guarded_size,
    table_of,
)

_BYTES_OF_A_LETTER = 4


def read_npz(path: Path) -> Arrays:
    """Read the arrays of an npz or npy file, headers checked against sizes before anything is allocated.

    Raises:
        UsageError: damaged, objects (which would need pickle), too many or too large arrays.
    """
    size = guarded_size(path)
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                return {path.stem: _array(file, size, path.stem, path)}
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(members, size, path)
            arrays = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as stream:
                    arrays[name] = _array(stream, member.file_size, name, path)
            return arrays
    except UsageError:
        raise
    except Exception as error:
        # Damaged bytes fail in every layer: zip, zlib, the array header and its literals.
        raise UsageError(
            f"Expected {path} to be a NumPy file, found: {type(error).__name__}: {error}. "
            "Write it again with numpy.savez."
        ) from None


def _check_members(members: list[zipfile.ZipInfo], size: int, path: Path) -> None:
    total = sum(member.file_size for member in members)
    if bomb(total, size):
        raise UsageError(
            f"Expected arrays in {path}, found {size:,} bytes that unpack to {total:,}. "
            "Write them with numpy.savez, uncompressed, if they are right."
        )
    if len(members) > MOST_COLUMNS or total > MOST_BYTES:
        raise UsageError(
            f"Expected at most {MOST_COLUMNS} arrays of together {MOST_BYTES} bytes in {path}, "
            f"found {len(members)} of {total}. Keep those that are needed."
        )
    if not members:
        raise UsageError(f"Expected arrays in {path}, found none. Write it again with numpy.savez.")


def _array(stream: IO[bytes], size: int, name: str, path: Path) -> NDArray[Any]:
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"array format {version}")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if dtype.kind not in "biufUS":
        raise UsageError(
            f"Expected array {name!r} of {path} to hold numbers, flags or text, found {dtype}. "
            "Objects are never unpickled: save plain arrays."
        )
    count = math.prod(shape)
    if min(shape, default=0) < 0 or count * dtype.itemsize > size:
        raise UsageError(
            f"Expected array {name!r} of {path} to fit its {size} bytes, found shape {shape}. Write it again."
        )
    if count == 0:
        return np.zeros(shape, dtype=dtype)
    flat = np.frombuffer(stream.read(count * dtype.itemsize), dtype=dtype, count=count)
    return flat.reshape(shape, order="F" if fortran else "C")


def read_parquet(path: Path, choose: Choose) -> Table:
    """Read the columns of a Parquet file; needs the extra `parquet`.

    Raises:
        UsageError: pyarrow is missing, the file is damaged or too large, or a wrong column.
    """
    guarded_size(path)
    try:
        from pyarrow import parquet
    except ImportError:
        raise UsageError(
            f"Expected pyarrow to read {path}, found it not installed. Run: pip install 'dpaudit[parquet]'"
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            meta = file.metadata
            size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
            names = distinct(list(file.schema_arrow.names), path)
            kinds = choose(names)
            if meta.num_rows > MOST_ROWS or size > MOST_BYTES:
                raise UsageError(
                    f"Expected at most {MOST_ROWS} rows of {MOST_BYTES} bytes in {path}, "
                    f"found {meta.num_rows} of {size}. Split it by model."
                )
        # A text that a million rows share stays one text: unpacked, a small file could fill the memory.
        with parquet.ParquetFile(path, read_dictionary=list(kinds)) as file:
            columns = file.read(columns=list(kinds))
            arrays = {name: _plain(columns.column(name).to_numpy(), name, path) for name in kinds}
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"Expected {path} to be Parquet, found: {error}. Write it again.") from None
    return table_of(arrays, kinds, path, ignored=tuple(name for name in names if name not in kinds))


def _plain(array: NDArray[Any], name: str, path: Path) -> NDArray[Any]:
    """Give Parquet's Python strings a NumPy type; refuse nulls and nested values."""
    if array.dtype != np.object_:
        return array
    for row, value in enumerate(array):
        if not isinstance(value, (str, bool, int)):
            raise UsageError(
                f"Expected {name} to be text or a number, found {value!r} in data row {row + 1} "
                f"of {path}. Fill it in."
            )
    longest = max((len(str(value)) for value in array), default=0)
    if array.size * longest * _BYTES_OF_A_LETTER > MOST_BYTES:
        raise UsageError(
            f"Expected {name} of {path} to be short texts, found one of {longest:,} characters. Shorten it."
        )
    return np.array(array.tolist())
