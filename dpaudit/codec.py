"""Nouns to JSON and arrays and back, by the types of their fields. Nothing is ever unpickled."""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from dpaudit.check import BoolArray, FloatArray, IntArray
from dpaudit.claim import Claim, Phase, Spending
from dpaudit.evidence import (
    Draws,
    Finding,
    Guesses,
    KnownNull,
    NoiseSample,
    Note,
    OneRun,
    Rebuilt,
    Replay,
    Sampling,
    TwoSample,
)
from dpaudit.likeness import Panel, Score

_NOUNS = {
    noun.__name__: noun
    for noun in (
        Claim, Phase, Draws, Finding, Guesses, KnownNull, NoiseSample, Note, OneRun, Replay, Sampling,
        Panel, Rebuilt, Score, Spending, TwoSample,
    )
}  # fmt: skip
# Nouns name these where types are checked only: who reads a record needs no arrays.
_ARRAY_TYPES = {"BoolArray": BoolArray, "FloatArray": FloatArray, "IntArray": IntArray}
Arrays = dict[str, np.ndarray[Any, Any]]


def encode(value: Any, arrays: Arrays, path: str = "") -> Any:
    """JSON form of `value`; its arrays go into `arrays` under their path.

    Raises:
        TypeError: a value that has no such form.
    """
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return {"array": path}
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        inner = {f.name: encode(getattr(value, f.name), arrays, f"{path}.{f.name}") for f in fields(value)}
        return {"noun": type(value).__name__, "fields": inner}
    if isinstance(value, (list, tuple)):
        return [encode(item, arrays, f"{path}.{i}") for i, item in enumerate(value)]
    if isinstance(value, float) and not np.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"Expected a noun, array or JSON value at {path!r}, found {type(value).__name__}.")


def decode(value: Any, arrays: Arrays) -> Any:
    """The inverse of `encode`; lists come back as tuples.

    Raises:
        KeyError: an unknown noun or a missing array.
    """
    if isinstance(value, list):
        return tuple(decode(item, arrays) for item in value)
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "float" in value:
        return float(value["float"])
    noun = _NOUNS[value["noun"]]
    hints = get_type_hints(noun, localns=_ARRAY_TYPES)
    inner = {name: _as(hints[name], decode(item, arrays)) for name, item in value["fields"].items()}
    return noun(**inner)


def _as(hint: Any, value: Any) -> Any:
    """Give strings back their enumeration."""
    if get_origin(hint) in (Union, types.UnionType):
        options = [option for option in get_args(hint) if option is not type(None)]
        return value if value is None or len(options) != 1 else _as(options[0], value)
    if isinstance(hint, type) and issubclass(hint, Enum) and isinstance(value, str):
        return hint(value)
    return value
