"""How every number of a report is written. Unknown is "no data", never 0; infinite is "unbounded"."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal

NO_DATA = "no data"
UNBOUNDED = "unbounded"
NONE = "—"
_AS_PERCENT = ("tpr_at_fpr_", "accuracy", "success", "rate", "advantage")


_WIDE = Context(prec=400)
"""Digits of the largest float there is, which a record may hold in any place."""


def epsilon(value: float | None, *, end: str = "") -> str:
    """Write an epsilon with two decimals.

    Args:
        value: the epsilon; None and NaN are "no data", infinity is "unbounded".
        end: "lower" rounds down and "upper" rounds up, so that no bound is overstated by its spelling.
    """
    if value is None or math.isnan(value):
        return NO_DATA
    if math.isinf(value):
        return UNBOUNDED
    if abs(value) >= 10_000:
        return power_of_ten(value)
    return f"{_round(value, 2 if abs(value) < 100 else 1, end):,}"


def rate(name: str, value: float | None, *, end: str = "") -> str:
    """Write a proportion as a percentage, and an area such as the AUC with three decimals."""
    if value is None or math.isnan(value):
        return NO_DATA
    if math.isinf(value):
        return UNBOUNDED
    if not any(part in name for part in _AS_PERCENT):
        return f"{_round(value, 3, end)}"
    return percent(value, end=end)


def percent(value: float | None, *, end: str = "") -> str:
    """Write a share of 1 as a percentage, with a second decimal where it is small."""
    if value is None or math.isnan(value):
        return NO_DATA
    if math.isinf(value * 100):
        return UNBOUNDED
    return f"{_round(value * 100, 2 if 0 < abs(value) < 0.01 else 1, end)} %"


def interval(name: str, lower: float | None, upper: float | None) -> str:
    """Write both ends of the interval of a rate, rounded outwards."""
    if lower is None and upper is None:
        return "no interval"
    low = "?" if lower is None else rate(name, lower, end="lower")
    high = "?" if upper is None else rate(name, upper, end="upper")
    return f"{low.removesuffix(' %')} to {high}"


def level(alpha: float) -> str:
    """Write an error probability as a percentage without needless digits."""
    return f"{alpha * 100:.3g} %"


def given(assumptions: Sequence[str]) -> str:
    """Write what an interval assumes behind it; nothing where its design sees to everything."""
    return f", if {' and '.join(assumptions)}" if assumptions else ""


def p_value(value: float | None) -> str:
    """Write a p-value; one that is tiny is bounded instead of spelled out."""
    if value is None or math.isnan(value):
        return NO_DATA
    if value < 1e-6:
        return "< 1e-6"
    return f"{value:.2g}" if value >= 0.001 else power_of_ten(value)


def power_of_ten(value: float) -> str:
    """Write a very small or very large number, such as delta: 1e-5, 2.5e6."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else epsilon(value)
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def count(value: float | None) -> str:
    """Write a whole number with separators."""
    return NO_DATA if value is None or math.isnan(value) else f"{value:,.0f}"


def plain(value: float | None) -> str:
    """Write a setting as short as it can be read back: 1.5, 0.06667."""
    if value is None or math.isnan(value):
        return NO_DATA
    return UNBOUNDED if math.isinf(value) else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Write a time in the two largest units that matter."""
    if not math.isfinite(seconds):
        return NO_DATA
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def many(number: int, noun: str, plural: str = "") -> str:
    """Write a number of things: `1 trial`, `3 trials`."""
    return f"{count(number)} {noun if number == 1 else plural or noun + 's'}"


def _round(value: float, digits: int, end: str) -> Decimal:
    """Round the decimal that `repr` shows, so that 5.45 never becomes 5.44 on the way down."""
    rounding = {"lower": ROUND_FLOOR, "upper": ROUND_CEILING}.get(end, ROUND_HALF_EVEN)
    shown = Decimal(repr(round(value, 12))).quantize(
        Decimal(1).scaleb(-digits), rounding=rounding, context=_WIDE
    )
    return shown + 0  # no negative zero
