"""The choice of the event that promises the largest bound at the size of its confirmation."""

from __future__ import annotations

import numpy as np
import pytest

from dpaudit.attacks.event_search.events import Both, Event, Side
from dpaudit.attacks.event_search.features import Feature
from dpaudit.attacks.event_search.listing import at_most, corners
from dpaudit.attacks.event_search.promise import promised
from dpaudit.attacks.event_search.selection import Learn, Samples
from dpaudit.stats.guarantees import ApproximateDP
from dpaudit.targets.releases.reading import read_array

CLAIM = ApproximateDP(claimed=0.1)
CONFIRMED = 1_000_000


def chosen(first, second, *, size=CONFIRMED, seed=0):
    samples = Samples(first=read_array(first), second=read_array(second))
    rng = np.random.default_rng(seed)
    choice = promised(samples, CLAIM, size=size, learn=Learn.LINEAR, rng=rng)
    assert choice is not None
    return choice, samples


def cornered(rng, size, leaks):
    """Two numbers, each with the same law on both data sets; on one they are small together oftener."""
    table = rng.integers(0, 8, size=(size, 2)).astype(float)
    moved = rng.random(size) < (0.5 if leaks else 0.0)
    down, up = (moved & (a < 4) & (b >= 4) for a, b in (table.T, table.T[::-1]))
    table[down, 1] -= 4
    table[up, 1] += 4
    # So that no sum or difference of the two knows where both are.
    return (table + rng.random((size, 2))) * [1.0, 1000.0]


def test_what_leaks_only_in_two_places_at_once_is_found_there() -> None:
    rng = np.random.default_rng(0)
    choice, _ = chosen(cornered(rng, 20_000, True), cornered(rng, 20_000, False))
    fresh = [read_array(cornered(rng, 20_000, leaks)) for leaks in (True, False)]
    low, high = sorted(choice.event.holds(part).mean() for part in fresh)
    assert high > 1.4 * low
    assert isinstance(choice.event.feature, Both), choice.event.words()


def test_the_counts_are_those_of_the_back_half_counted_again() -> None:
    rng = np.random.default_rng(1)
    choice, samples = chosen(rng.laplace(size=(9_000, 3)) + 0.4, rng.laplace(size=(9_000, 3)))
    back = [part.rows(slice(part.size // 2, None)) for part in (samples.first, samples.second)]
    counted = [int(choice.event.holds(part).sum()) for part in back]
    seen = [choice.counts.hits, choice.counts.other_hits]
    assert (seen[::-1] if choice.swapped else seen) == counted
    assert choice.counts.trials == 4_500


def test_more_outputs_in_the_confirmation_promise_more() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.laplace(size=(9_000, 2)) + 0.4, rng.laplace(size=(9_000, 2))
    found = [chosen(first, second, size=size)[0].rated for size in (1_000, 10_000, 10**6)]
    assert found == sorted(found)
    assert found[0] < found[2] - 0.05


def test_the_promise_of_a_leak_is_kept_and_nothing_is_promised_of_none() -> None:
    kept, empty = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        leaky = rng.random((6_000, 1)) < 0.3
        choice, _ = chosen(leaky * 1.0, (rng.random((6_000, 1)) < 0.2) * 1.0, seed=seed)
        kept.append(choice.rated <= np.log(0.3 / 0.2))
        same, _ = chosen(rng.laplace(size=(6_000, 4)), rng.laplace(size=(6_000, 4)), seed=seed)
        empty.append(same.rated <= 0.1)
    print("kept", sum(kept), "of none", sum(empty))
    assert sum(kept) >= 11
    assert sum(empty) >= 11


def test_corners_are_the_naive_counts() -> None:
    rng = np.random.default_rng(3)
    one, other = rng.integers(0, 5, 500), rng.integers(0, 4, 500)  # the last code of each is NaN
    found = corners(one, other, (3, 2))
    real = (one < 4) & (other < 3)
    for row in range(3):
        for place in range(2):
            above, beyond = one[real] > row, other[real] > place
            naive = [above & beyond, above & ~beyond, ~above & beyond, ~above & ~beyond]
            assert [int(each.sum()) for each in naive] == found[:, row, place].tolist()
    np.testing.assert_array_equal(at_most(np.array([0, 1, 1, 255, 2]), 2), [[3, 1], [1, 3]])


def test_both_is_where_either_side_holds_and_says_so() -> None:
    rows = read_array(np.array([[1.0, 5.0], [3.0, 5.0], [3.0, 1.0], [np.nan, 5.0]]))
    sides = [Side(feature=Feature(name="number", path=f"[{i}]"), above=True, threshold=2.0) for i in (0, 1)]
    event = Event(feature=Both(one=sides[0], other=sides[1]), above=True, threshold=0.5)
    assert event.holds(rows).tolist() == [False, True, False, False]
    assert event.words() == "output[0] > 2.0 and output[1] > 2.0"


@pytest.mark.parametrize("rows", [np.zeros((5_000, 2)), np.full((5_000, 1), np.nan)])
def test_outputs_that_do_not_vary_promise_nothing(rows) -> None:
    samples = Samples(first=read_array(rows), second=read_array(rows))
    assert promised(samples, CLAIM, size=100, learn=Learn.ALL, rng=np.random.default_rng(0)) is None
