"""Data sets as JSON, exactly: what a witness holds, and how a pair is known again."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dpaudit.errors import UsageError

_MARK = "$"
_DTYPE = re.compile("[<>=|]?[A-Za-z]+[0-9]{0,9}")
"""Plain names of dtypes: no fields, no shapes."""
_WIDEST, _LARGEST = 1 << 16, 1 << 30
"""Bytes of one item, and of an array: a text of a few letters can ask for gigabytes."""


def text_of(value: Any) -> str:
    """A text that is the same for the same data, in every process."""
    return json.dumps(encode(value), sort_keys=True)


def encode(value: Any) -> Any:
    """Data as what JSON can hold; floats keep every bit, and what is no plain data becomes its text."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.generic):
        return {_MARK: "scalar", "dtype": str(value.dtype), "value": encode(value.item())}
    if isinstance(value, int):
        return value if abs(value) < 2**53 else {_MARK: "int", "value": str(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else {_MARK: "float", "value": repr(value)}
    if isinstance(value, complex):
        return {_MARK: "complex", "value": [encode(value.real), encode(value.imag)]}
    if isinstance(value, bytes):
        return {_MARK: "bytes", "value": value.hex()}
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, np.ndarray):
        return {
            _MARK: "array",
            "dtype": str(value.dtype),
            "shape": list(value.shape),
            "value": [encode(item) for item in value.ravel().tolist()],
        }
    return _composite(value)


def _composite(value: Any) -> Any:
    if isinstance(value, (tuple, set, frozenset)):
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return {_MARK: type(value).__name__, "value": [encode(item) for item in items]}
    if isinstance(value, Mapping):
        return {_MARK: "dict", "value": [[encode(key), encode(item)] for key, item in value.items()]}
    if hasattr(value, "columns") and hasattr(value, "to_numpy"):
        columns = [[str(name), encode(np.asarray(value[name]))] for name in value.columns]
        return {_MARK: "frame", "value": columns}
    return {_MARK: "text", "type": type(value).__name__, "value": repr(value)}


def decode(document: Any) -> Any:
    """Data from JSON.

    Raises:
        UsageError: something that `encode` does not write, or a value that was no plain data.
    """
    if isinstance(document, list):
        return [decode(item) for item in document]
    if not isinstance(document, dict):
        return document
    kind = str(document.get(_MARK))
    if kind not in _DECODERS:
        raise UsageError(
            f"Expected data of a known kind, found {kind!r}. "
            "Only numbers, texts, lists, tuples, sets, dicts, arrays and frames can be read from a file."
        )
    try:
        return _DECODERS[kind](document)
    except (KeyError, ValueError, TypeError, OverflowError, AttributeError, MemoryError) as error:
        raise UsageError(f"Expected data of kind {kind!r}, found: {error}. Restore the file.") from None


def _array(document: Mapping[str, Any]) -> Any:
    flat = _items(document)
    dtype = _dtype(document, "fiubcUSO")
    if len(flat) * dtype.itemsize > _LARGEST:
        raise ValueError(f"{len(flat):,} items of dtype {dtype}")
    # Item by item where they are objects: numpy would take lists among them for further axes.
    array = np.empty(len(flat), dtype=dtype)
    for i, item in enumerate(flat) if dtype.kind == "O" else ():
        array[i] = item
    return (array if dtype.kind == "O" else np.array(flat, dtype=dtype)).reshape(document["shape"])


def _scalar(document: Mapping[str, Any]) -> Any:
    found = decode(document["value"])
    if isinstance(found, (list, tuple, dict, np.ndarray)):
        raise TypeError(f"{type(found).__name__} in place of a number")
    return _dtype(document, "fiubcUS").type(found)


def _dtype(document: Mapping[str, Any], kinds: str) -> np.dtype[Any]:
    name = str(document["dtype"])
    if not _DTYPE.fullmatch(name):
        raise ValueError(f"dtype {name[:40]!r}")
    dtype = np.dtype(name)
    if dtype.kind not in kinds:
        raise ValueError(f"dtype {name!r}")
    if dtype.itemsize > _WIDEST:
        raise ValueError(f"dtype {name!r}")
    return dtype


def _items(document: Mapping[str, Any]) -> list[Any]:
    """The decoded list inside; a text is no list of its letters."""
    found = decode(document["value"])
    if not isinstance(found, list):
        raise TypeError(f"{type(found).__name__} in place of a list")
    return found


def _complex(document: Mapping[str, Any]) -> complex:
    real, imag = _items(document)
    return complex(real, imag)


def _frame(document: Mapping[str, Any]) -> Any:
    try:
        import pandas
    except ModuleNotFoundError:
        raise UsageError("Expected pandas for a data frame, found none. Run `pip install pandas`.") from None
    return pandas.DataFrame({name: decode(column) for name, column in document["value"]})


_DECODERS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "int": lambda d: int(d["value"]),
    "float": lambda d: float(d["value"]),
    "complex": _complex,
    "bytes": lambda d: bytes.fromhex(d["value"]),
    "tuple": lambda d: tuple(_items(d)),
    "set": lambda d: set(_items(d)),
    "frozenset": lambda d: frozenset(_items(d)),
    "dict": lambda d: {decode(key): decode(item) for key, item in d["value"]},
    "array": _array,
    "scalar": _scalar,
    "frame": _frame,
}
