"""The choice of an event where few samples show little."""

from __future__ import annotations

import numpy as np
import pytest

from dpaudit.attacks.event_search.selection import Samples, choose, rated
from dpaudit.stats.guarantees import ApproximateDP
from dpaudit.targets.releases.reading import read_array

CLAIM = ApproximateDP(claimed=0.1)


def rating(hits: int, other: int, trials: int = 1000) -> float:
    return float(rated(CLAIM, np.array(hits), trials, np.array(other), trials, 3.5, margin=1.0))


def test_an_event_that_always_happens_is_rated_below_one_that_may_show_something() -> None:
    assert rating(1000, 1000) < rating(110, 90) < rating(150, 60)
    assert rating(1000, 1000) < 0 < rating(150, 60)


def test_ratings_rise_with_the_difference_through_zero() -> None:
    found = [rating(hits, 100) for hits in range(60, 400, 5)]
    assert found == sorted(found)
    assert found[0] < -1 and found[-1] > 0.5


def test_a_few_lucky_outputs_do_not_beat_many() -> None:
    assert rating(6, 0) < rating(300, 150)


@pytest.mark.parametrize("seed", range(5))
def test_small_leak_of_a_common_event_is_chosen_on_few_samples(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = (rng.random((3000, 1)) < 0.3).astype(float) * rng.integers(1, 3, (3000, 1))
    second = (rng.random((3000, 1)) < 0.25).astype(float) * rng.integers(1, 3, (3000, 1))
    choice = choose(Samples(first=read_array(first), second=read_array(second)), CLAIM)
    assert choice is not None
    share = choice.event.holds(read_array(first)).mean() - choice.event.holds(read_array(second)).mean()
    assert abs(share) > 0.02


def test_of_many_columns_the_one_that_differs_is_looked_at() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 400, 200))
    second[:, 170] += 2.0
    choice = choose(Samples(first=read_array(first), second=read_array(second)), CLAIM)
    assert choice is not None
    assert choice.event.feature.path == "[170]"
