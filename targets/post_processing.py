"""Whether two runs that released the same differ in anything else: all else has to be post-processing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from dpaudit.check import FloatArray
from dpaudit.evidence import Finding
from dpaudit.targets.transcript import Moment, Transcript

Pairs = Sequence[tuple[Moment, Moment]]

_ROUNDING = 1e-3


def changed(one: Transcript, other: Transcript) -> frozenset[int]:
    """Numbers of the records that the loader handed out differently."""
    return frozenset(number for number, item in one.items.items() if other.items.get(number, item) != item)


def compare(
    first: Transcript, second: Transcript, words: str, *, left_out: frozenset[int] = frozenset()
) -> Iterator[Finding]:
    """Contradictions between two runs under the same releases.

    Args:
        first: on the data.
        second: on the neighbour.
        words: what the record is in the second.
        left_out: numbers of records that the second run's batches lack; else one record is another.
    """
    pairs = list(zip(first.steps, second.steps, strict=False))
    numbers = left_out or changed(first, second)
    yield from _weights(pairs, words)
    yield from _flow(first, second, pairs, words)
    yield from _records(first, second, words)
    yield from _inputs(pairs, numbers, words)
    yield from _rows(pairs, numbers, words)
    yield from _movement(pairs, numbers, words, 1.0 if left_out else 2.0)
    yield from _result(first, second, words)


def _weights(pairs: Pairs, words: str) -> Iterator[Finding]:
    """Weights before each step come from the releases before it."""
    apart = [i for i, (one, other) in enumerate(pairs) if one.weights != other.weights]
    if not apart:
        return
    before = "before the first private step" if apart[0] == 0 else f"before private step {apart[0]}"
    yield contradiction(
        "weights come from releases alone",
        before,
        "the same weights on neighbouring data, given the same releases",
        f"other weights once one record is {words}",
        "Update, initialise and average weights from noisy gradients and public data alone.",
    )


def _flow(first: Transcript, second: Transcript, pairs: Pairs, words: str) -> Iterator[Finding]:
    if any(one.weights != other.weights for one, other in pairs):
        return  # Everything after that may differ for this reason alone.
    # A clipping norm may itself be private: replay tells whether it carries noise.
    apart = [i for i, (one, other) in enumerate(pairs) if one.settings[2:] != other.settings[2:]]
    if apart:
        yield contradiction(
            "control flow",
            f"private step {apart[0]}",
            f"rates {_listed(pairs[apart[0]][0].settings[2:])} on neighbouring data, given equal releases",
            f"{_listed(pairs[apart[0]][1].settings[2:])} once one record is {words}",
            "Choose learning and sampling rates from releases and public data alone.",
        )
    one, other = len(first.steps), len(second.steps)
    if one != other and first.complete and second.complete:
        measured = f"more than {one + 1}" if other > one + 1 else f"{other}"
        yield contradiction(
            "control flow",
            "end of training",
            f"{one} private steps on neighbouring data, given the same releases",
            f"{measured} once one record is {words}",
            "Stop after a fixed number of steps, or by a rule that sees only releases and public data.",
        )


def _records(first: Transcript, second: Transcript, words: str) -> Iterator[Finding]:
    """One record of the data is one record of the loader."""
    numbers, seen = changed(first, second), len(first.items)
    if len(numbers) <= 1:
        return
    if len(numbers) > seen / 2:
        yield contradiction(
            "preprocessing",
            "records of the data loader",
            "the same features of other records on neighbouring data",
            f"{len(numbers)} of {seen} records changed once one record is {words}",
            "Fit scalers, vocabularies and projections on public data, or by a private mechanism.",
        )
        return
    yield contradiction(
        "unit of privacy",
        "data set that the loader was given",
        "one record of the data to be one record of the loader",
        f"{len(numbers)} that changed with it",
        "Clip all that comes from one record, or one person, together.",
        infinite=False,
    )


def _known(one: Moment, other: Moment) -> bool:
    return bool(one.records.size and np.array_equal(one.records, other.records))


def _inputs(pairs: Pairs, numbers: frozenset[int], words: str) -> Iterator[Finding]:
    """What the model is given of a batch without the record does not change with it."""
    for i, (one, other) in enumerate(pairs):
        if _known(one, other) and numbers.isdisjoint(one.records.tolist()) and one.inputs != other.inputs:
            yield contradiction(
                "preprocessing",
                f"inputs of the model at private step {i}",
                "the same inputs from other records on neighbouring data",
                f"other inputs once one record, which is not in the batch, is {words}",
                "Fit scalers, vocabularies and projections on public data, or by a private mechanism.",
            )
            return


def _rows(pairs: Pairs, numbers: frozenset[int], words: str) -> Iterator[Finding]:
    """The gradients of other records of the batch do not change with a record."""
    for i, (one, other) in enumerate(pairs):
        kept = [_others(moment, numbers) for moment in (one, other)]
        if one.weights != other.weights or len(kept[0]) != len(kept[1]) or not len(kept[0]):
            continue
        size = float(np.abs(kept[0]).max())
        apart = float(np.abs(kept[0] - kept[1]).max())
        if not apart <= (_ROUNDING + 16 * one.precision) * size:
            yield contradiction(
                "one record, one gradient",
                f"per-record gradients of private step {i}",
                "the same gradients of the other records of a batch",
                f"gradients that differ by {apart / size:.2g} of the largest once one record is {words}",
                "Use group or layer normalisation, and a loss that is a mean over records: no weights, pairs "
                "or statistics of the batch.",
                infinite=False,
            )
            return


def _others(moment: Moment, numbers: frozenset[int]) -> FloatArray:
    """Gradients of all records of the last micro-batch but those."""
    if not len(moment.rows) or moment.records.size < len(moment.rows):
        return np.zeros((0, 1))
    last = moment.records[-len(moment.rows) :]
    keep = np.array([number not in numbers for number in last.tolist()], dtype=bool)
    others: FloatArray = moment.rows[keep].astype(np.float64)
    return others


def _movement(pairs: Pairs, numbers: frozenset[int], words: str, norms: float) -> Iterator[Finding]:
    """A record moves a release by one clipping norm, two if replaced, and only where it is in the batch."""
    for i, (one, other) in enumerate(pairs):
        if one.weights != other.weights or one.released.shape != other.released.shape:
            return
        if one.random != other.random or one.settings != other.settings:
            continue  # The noise is not the same.
        distance = float(np.linalg.norm(one.released.astype(np.float64) - other.released)) / one.clip
        size = float(np.linalg.norm(one.released)) / one.clip
        inside = not _known(one, other) or not numbers.isdisjoint(one.records.tolist())
        within = norms if inside else 0.0
        if not distance <= within * (1 + 2 * one.precision) + _ROUNDING + 8 * one.precision * max(size, 1.0):
            yield contradiction(
                "sensitivity",
                f"release of private step {i}, from the data on",
                f"one record to move it by at most {within:g} clipping norms",
                f"{distance:.4g} clipping norms once one record is {words}",
                "Let a record's gradient depend on that record alone, and clip it over all parameters.",
                infinite=False,
            )
            return


def _result(first: Transcript, second: Transcript, words: str) -> Iterator[Finding]:
    if len(first.steps) != len(second.steps) or first.result.keys() != second.result.keys():
        return
    if any(one.weights != other.weights for one, other in zip(first.steps, second.steps, strict=True)):
        return
    apart = [name for name, value in first.result.items() if second.result[name] != value]
    if apart:
        yield contradiction(
            "what is released comes from releases alone",
            f"state_dict: {', '.join(apart[:3])}{' and others' if len(apart) > 3 else ''}",
            "the same model on neighbouring data, given the same releases",
            f"another one once one record is {words}",
            "Release only what noisy gradients and public data determine: no statistics of the data, no "
            "checkpoint that was chosen on it.",
        )


def contradiction(
    check: str, where: str, expected: str, measured: str, remedy: str, *, infinite: bool = True
) -> Finding:
    """A finding that no epsilon bounds, unless said otherwise: something went around the mechanism."""
    return Finding(
        check=check,
        where=where,
        expected=expected,
        measured=measured,
        epsilon=float("inf") if infinite else None,
        remedy=remedy,
    )


def _listed(settings: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in settings)
