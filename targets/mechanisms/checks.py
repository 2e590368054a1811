"""What the mechanisms demand of their settings and their data."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from dpaudit.check import FloatArray, IntArray, finite, in_range
from dpaudit.errors import UsageError


def positive(name: str, value: float) -> float:
    """Return `value` if it is positive and finite, else raise `UsageError`."""
    return in_range(name, value, 0.0, math.inf, open_low=True, open_high=True)


def flat_difference(data: ArrayLike, outputs: ArrayLike) -> FloatArray:
    """Outputs (size, *shape) less data (*shape), as (size, number of data)."""
    centre, released = np.asarray(data, dtype=np.float64), np.asarray(outputs, dtype=np.float64)
    if released.ndim == 0 or released.shape[1:] != centre.shape:
        raise UsageError(f"Expected outputs of shape (size, *{centre.shape}), found {released.shape}.")
    difference: FloatArray = (released - centre).reshape(released.shape[0], centre.size)
    return difference


def integers(name: str, values: ArrayLike) -> IntArray:
    """Return `values` as int64, or raise `UsageError` naming the first that is no integer."""
    array = finite(name, values)
    whole = array.astype(np.int64)
    bad = array[whole != array]
    if bad.size:
        raise UsageError(f"Expected {name} to be integers, found {float(bad[0])!r}. Round them first.")
    return whole


def indices(name: str, values: ArrayLike, count: int) -> IntArray:
    """Return `values` as int64 if they are integers in [0, count), else raise `UsageError`."""
    array = finite(name, values)
    whole = array.astype(np.int64)
    bad = array[(whole != array) | (array < 0) | (array >= count)]
    if bad.size:
        raise UsageError(f"Expected {name} to be integers in [0, {count}), found {float(bad[0])!r}.")
    return whole


def answers(name: str, values: ArrayLike) -> FloatArray:
    """Return `values` as a finite vector (d,), d >= 1, else raise `UsageError`."""
    vector = finite(name, values)
    if vector.ndim != 1 or not vector.size:
        raise UsageError(f"Expected {name} to be (d,) answers, d >= 1, found shape {vector.shape}.")
    return vector


def pure(delta: float) -> None:
    """Raise `UsageError` unless `delta` is 0: of some mechanisms only the pure epsilon is known."""
    in_range("delta", delta, 0.0, 0.0, remedy="Only the epsilon at delta 0 is known here.")


def records(values: ArrayLike, low: float, high: float, *, nan: float | None = None) -> FloatArray:
    """Records (n,) clipped to [low, high], NaN at `low` or as told: whatever a record is, it is bounded."""
    numbers = np.asarray(values, dtype=np.float64).ravel()
    return np.where(np.isnan(numbers), low if nan is None else nan, np.clip(numbers, low, high))
