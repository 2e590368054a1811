"""Choose the event that promises the largest bound once it is confirmed, where there are many outputs.

A cautious reading of the choosing samples prefers common events, however little they leak, to rare ones that
a confirmation with more outputs would show. Here the front half of the samples draws up a short list, by
several cautions, and the back half, which had no part in it, says what bound each can be expected to
give at the size of the confirmation. Nothing that is seen here counts as evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dpaudit.attacks.event_search.coupling import shares
from dpaudit.attacks.event_search.events import Both, Event
from dpaudit.attacks.event_search.features import Feature, matrix, side_by_side
from dpaudit.attacks.event_search.learned import columns_of, fit_linear, fit_steps, fit_trees
from dpaudit.attacks.event_search.listing import (
    NOT_A_NUMBER,
    Coded,
    Column,
    Listed,
    Reading,
    Tally,
    best_places,
    corners_of_pairs,
    stacked,
    tally,
)
from dpaudit.attacks.event_search.proposals import leading, propose
from dpaudit.attacks.event_search.selection import Choice, Learn, Samples, ranked_outputs, rated, thresholds
from dpaudit.check import BoolArray, FloatArray, IntArray
from dpaudit.outputs import Outputs, joined
from dpaudit.stats.event_test import Counts
from dpaudit.stats.guarantees import Guarantee

PROMISED_FROM = 2_000
"""Outputs on a data set from which on half of them can say what an event promises."""
_BACK = 3.0
"""Standard deviations of the back half, on which some dozens of events are compared."""
_COMPARED = 1.0
"""The same of both halves, where pairs are compared."""
_THINNED, _BLOCK = 20_000, 50_000
_SUMMED = ("number", "difference")
_BASE = 64
_KEPT, _PAIRED = 20, 10
_FITTED = 50_000
_WORTH = 0.01
_BESIDE = 3
"""Further events for the same outputs: a share of alpha costs less than a choice among equals by chance."""
_ALIKE = 0.1
"""Events that differ on fewer of the outputs on which either happens are one event, said in two ways."""
_DRAWN, _TESTED, _LIKELY = 200, 3.0, 0.2
"""Pairs of shares; standard deviations of a test at a small share of alpha; a chance that is worth one."""
_NEXT = 24
"""Events that are looked at for those."""


def promised(
    samples: Samples, guarantee: Guarantee, *, size: int, learn: Learn, rng: np.random.Generator
) -> Choice | None:
    """The event of all families with the largest promised bound.

    Args:
        samples: outputs on both data sets, each of a data set independent of its others; the i-th of the
            one and the i-th of the other may have been drawn under the same seed, which makes a choice surer.
        guarantee: the claim, by whose parameter events are rated.
        size: outputs on each data set with which the event is going to be confirmed.
        learn: which scores to fit.
        rng: for what is learned.

    Returns:
        Its `rated` is the promise, and its counts are those of the back half; None where no event could
        break the claim. Costs some 60 comparisons with a sorted list for each output.
    """
    total = min(samples.first.size, samples.second.size)
    half = total // 2
    front, back = samples.rows(0, half), samples.rows(half, total)
    features, base = _distinct(_thinned(front))
    if not features:
        return None
    cut = min(half // 2, _FITTED)
    scores = _scores(front, base, cut, learn, rng)
    columns = [*features, *scores]
    grid = _grid(front.rows(cut, None), columns)
    halves = [
        Coded(first=_codes(part.first, columns, grid), second=_codes(part.second, columns, grid))
        for part in (front, back)
    ]
    listed = _short_list(columns, len(features), grid, halves, cut, guarantee, size)
    return _most_promising(listed, _thinned(back), guarantee, size)


def _thinned(samples: Samples) -> Samples:
    return samples.rows(0, _THINNED)


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
    part = front.rows(0, cut)
    scores: list[Column] = []
    if base and learn is not Learn.NOTHING:
        first, second = matrix(part.first, base), matrix(part.second, base)
        fits = (fit_linear, fit_steps, fit_trees)[: 2 if learn is Learn.LINEAR else 3]
        scores += [fit(base, first, second, rng) for fit in fits]
    ranked = ranked_outputs(part.first, part.second)
    return scores if ranked is None else [*scores, ranked]


def _grid(samples: Samples, columns: Sequence[Column]) -> list[FloatArray]:
    """Thresholds of each column, rising; empty where it has none."""
    some = samples.rows(0, _BLOCK)
    found = thresholds(_matrix(some.first, columns), _matrix(some.second, columns))
    return [np.unique(column[~np.isnan(column)]) for column in found.T]


def _matrix(outputs: Outputs, columns: Sequence[Column]) -> FloatArray:
    return side_by_side(columns_of(outputs, columns), outputs.size)


def _codes(outputs: Outputs, columns: Sequence[Column], grid: Sequence[FloatArray]) -> IntArray:
    """(n, k) uint8; in blocks, so that no table of floats is as long as the samples."""
    found = np.empty((outputs.size, len(columns)), dtype=np.uint8, order="F")
    for start in range(0, outputs.size, _BLOCK):
        block = outputs.rows(slice(start, start + _BLOCK))
        for j, (values, cuts) in enumerate(zip(columns_of(block, columns), grid, strict=True)):
            pieces = np.searchsorted(cuts, values)
            found[start : start + block.size, j] = np.where(np.isnan(values), NOT_A_NUMBER, pieces)
    return np.asarray(found)


def _short_list(
    columns: Sequence[Column],
    readable: int,
    grid: Sequence[FloatArray],
    halves: Sequence[Coded],
    cut: int,
    guarantee: Guarantee,
    size: int,
) -> list[Listed]:
    """The best thresholds of each column by the front half, then of pairs of columns; readable ones first."""
    front, back = halves
    found: list[list[Listed]] = []
    merits = []
    for j, column in enumerate(columns):
        # What was fitted on the first rows looks too good on them.
        start = 0 if j < readable else cut
        before = tally(front.first[start:, j], front.second[start:, j], len(grid[j]))
        seen = tally(back.first[:, j], back.second[:, j], len(grid[j]))
        best, merit = best_places(before, guarantee, size)
        merits.append(merit)
        found.append(
            [
                Listed(
                    event=Event(feature=column, above=side == 0, threshold=float(grid[j][row])),
                    swapped=bool(swapped),
                    seen=seen.at((side, row)),
                    before=before.at((side, row)),
                )
                for swapped, side, row in best
            ]
        )
    paired = sorted(range(readable), key=lambda j: -merits[j])[:_PAIRED]
    simple = [each for part in found[:readable] for each in part]
    fitted = [each for part in found[readable:] for each in part]
    return [*simple, *corners_of_pairs(columns, sorted(paired), grid, halves, guarantee, size), *fitted]


def _most_promising(
    listed: Sequence[Listed], some: Samples, guarantee: Guarantee, size: int
) -> Choice | None:
    """By the back half; of those that promise as much the one that people can read best.

    Beside it stand others, the likeliest first, that differ on `some` outputs and that the back half cannot
    tell from the best.
    """
    if not listed:
        return None
    seen = stacked([each.seen for each in listed])

    def promised_with(caution: float) -> FloatArray:
        both = Reading(guarantee=guarantee, caution=caution, size=size).both_ways(seen)
        found: FloatArray = np.where([each.swapped for each in listed], both[1], both[0])
        return found

    promises, likely = promised_with(_BACK), promised_with(_COMPARED)
    top = promises.max()
    if not np.isfinite(top):
        return None
    first = int(np.argmax(promises >= top - _WORTH * abs(top)))
    # A reading with a standard deviation more for the one, and one less for the other.
    known = np.isfinite(promises)
    spread = np.subtract(likely, promises, out=np.zeros(len(listed)), where=known)
    able = known & (likely + spread / (_BACK - _COMPARED) >= (likely[first] + promises[first]) / 2)
    surest = _surest(listed, likely > guarantee.claimed, seen, guarantee, size)
    second = [] if surest is None or surest == first else [surest]
    order = [first, *second, *(int(at) for at in np.argsort(-likely, kind="stable") if able[at])]
    best: dict[tuple[Column | Both, bool], int] = {}
    for at in order:
        best.setdefault((listed[at].event.feature, listed[at].swapped), at)
    places = list(best.values())[:_NEXT]
    kept = [places[i] for i in different(some, [listed[at] for at in places], 1 + _BESIDE)]
    choices = [_choice(listed[at], float(promises[at]), guarantee, size) for at in kept]
    return replace(choices[0], beside=tuple(choices[1:]))


def _surest(
    listed: Sequence[Listed],
    known: BoolArray,
    seen: Tally,
    guarantee: Guarantee,
    size: int,
) -> int | None:
    """The event, of those `known` to leak, that the confirmation is likeliest to refute the claim by.

    A rare event that the neighbour never shows promises little, for its share may be as good as nothing, and
    yet refutes almost surely. Shares are drawn from what the back half leaves of them.
    """
    drawn = shares(seen.ours, seen.theirs, seen.both, seen.trials, _DRAWN, np.random.default_rng(0))
    hits, others = (np.round(share * size).astype(np.int64) for share in drawn)
    swapped = np.array([each.swapped for each in listed])
    likelier, other = np.where(swapped, others, hits), np.where(swapped, hits, others)
    found = rated(guarantee, likelier, size, other, size, _TESTED, margin=0.0)
    chance = np.where(known, np.mean(found > guarantee.claimed, axis=0), 0.0)
    return int(np.argmax(chance)) if chance.max() >= _LIKELY else None


def with_cautious(choice: Choice, cautious: Choice, samples: Samples) -> Choice:
    """The same event, with that of a cautious reading first of those beside it, unless it is alike."""
    every = (choice, cautious, *choice.beside)
    kept = different(_thinned(samples), every, 1 + _BESIDE)
    return replace(choice, beside=tuple(every[i] for i in kept[1:]))


def different(some: Samples, events: Sequence[Listed | Choice], most: int) -> list[int]:
    """Places of the first events of which no two happen on nearly the same outputs, at most so many."""
    kept: dict[int, BoolArray] = {}
    for i, each in enumerate(events):
        happened = np.concatenate([each.event.holds(some.first), each.event.holds(some.second)])
        if all(_apart(happened, other) for other in kept.values()):
            kept[i] = happened
        if len(kept) == most:
            break
    return list(kept)


def _apart(one: BoolArray, other: BoolArray) -> bool:
    """Whether two events differ on enough of the outputs on which either happens, or one of both does not."""
    differing = int((one ^ other).sum())
    least = min(int((one | other).sum()), int((~one | ~other).sum()))
    return differing > _ALIKE * least


def _choice(best: Listed, promise: float, guarantee: Guarantee, size: int) -> Choice:
    ours, theirs, trials = int(best.seen.ours), int(best.seen.theirs), best.seen.trials
    hits, other = (theirs, ours) if best.swapped else (ours, theirs)
    return Choice(
        event=best.event,
        swapped=best.swapped,
        rated=promise,
        counts=Counts(hits=hits, trials=trials, other_hits=other, other_trials=trials),
        expected=_expected(best, guarantee, size),
    )


def _expected(best: Listed, guarantee: Guarantee, size: int) -> float:
    """By both halves, with little caution: pairs are compared, whose luck is alike."""
    reading = Reading(guarantee=guarantee, caution=_COMPARED, size=size)
    return float(reading.both_ways(best.before + best.seen)[int(best.swapped)])
