"""Each planted fault shows on the input that it was planted for, and the control on none of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad

from dpaudit.targets.mechanisms import GradientStep, GradientStepBatchClip, Mean0, Mean1, Mean2
from dpaudit.targets.mechanisms.planted import (
    GRID,
    EmptyRaises,
    HalfScale,
    NaNSurvives,
    NarrowCount,
    NoLowerClip,
    QuietAtTheCap,
    SoundSum,
    TrueCount,
)
from tests.laws import refuted

SIZE = 20_000

# Fault, the data sets, and the event whose probability tells them apart; all stated beforehand.
FAULTS = [
    (NoLowerClip, [1.0, -1e6], [1.0], lambda x: x < -1e3),
    (NoLowerClip, [-math.inf], [], lambda x: x == -math.inf),
    (NaNSurvives, [1.0, math.nan], [1.0], np.isnan),
    (TrueCount, [10.0], [10.0, 10.0], lambda x: x > 40.0),
    (NarrowCount, [1.0] * 128, [1.0] * 127, lambda x: x < 0),
    (QuietAtTheCap, [10.0] * 2, [10.0] * 3, lambda x: x < 12.5),
    (HalfScale, [10.0], [], lambda x: x >= 10.0),
]


def drawn(mechanism, data, seed, size=SIZE):
    return mechanism.sample(data, size, np.random.default_rng(seed))


@pytest.mark.parametrize(("fault", "first", "second", "event"), FAULTS)
def test_a_fault_shows_where_it_was_planted_and_the_control_does_not(fault, first, second, event):
    mechanism = fault()
    assert refuted(drawn(mechanism, first, 1), drawn(mechanism, second, 2), event) > mechanism.epsilon
    control = SoundSum()
    assert refuted(drawn(control, first, 1), drawn(control, second, 2), event) <= control.epsilon
    assert mechanism.exact_epsilon() > mechanism.epsilon == control.exact_epsilon()


def test_the_empty_list_raises_where_it_was_planted_alone():
    with pytest.raises(ValueError, match="zero-size array"):
        drawn(EmptyRaises(), [], 0)
    assert drawn(EmptyRaises(), [3.0], 0).shape == (SIZE,)
    for other in (SoundSum, NoLowerClip, NaNSurvives, TrueCount, NarrowCount, QuietAtTheCap, HalfScale):
        assert np.isfinite(drawn(other(), [], 0, 5)).all()


@pytest.mark.parametrize("fault", [NoLowerClip, NaNSurvives, EmptyRaises, QuietAtTheCap])
def test_away_from_its_fault_a_release_is_the_control(fault):
    data = [0.0, 2.5, 9.999, 10.0]
    np.testing.assert_array_equal(drawn(fault(), data, 3, 50), drawn(SoundSum(), data, 3, 50))


def test_the_control_releases_multiples_of_its_grid_for_any_floats():
    wild = [math.nan, math.inf, -math.inf, 5e-324, -0.0, 1e308, 0.1, 10 + 1e-15]
    released = drawn(SoundSum(), wild, 0)
    assert np.isfinite(released).all()
    np.testing.assert_array_equal(released / GRID, np.rint(released / GRID))
    assert SoundSum().total(wild) * GRID == pytest.approx(10 + 10 + 0.1 + 10, abs=GRID)
    assert not (np.signbit(released) & (released == 0)).any()


@pytest.mark.parametrize(
    ("make", "first", "second", "event"),
    [
        (Mean1, [0.0], [0.0] * 2, lambda x: x > 4.0),
        (Mean2, [1.0], [], lambda x: np.abs(x - 1.0) < 0.1),
    ],
)
def test_means_of_a_true_count_are_refuted_and_the_private_one_is_not(make, first, second, event):
    faulty, sound = make(epsilon=0.5), Mean0(epsilon=0.5)
    size = 200_000
    assert refuted(drawn(faulty, first, 1, size), drawn(faulty, second, 2, size), event) > faulty.epsilon
    assert refuted(drawn(sound, first, 1, size), drawn(sound, second, 2, size), event) <= sound.epsilon


def test_dividing_by_the_true_count_loses_log_two_more_than_the_count_is_worth():
    """Density at 1 of [1] and of the empty list under Mean2, by integrals over the noisy count."""
    scale = Mean2().scale

    def density(size, distance):
        def joint(noise):
            count = max(size + noise, 1.0)
            return count * math.exp(-(distance * count + abs(noise)) / scale)

        return sum(quad(joint, a, b)[0] for a, b in ((-40 * scale, 0), (0, 1), (1, 40 * scale)))

    lost = math.log(density(1, 0.0) / density(0, 1.0))
    assert lost == pytest.approx(0.5 + math.log(2), rel=1e-9)
    assert lost > Mean2().epsilon


def test_clipping_the_sum_alone_lets_one_row_turn_it_round():
    first, second = np.array([[1.0, 0, 0]]), np.array([[1.0, 0, 0], [-9.0, 0, 0]])
    faulty, sound = GradientStepBatchClip(epsilon=1.0, delta=1e-3), GradientStep(epsilon=1.0, delta=1e-3)

    def beyond(x):
        return x[:, 0] > 1.0 + 1.5 * sound.sigma

    assert refuted(drawn(faulty, first, 1, 400_000), drawn(faulty, second, 2, 400_000), beyond) > 1.0
    assert refuted(drawn(sound, first, 1, 400_000), drawn(sound, second, 2, 400_000), beyond) < 1.0
    wild = np.array([[math.nan, 1, 1], [math.inf, 0, 0], [1e308, 1e308, 0]])
    assert np.linalg.norm(sound.total(wild)) == pytest.approx(1.0)
