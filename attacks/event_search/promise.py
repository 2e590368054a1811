"""Choose the event that promises the largest bound once it is confirmed, where there are many outputs.

A cautious reading of the choosing samples prefers common events, however little they leak, to rare ones that
a confirmation with more outputs would show. Here the front half of the samples draws up a short list, by
several cautions, and the back half, which had no part in it, says what bound each can be expected to
give at the size of the confirmation. Nothing that is seen here counts as evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from dpaudit.attacks.event_search.events import Both, Event, Side
from dpaudit.attacks.event_search.features import Feature, matrix
from dpaudit.attacks.event_search.learned import LearnedScore, fit_linear, fit_steps, fit_trees
from dpaudit.attacks.event_search.proposals import leading, propose
from dpaudit.attacks.event_search.selection import Choice, Learn, Samples, ranked_outputs, rated, thresholds
from dpaudit.check import FloatArray, IntArray
from dpaudit.outputs import Outputs, joined
from dpaudit.stats.event_test import Counts
from dpaudit.stats.guarantees import Guarantee

PROMISED_FROM = 2_000
"""Outputs on a data set from which on half of them can say what an event promises."""
_CAUTIONS = (2.0, 3.5)
"""Standard deviations of the front half, each of which names its own best event."""
_BACK = 3.0
"""The same of the back half, on which some dozens of events are compared."""
_COMPARED = 1.0
"""The same of both halves, where pairs are compared."""
_TEST = 2.4
"""The same of the confirmation: the normal quantile of its usual alpha."""
_THINNED, _BLOCK = 20_000, 50_000
_SUMMED = ("number", "difference")
_BASE = 64
_KEPT, _PAIRED, _CELLS = 20, 10, 24
_FITTED = 50_000
_LISTED = 12
_MARGIN = 0.3
_WORTH = 0.01
_NAN = 255

Column = Feature | LearnedScore


@dataclass(frozen=True, slots=True, kw_only=True)
class _Coded:
    """A part of the samples, every column in pieces between its thresholds.

    Attributes:
        first: (n, k) number of thresholds below each value, on the one data set; 255 for NaN.
        second: (m, k) on the other.
    """

    first: IntArray
    second: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
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
class _Listed:
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


def promised(
    samples: Samples, guarantee: Guarantee, *, size: int, learn: Learn, rng: np.random.Generator
) -> Choice | None:
    """The event of all families with the largest promised bound.

    Args:
        samples: independent outputs on both data sets.
        guarantee: the claim, by whose parameter events are rated.
        size: outputs on each data set with which the event is going to be confirmed.
        learn: which scores to fit.
        rng: for what is learned.

    Returns:
        Its `rated` is the promise, and its counts are those of the back half; None where no event could
        break the claim. Costs some 60 comparisons with a sorted list for each output.
    """
    half, other = samples.first.size // 2, samples.second.size // 2
    front = Samples(
        first=samples.first.rows(slice(0, half)),
        second=samples.second.rows(slice(0, other)),
        records=samples.records,
    )
    features, base = _distinct(_thinned(front))
    if not features:
        return None
    cut = min(half // 2, other // 2, _FITTED)
    scores = _scores(front, base, cut, learn, rng)
    columns = [*features, *scores]
    grid = _grid(_rows(front, cut, None), columns)
    halves = [
        _Coded(first=_codes(a, columns, grid), second=_codes(b, columns, grid))
        for a, b in (
            (front.first, front.second),
            (samples.first.rows(slice(half, None)), samples.second.rows(slice(other, None))),
        )
    ]
    listed = _short_list(columns, len(features), grid, halves, cut, guarantee, size)
    return _most_promising(listed, halves[1], guarantee, size)


def _rows(samples: Samples, start: int, stop: int | None) -> Samples:
    where = slice(start, stop)
    return Samples(
        first=samples.first.rows(where), second=samples.second.rows(where), records=samples.records
    )


def _thinned(samples: Samples) -> Samples:
    return _rows(samples, 0, _THINNED)


def _distinct(samples: Samples) -> tuple[list[Feature], list[Feature]]:
    """Features that vary, less those that say the same of every output: those that tell most, and a base.

    The base is what scores are made of. Numbers and differences that tell little one by one belong to it,
    for they may tell much together.
    """
    pooled = joined([samples.first, samples.second])
    size = samples.first.size
    order = leading(pooled.rows(slice(0, size)), pooled.rows(slice(size, None)))
    table: dict[bytes, Feature] = {}
    gaps: dict[bytes, float] = {}
    for feature in propose(pooled, samples.records, order):
        _, codes = np.unique(feature.values(pooled), return_inverse=True)
        codes = codes.ravel()
        if not codes.max():
            continue
        # A falling function of another feature has the same events as that one.
        key = min(each.astype(np.int32).tobytes() for each in (codes, codes.max() - codes))
        if key not in table:
            table[key] = feature
            gaps[key] = _gap(codes[:size], codes[size:])
    kept = set(sorted(table, key=lambda key: -gaps[key])[:_KEPT])
    telling = [feature for key, feature in table.items() if key in kept]
    more = [feature for key, feature in table.items() if key not in kept and feature.name in _SUMMED]
    base = [feature for feature in telling if feature.name != "whole output"]
    return telling, [*base, *more[: max(_BASE - len(base), 0)]]


def _gap(first: IntArray, second: IntArray) -> float:
    """Largest standardised difference of the two distribution functions."""
    top = int(max(first.max(), second.max())) + 1
    counts = [np.cumsum(np.bincount(part, minlength=top))[:-1] for part in (first, second)]
    shares = [count / part.size for count, part in zip(counts, (first, second), strict=True)]
    pooled = (counts[0] + counts[1] + 1.0) / (first.size + second.size + 2.0)
    spread = np.sqrt(pooled * (1 - pooled) * (1 / first.size + 1 / second.size))
    return float(np.max(np.abs(shares[0] - shares[1]) / spread, initial=0.0))


def _scores(
    front: Samples, base: Sequence[Feature], cut: int, learn: Learn, rng: np.random.Generator
) -> list[Column]:
    """What is fitted on the first rows of the front half."""
    part = _rows(front, 0, cut)
    scores: list[Column] = []
    if base and learn is not Learn.NOTHING:
        first, second = matrix(part.first, base), matrix(part.second, base)
        fits = (fit_linear, fit_steps, fit_trees)[: 2 if learn is Learn.LINEAR else 3]
        scores += [fit(base, first, second, rng) for fit in fits]
    ranked = ranked_outputs(part.first, part.second)
    return scores if ranked is None else [*scores, ranked]


def _grid(samples: Samples, columns: Sequence[Column]) -> list[FloatArray]:
    """Thresholds of each column, rising; empty where it has none."""
    some = _rows(samples, 0, _BLOCK)
    found = thresholds(_matrix(some.first, columns), _matrix(some.second, columns))
    return [np.unique(column[~np.isnan(column)]) for column in found.T]


def _matrix(outputs: Outputs, columns: Sequence[Column]) -> FloatArray:
    return np.stack([column.values(outputs) for column in columns], axis=1)


def _codes(outputs: Outputs, columns: Sequence[Column], grid: Sequence[FloatArray]) -> IntArray:
    """(n, k) uint8; in blocks, so that no table of floats is as long as the samples."""
    found = np.empty((outputs.size, len(columns)), dtype=np.uint8)
    for start in range(0, outputs.size, _BLOCK):
        block = outputs.rows(slice(start, start + _BLOCK))
        for j, (column, cuts) in enumerate(zip(columns, grid, strict=True)):
            values = column.values(block)
            pieces = np.searchsorted(cuts, values)
            found[start : start + block.size, j] = np.where(np.isnan(values), _NAN, pieces)
    return np.asarray(found)


def _at_most(codes: IntArray, cuts: int) -> IntArray:
    """(2, cuts) how many values lie above each threshold, and how many at most at it."""
    counts = np.bincount(codes, minlength=_NAN + 1)[: cuts + 1]
    at_most = np.cumsum(counts)
    return np.stack([at_most[-1] - at_most[:-1], at_most[:-1]])


def _short_list(
    columns: Sequence[Column],
    readable: int,
    grid: Sequence[FloatArray],
    halves: Sequence[_Coded],
    cut: int,
    guarantee: Guarantee,
    size: int,
) -> list[_Listed]:
    """The best thresholds of each column by the front half, then of pairs of columns; readable ones first."""
    front, back = halves
    found: list[list[_Listed]] = []
    merits = []
    for j, column in enumerate(columns):
        # What was fitted on the first rows looks too good on them.
        start = 0 if j < readable else cut
        ours, theirs = (_at_most(part[start:, j], len(grid[j])) for part in (front.first, front.second))
        left = (len(front.first) - start, len(front.second) - start)
        after = [_at_most(part[:, j], len(grid[j])) for part in (back.first, back.second)]
        best, merit = _best(ours, theirs, left, guarantee, size)
        merits.append(merit)
        found.append(
            [
                _Listed(
                    event=Event(feature=column, above=side == 0, threshold=float(grid[j][row])),
                    swapped=bool(swapped),
                    ours=int(after[0][side, row]),
                    theirs=int(after[1][side, row]),
                    before=(int(ours[side, row]), int(theirs[side, row]), *left),
                )
                for swapped, side, row in best
            ]
        )
    paired = sorted(range(readable), key=lambda j: -merits[j])[:_PAIRED]
    simple = [each for part in found[:readable] for each in part]
    fitted = [each for part in found[readable:] for each in part]
    return [*simple, *_pairs(columns, sorted(paired), grid, halves, guarantee, size), *fitted]


def _best(
    ours: IntArray, theirs: IntArray, trials: tuple[int, int], guarantee: Guarantee, size: int
) -> tuple[list[tuple[int, ...]], float]:
    """Places of the events that each caution likes best in either direction, and the first one's reading."""
    places: dict[tuple[int, ...], None] = {}
    merit = -np.inf
    for caution in _CAUTIONS:
        reading = _Reading(
            guarantee=guarantee, trials=trials[0], others=trials[1], caution=caution, size=size
        )
        table = reading.both_ways(ours, theirs)
        if caution == _CAUTIONS[0]:
            merit = float(table.max(initial=-np.inf))
        for way, part in enumerate(table):
            if part.size and np.isfinite(part.max()):
                places[(way, *(int(i) for i in np.unravel_index(np.argmax(part), part.shape)))] = None
    return list(places), merit


