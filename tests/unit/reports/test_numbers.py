"""Unknown is "no data", infinite is "unbounded", and no bound is overstated by its spelling."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpaudit.reports import numbers


@pytest.mark.parametrize(
    "write",
    [numbers.epsilon, numbers.percent, numbers.p_value, numbers.count, numbers.plain],
)
def test_none_is_no_data(write: object) -> None:
    assert write(None) == "no data"  # type: ignore[operator]


def test_nan_is_no_data_and_infinity_is_unbounded() -> None:
    assert numbers.epsilon(math.nan) == numbers.percent(math.nan) == "no data"
    assert numbers.epsilon(math.inf) == numbers.plain(math.inf) == "unbounded"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (5.45, "5.45"),
        (5.459, "5.45"),
        (99.999, "99.99"),
        (1234.56, "1,234.5"),
        (2.5e6, "2.5e6"),
    ],
)
def test_lower_bounds_are_rounded_down(value: float, text: str) -> None:
    assert numbers.epsilon(value, end="lower") == text


@given(st.floats(0, 9_999))
def test_a_shown_lower_bound_never_exceeds_the_bound(value: float) -> None:
    assert float(numbers.epsilon(value, end="lower").replace(",", "")) <= value + 1e-12


@given(st.floats(0, 1))
def test_a_shown_upper_bound_never_falls_below_the_bound(value: float) -> None:
    assert float(numbers.percent(value, end="upper").removesuffix(" %")) / 100 >= value - 1e-12


def test_intervals_are_rounded_outwards_and_may_be_half_open() -> None:
    assert numbers.interval("tpr_at_fpr_0.01", 0.0512, 0.0718) == "5.1 to 7.2 %"
    assert numbers.interval("auc", 0.5119, None) == "0.511 to ?"
    assert numbers.interval("auc", None, None) == "no interval"


def test_small_numbers_keep_their_size() -> None:
    assert numbers.power_of_ten(1e-5) == "1e-5"
    assert numbers.p_value(1e-12) == "< 1e-6"
    assert numbers.percent(0.0004) == "0.04 %"


@pytest.mark.parametrize(("seconds", "text"), [(3.21, "3.2 s"), (212.4, "3 min 32 s"), (7_260, "2 h 1 min")])
def test_durations(seconds: float, text: str) -> None:
    assert numbers.duration(seconds) == text
