"""Choose, on samples that serve for nothing else, the event by which two data sets are best told apart.

Thousands of events are compared on the same samples, so that the best of them looks better than it is. Each
is therefore rated by a cautious reading of its counts: by the parameter that would be needed if the
likelier probability lay some standard deviations lower, and the other one higher.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from dpaudit.attacks.event_search.events import Event
from dpaudit.attacks.event_search.features import Feature, matrix, side_by_side
from dpaudit.attacks.event_search.learned import LearnedScore, columns_of, fit_linear, fit_trees
from dpaudit.attacks.event_search.proposals import leading, propose
from dpaudit.check import FloatArray, IntArray
from dpaudit.outputs import Outputs, joined
from dpaudit.stats.event_test import Counts
from dpaudit.stats.guarantees import Guarantee

_SMALL = 20_000
"""Cells up to which thresholds are compared with all values at once; beyond, each column is sorted."""
_RANKS = 40
_KEPT = 24
_TRAINED_FROM = 400
_WORTH = 0.01
CAUTION = 3.5
"""Standard deviations: the best of thousands of events, none of which is real, looks that much better."""
_HOPE = 1.0
"""The same of a reading that only gives a pair another chance."""
_FITTED = 20_000
_MARGINS = (0.3, 0.05, -math.inf)
"""By how much an event has to be able to exceed the claim; the next one where no event is able to."""


class Learn(Enum):
    """Which scores are fitted; trees take a second."""

    NOTHING = 0
    LINEAR = 1
    ALL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An event and what the samples that chose it say of it.

    Attributes:
        event: the event.
        swapped: whether it is likelier on the second data set.
        rated: parameter of the guarantee that the cautious reading needs; negative where it needs none.
        counts: on the samples that chose it: too good to be believed.
        expected: bound that a confirmation is likelier to give than not, by which pairs are compared; that
            of a cautious reading would put common events before worse ones. None where only `rated` is known.
        hopeful: parameter that the least cautious reading of any event needs: of many pairs it is mostly
            luck, but a rare event that the neighbour never shows has no other sign in few outputs.
        beside: other events that promise nearly as much, to be confirmed on the same outputs.
    """

    event: Event
    swapped: bool
    rated: float
    counts: Counts
    expected: float | None = None
    hopeful: float = -math.inf
    beside: tuple[Choice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Outputs on two neighbouring data sets.

    Attributes:
        first: on the one.
        second: on the other.
        records: numbers in the two data sets.
    """

    first: Outputs
    second: Outputs
    records: tuple[float, ...] = ()

    def rows(self, start: int, stop: int | None) -> Samples:
        """Outputs `start` to `stop` on each data set."""
        where = slice(start, stop)
        return replace(self, first=self.first.rows(where), second=self.second.rows(where))


def together(parts: Sequence[Samples]) -> Samples:
    """Samples of the same pair as one."""
    return Samples(
        first=joined([part.first for part in parts]),
        second=joined([part.second for part in parts]),
        records=parts[0].records,
    )


def choose(
    samples: Samples,
    guarantee: Guarantee,
    *,
    learn: Learn = Learn.NOTHING,
    caution: float = CAUTION,
    rng: np.random.Generator | None = None,
) -> Choice | None:
    """The best event of all families.

    Args:
        samples: independent outputs on both data sets.
        guarantee: the claim, by whose parameter events are rated.
        learn: which scores to fit on a part of the samples, at most half; they are rated on the others.
        caution: standard deviations, over both probabilities together; thousands of events are compared.
        rng: for what is learned; needed only there.

    Returns:
        None where no feature varies. Costs the number of features times n log n.
    """
    pooled = joined([samples.first, samples.second])
    size = samples.first.size
    order = leading(pooled.rows(slice(0, size)), pooled.rows(slice(size, None)))
    features = propose(_thinned(pooled), samples.records, order)
    if not features:
        return None
    features = _promising(features, samples, guarantee, caution)
    first, second = matrix(samples.first, features), matrix(samples.second, features)
    best = _best(list(features), first, second, guarantee, caution)
    if learn is not Learn.NOTHING and rng is not None and min(len(first), len(second)) >= _TRAINED_FROM:
        best = _better(best, _learned(samples, features, first, second, guarantee, caution, rng, learn))
    for margin in _MARGINS[1:]:
        if best is None:
            best = _best(list(features), first, second, guarantee, caution, margin=margin)
    return best


def _thinned(pooled: Outputs) -> Outputs:
    """Enough outputs to see what varies."""
    step = max(1, pooled.size // 20_000)
    return pooled.rows(slice(None, None, step))


def _promising(
    features: list[Feature], samples: Samples, guarantee: Guarantee, caution: float
) -> list[Feature]:
    """Where there are many outputs, only the features that do best on some of them."""
    rows = slice(0, 4000)
    if max(samples.first.size, samples.second.size) <= 2 * 4000 or len(features) <= _KEPT:
        return features
    first, second = matrix(samples.first.rows(rows), features), matrix(samples.second.rows(rows), features)
    choices = [
        _best([feature], first[:, [j]], second[:, [j]], guarantee, caution)
        for j, feature in enumerate(features)
    ]
    rated = np.array([-np.inf if choice is None else choice.rated for choice in choices])
    ranks = np.argsort(np.argsort(np.concatenate([first, second]), axis=0), axis=0)
    gaps = np.abs(ranks[: len(first)].mean(axis=0) - ranks[len(first) :].mean(axis=0))
    by_rating, by_gap = np.argsort(-rated), np.argsort(-gaps)
    kept = dict.fromkeys([*by_rating[: _KEPT // 2].tolist(), *by_gap[:_KEPT].tolist()])
    return [features[j] for j in list(kept)[:_KEPT]]


def _learned(
    samples: Samples,
    features: Sequence[Feature],
    first: FloatArray,
    second: FloatArray,
    guarantee: Guarantee,
    caution: float,
    rng: np.random.Generator,
    learn: Learn,
) -> Choice | None:
    """The best threshold of scores that are fitted on a part, rated on the rest."""
    cut, other_cut = (min(len(part) // 2, max(len(part) // 4, _FITTED)) for part in (first, second))
    rest = (samples.first.rows(slice(cut, None)), samples.second.rows(slice(other_cut, None)))
    scores: list[LearnedScore | Feature] = []
    base = [feature for feature in features if feature.name not in ("whole output", "ranked outputs")]
    columns = [j for j, feature in enumerate(features) if feature in base]
    if base:
        for fit in (fit_linear, fit_trees)[: 1 if learn is Learn.LINEAR else 2]:
            scores.append(fit(base, first[:cut, columns], second[:other_cut, columns], rng))
    ranked = ranked_outputs(samples.first.rows(slice(0, cut)), samples.second.rows(slice(0, other_cut)))
    if ranked is not None:
        scores.append(ranked)
    tables = [side_by_side(columns_of(part, scores), part.size) for part in rest] if scores else []
    return _best(scores, tables[0], tables[1], guarantee, caution) if scores else None


def ranked_outputs(first: Outputs, second: Outputs) -> Feature | None:
    """Whole outputs by how much likelier each is on the first data set, where they come back."""
    values, place = np.unique(np.concatenate([first.fingerprints, second.fingerprints]), return_inverse=True)
    if values.size > 5000 or values.size < 2:
        return None
    a = np.bincount(place[: first.size], minlength=values.size)
    b = np.bincount(place[first.size :], minlength=values.size)
    ratio = np.log((a + 0.5) / (b + 0.5))
    return Feature(
        name="ranked outputs",
        constants=(*(float(r) for r in ratio), 0.0),
        words=tuple(f"{int(value):x}" for value in values),
    )


def _better(simple: Choice | None, learned: Choice | None) -> Choice | None:
    """What people can read, unless what was learned is clearly better."""
    if simple is None or learned is None:
        return simple or learned
    return learned if learned.rated > simple.rated + _WORTH * abs(simple.rated) else simple


def _best(
    features: Sequence[Feature | LearnedScore],
    first: FloatArray,
    second: FloatArray,
    guarantee: Guarantee,
    caution: float,
    *,
    margin: float = _MARGINS[0],
) -> Choice | None:
    """Rate every threshold of every column on either side, in either direction."""
    n, m = len(first), len(second)
    if not n or not m:
        return None
    cuts = thresholds(first, second)
    ours, theirs = _counts(first, cuts), _counts(second, cuts)

    def read_with(deviations: float) -> FloatArray:
        there = rated(guarantee, ours, n, theirs, m, deviations, margin=margin)
        back = rated(guarantee, theirs, m, ours, n, deviations, margin=margin)
        return np.where(np.isnan(cuts) | trivial, -np.inf, np.stack([there, back]))

    # What happens always, or never, is no event.
    trivial = np.isin(ours + theirs, (0, n + m))
    readings = read_with(caution)
    # Features come in the order in which people like to read them: the first that is as good as any is taken.
    tops = readings.max(axis=(0, 1, 2))
    if np.isneginf(tops).all():
        return None
    column = int(np.argmax(tops >= tops.max() - _WORTH * abs(tops.max())))
    # Of equal ratings the commonest event is the surest.
    common = np.broadcast_to((ours + theirs)[None, :, :, column], readings.shape[:3])
    flat = np.lexsort((-common.ravel(), -readings[..., column].ravel()))[0]
    swapped, side, row = (int(i) for i in np.unravel_index(flat, readings.shape[:3]))
    a, b = int(ours[side, row, column]), int(theirs[side, row, column])
    return Choice(
        event=Event(feature=features[column], above=side == 0, threshold=float(cuts[row, column])),
        swapped=bool(swapped),
        rated=float(readings[swapped, side, row, column]),
        hopeful=float(read_with(min(caution, _HOPE)).max()),
        counts=Counts(hits=b, trials=m, other_hits=a, other_trials=n)
        if swapped
        else Counts(hits=a, trials=n, other_hits=b, other_trials=m),
    )


def thresholds(first: FloatArray, second: FloatArray) -> FloatArray:
    """(t, k) values at ranks of both samples together, denser towards both ends; NaN where there is none."""
    pooled = np.sort(np.concatenate([first, second]), axis=0)
    counts = np.sum(~np.isnan(pooled), axis=0)
    half = np.unique(np.geomspace(1, max(len(pooled) / 2, 1), _RANKS).astype(np.int64)) - 1
    ranks = np.unique(np.concatenate([half, len(pooled) - 2 - half]).clip(0, len(pooled) - 1))
    # NaN sorts last: ranks are taken among the numbers that there are.
    scaled = np.floor(ranks[:, None] * (counts / len(pooled))).astype(np.int64)
    chosen = np.take_along_axis(pooled, np.minimum(scaled, np.maximum(counts - 1, 0)), axis=0)
    result: FloatArray = np.where(counts > 0, chosen, np.nan)
    return result


def _counts(values: FloatArray, thresholds: FloatArray) -> IntArray:
    """(2, t, k) values above each threshold, and at most it."""
    numbers = np.sum(~np.isnan(values), axis=0)
    with np.errstate(invalid="ignore"):
        if len(values) <= _SMALL // max(len(thresholds), 1):
            above = np.sum(values[:, None, :] > thresholds[None], axis=0)
        else:
            ordered = np.sort(values, axis=0)
            ends = [
                np.searchsorted(ordered[:count, j], thresholds[:, j], side="right")
                for j, count in enumerate(numbers)
            ]
            above = numbers - np.stack(ends, axis=1)
    return np.stack([above, numbers - above]).astype(np.int64)


def rated(
    guarantee: Guarantee,
    hits: IntArray,
    trials: int,
    other: IntArray,
    others: int,
    caution: float,
    *,
    others_caution: float | None = None,
    margin: float,
) -> FloatArray:
    """Parameter that the cautious reading needs, negative where it needs none; -inf for what shows nothing.

    `others_caution` is that of the neighbour's probability, where it is another one.

    An event that could not break the claim if it happened always on the one data set says nothing, however
    equal its shares are: without that rule, one that always happens would beat a real one that too few
    samples were drawn for.
    """
    low = _low(hits, trials, caution)
    needed = guarantee.least(low, _high(other, others, caution if others_caution is None else others_caution))
    most = guarantee.least(1.0 - 1e-12, (other + 0.5) / (others + 1.0))
    able = most > guarantee.claimed + min(guarantee.claimed, margin)
    result: FloatArray = np.where(able, needed, -np.inf)
    return result


def _angle(hits: IntArray, trials: int) -> FloatArray:
    """Arcsine of the root of a share, whose variance is 1 / (4 trials) whatever the share (Anscombe 1948)."""
    return np.asarray(np.arcsin(np.sqrt((hits + 0.375) / (trials + 0.75))))


def _low(hits: IntArray, trials: int, caution: float) -> FloatArray:
    """A cautious lower reading of a share: its `_angle` less a part of the caution."""
    angle = _angle(hits, trials) - caution / np.sqrt(8.0 * trials)
    return np.asarray(np.sin(np.maximum(angle, 0.0)) ** 2)


def _high(hits: IntArray, trials: int, caution: float) -> FloatArray:
    """A cautious upper reading; see `_low`."""
    return 1.0 - _low(trials - hits, trials, caution)
