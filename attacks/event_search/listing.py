"""Events on a short list: how counts of them are read, and corners of two features at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from dpaudit.attacks.event_search.coupling import lower_and_upper, spread
from dpaudit.attacks.event_search.events import Both, Event, Side
from dpaudit.attacks.event_search.features import Feature
from dpaudit.attacks.event_search.learned import LearnedScore
from dpaudit.attacks.event_search.selection import rated
from dpaudit.check import FloatArray, IntArray
from dpaudit.stats.guarantees import Guarantee

_CAUTIONS = (1.0, 2.0, 3.5)
"""Standard deviations of the front half, each of which names its own best event."""
_TEST = 2.4
"""The same of the confirmation: the normal quantile of its usual alpha."""
_MARGIN = 0.3
_LISTED = 12
NOT_A_NUMBER = 255
_CELLS = 24

Column = Feature | LearnedScore


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """A part of the samples, every column in pieces between its thresholds.

    Attributes:
        first: (n, k) number of thresholds below each value, on the one data set; 255 for NaN.
        second: (n, k) on the other; rows may have been drawn in pairs.
    """

    first: IntArray
    second: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How often events happened, arrays of any one shape.

    Attributes:
        ours: on the first data set.
        theirs: on the second.
        both: on both, in one pair of rows.
        trials: number of pairs.
    """

    ours: IntArray
    theirs: IntArray
    both: IntArray
    trials: int

    def at(self, place: tuple[int, ...]) -> Tally:
        """Of one event."""
        found = (np.asarray(each[place]) for each in (self.ours, self.theirs, self.both))
        ours, theirs, both = found
        return Tally(ours=ours, theirs=theirs, both=both, trials=self.trials)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            ours=self.ours + other.ours,
            theirs=self.theirs + other.theirs,
            both=self.both + other.both,
            trials=self.trials + other.trials,
        )


def stacked(tallies: Sequence[Tally]) -> Tally:
    """(k,) of one event each, on the same pairs."""
    ours, theirs, both = (
        np.array([getattr(each, name) for each in tallies]) for name in ("ours", "theirs", "both")
    )
    return Tally(ours=ours, theirs=theirs, both=both, trials=tallies[0].trials)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How counts of a part of the samples are read.

    Attributes:
        guarantee: the claim.
        caution: standard deviations of the part.
        size: outputs on each data set in the confirmation.
    """

    guarantee: Guarantee
    caution: float
    size: int

    def both_ways(self, seen: Tally) -> FloatArray:
        """(2, ...) what is promised where the event is likelier on the first data set, and on the second.

        The confirmation draws independently, so that its own standard deviations stay what they are.
        """
        n, ours, theirs = seen.trials, seen.ours, seen.theirs
        caution = self.caution * spread(ours, theirs, seen.both, n) + _TEST * np.sqrt(n / self.size)
        there = rated(self.guarantee, ours, n, theirs, n, caution, margin=_MARGIN)
        back = rated(self.guarantee, theirs, n, ours, n, caution, margin=_MARGIN)
        return np.stack([there, back])


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An event of the short list, and how often it happened.

    Attributes:
        event: the event.
        swapped: whether it looked likelier on the second data set.
        seen: on the back half.
        before: on the front half.
    """

    event: Event
    swapped: bool
    seen: Tally
    before: Tally


def best_places(seen: Tally, guarantee: Guarantee, size: int) -> tuple[list[tuple[int, ...]], float]:
    """Places of the events that each caution likes best in either direction, and the first one's reading."""
    places: dict[tuple[int, ...], None] = {}
    merit = -np.inf
    for caution in _CAUTIONS:
        table = Reading(guarantee=guarantee, caution=caution, size=size).both_ways(seen)
        if caution == _CAUTIONS[0]:
            merit = float(table.max(initial=-np.inf))
        for way, part in enumerate(table):
            if part.size and np.isfinite(part.max()):
                places[(way, *(int(i) for i in np.unravel_index(np.argmax(part), part.shape)))] = None
    return list(places), merit