def _pairs(
    columns: Sequence[Column],
    paired: Sequence[int],
    grid: Sequence[FloatArray],
    halves: Sequence[_Coded],
    guarantee: Guarantee,
    size: int,
) -> list[_Listed]:
    """The best corners of pairs of columns by the front half."""
    chosen = {j: _coarse(len(grid[j])) for j in paired if len(grid[j])}
    front, back = ({j: _pieces(half, j, chosen[j]) for j in chosen} for half in halves)
    trials = (len(halves[0].first), len(halves[0].second))
    found: list[tuple[float, int, int, list[tuple[int, ...]]]] = []
    for i, j in combinations(chosen, 2):
        cells = (len(chosen[i]), len(chosen[j]))
        ours, theirs = (_corners(front[i][side], front[j][side], cells) for side in (0, 1))
        places, merit = _best(ours, theirs, trials, guarantee, size)
        found.append((merit, i, j, places))
    found.sort(key=lambda each: -each[0])
    listed: list[_Listed] = []
    for _, i, j, places in found[:_LISTED]:
        cells = (len(chosen[i]), len(chosen[j]))
        then = [_corners(front[i][side], front[j][side], cells) for side in (0, 1)]
        ours, theirs = (_corners(back[i][side], back[j][side], cells) for side in (0, 1))
        one, other = columns[i], columns[j]
        assert isinstance(one, Feature)
        assert isinstance(other, Feature)
        for way, corner, row, place in places:
            both = Both(
                one=Side(feature=one, above=corner < 2, threshold=float(grid[i][chosen[i][row]])),
                other=Side(feature=other, above=corner % 2 == 0, threshold=float(grid[j][chosen[j][place]])),
            )
            listed.append(
                _Listed(
                    event=Event(feature=both, above=True, threshold=0.5),
                    swapped=bool(way),
                    ours=int(ours[corner, row, place]),
                    theirs=int(theirs[corner, row, place]),
                    before=(*(int(part[corner, row, place]) for part in then), *trials),
                )
            )
    return listed


