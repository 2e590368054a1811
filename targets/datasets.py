"""Data that is there without a download, and the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpaudit.check import FloatArray, IntArray, finite
from dpaudit.errors import UsageError
from dpaudit.secret import Secrets

USER, MOST_VALUES = "user", 50


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


def load(
    source: Callable[[], Any],
) -> tuple[FloatArray, IntArray, dict[str, NDArray[Any]], Secrets | None]:
    """Call `source` and return features (n, ...), integer labels (n,), groups and places, without duplicates.

    A record that is there twice would be in and out at once, so only its first copy stays.

    Args:
        source: returns (x, y), or (x, y, groups): a mapping from a name such as "ward" to n values. A group
            named "user" says whose each record is, and may have any number of values. A fourth part,
            `dpaudit.secret.Secrets`, says where secrets can be planted.

    Raises:
        UsageError: not arrays of equal length, not finite, labels that are no class indices, or a group that
            does not fit.
    """
    loaded = source()
    if not isinstance(loaded, tuple) or len(loaded) not in (2, 3, 4):
        raise UsageError(
            f"Expected the data source to return (x, y) or (x, y, groups), found {type(loaded).__name__}. "
            "Return a pair."
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
    groups = {name: values[keep] for name, values in _groups(loaded[2:3], len(y)).items()}
    return x[keep], y[keep], groups, _places(loaded[3:], x, keep)


def _places(given: tuple[Any, ...], x: FloatArray, keep: IntArray) -> Secrets | None:
    """Where secrets can be planted in the records that are kept, if the source says so."""
    if not given or given[0] is None:
        return None
    found = given[0]
    if not isinstance(found, Secrets) or x.ndim != 2 or found.kind.shape != (len(x),):
        raise UsageError(
            f"Expected the fourth part to be Secrets of {len(x)} rows of tokens, found "
            f"{type(found).__name__} beside x of shape {x.shape}. Make it with Secrets.at."
        )
    return found.of(keep)


def _groups(given: tuple[Any, ...], n: int) -> dict[str, NDArray[Any]]:
    """The mapping of a source's third element, if there is one, as checked arrays."""
    if not given or given[0] is None:
        return {}
    if not isinstance(given[0], Mapping):
        raise UsageError(
            f"Expected groups to map names to {n} values, found {type(given[0]).__name__}. Return a dict."
        )
    found = {}
    for name, values in given[0].items():
        array = np.asarray(values)
        if array.shape != (n,):
            raise UsageError(f"Expected group {name!r} to have shape ({n},), found {array.shape}.")
        count = len(np.unique(array))
        if name != USER and count > MOST_VALUES:
            raise UsageError(
                f"Expected group {name!r} to have at most {MOST_VALUES} values, found {count}. Bin them; "
                f"only a group named {USER!r} may have more."
            )
        found[str(name)] = array
    return found
