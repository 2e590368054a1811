import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from dpaudit.errors import UsageError
from dpaudit.stats import binomial


def naive_lower(successes, trials, alpha):
    """Largest p at which that many successes are still too many, by bisection of the binomial sum."""
    if successes == 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        at_least = sum(binom.pmf(k, trials, middle) for k in range(successes, trials + 1))
        low, high = (middle, high) if at_least < alpha else (low, middle)
    return low


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 25), st.floats(0.001, 0.4), st.data())
def test_limits_equal_the_definition(trials, alpha, data):
    successes = data.draw(st.integers(0, trials))
    assert binomial.lower(successes, trials, alpha) == pytest.approx(
        naive_lower(successes, trials, alpha), abs=1e-9
    )
    assert binomial.upper(successes, trials, alpha) == pytest.approx(
        1 - naive_lower(trials - successes, trials, alpha), abs=1e-9
    )


def test_limits_broadcast_and_know_no_trials():
    limits = binomial.lower([0, 5, 10], [0, 10, 10], 0.05)
    assert limits[0] == 0.0
    assert limits[2] == pytest.approx(0.05**0.1)
    assert binomial.upper(0, 0, 0.05) == 1.0
    low, high = binomial.two_sided(3, 10, 0.1)
    assert (low, high) == (binomial.lower(3, 10, 0.05), binomial.upper(3, 10, 0.05))


def test_tail_is_the_binomial_sum():
    for successes in range(6):
        expected = sum(binom.pmf(k, 5, 0.3) for k in range(successes, 6))
        assert binomial.tail(successes, 5, 0.3) == pytest.approx(expected)
    assert np.all(binomial.tail([0, 0], [0, 3], 0.2) == 1.0)


def test_impossible_counts_are_refused():
    with pytest.raises(UsageError, match="successes=4"):
        binomial.lower(4, 3, 0.05)


@pytest.mark.parametrize("trials", [1, 7, 400])
@pytest.mark.parametrize("alpha", [0.3, 1e-3])
def test_least_above_is_the_first_count_whose_limit_is_above(trials, alpha):
    bars = np.concatenate([[0.0, 1.0], np.random.default_rng(0).random(50)])
    limits = binomial.lower(np.arange(trials + 1), trials, alpha)
    expected = [next((c for c, limit in enumerate(limits) if limit > bar), trials + 1) for bar in bars]
    assert binomial.least_above(bars, trials, alpha).tolist() == expected
