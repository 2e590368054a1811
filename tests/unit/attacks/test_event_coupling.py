"""Choosing under common random numbers: counts that are read as pairs, and what they find."""

from __future__ import annotations

import numpy as np
import pytest

from dpaudit.attacks.event_search.coupling import lower_and_upper, shares, spread
from dpaudit.attacks.event_search.features import Feature
from dpaudit.attacks.event_search.listing import NOT_A_NUMBER, Coded, corners_of_pairs, tally
from dpaudit.attacks.event_search.promise import promised
from dpaudit.attacks.event_search.selection import Learn, Samples
from dpaudit.claim import Adjacency
from dpaudit.mechanism.pairs import Screen, Tried
from dpaudit.stats.guarantees import ApproximateDP
from dpaudit.strategies import Neighbours
from dpaudit.targets.releases.calls import call_of
from dpaudit.targets.releases.drawing import InlineDrawer
from dpaudit.targets.releases.reading import read_array

CLAIM = ApproximateDP(claimed=0.1)
TRIALS = 2_000


def pairs_of(law: str, p: float, q: float, shape: tuple[int, ...], rng: np.random.Generator):
    """Whether an event happened on either data set, under the same noise, fresh noise, or its mirror."""
    noise = rng.random(shape)
    other = {"same": noise, "fresh": rng.random(shape), "mirrored": 1.0 - noise}[law]
    return noise < p, other < q


@pytest.mark.parametrize("law", ["same", "fresh", "mirrored"])
@pytest.mark.parametrize("p, q", [(0.012, 0.01), (0.5, 0.45)])
def test_the_spread_is_that_of_the_difference_of_two_shares(law, p, q) -> None:
    ones, others = pairs_of(law, p, q, (1_000, TRIALS), np.random.default_rng(0))
    ours, theirs = ones.sum(axis=1), others.sum(axis=1)
    told = spread(ours, theirs, (ones & others).sum(axis=1), TRIALS)
    true = np.std((ours - theirs) / TRIALS) / np.sqrt((p * (1 - p) + q * (1 - q)) / TRIALS)
    print(f"{law} {p}: {np.median(told):.3f} told, {true:.3f} true")
    # One pair more than was seen is counted, which tells where few were.
    assert 0.95 * true < np.median(told) < 1.2 * true


@pytest.mark.parametrize("law", ["same", "fresh"])
def test_probabilities_that_pairs_leave_open_lie_about_the_shares(law) -> None:
    ones, others = pairs_of(law, 0.012, 0.01, (1, TRIALS), np.random.default_rng(1))
    ours, theirs = ones.sum(axis=1), others.sum(axis=1)
    both = (ones & others).sum(axis=1)
    p, q = shares(ours, theirs, both, TRIALS, 4_000, np.random.default_rng(2))
    assert p.mean() == pytest.approx(ours[0] / TRIALS, rel=0.1)
    assert q.mean() == pytest.approx(theirs[0] / TRIALS, rel=0.1)
    told = spread(ours, theirs, both, TRIALS)[0] * np.sqrt((ours + theirs)[0]) / TRIALS
    assert np.std(p - q) == pytest.approx(told, rel=0.2)


def test_pairs_are_the_naive_counts() -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 5, (2, 400, 2))
    codes[rng.random(codes.shape) < 0.1] = NOT_A_NUMBER
    first, second = codes
    seen = tally(first[:, 0], second[:, 0], 4)
    known = (first[:, 0] < NOT_A_NUMBER) & (second[:, 0] < NOT_A_NUMBER)
    for cut in range(4):
        above, beyond = first[:, 0] > cut, second[:, 0] > cut
        assert int(seen.both[0, cut]) == int((known & above & beyond).sum())
        assert int(seen.both[1, cut]) == int((known & ~above & ~beyond).sum())
    lower, upper = lower_and_upper(first[:, 0], second[:, 0], NOT_A_NUMBER)
    assert np.array_equal(lower == NOT_A_NUMBER, ~known)
    assert np.array_equal(upper == NOT_A_NUMBER, ~known)


def test_corners_know_in_how_many_pairs_they_happened_on_both() -> None:
    rng = np.random.default_rng(4)
    codes = rng.integers(0, 4, (2, 3_000, 2))
    codes[1] = np.where(rng.random((3_000, 1)) < 0.8, codes[0], codes[1])
    codes[:, :20, 0] = NOT_A_NUMBER
    half = Coded(first=codes[0], second=codes[1])
    columns = [Feature(name="number", path=f"[{i}]") for i in range(2)]
    grid = [np.arange(3.0), np.arange(3.0)]  # code c of a column: c of its thresholds lie below
    found = corners_of_pairs(columns, [0, 1], grid, [half, half], CLAIM, 10_000)
    assert found
    tables = [np.where(part == NOT_A_NUMBER, np.nan, part - 0.5) for part in codes]
    for listed in found:
        held = [listed.event.holds(read_array(table)) for table in tables]
        counts = (held[0].sum(), held[1].sum(), (held[0] & held[1]).sum())
        assert counts == (listed.seen.ours, listed.seen.theirs, listed.seen.both)


def leaky(rng: np.random.Generator, size: int, more: bool):
    """One output of 500 is rare, a fifth likelier on one data set; the other number leaks a twentieth."""
    rare = rng.random(size) < (0.0024 if more else 0.002)
    common = rng.random(size) < (0.315 if more else 0.3)
    return np.stack([rare, common], axis=1) * 1.0


@pytest.mark.parametrize("coupled", [True, False])
def test_a_rare_leak_beats_a_common_one_below_the_claim_where_pairs_show_it(coupled) -> None:
    rare = 0
    for seed in range(4):
        seeds = [[seed, 0 if coupled else side] for side in range(2)]
        tables = [
            leaky(np.random.default_rng(each), 400_000, more)
            for each, more in zip(seeds, (True, False), strict=True)
        ]
        samples = Samples(first=read_array(tables[0]), second=read_array(tables[1]))
        rng = np.random.default_rng(seed)
        choice = promised(samples, CLAIM, size=5_000_000, learn=Learn.NOTHING, rng=rng)
        assert choice is not None
        print(f"{choice.event.words()}: {choice.rated:.3f}")
        rare += choice.event.words().startswith("output[0]")
    assert rare >= 3 if coupled else rare <= 1


def test_only_what_is_asked_for_shares_its_noise() -> None:
    def mechanism(data, size, rng):
        return rng.random(size) + 0.0 * len(data)

    screen = Screen(drawer=InlineDrawer(call=call_of(mechanism)), guarantee=CLAIM, size=8, root=0)
    pair = Neighbours(first=[1.0], second=[2.0], index=0, adjacency=Adjacency.REPLACE_ONE)
    tried = Tried(pair=pair, text="a pair")
    same, fresh = (screen.samples(tried, 3, 8, coupled=coupled) for coupled in (True, False))
    assert np.array_equal(same.first.numbers, same.second.numbers)
    assert np.array_equal(same.first.numbers, fresh.first.numbers)
    assert not np.any(fresh.first.numbers == fresh.second.numbers)
