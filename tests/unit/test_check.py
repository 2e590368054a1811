"""`dpaudit.check`: what passes comes back unchanged, what does not is named with its value."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpaudit.check import finite, in_range, one_of
from dpaudit.errors import UsageError


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_in_range_returns_what_lies_inside_a_closed_range(value):
    assert in_range("alpha", value, 0.0, 1.0) == value


@pytest.mark.parametrize("value", [-1e-300, math.nextafter(1.0, 2.0), math.inf, -math.inf, math.nan])
def test_in_range_refuses_what_lies_outside(value):
    with pytest.raises(UsageError, match=r"Expected alpha=.* in \[0\.0, 1\.0\]\."):
        in_range("alpha", value, 0.0, 1.0)


def test_in_range_leaves_out_an_open_end_and_says_so_with_a_round_bracket():
    with pytest.raises(UsageError, match=r"Expected q=0\.0 in \(0\.0, 1\.0\]"):
        in_range("q", 0.0, 0.0, 1.0, open_low=True)
    with pytest.raises(UsageError, match=r"Expected q=1\.0 in \[0\.0, 1\.0\)"):
        in_range("q", 1.0, 0.0, 1.0, open_high=True)


def test_in_range_ends_its_message_with_the_remedy():
    with pytest.raises(UsageError, match=r"in \[0, 1\]\. Use fewer\.$"):
        in_range("q", 2, 0, 1, remedy="Use fewer.")


def test_in_range_without_an_upper_end_takes_infinity():
    assert in_range("epsilon", math.inf, 0.0, math.inf) == math.inf


def test_one_of_returns_a_known_name():
    assert one_of("fault", "half-noise", ["half-noise", "other"]) == "half-noise"


def test_one_of_names_the_nearest_right_spelling():
    with pytest.raises(UsageError, match="found 'half-nois': did you mean 'half-noise'"):
        one_of("fault", "half-nois", ["half-noise", "other"])


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20))
def test_finite_returns_finite_values_as_float64(values):
    array = finite("x", values)
    assert array.dtype == np.float64
    assert array.tolist() == values


def test_finite_names_the_first_bad_position_and_counts_all():
    with pytest.raises(UsageError, match=r"found nan at position 2 \(2 of 6 values\)"):
        finite("x", np.array([[0.0, 1.0, np.nan], [3.0, np.inf, 5.0]]))


@pytest.mark.parametrize("values", [["1.5", "red"], [None, object()], [[1.0], [1.0, 2.0]]])
def test_finite_refuses_what_is_no_array_of_numbers_in_one_line(values):
    with pytest.raises(UsageError, match="Expected x to be numbers, found"):
        finite("x", values)
