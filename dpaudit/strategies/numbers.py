"""Numbers at which clipping, counting and conversion go wrong."""

from __future__ import annotations

import math
import sys

from hypothesis import strategies as st

from dpaudit.check import in_range

INT64 = (-(2**63), 2**63 - 1)
LIMITS = tuple(
    sorted(
        {s * 2**bits + d for bits in (7, 8, 15, 16, 24, 31, 32, 53, 63) for s in (-1, 1) for d in (-1, 0, 1)}
    )
)
"""The limits of integer dtypes, of what float32 and float64 count to, and one to either side."""


def special_floats(low: float = -math.inf, high: float = math.inf) -> tuple[float, ...]:
    """Return the floats at which clipping and counting code goes wrong, given the bounds it clips to.

    Args:
        low: lower bound of the domain.
        high: upper bound of the domain.

    Returns:
        Both zeros, the bounds and one ulp to either side of them, the smallest and largest
        magnitudes, infinities and NaN. Values outside the bounds are among them on purpose.
    """
    around = [
        b
        for bound in (float(low), float(high))
        for b in (bound, math.nextafter(bound, -math.inf), math.nextafter(bound, math.inf))
    ]
    tiny, big = 5e-324, sys.float_info.max
    every = [0.0, -0.0, *around, tiny, -tiny, big, -big, math.inf, -math.inf, math.nan]
    return tuple({repr(value): value for value in every}.values())


def special_integers(low: int | None = None, high: int | None = None) -> tuple[int, ...]:
    """Return the integers at which counters wrap: the bounds, their neighbours and the limits of dtypes.

    Args:
        low: lower bound of the domain, if it has one.
        high: upper bound of the domain, if it has one.

    Returns:
        Integers that int64 holds, the smallest magnitudes first. Values outside the bounds are among
        them on purpose.
    """
    around = [bound + d for bound in (low, high) if bound is not None for d in (-1, 0, 1)]
    every = {0, 1, -1, *around, *LIMITS}
    return tuple(sorted((v for v in every if INT64[0] <= v <= INT64[1]), key=lambda v: (abs(v), v < 0)))


def numbers(
    low: float, high: float, *, finite: bool = False, inside: bool = False
) -> st.SearchStrategy[float]:
    """Numbers in [low, high], with `special_floats` as likely as ordinary ones.

    Args:
        low: lower bound of the domain.
        high: upper bound of the domain.
        finite: leave out NaN and the infinities.
        inside: leave out what is outside the bounds, and NaN.
    """
    in_range("low", low, -math.inf, high)
    special = [
        value
        for value in special_floats(low, high)
        if (math.isfinite(value) or not finite) and (low <= value <= high or not inside)
    ]
    ordinary = st.floats(low, high, allow_nan=False)
    if finite:
        ordinary = st.floats(*_bounded(low, high), allow_nan=False, allow_infinity=False)
    return st.one_of(ordinary, st.sampled_from(special))


def finite_floats(low: float, high: float) -> st.SearchStrategy[float]:
    """Finite numbers in [low, high]; either bound may be infinite."""
    special = [v for v in special_floats(low, high) if math.isfinite(v) and low <= v <= high]
    ordinary = st.floats(*_bounded(low, high), allow_nan=False, allow_infinity=False)
    return st.one_of(ordinary, st.sampled_from(special))


def _bounded(low: float, high: float) -> tuple[float | None, float | None]:
    return (low if math.isfinite(low) else None), (high if math.isfinite(high) else None)