def corners_of_pairs(
    columns: Sequence[Column],
    paired: Sequence[int],
    grid: Sequence[FloatArray],
    halves: Sequence[Coded],
    guarantee: Guarantee,
    size: int,
) -> list[Listed]:
    """The best corners of pairs of columns by the front half."""
    chosen = {j: _coarse(len(grid[j])) for j in paired if len(grid[j])}
    front, back = ({j: _pieces(half, j, chosen[j]) for j in chosen} for half in halves)
    found: list[tuple[float, int, int, list[tuple[int, ...]]]] = []
    for i, j in combinations(chosen, 2):
        places, merit = best_places(_cornered(front[i], front[j]), guarantee, size)
        found.append((merit, i, j, places))
    found.sort(key=lambda each: -each[0])
    listed: list[Listed] = []
    for _, i, j, places in found[:_LISTED]:
        before, seen = (_cornered(half[i], half[j]) for half in (front, back))
        one, other = columns[i], columns[j]
        assert isinstance(one, Feature)
        assert isinstance(other, Feature)
        for way, corner, row, place in places:
            both = Both(
                one=Side(feature=one, above=corner < 2, threshold=float(grid[i][chosen[i][row]])),
                other=Side(feature=other, above=corner % 2 == 0, threshold=float(grid[j][chosen[j][place]])),
            )
            listed.append(
                Listed(
                    event=Event(feature=both, above=True, threshold=0.5),
                    swapped=bool(way),
                    seen=seen.at((corner, row, place)),
                    before=before.at((corner, row, place)),
                )
            )
    return listed


def _coarse(cuts: int) -> IntArray:
    """At most 24 of the thresholds, which are denser towards both ends already."""
    return np.unique(np.linspace(0, cuts - 1, min(cuts, _CELLS)).round().astype(np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pieces:
    """One column of a half, coarser.

    Attributes:
        cuts: number of thresholds.
        first: codes on the one data set; one more than there are pieces for NaN.
        second: on the other.
        lower: of each pair of rows the smaller; NaN where one is.
        upper: the larger.
    """

    cuts: int
    first: IntArray
    second: IntArray
    lower: IntArray
    upper: IntArray


def _pieces(half: Coded, column: int, chosen: IntArray) -> _Pieces:
    """Codes of a column between the chosen thresholds."""
    missing = len(chosen) + 1
    table = np.searchsorted(chosen, np.arange(NOT_A_NUMBER + 1))
    table[NOT_A_NUMBER] = missing
    first, second = table[half.first[:, column]], table[half.second[:, column]]
    lower, upper = lower_and_upper(first, second, missing)
    return _Pieces(cuts=len(chosen), first=first, second=second, lower=lower, upper=upper)


def _cornered(one: _Pieces, other: _Pieces) -> Tally:
    """(4, rows, columns) counts of all corners of two columns."""
    cells = (one.cuts, other.cuts)
    ends = [(one.lower, other.lower), (one.lower, other.upper), (one.upper, other.lower)]
    ends.append((one.upper, other.upper))
    return Tally(
        ours=corners(one.first, other.first, cells),
        theirs=corners(one.second, other.second, cells),
        both=np.stack([corners(a, b, cells)[corner] for corner, (a, b) in enumerate(ends)]),
        trials=len(one.first),
    )


def corners(one: IntArray, other: IntArray, cells: tuple[int, int]) -> IntArray:
    """(4, rows, columns) counts above both thresholds, above the first alone, the second alone, neither."""
    width = cells[1] + 2
    table = np.bincount(one * width + other, minlength=(cells[0] + 2) * width).reshape(-1, width)
    table = table[:-1, :-1].cumsum(axis=0).cumsum(axis=1)
    below, rows, columns, total = table[:-1, :-1], table[:-1, -1:], table[-1:, :-1], table[-1, -1]
    return np.stack([total - rows - columns + below, columns - below, rows - below, below])


def at_most(codes: IntArray, cuts: int) -> IntArray:
    """(2, cuts) how many values lie above each threshold, and how many at most at it."""
    counts = np.bincount(codes, minlength=NOT_A_NUMBER + 1)[: cuts + 1]
    below = np.cumsum(counts)
    return np.stack([below[-1] - below[:-1], below[:-1]])


def tally(first: IntArray, second: IntArray, cuts: int) -> Tally:
    """(2, cuts) counts of all thresholds of a column."""
    lower, upper = lower_and_upper(first, second, NOT_A_NUMBER)
    return Tally(
        ours=at_most(first, cuts),
        theirs=at_most(second, cuts),
        both=np.stack([at_most(lower, cuts)[0], at_most(upper, cuts)[1]]),
        trials=len(first),
    )
