"""Pairs of neighbouring data sets that were tried, and what a few outputs on each said."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import Any
from zlib import crc32

import numpy as np

from dpaudit.attacks.event_search.promise import PROMISED_FROM, promised, with_cautious
from dpaudit.attacks.event_search.selection import Choice, Learn, Samples, choose
from dpaudit.mechanism.encoding import text_of
from dpaudit.outputs import Outputs
from dpaudit.stats.event_test import Counts, refutes
from dpaudit.stats.guarantees import Guarantee
from dpaudit.strategies import Neighbours
from dpaudit.targets.releases.drawing import Drawer
from dpaudit.targets.releases.reading import CLOSED, DIED, OUT_OF_TIME, read

STRONG = 1e-4
"""Level at which a screened pair counts as found. It is confirmed on fresh outputs all the same."""
_FIRST, _PROBE = 4, 16
_SLOW = 1.0
"""Seconds for a probe beyond which few more outputs are drawn, and only where the probe tells data apart."""
_FEWEST, _ENOUGH = 32, 64
_READ = 100_000
"""Outputs on a data set that the cautious reading takes; more would cost seconds and say the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A pair and what was seen of it.

    Attributes:
        pair: neighbouring data sets.
        text: the pair as text, by which it is known.
        choice: the best event; None where nothing told the outputs apart.
        strong: whether half of the outputs chose an event that the other half refutes the claim by.
        rejected: why the mechanism does not take these data; empty if it does.
        noted: what a user should know of this pair.
        seconds: for one output, where that is much; else 0.
        drawn: outputs on each data set that rated it first.
    """

    pair: Neighbours[Any]
    text: str
    choice: Choice | None = None
    strong: bool = False
    rejected: str = ""
    noted: str = ""
    seconds: float = 0.0
    drawn: int = 0

    @property
    def rated(self) -> float:
        """Parameter that a cautious reading of the outputs needs; -inf without an event."""
        return -math.inf if self.choice is None else self.choice.rated

    @property
    def hopeful(self) -> float:
        """The same of the least cautious reading of any event."""
        return -math.inf if self.choice is None else self.choice.hopeful

    @property
    def expected(self) -> float:
        """Bound that a confirmation is expected to give, where enough outputs told; else `rated`."""
        if self.choice is None or self.choice.expected is None:
            return self.rated
        return self.choice.expected

    @property
    def event_words(self) -> str:
        """The event for a reader."""
        return "nothing" if self.choice is None else self.choice.event.words()

    def affordable(self, size: int, seconds: float) -> int:
        """Outputs on each data set that take no longer than this, at most `size` and at least 32."""
        return max(min(size, int(seconds / (2 * max(self.seconds, 1e-9)))), min(size, _FEWEST))

    def key(self, root: int, stage: int, side: int) -> tuple[int, ...]:
        """Seed of a draw: no two draws of an audit share one, but those that are coupled."""
        return (root, stage, crc32(self.text.encode()), side)


@dataclass(slots=True)
class Screen:
    """Looks at pairs, a few outputs each, and remembers them.

    Attributes:
        drawer: of the mechanism.
        guarantee: the claim.
        size: outputs on each data set.
        root: seed of the audit.
        tried: pairs by their text.
        patterns: texts of those that are known to break mechanisms.
        drawn: outputs so far.
        closed: sorts of outputs of which nothing but the type is known.
        dropped: numbers and texts of an output beyond those that are looked at.
        hung: whether an output ran out of time.
    """

    drawer: Drawer
    guarantee: Guarantee
    size: int
    root: int
    tried: dict[str, Tried] = field(default_factory=dict)
    patterns: set[str] = field(default_factory=set)
    drawn: int = 0
    closed: set[str] = field(default_factory=set)
    dropped: int = 0
    hung: bool = False

    def look(self, pair: Neighbours[Any], size: int = 0) -> Tried:
        """What a few outputs, `size` or `self.size`, say of a pair; the same whenever it is asked for."""
        text = text_of((pair.first, pair.second))
        if text not in self.tried:
            self.tried[text] = self._look(Tried(pair=pair, text=text), size or self.size)
        return self.tried[text]

    def knows(self, pair: Neighbours[Any]) -> bool:
        """Whether it was looked at before."""
        return text_of((pair.first, pair.second)) in self.tried

    def _look(self, new: Tried, size: int) -> Tried:
        start = time.monotonic()
        # Where calls hang, each output costs a whole time-out.
        probe = self.samples(new, 0, 1 if self.hung else min(_FIRST, size), coupled=True)
        why = _same_failure(probe)
        if not (why and time.monotonic() - start > _SLOW):
            most = _FIRST if _hangs_on_one(probe) else _PROBE
            probe = self.samples(new, 1, min(most, size), coupled=True)
            why = _same_failure(probe)
        if why:
            return replace(new, rejected=why)
        if _hangs_on_one(probe) and (rated := self.rate(new, probe)).choice is not None:
            each = (time.monotonic() - start) / (2 * probe.first.size)
            return replace(rated, strong=True, seconds=each)
        checked = _checked(new.pair, probe)
        if checked:
            return replace(new, noted=checked)
        spent = time.monotonic() - start
        if spent <= _SLOW:
            return self.rate(replace(new, drawn=size), self.samples(new, 2, size, coupled=True))
        new = replace(new, seconds=spent / (2 * (_FIRST + _PROBE)))
        rated = self.rate(new, probe)
        worth = rated.rated > self.guarantee.claimed
        return self.rate(new, self.samples(new, 2, min(_ENOUGH, size), coupled=True)) if worth else rated

    def samples(self, of: Tried, stage: int, size: int, *, coupled: bool = False) -> Samples:
        """Draw outputs on both data sets, under seeds that belong to the stage alone.

        Args:
            of: the pair.
            stage: to which the seeds belong.
            size: outputs on each data set.
            coupled: whether both data sets get the same seeds (common random numbers): where the mechanism
                draws the same noise for both, what differs is what the data did, and far fewer outputs tell
                a small leak from luck. For choosing alone: a confirmation needs independent outputs.
        """
        self.drawn += 2 * size
        first = self.drawer.draw(of.pair.first, size, of.key(self.root, stage, 0))
        second = self.drawer.draw(of.pair.second, size, of.key(self.root, stage, 0 if coupled else 1))
        self.closed |= {label for label in first.labels + second.labels if CLOSED in label}
        self.hung = self.hung or OUT_OF_TIME.label in first.labels + second.labels
        self.dropped = max(self.dropped, first.dropped, second.dropped)
        return Samples(first=first, second=second, records=_records(of.pair))

    def rate(self, of: Tried, samples: Samples, *, learn: Learn = Learn.NOTHING) -> Tried:
        """Choose the best event, and see whether one chosen on half of the outputs holds on the rest."""
        rng = np.random.default_rng(of.key(self.root, 99, 0))
        choice = choose(samples, self.guarantee, learn=learn, rng=rng)
        strong = choice is not None and self._holds(samples)
        return replace(of, choice=choice, strong=strong)

    def weigh(self, of: Tried, samples: Samples, *, size: int, learn: Learn) -> Tried:
        """Choose the event that promises most when it is confirmed with `size` outputs on each data set.

        Where everything is learned, the event of a cautious reading of all samples is put beside it: of many
        promises the largest is often luck, and a cautious reading prefers what is common.
        """
        if min(samples.first.size, samples.second.size) < PROMISED_FROM:
            return self.rate(of, samples, learn=learn)
        rng = np.random.default_rng(of.key(self.root, 99, 0))
        choice = promised(samples, self.guarantee, size=size, learn=learn, rng=rng)
        if choice is None:
            return self.rate(of, samples, learn=learn)
        if learn is Learn.ALL:
            cautious = choose(samples.rows(0, _READ), self.guarantee, learn=learn, rng=rng)
            if cautious is not None:
                choice = with_cautious(choice, cautious, samples)
        return replace(of, choice=choice)

    def _holds(self, samples: Samples) -> bool:
        half, other = samples.first.size // 2, samples.second.size // 2
        front = replace(
            samples, first=samples.first.rows(slice(0, half)), second=samples.second.rows(slice(0, other))
        )
        choice = choose(front, self.guarantee)
        if choice is None:
            return False
        back = (samples.first.rows(slice(half, None)), samples.second.rows(slice(other, None)))
        line = self.guarantee.line(self.guarantee.claimed, expected_rate(choice.counts))
        return refutes(counted(choice, *back), line, STRONG)


def counted(choice: Choice, first: Outputs, second: Outputs) -> Counts:
    """How often a chosen event happened on these outputs."""
    likelier, other = (second, first) if choice.swapped else (first, second)
    return Counts(
        hits=int(choice.event.holds(likelier).sum()),
        trials=likelier.size,
        other_hits=int(choice.event.holds(other).sum()),
        other_trials=other.size,
    )


def expected_rate(counts: Counts) -> float:
    """Probability to expect of an event on the neighbour, never 0."""
    return (counts.other_hits + 0.5) / (counts.other_trials + 1.0)


def _same_failure(samples: Samples) -> str:
    """What all outputs on both data sets came to, where that was no output; else empty."""
    first, second = _rejects(samples.first), _rejects(samples.second)
    return first if first == second else ""


def _hangs_on_one(samples: Samples) -> bool:
    """Whether every output on one data set ran out of time, and none on the other."""
    hung = [
        np.array([outputs.labels[kind] == OUT_OF_TIME.label for kind in outputs.kinds])
        for outputs in (samples.first, samples.second)
    ]
    return any(one.all() and not other.any() for one, other in (hung, hung[::-1]))


def _rejects(outputs: Outputs) -> str:
    """The failure that every output was; empty if some were outputs."""
    labels = _sorts(outputs)
    label = next(iter(labels))
    if len(labels) > 1 or not (label.startswith("raised ") or label in (OUT_OF_TIME.label, DIED.label)):
        return ""
    message = next((text for _, text in outputs.vocabulary), "")
    return f"{label.removeprefix('raised ')}{': ' if message else ''}{message}"


def _checked(pair: Neighbours[Any], probe: Samples) -> str:
    """A mechanism that refuses a record which lies outside of its domain does what it should.

    What also happens without that record is no refusal of it.
    """
    parts = (probe.first, probe.second)
    for part, other in (parts, parts[::-1]):
        why = _rejects(part)
        if pair.outside and why and not _sorts(part) & _sorts(other):
            return f"refuses records outside of the stated domain ({why})"
    return ""


def _sorts(outputs: Outputs) -> set[str]:
    return {outputs.labels[kind] for kind in np.unique(outputs.kinds)}


def _records(pair: Neighbours[Any]) -> tuple[float, ...]:
    """Numbers in both data sets that are no whole ones: those would be put out by chance."""
    numbers = read([pair.first, pair.second]).numbers.ravel()
    found = numbers[np.isfinite(numbers) & (numbers != np.round(numbers))]
    return tuple(float(value) for value in np.unique(found)[:1000])
