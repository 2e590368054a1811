"""One vocabulary of validation, in which a wrong value reads `Expected name=value in [lo, hi]`."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from dpaudit.errors import UsageError, nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]
    IntArray = NDArray[np.int64]

_ARRAYS = {"FloatArray": "float64", "BoolArray": "bool_", "IntArray": "int64"}


def __getattr__(name: str) -> Any:
    """The types of arrays, made when they are asked for: a gate needs none, and numpy takes its time."""
    if name not in _ARRAYS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import numpy as np
    from numpy.typing import NDArray

    kind: Any = getattr(np, _ARRAYS[name])
    return NDArray[kind]


def in_range(
    name: str,
    value: float,
    low: float,
    high: float,
    *,
    open_low: bool = False,
    open_high: bool = False,
    remedy: str = "",
) -> float:
    """Return `value` if it lies between `low` and `high`, else (NaN too) raise `UsageError`."""
    inside = (low < value if open_low else low <= value) and (value < high if open_high else value <= high)
    if not inside:
        left, right = "(" if open_low else "[", ")" if open_high else "]"
        raise UsageError(f"Expected {name}={value!r} in {left}{low}, {high}{right}. {remedy}".rstrip())
    return value


def one_of(name: str, value: str, known: Collection[str]) -> str:
    """Return `value` if it is among `known`, else raise `UsageError` with the nearest right one."""
    if value not in known:
        raise UsageError(f"Expected {name} to be a known name, found {value!r}: {nearest(value, known)}")
    return value


def finite(name: str, values: ArrayLike) -> FloatArray:
    """Return `values` as float64, or raise `UsageError` naming the first position that is not finite."""
    import numpy as np

    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"Expected {name} to be numbers, found: {error}. Encode or remove the rest."
        ) from None
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        first = int(bad[0])
        raise UsageError(
            f"Expected {name} to be finite, found {array.ravel()[first]} at position {first} "
            f"({bad.size} of {array.size} values). Remove or repair these rows."
        )
    return array
