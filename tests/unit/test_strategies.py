"""The public strategies: what they draw is what they say, and the inputs that break code are reached."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import Phase as HypothesisPhase
from hypothesis import find, given, settings
from hypothesis import strategies as st

from dpaudit.claim import Adjacency
from dpaudit.errors import UsageError
from dpaudit.strategies import (
    gradients,
    ledgers,
    neighbouring_answers,
    neighbouring_arrays,
    neighbouring_lists,
    numbers,
    phases,
    special_floats,
)

quick = settings(max_examples=60, deadline=None)
search = settings(max_examples=2000, database=None, deadline=None, phases=[HypothesisPhase.generate])
both = st.sampled_from(Adjacency)


def same(one, other):
    return np.array_equal(np.array(one, dtype=float), np.array(other, dtype=float), equal_nan=True)


@quick
@given(st.data(), st.integers(0, 5), both)
def test_lists_are_neighbours(data, least, adjacency):
    pair = data.draw(neighbouring_lists(numbers(0, 10), adjacency=adjacency, min_size=least, max_size=150))
    sizes = sorted((len(pair.first), len(pair.second)))
    assert least <= sizes[0] <= sizes[1] <= 150
    if adjacency is Adjacency.REPLACE_ONE:
        assert sizes[0] == sizes[1]
        rest = [[*each[: pair.index], *each[pair.index + 1 :]] for each in (pair.first, pair.second)]
    else:
        assert sizes[1] == sizes[0] + 1
        shorter, longer = sorted((pair.first, pair.second), key=len)
        rest = [shorter, [*longer[: pair.index], *longer[pair.index + 1 :]]]
    assert same(*rest)


@quick
@given(neighbouring_arrays(columns=3, dtype=np.float32, max_size=20))
def test_arrays_keep_shape_and_dtype_even_when_empty(pair):
    for each in (pair.first, pair.second):
        assert each.ndim == 2 and each.shape[1] == 3 and each.dtype == np.float32
    assert abs(len(pair.first) - len(pair.second)) == 1


@quick
@given(st.data(), st.integers(1, 6), st.floats(1e-3, 1e3))
def test_answers_move_by_at_most_the_sensitivity(data, dimension, sensitivity):
    movable = data.draw(st.none() | st.integers(1, dimension))
    pair = data.draw(neighbouring_answers(dimension, sensitivity=sensitivity, movable=movable))
    moved = np.abs(pair.second - pair.first)
    assert pair.first.shape == pair.second.shape == (dimension,)
    assert moved.max() <= sensitivity * (1 + 1e-9)
    assert np.count_nonzero(moved) <= (dimension if movable is None else movable)


@quick
@given(gradients(min_batch=2, max_batch=5, max_dimension=4, dtype=np.float32))
def test_gradients_are_finite_arrays_within_their_limits(rows):
    assert 2 <= rows.shape[0] <= 5 and 1 <= rows.shape[1] <= 4 and rows.dtype == np.float32
    assert np.isfinite(rows).all()


@quick
@given(ledgers(phases(noise=(1.0, 2.0), rate=(0.1, 0.2), max_steps=7, norm=(3.0, 4.0)), max_phases=2))
def test_ledgers_stay_in_range(ledger):
    assert 1 <= len(ledger) <= 2
    for phase in ledger:
        assert 1.0 <= phase.noise_multiplier <= 2.0 and 0.1 <= phase.sample_rate <= 0.2
        assert 1 <= phase.steps <= 7 and 3.0 <= phase.max_grad_norm <= 4.0


def test_special_floats_are_written_out():
    got = {repr(value) for value in special_floats(0, 10)}
    for value in (
        0.0,
        -0.0,
        10.0,
        5e-324,
        math.nextafter(10, 11),
        math.nextafter(10, 0),
        -math.inf,
        math.nan,
    ):
        assert repr(float(value)) in got
    assert len(got) == len(special_floats(0, 10))


@quick
@given(numbers(0, 10, finite=True), numbers(0, 10, inside=True))
def test_numbers_can_be_kept_finite_or_inside(finite, inside):
    assert math.isfinite(finite)
    assert 0 <= inside <= 10


@pytest.mark.parametrize(
    "breaks",
    [
        lambda pair: not pair.first or not pair.second,
        lambda pair: any(map(math.isnan, pair.first)) != any(map(math.isnan, pair.second)),
        lambda pair: any(x < 0 for x in pair.first) != any(x < 0 for x in pair.second),
        lambda pair: sum(min(max(x, 0), 10) for x in pair.first if not math.isnan(x)) > 127,
        lambda pair: len(pair.first) <= 255 < len(pair.second),
        lambda pair: sum(x == 10 for x in pair.first) >= 3,
        lambda pair: math.nextafter(10, 11) in pair.first,
        lambda pair: any(x == 0 and math.copysign(1, x) < 0 for x in pair.first),
    ],
    ids=["empty", "nan", "negative", "int8 sum", "uint8 count", "three at cap", "ulp above", "minus zero"],
)
def test_inputs_that_break_private_code_are_reached(breaks):
    find(neighbouring_lists(numbers(0, 10)), breaks, settings=search)


@pytest.mark.parametrize(
    "breaks",
    [
        lambda rows: len(rows) == 0,
        lambda rows: np.isnan(rows).any(),
        lambda rows: np.isinf(rows).any(),
        lambda rows: (np.abs(rows) > 1e20).any(),
        lambda rows: ((rows != 0) & (np.abs(rows) < 1e-38)).any(),
        lambda rows: len(rows) > 1 and (rows[1] == rows[0]).all() and rows[0].any(),
        lambda rows: len(rows) > 1 and (rows[1] == -rows[0]).all() and rows[0].any(),
    ],
    ids=["empty", "nan", "inf", "huge", "subnormal", "duplicate", "opposite"],
)
def test_gradients_that_upset_clipping_are_reached(breaks):
    find(gradients(finite=False), breaks, settings=search)


def test_impossible_sizes_are_refused_by_value():
    with pytest.raises(UsageError, match="Expected max_size=2"):
        neighbouring_lists(st.integers(), min_size=5, max_size=2)
    with pytest.raises(UsageError, match=r"Expected low=3.0"):
        numbers(3.0, 1.0)


def test_without_hypothesis_the_import_names_the_remedy_in_one_line():
    code = "import sys; sys.modules['hypothesis'] = None; import dpaudit.strategies"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ModuleNotFoundError") and "pip install hypothesis" in last


def test_importing_the_strategies_does_not_import_torch():
    code = "import sys, dpaudit.strategies; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
