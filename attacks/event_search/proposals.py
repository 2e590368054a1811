"""Which features are worth looking at, given the outputs that are to be told apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from dpaudit.attacks.event_search.features import Feature
from dpaudit.check import FloatArray
from dpaudit.outputs import HashArray, Outputs, read_off

_FAILURES = ("raised ", "ran out", "killed")
_COLUMNS = 48
_ATOMS = 64
_LOOKED_AT = 4000
_COMMON = 0.005
"""Share of outputs from which on a value counts as one that comes back."""


def propose(
    outputs: Outputs, records: Sequence[float] = (), leading: Sequence[int] | None = None
) -> list[Feature]:
    """Features that vary over these outputs.

    Args:
        outputs: of both data sets together.
        records: numbers of the two data sets: an output that contains one of them bit by bit is an event.
        leading: columns of numbers in the order in which they are worth looking at; as they stand if None.

    Returns:
        At most some 300, the more readable ones first.
    """
    values = _values(outputs, range(outputs.numbers.shape[1]) if leading is None else leading)
    # What is only read of a text comes after the text itself.
    plain, read = [f for f in values if not read_off(f.path)], [f for f in values if read_off(f.path)]
    found = [*_kinds(outputs), *plain, *_aggregates(outputs), *_words(outputs), *_wholes(outputs), *read]
    if records and _varying(outputs.numbers):
        found.append(Feature(name="records put out", constants=tuple(dict.fromkeys(records))[:1000]))
    return found


def _kinds(outputs: Outputs) -> list[Feature]:
    seen = [outputs.labels[kind] for kind in np.unique(outputs.kinds)]
    # An exception, a time-out or a death says more to a reader than that something else came out.
    seen.sort(key=lambda label: not label.startswith(_FAILURES))
    return [Feature(name="kind", words=(label,)) for label in seen] if len(seen) > 1 else []


def _words(outputs: Outputs) -> list[Feature]:
    """Texts that come back although others do not."""
    texts = dict(outputs.vocabulary)
    columns = {path: outputs.word(path) for path in outputs.word_paths}
    return [
        Feature(name="word", path=path, words=(f"{word:x}",), shown=repr(texts.get(word, "?")))
        for path, words in columns.items()
        if np.any(words != words[:1])
        for word in _common(words)
    ]


def _wholes(outputs: Outputs) -> list[Feature]:
    """Whole outputs that come back although others do not."""
    prints = outputs.fingerprints
    if not np.any(prints != prints[:1]):
        return []
    return [
        Feature(
            name="whole output", words=(f"{each:x}",), shown=outputs.row_text(int(np.argmax(prints == each)))
        )
        for each in _common(prints)
    ]


def _common(hashes: HashArray) -> list[int]:
    """Hashes that come back, most frequent first."""
    values, counts = np.unique(hashes, return_counts=True)
    often = counts >= max(2, _COMMON * hashes.size)
    order = np.argsort(-counts[often], kind="stable")[:_ATOMS]
    return [int(value) for value in values[often][order] if value]


def leading(first: Outputs, second: Outputs) -> list[int]:
    """Columns of two tables with the same columns: all in order if they are few, else by how they differ.

    The difference is that of the shares above the median of both, and that of the shares that are missing.
    Costs a median of each column over at most 8,000 outputs.
    """
    n_columns = first.numbers.shape[1]
    if n_columns <= _COLUMNS or not first.size or not second.size:
        return list(range(n_columns))
    ours, theirs = first.numbers[:_LOOKED_AT], second.numbers[:_LOOKED_AT]
    pooled = np.concatenate([ours, theirs])
    middle = np.median(np.where(np.isnan(pooled), 0.0, pooled), axis=0)
    gaps = np.abs(np.mean(ours > middle, axis=0) - np.mean(theirs > middle, axis=0))
    gaps += np.abs(np.isnan(ours).mean(axis=0) - np.isnan(theirs).mean(axis=0))
    return [int(j) for j in np.argsort(-gaps, kind="stable")]


def _values(outputs: Outputs, columns: Sequence[int]) -> list[Feature]:
    """Thresholds and single values of numbers, of the first columns that vary."""
    found = []
    varying = [j for j in columns if not _constant(outputs.numbers[:, j])]
    for column in varying[:_COLUMNS]:
        path, numbers = outputs.paths[column], outputs.numbers[:, column]
        if np.isnan(numbers).any():
            found.append(Feature(name="is nan", path=path))
        if np.isinf(numbers).any():
            found.append(Feature(name="is infinite", path=path))
        found += [Feature(name="number", path=path), Feature(name="low bit", path=path)]
        if (numbers == 0).any():
            found.append(Feature(name="negative zero", path=path))
        found += [Feature(name="equals", path=path, constants=(value,)) for value in _repeated(numbers)]
    return found


def _varying(numbers: FloatArray) -> list[int]:
    """Columns that are not constant."""
    return [j for j in range(numbers.shape[1]) if not _constant(numbers[:, j])]


def _constant(column: FloatArray) -> bool:
    return bool(column.size == 0 or np.array_equal(column, np.full_like(column, column[0]), equal_nan=True))


def _repeated(numbers: FloatArray) -> list[float]:
    """Values that come back although others do not."""
    finite = numbers[np.isfinite(numbers)]
    if finite.size < 2:
        return []
    head = Counter(finite[:4000].tolist()).most_common(8)
    return [value for value, count in head if count >= max(2, _COMMON * min(finite.size, 4000))]


def _aggregates(outputs: Outputs) -> list[Feature]:
    """Features of several numbers at once."""
    if outputs.plain.shape[1] < 2:
        return []
    names = ["sum", "norm", "maximum", "minimum", "least low bit"]
    if np.isnan(outputs.plain).any():
        names.append("count of numbers")
    if np.isinf(outputs.plain).any():
        names.append("count of infinite")
    found = [Feature(name=name) for name in names]
    paths = tuple(path for path in outputs.paths if not read_off(path))
    found += [Feature(name=name, words=paths) for name in ("place of the maximum", "half contrast")]
    varying = _varying(outputs.plain)[:_COLUMNS]
    pairs = pairwise(varying)
    found += [Feature(name="difference", words=(paths[i], paths[j])) for i, j in pairs]
    whole = Counter(outputs.plain[:2000][np.isfinite(outputs.plain[:2000])].tolist())
    found += [Feature(name="count of", constants=(v,)) for v, count in whole.most_common(4) if count > 1]
    return found