def _coarse(cuts: int) -> IntArray:
    """At most 24 of the thresholds, which are denser towards both ends already."""
    return np.unique(np.linspace(0, cuts - 1, min(cuts, _CELLS)).round().astype(np.int64))


def _pieces(half: _Coded, column: int, chosen: IntArray) -> tuple[IntArray, IntArray]:
    """Codes of a column between the chosen thresholds; one more than there are pieces for NaN."""
    table = np.searchsorted(chosen, np.arange(_NAN + 1))
    table[_NAN] = len(chosen) + 1
    return table[half.first[:, column]], table[half.second[:, column]]


def _corners(one: IntArray, other: IntArray, cells: tuple[int, int]) -> IntArray:
    """(4, rows, columns) counts above both thresholds, above the first alone, the second alone, neither."""
    width = cells[1] + 2
    table = np.bincount(one * width + other, minlength=(cells[0] + 2) * width).reshape(-1, width)
    table = table[:-1, :-1].cumsum(axis=0).cumsum(axis=1)
    below, rows, columns, total = table[:-1, :-1], table[:-1, -1:], table[-1:, :-1], table[-1, -1]
    return np.stack([total - rows - columns + below, columns - below, rows - below, below])


def _most_promising(
    listed: Sequence[_Listed], back: _Coded, guarantee: Guarantee, size: int
) -> Choice | None:
    """By the back half; of those that promise as much the one that people can read best."""
    if not listed:
        return None
    n, m = len(back.first), len(back.second)
    reading = _Reading(guarantee=guarantee, trials=n, others=m, caution=_BACK, size=size)
    ours, theirs = (np.array([getattr(each, side) for each in listed]) for side in ("ours", "theirs"))
    both = reading.both_ways(ours, theirs)
    promises = np.where([each.swapped for each in listed], both[1], both[0])
    top = promises.max()
    if not np.isfinite(top):
        return None
    at = int(np.argmax(promises >= top - _WORTH * abs(top)))
    best = listed[at]
    counts = (
        Counts(hits=best.theirs, trials=m, other_hits=best.ours, other_trials=n)
        if best.swapped
        else Counts(hits=best.ours, trials=n, other_hits=best.theirs, other_trials=m)
    )
    return Choice(
        event=best.event,
        swapped=best.swapped,
        rated=float(promises[at]),
        counts=counts,
        expected=_expected(best, n, m, guarantee, size),
    )


def _expected(best: _Listed, trials: int, others: int, guarantee: Guarantee, size: int) -> float:
    """By both halves, with little caution: pairs are compared, whose luck is alike."""
    ours, theirs, before, others_before = best.before
    reading = _Reading(
        guarantee=guarantee,
        trials=trials + before,
        others=others + others_before,
        caution=_COMPARED,
        size=size,
    )
    both = reading.both_ways(np.array(ours + best.ours), np.array(theirs + best.theirs))
    return float(both[int(best.swapped)])
