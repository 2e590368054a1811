"""A second training run on data that differs in one record, under the releases of the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dpaudit.check import FloatArray, IntArray
from dpaudit.evidence import CLIP_TESTED, Finding, Note
from dpaudit.targets.post_processing import changed, compare, contradiction
from dpaudit.targets.transcript import Transcript

Run = Callable[[FloatArray, IntArray, Transcript, int], None]
"""Trains on features and labels under a transcript, with an offset to the seed."""


_AT_THE_CLIP = 0.9
_ENOUGH = 2
_FAR = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """Data in which one record is another.

    Attributes:
        words: what the record is now.
        index: of the record.
        x: features.
        y: labels.
    """

    words: str
    index: int
    x: FloatArray
    y: IntArray


def neighbours(x: FloatArray, y: IntArray, index: int) -> Iterator[Neighbour]:
    """One record far away from all others, with another label and with its own; or a copy of another."""
    other = next((i for i in range(len(y)) if y[i] != y[index]), 0)
    far = x[index] * _FAR + _FAR * float(np.abs(x).max() or 1.0)
    for words, value, label in (
        ("far from all others, with another label", far, y[other]),
        ("far from all others", far, y[index]),
        ("a copy of another", x[other], y[other]),
    ):
        features, labels = x.copy(), y.copy()
        features[index], labels[index] = value, label
        yield Neighbour(words=words, index=index, x=features, y=labels)


def examine(x: FloatArray, y: IntArray, run: Run) -> tuple[Finding | Note, ...]:
    """Train on the data, on neighbours of it and with another seed, and compare.

    Costs four training runs without attacks, in one of them a record is left out of every batch; and another
    on the same data where something differs, to know that equal data would not have. All but the first
    follow the releases of the first.
    """
    first = Transcript()
    run(x, y, first, 0)
    if not first.steps or not first.complete:
        return ()
    found: list[Finding | Note] = list(_same_noise(x, y, run, first))
    tried: list[Transcript] = []
    for neighbour in neighbours(x, y, _often(first, len(x))):
        second = Transcript(follow=first)
        try:
            run(neighbour.x, neighbour.y, second, 0)
        except Exception as error:
            found.append(_untried(neighbour.words, f"{type(error).__name__}: {error}"[:200]))
            continue
        for known in (first, *tried):
            found += _confirmed(compare(known, second, neighbour.words), x, y, run, first)
        if not tried:
            found += _left_out(x, y, run, first, second, neighbour)
        tried.append(second)
        if len(tried) == _ENOUGH:
            break
    return tuple({(item.check, item.where): item for item in reversed(found)}.values())


def _often(first: Transcript, n: int) -> int:
    """The record that was drawn most often, if the loader's numbers are those of the data."""
    drawn = np.concatenate([step.records for step in first.steps])
    drawn = drawn[drawn < n]
    return int(np.bincount(drawn).argmax()) if drawn.size else n // 2


def _left_out(
    x: FloatArray, y: IntArray, run: Run, first: Transcript, second: Transcript, neighbour: Neighbour
) -> Iterator[Finding | Note]:
    """The record against none at all: neighbours under adding or removing a record, at a fixed N."""
    numbers = changed(first, second)
    if len(numbers) != 1 or not second.whole:
        return
    third = Transcript(follow=first, drop=numbers)
    words = f"{neighbour.words}, or left out of its batches"
    try:
        run(neighbour.x, neighbour.y, third, 0)
    except Exception as error:
        yield _untried(words, f"{type(error).__name__}: {error}"[:200])
        return
    yield from _confirmed(compare(second, third, words, left_out=numbers), x, y, run, first)
    yield from _tested(second, third)


def _confirmed(
    findings: Iterator[Finding], x: FloatArray, y: IntArray, run: Run, first: Transcript
) -> Sequence[Finding | Note]:
    """The findings, if a run on the same data would not have made any."""
    made = list(findings)
    if not made:
        return ()
    again = Transcript(follow=first)
    run(x, y, again, 0)
    if list(compare(first, again, "the same")):
        return (_untried("the same", "two runs on the same data differ, too"),)
    return made


def _same_noise(x: FloatArray, y: IntArray, run: Run, first: Transcript) -> Iterator[Finding]:
    """Another seed has to give another first release."""
    other = Transcript(limit=1)
    run(x, y, other, 1)
    if other.steps and np.array_equal(other.steps[0].released, first.steps[0].released):
        yield contradiction(
            "noise seed",
            "first private step",
            "another release under another seed",
            "bit-identical releases of two runs that were given different seeds",
            "Do not seed the generators in the training code: who knows the code subtracts the noise.",
        )


def _tested(second: Transcript, third: Transcript) -> Iterator[Note]:
    """How far the record moved the releases, if the clip had to hold it back."""
    pairs = zip(second.steps, third.steps, strict=False)
    alike = [(a, b) for a, b in pairs if a.random == b.random and a.weights == b.weights]
    distances = [
        float(np.linalg.norm(a.released.astype(np.float64) - b.released)) / a.clip
        for a, b in alike
        if a.released.shape == b.released.shape
    ]
    if distances and max(distances) > _AT_THE_CLIP:
        yield Note(
            check=CLIP_TESTED,
            where=f"{len(distances)} private steps, from the data on",
            measured=f"one record, far from all others or left out, moved a release by up to "
            f"{max(distances):.4g} clipping norms",
            meaning="The gradient that was clipped is the one that the model and the loss gave this record.",
        )


def _untried(words: str, why: str) -> Note:
    return Note(
        check="training again on neighbouring data",
        where=f"one record {words}",
        measured=why,
        meaning="Nothing is known of preprocessing, checkpoints and early stopping.",
    )
