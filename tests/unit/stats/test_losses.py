"""Privacy-loss arrays against dp-accounting's own loops."""

import numpy as np
import pytest
from dp_accounting import dp_event, pld
from dp_accounting.privacy_accountant import NeighboringRelation

from dpaudit.claim import Adjacency
from dpaudit.stats import losses

RELATION = {
    Adjacency.ADD_REMOVE: NeighboringRelation.ADD_OR_REMOVE_ONE,
    Adjacency.REPLACE_ONE: NeighboringRelation.REPLACE_ONE,
}
ADJACENCIES = pytest.mark.parametrize("adjacency", list(Adjacency))
STEPS = pytest.mark.parametrize(
    ("sigma", "rate", "times", "width"),
    [(1.0, 0.02, 500, 3e-3), (0.3, 0.02, 50, 5e-3), (4.0, 0.01, 1000, 5e-4), (2.0, 0.5, 7, 2e-3)],
)


def theirs(sigma, rate, times, width, adjacency):
    accountant = pld.PLDAccountant(RELATION[adjacency], width)
    accountant.compose(dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(sigma)), times)
    return accountant._pld


@ADJACENCIES
@STEPS
def test_repeated_steps_are_those_of_dp_accounting(sigma, rate, times, width, adjacency):
    ours = losses.repeated(losses.step(sigma, rate, adjacency, width), times)
    reference = theirs(sigma, rate, times, width, adjacency)
    for delta in (1e-2, 1e-5, 1e-9):
        # Fourier transforms leave about 1e-15 per cell, which a delta of 1e-9 can see.
        precision = 1e-6 if delta > 1e-6 else 1e-4
        expected = reference.get_epsilon_for_delta(delta)
        assert losses.epsilon(ours, delta) == pytest.approx(expected, rel=precision)
    at = np.linspace(0.0, 1.2 * reference.get_epsilon_for_delta(1e-9), 40)
    expected = np.asarray(reference.get_delta_for_epsilon(at.tolist()))
    assert losses.deltas(ours, at) == pytest.approx(expected, rel=1e-5, abs=1e-12)


@ADJACENCIES
def test_reading_is_that_of_dp_accounting(adjacency):
    reference = theirs(0.8, 0.01, 1000, 3e-3, adjacency)
    for delta in (0.9, 0.5, 1e-3, 1e-12):
        assert losses.epsilon(reference, delta) == pytest.approx(
            reference.get_epsilon_for_delta(delta), rel=1e-9, abs=1e-12
        )
    assert losses.epsilon(reference, 0.0) == np.inf


@ADJACENCIES
def test_little_noise_does_not_overflow(adjacency):
    found = losses.epsilon(losses.step(0.03, 0.01, adjacency, 0.05), 1e-5)
    # Without sampling epsilon is about 1 / (2 sigma^2) + 4 / sigma; sampling takes log(1 / rate) off.
    assert 500 < found < 1200 and np.isfinite(found)
