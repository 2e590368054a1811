"""Data that is there without a download, and the user's own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from dpaudit.check import FloatArray, IntArray, finite
from dpaudit.errors import UsageError


def digits() -> tuple[FloatArray, IntArray]:
    """scikit-learn's digits: (1797, 64) pixels in [0, 1] and labels 0 to 9."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return np.asarray(x, dtype=np.float64) / 16.0, np.asarray(y, dtype=np.int64)


def breast_cancer() -> tuple[FloatArray, IntArray]:
    """scikit-learn's breast cancer table: (569, 30) raw features and labels 0 or 1."""
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    return np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.int64)


def load(source: Callable[[], tuple[ArrayLike, ArrayLike]]) -> tuple[FloatArray, IntArray]:
    """Call `source` and return finite features (n, ...) and integer labels (n,), without duplicate records.

    A record that is there twice would be in and out at once, so only its first copy stays.

    Raises:
        UsageError: not a pair of arrays of equal length, not finite, or labels that are no class indices.
    """
    loaded = source()
    if not isinstance(loaded, tuple) or len(loaded) != 2:
        raise UsageError(
            f"Expected the data source to return (x, y), found {type(loaded).__name__}. Return a pair."
        )
    x = finite("x", np.asarray(loaded[0]))
    raw = np.asarray(loaded[1])
    if x.ndim < 2 or raw.ndim != 1 or len(x) != len(raw):
        raise UsageError(
            f"Expected x of shape (n, ...) and y of shape (n,), found {x.shape} and {raw.shape}."
        )
    if not np.issubdtype(raw.dtype, np.number) or not np.all(raw == np.floor(raw)) or raw.min(initial=0) < 0:
        raise UsageError(
            f"Expected y to hold class indices 0, 1, ..., found {raw.dtype}, such as {raw[0]!r}. Encode them."
        )
    y = raw.astype(np.int64)
    joined = np.concatenate([x.reshape(len(x), -1), y[:, None]], axis=1)
    _, first = np.unique(joined, axis=0, return_index=True)
    keep = np.sort(first)
    return x[keep], y[keep]
