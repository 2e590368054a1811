"""Events on a short list: how counts of them are read, and corners of two features at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

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
        second: (m, k) on the other.
    """

    first: IntArray
    second: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How counts of a part of the samples are read.

    Attributes:
        guarantee: the claim.
        trials: outputs of the part on the one data set.
        others: on the other.
        caution: standard deviations of the part.
        size: outputs on each data set in the confirmation.
    """

    guarantee: Guarantee
    trials: int
    others: int
    caution: float
    size: int

    def both_ways(self, ours: IntArray, theirs: IntArray) -> FloatArray:
        """(2, ...) what is promised where the event is likelier on the first data set, and on the second."""
        # `rated` takes the caution in standard deviations of each of its two samples.
        one, two = (
            self.caution + _TEST * np.sqrt(trials / self.size) for trials in (self.trials, self.others)
        )
        claim, n, m = self.guarantee, self.trials, self.others
        there = rated(claim, ours, n, theirs, m, one, others_caution=two, margin=_MARGIN)
        back = rated(claim, theirs, m, ours, n, two, others_caution=one, margin=_MARGIN)
        return np.stack([there, back])


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An event of the short list, and how often it happened on the back half.

    Attributes:
        event: the event.
        swapped: whether it looked likelier on the second data set.
        ours: count on the first.
        theirs: count on the second.
        before: counts on the front half, and of how many outputs on each data set.
    """

    event: Event
    swapped: bool
    ours: int
    theirs: int
    before: tuple[int, int, int, int]


def best_places(
    ours: IntArray, theirs: IntArray, trials: tuple[int, int], guarantee: Guarantee, size: int
) -> tuple[list[tuple[int, ...]], float]:
    """Places of the events that each caution likes best in either direction, and the first one's reading."""
    places: dict[tuple[int, ...], None] = {}
    merit = -np.inf
    for caution in _CAUTIONS:
        reading = Reading(guarantee=guarantee, trials=trials[0], others=trials[1], caution=caution, size=size)
        table = reading.both_ways(ours, theirs)
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
    trials = (len(halves[0].first), len(halves[0].second))
    found: list[tuple[float, int, int, list[tuple[int, ...]]]] = []
    for i, j in combinations(chosen, 2):
        cells = (len(chosen[i]), len(chosen[j]))
        ours, theirs = (corners(front[i][side], front[j][side], cells) for side in (0, 1))
        places, merit = best_places(ours, theirs, trials, guarantee, size)
        found.append((merit, i, j, places))
    found.sort(key=lambda each: -each[0])
    listed: list[Listed] = []
    for _, i, j, places in found[:_LISTED]:
        cells = (len(chosen[i]), len(chosen[j]))
        then = [corners(front[i][side], front[j][side], cells) for side in (0, 1)]
        ours, theirs = (corners(back[i][side], back[j][side], cells) for side in (0, 1))
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
                    ours=int(ours[corner, row, place]),
                    theirs=int(theirs[corner, row, place]),
                    before=(int(then[0][corner, row, place]), int(then[1][corner, row, place]), *trials),
                )
            )
    return listed


def _coarse(cuts: int) -> IntArray:
    """At most 24 of the thresholds, which are denser towards both ends already."""
    return np.unique(np.linspace(0, cuts - 1, min(cuts, _CELLS)).round().astype(np.int64))


def _pieces(half: Coded, column: int, chosen: IntArray) -> tuple[IntArray, IntArray]:
    """Codes of a column between the chosen thresholds; one more than there are pieces for NaN."""
    table = np.searchsorted(chosen, np.arange(NOT_A_NUMBER + 1))
    table[NOT_A_NUMBER] = len(chosen) + 1
    return table[half.first[:, column]], table[half.second[:, column]]


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
