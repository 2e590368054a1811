"""What a mechanism put out, as a table: one row an output, one column each number or word in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dpaudit.check import FloatArray, IntArray

HashArray = NDArray[np.uint64]
_SHOWN = 12
T = TypeVar("T", np.float64, np.uint64)


@dataclass(frozen=True, kw_only=True)  # without slots, which leave no room for what is remembered
class Outputs:
    """Outputs of one mechanism on one data set.

    Attributes:
        kinds: (n,) index into `labels`: what sort of thing each output is.
        labels: such as "number", "array (3,)", "None", "raised ValueError", "ran out of time".
        numbers: (n, d) float64; NaN where an output has no such number.
        paths: (d,) where in an output each number is, such as "[2]" or "coef_[0][1]"; "" for the output.
        words: (n, w) hashes of what is not a number; 0 where an output has no such word.
        word_paths: (w,) likewise.
        vocabulary: hash and text of words that were seen, at most 1,000.
        dropped: numbers of an output beyond those that are kept.
    """

    kinds: IntArray
    labels: tuple[str, ...]
    numbers: FloatArray
    paths: tuple[str, ...]
    words: HashArray
    word_paths: tuple[str, ...]
    vocabulary: tuple[tuple[int, str], ...] = ()
    dropped: int = 0

    @property
    def size(self) -> int:
        """Number of outputs, n."""
        return int(self.kinds.size)

    @cached_property
    def fingerprints(self) -> HashArray:
        """(n,) hash of each whole output, bit by bit: its kind, numbers and words.

        What an output lacks adds nothing: the hash is the same in a table that has more columns.
        """
        total = self.kind_hashes()
        for path, column, numbers in zip(self.paths, bits(self.numbers).T, self.numbers.T, strict=True):
            total = total + np.where(np.isnan(numbers), np.uint64(0), _scattered(column ^ _place(path)))
        for path, column in zip(self.word_paths, self.words.T, strict=True):
            total = total + np.where(column == 0, np.uint64(0), _scattered(column ^ _place(path)))
        return _scattered(total)

    @cached_property
    def plain(self) -> FloatArray:
        """(n, k) numbers that outputs consist of, less those that were only read of a text."""
        if not any(read_off(path) for path in self.paths):
            return self.numbers
        return self.numbers[:, [j for j, path in enumerate(self.paths) if not read_off(path)]]

    def rows(self, where: slice) -> Outputs:
        """Some of the outputs."""
        return Outputs(
            kinds=self.kinds[where],
            labels=self.labels,
            numbers=self.numbers[where],
            paths=self.paths,
            words=self.words[where],
            word_paths=self.word_paths,
            vocabulary=self.vocabulary,
            dropped=self.dropped,
        )

    def number(self, path: str) -> FloatArray:
        """(n,) numbers at a path; NaN where no output has one."""
        if path not in self.paths:
            return np.full(self.size, np.nan)
        return self.numbers[:, self.paths.index(path)]

    def word(self, path: str) -> HashArray:
        """(n,) hashes of words at a path; 0 where no output has one."""
        if path not in self.word_paths:
            return np.zeros(self.size, dtype=np.uint64)
        return self.words[:, self.word_paths.index(path)]

    def row_text(self, row: int) -> str:
        """One output for a reader, shortened."""
        numbers = [
            repr(float(x)) for x in self.numbers[row][:_SHOWN] if not np.isnan(x) or len(self.paths) == 1
        ]
        texts = dict(self.vocabulary)
        words = [repr(texts.get(int(x), "?")) for x in self.words[row][:_SHOWN] if x]
        inside = ", ".join(numbers + words)
        more = ", ..." if len(self.paths) + len(self.word_paths) > _SHOWN else ""
        label = self.labels[self.kinds[row]]
        return (
            inside if len(self.paths) == 1 and not words else f"{label}: {inside}{more}" if inside else label
        )

    def kind_hashes(self) -> HashArray:
        """(n,) hashes of the kinds, comparable between tables."""
        table = np.array([text_hash(label) for label in self.labels] or [0], dtype=np.uint64)
        return table[self.kinds]


def text_hash(text: str) -> int:
    """64 bits of a text, the same in every process."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def read_off(path: str) -> bool:
    """Whether a number is no part of an output but read off one, such as the length of a text."""
    return "#" in path.rpartition("]")[2]


def bits(numbers: FloatArray) -> HashArray:
    """The 64 bits of each float, all NaNs alike; same shape."""
    return np.ascontiguousarray(np.where(np.isnan(numbers), np.nan, numbers)).view(np.uint64)


def _place(path: str) -> np.uint64:
    return np.uint64(text_hash(path))


def _scattered(word: HashArray) -> HashArray:
    """Mix 64 bits as the finalizer of SplitMix64 does (Steele, Lea & Flood 2014, OOPSLA)."""
    with np.errstate(over="ignore"):
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def joined(parts: Sequence[Outputs]) -> Outputs:
    """Tables one below the other; columns are matched by path. At least one part."""
    if len(parts) == 1:
        return parts[0]
    labels = tuple(dict.fromkeys(label for part in parts for label in part.labels))
    paths = tuple(dict.fromkeys(path for part in parts for path in part.paths))
    word_paths = tuple(dict.fromkeys(path for part in parts for path in part.word_paths))
    kinds = []
    for part in parts:
        place = np.array([labels.index(label) for label in part.labels] or [0], dtype=np.int64)
        kinds.append(place[part.kinds])
    return Outputs(
        kinds=np.concatenate(kinds),
        labels=labels,
        numbers=np.concatenate([_aligned(p.numbers, p.paths, paths, np.nan) for p in parts]),
        paths=paths,
        words=np.concatenate([_aligned(p.words, p.word_paths, word_paths, 0) for p in parts]),
        word_paths=word_paths,
        vocabulary=tuple(dict(item for p in parts for item in p.vocabulary).items())[:1000],
        dropped=max(part.dropped for part in parts),
    )


def _aligned(values: NDArray[T], have: tuple[str, ...], want: tuple[str, ...], empty: float) -> NDArray[T]:
    if have == want:
        return values
    result = np.full((values.shape[0], len(want)), empty, dtype=values.dtype)
    for column, path in enumerate(have):
        result[:, want.index(path)] = values[:, column]
    return result
