"""Every method on every update of one kind, and how near it came."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dpaudit.attacks.reconstruction import cards as test_cards
from dpaudit.attacks.reconstruction import inverting, likeness
from dpaudit.check import FloatArray
from dpaudit.evidence import Access, Rebuilt
from dpaudit.likeness import Panel, Score
from dpaudit.matcher import GradientMatcher
from dpaudit.protocols import RowArray
from dpaudit.stats.no_prior import expected_psnr

READ_OFF, ANGLE, DISTANCE = "read off the first layer", "Inverting Gradients", "DLG"
REBUILT = 0.9
"""SSIM from which on a record counts as rebuilt."""
_CARDS = 4
_SMALLEST = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Records (n, *shape) that are behind updates, with their labels (n, classes)."""

    name: str
    real: bool
    x: RowArray
    labels: RowArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Updates:
    """Updates (k, d) of k batches of some records as one condition shows them.

    Attributes:
        subject: the records.
        condition: in words.
        seen: (k, d).
        clip: norm to which each record's gradient is clipped; inf for none.
        noise: noise multiplier of the step; 0 for none.
    """

    subject: Subject
    condition: str
    seen: RowArray
    clip: float
    noise: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """How updates of one model are inverted; the other fields are those of `GradientInversion`.

    Attributes:
        matcher: the model.
        rng: of the starts.
        low: smallest value of a record, which the adversary knows.
        high: largest value.
        source: the attack.
        access: what it sees.
    """

    matcher: GradientMatcher
    rng: np.random.Generator
    low: float
    high: float
    source: str
    access: Access
    batch: int
    restarts: int
    iterations: int
    smoothness: float
    height: int
    width: int
    show_records: bool

    @property
    def span(self) -> float:
        """Between the smallest and the largest value of a record."""
        return self.high - self.low

    @property
    def picture(self) -> tuple[int, ...]:
        """(channels, height, width) of a record that is a picture; empty for others."""
        shape = self.matcher.shape
        if self.height and self.height * self.width == math.prod(shape):
            return (1, self.height, self.width)
        if len(shape) in (2, 3) and min(shape[-2:]) >= _SMALLEST:
            return (1, *shape) if len(shape) == 2 else shape
        return ()

    def pictures(self, x: RowArray) -> RowArray:
        """Records (n, ...) as grey pictures (n, h, w)."""
        return np.asarray(x.reshape(-1, *self.picture).mean(axis=1), dtype=np.float32)

    def cards(self) -> Subject | None:
        """Test cards as records, a whole number of batches; None where records are no pictures."""
        if not self.picture:
            return None
        count = -(-_CARDS // self.batch) * self.batch
        drawn = test_cards.cards(self.picture[1], self.picture[2], count)
        wide = np.repeat(drawn[:, None], self.picture[0], axis=1)
        x = np.asarray(self.low + self.span * wide.reshape(-1, *self.matcher.shape), dtype=np.float32)
        labels = np.eye(self.matcher.classes, dtype=np.float32)[np.arange(count) % self.matcher.classes]
        return Subject(name="test cards", real=False, x=x, labels=labels)

    def read_off(self, updates: Updates) -> RowArray:
        """Candidates (k, c, *shape) from a first layer that is dense."""
        if self.batch == 1:
            return inverting.read_off(updates.seen, self.matcher)
        return inverting.of_each_neuron(updates.seen, self.matcher)

    def labels_of(self, updates: Updates) -> RowArray:
        """Labels (k, b, classes) as the last layer gives them away."""
        return inverting.labels_of(updates.seen, self.batch, self.matcher, self.low, self.high)

    def by_angle(self, updates: Sequence[Updates]) -> list[RowArray]:
        """Records (k, b, *shape) of each kind of update, all searched at once."""
        seen = np.concatenate([each.seen for each in updates])
        clip = np.concatenate([np.full(len(each.seen), each.clip, dtype=np.float32) for each in updates])
        labels = np.concatenate([self.labels_of(each) for each in updates])
        found, apart = inverting.by_angle(
            np.repeat(seen, self.restarts, axis=0),
            self._start(len(seen)),
            np.repeat(labels, self.restarts, axis=0),
            self.matcher,
            clip=np.repeat(clip, self.restarts),
            low=self.low,
            high=self.high,
            iterations=self.iterations,
            smoothness=self.smoothness,
            picture=self.picture,
        )
        cuts = np.cumsum([len(each.seen) for each in updates])[:-1]
        return np.split(self._best(found, apart), cuts)

    def by_distance(self, updates: Sequence[Updates]) -> list[RowArray]:
        """The same, searched without labels, box or smoothness, in half as many iterations."""
        seen = np.concatenate([each.seen for each in updates])
        found, apart = inverting.by_distance(
            np.repeat(seen, self.restarts, axis=0),
            self._start(len(seen)),
            self.matcher,
            iterations=max(1, self.iterations // 2),
        )
        cuts = np.cumsum([len(each.seen) for each in updates])[:-1]
        return np.split(self._best(found, apart), cuts)

    def _start(self, count: int) -> RowArray:
        size = (count * self.restarts, self.batch, *self.matcher.shape)
        return self.rng.uniform(self.low, self.high, size=size).astype(np.float32)

    def _best(self, found: RowArray, apart: FloatArray) -> RowArray:
        """Of the restarts of each update the one whose own update agrees best."""
        grouped = found.reshape(-1, self.restarts, *found.shape[1:])
        best = np.nan_to_num(apart, nan=np.inf).reshape(-1, self.restarts).argmin(axis=1)
        return np.asarray(grouped[np.arange(len(grouped)), best])


def rebuilt(search: Search, updates: Sequence[Updates]) -> Iterator[Rebuilt]:
    """Invert all updates by every method, all of them at once, and say how near each came."""
    found = [(ANGLE, *pair) for pair in zip(updates, search.by_angle(updates), strict=True)]
    found += [(DISTANCE, *pair) for pair in zip(updates, search.by_distance(updates), strict=True)]
    if search.matcher.dense is not None:
        found += [(READ_OFF, each, search.read_off(each)) for each in updates]
    for method, each, candidates in found:
        records = _in_order(candidates, each.subject.x)
        yield Rebuilt(
            method=method,
            condition=each.condition,
            subject=each.subject.name,
            real=each.subject.real,
            batch=search.batch,
            scores=tuple(_scores(search, each, candidates, method)),
            source=search.source,
            access=search.access,
            panels=_panels(search, each, records),
        )


def _in_order(candidates: RowArray, x: RowArray) -> RowArray:
    """(n, *shape): of the candidates (k, c, *shape) of each update those that are taken for its records."""
    wanted = x.reshape(len(candidates), -1, *x.shape[1:])
    each = [c[likeness.matched(c, w)] for c, w in zip(candidates, wanted, strict=True)]
    return np.concatenate(each)


def _scores(search: Search, updates: Updates, candidates: RowArray, method: str) -> Iterator[Score]:
    subject, records = updates.subject, _in_order(candidates, updates.subject.x)
    inside, chance = _inside(search, records), _by_chance(search, candidates, subject.x)
    if search.picture:
        values = likeness.ssim(search.pictures(inside), search.pictures(subject.x), search.span)
        blind = None
        if chance is not None:
            theirs, others = (search.pictures(each) for each in chance)
            blind = float(likeness.ssim(theirs, others, search.span).mean())
        yield likeness.summed_up("ssim", values, blind=blind, low=-1.0, high=1.0)
        yield likeness.share("rebuilt", values >= REBUILT)
    blind = None if chance is None else float(likeness.psnr(*chance, search.span).mean())
    yield likeness.summed_up("psnr", likeness.psnr(inside, subject.x, search.span), blind=blind)
    if method == READ_OFF:
        # The one method without a prior: what it reads, before anything is cut to the box of values.
        raw = likeness.psnr(np.nan_to_num(records), subject.x, search.span)
        yield likeness.summed_up("psnr, no box", raw, bound=_bound(search, updates))
    ours, theirs = (search.matcher.features(each) for each in (inside, subject.x))
    apart = np.square(ours[:, None] - theirs[None]).sum(axis=2)
    single = search.batch == 1
    hits = apart.argmin(axis=1) == np.arange(len(ours))
    yield likeness.share("features", hits, blind=1 / len(ours) if single else None)
    if method == ANGLE:
        guessed = search.labels_of(updates).sum(axis=1)
        right = subject.labels.reshape(len(guessed), -1, search.matcher.classes).sum(axis=1)
        shares = np.minimum(guessed, right).sum(axis=1).astype(np.float64) / search.batch
        counted = likeness.summed_up("labels", shares, low=0.0, high=1.0)
        yield likeness.share("labels", shares == 1) if single else counted


def _inside(search: Search, records: RowArray) -> RowArray:
    """Cut to the values that a record can have."""
    return np.clip(np.nan_to_num(records), search.low, search.high)


def _by_chance(search: Search, candidates: RowArray, x: RowArray) -> tuple[RowArray, RowArray] | None:
    """The same candidates in the order of the records of another update, and these; None for one update.

    Put in order as for their own: to choose the nearest of several helps, whatever they are.
    """
    if len(candidates) < 2:
        return None
    others = np.roll(x, search.batch, axis=0)
    return _inside(search, _in_order(candidates, others)), others


def _bound(search: Search, updates: Updates) -> float | None:
    """Mean PSNR that the noise of the step leaves to expect without a prior; None without noise."""
    if not updates.noise:
        return None
    x = updates.subject.x.reshape(len(updates.subject.x), -1).astype(np.float64)
    norms, size = np.linalg.norm(x, axis=1), math.prod(search.matcher.shape)
    return float(expected_psnr(norms, size, noise_multiplier=updates.noise, span=search.span).mean())


def _panels(search: Search, updates: Updates, records: RowArray) -> tuple[Panel, ...]:
    """The first few, original and rebuilt; of real records only where the plan asks for it."""
    subject = updates.subject
    if not search.picture or (subject.real and not search.show_records):
        return ()
    shown = (("original", subject.x[:_CARDS]), (updates.condition, records[:_CARDS]))
    return tuple(
        panel
        for row, x in shown
        for panel in test_cards.panels(search.pictures(x), search.low, search.high, row, real=subject.real)
    )
