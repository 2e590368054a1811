"""Numbers that are computed from one output: what an event is a threshold of.

A feature is a name in a table and a few constants, so that it can be written down as JSON and applied to
fresh outputs by anybody. It sees the output alone: whatever it computes, an event made of it is one that
the claim speaks about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dpaudit.check import FloatArray
from dpaudit.errors import UsageError, nearest
from dpaudit.outputs import HashArray, Outputs, bits

_MANTISSA = 52
_NEEDED = {
    "equals": (1, 0),
    "count of": (1, 0),
    "difference": (0, 2),
    "word": (0, 1),
    "whole output": (0, 1),
    "ranked outputs": (2, 1),
    "half contrast": (0, 2),
    "place of the maximum": (0, 2),
    "kind": (0, 1),
}
"""Least number of constants and of words of a feature; none of the others."""
_HASHED = ("word", "whole output", "ranked outputs")
_HASH = re.compile("[0-9a-f]{1,16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One number of each output.

    Attributes:
        name: in `FEATURES`.
        path: of the number or word in the output that it looks at; "" for the whole output.
        constants: what else it needs, as numbers.
        words: what else it needs, as texts.
        shown: the same for a reader, where it is not readable.
    """

    name: str
    path: str = ""
    constants: tuple[float, ...] = ()
    words: tuple[str, ...] = ()
    shown: str = ""

    def __post_init__(self) -> None:
        """Refuse a feature that cannot be computed, such as one from a file that somebody changed."""
        if self.name not in FEATURES:
            raise UsageError(f"Expected a known feature, found {self.name!r}: {nearest(self.name, FEATURES)}")
        constants, words = _NEEDED.get(self.name, (0, 0))
        ranked = self.name == "ranked outputs" and len(self.constants) != len(self.words) + 1
        if len(self.constants) < constants or len(self.words) < words or ranked:
            raise UsageError(
                f"Expected constants and words that fit the feature {self.name!r}, "
                f"found {len(self.constants)} and {len(self.words)}. Restore the file."
            )
        if self.name in _HASHED and not all(_HASH.fullmatch(word) for word in self.words):
            raise UsageError(f"Expected hashes as words of the feature {self.name!r}. Restore the file.")

    def values(self, outputs: Outputs) -> FloatArray:
        """(n,) float64; NaN where it has no meaning."""
        with np.errstate(over="ignore", invalid="ignore"):
            return FEATURES[self.name](outputs, self)


def matrix(outputs: Outputs, features: Sequence[Feature]) -> FloatArray:
    """(n, k) all of them, each column in one piece of memory."""
    return side_by_side([feature.values(outputs) for feature in features], outputs.size)


def side_by_side(columns: Sequence[FloatArray], size: int) -> FloatArray:
    """(size, k) each column in one piece of memory, for whatever is done to them is done column by column."""
    return np.stack(columns).T if columns else np.zeros((size, 0))


def low_bit(numbers: FloatArray) -> FloatArray:
    """Exponent of the lowest bit that is set in each float: x is a multiple of 2^low_bit, and of no more.

    0 gives +inf, and what is not finite NaN. Floating-point noise leaves few of these bits to chance
    (Mironov 2012, doi:10.1145/2382196.2382264).
    """
    fraction, exponent = np.frexp(np.where(np.isfinite(numbers), numbers, 0.0))
    whole = np.abs(np.ldexp(fraction, _MANTISSA + 1)).astype(np.int64)
    _, above_trailing = np.frexp((whole & -whole).astype(np.float64))
    result = np.where(whole == 0, np.inf, exponent - _MANTISSA - 2 + above_trailing)
    return np.where(np.isfinite(numbers), result, np.nan)


def _finite(outputs: Outputs) -> FloatArray:
    return np.where(np.isfinite(outputs.plain), outputs.plain, 0.0)


def _difference(outputs: Outputs, feature: Feature) -> FloatArray:
    numbers, at = outputs.numbers, outputs.paths
    first, second = feature.words
    if first not in at or second not in at:
        return np.full(outputs.size, np.nan)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(numbers[:, at.index(second)] - numbers[:, at.index(first)])


def _placed(outputs: Outputs, feature: Feature) -> FloatArray:
    """(n, k) numbers at the feature's own paths: a table's columns depend on other outputs than the one."""
    return np.stack([outputs.number(path) for path in feature.words], axis=1)


def _contrast(outputs: Outputs, feature: Feature) -> FloatArray:
    numbers = _placed(outputs, feature)
    numbers = np.where(np.isfinite(numbers), numbers, 0.0)
    half = numbers.shape[1] // 2
    return np.asarray(numbers[:, :half].sum(axis=1) - numbers[:, half:].sum(axis=1))


def _extreme(choose: Callable[..., FloatArray]) -> Callable[[Outputs, Feature], FloatArray]:
    def value(outputs: Outputs, feature: Feature) -> FloatArray:
        if not outputs.plain.shape[1]:
            return np.full(outputs.size, np.nan)
        with np.errstate(invalid="ignore"):
            return np.asarray(choose(outputs.plain, axis=1), dtype=np.float64)

    return value


def _one_of(hashes: HashArray, feature: Feature) -> FloatArray:
    wanted = np.array([int(text, 16) for text in feature.words], dtype=np.uint64)
    return np.isin(hashes, wanted).astype(np.float64)


def _ranked(hashes: HashArray, feature: Feature) -> FloatArray:
    """What `constants` say of each hash in `words`; the last constant is for all others."""
    wanted = np.array([int(text, 16) for text in feature.words], dtype=np.uint64)
    order = np.argsort(wanted)
    place = np.clip(np.searchsorted(wanted[order], hashes), 0, wanted.size - 1)
    known = wanted[order][place] == hashes
    ranks = np.array(feature.constants[:-1])[order]
    return np.where(known, ranks[place], feature.constants[-1])


def _equal(outputs: Outputs, feature: Feature) -> FloatArray:
    found = np.isin(bits(outputs.numbers), bits(np.array(feature.constants)))
    return np.asarray(found.sum(axis=1), dtype=np.float64)


def _kind(outputs: Outputs, feature: Feature) -> FloatArray:
    same = np.array([label in feature.words for label in outputs.labels] or [False])
    return np.asarray(same[outputs.kinds], dtype=np.float64)


def _fmin(numbers: FloatArray, axis: int) -> FloatArray:
    return np.asarray(np.fmin.reduce(numbers, axis=axis))


def _fmax(numbers: FloatArray, axis: int) -> FloatArray:
    return np.asarray(np.fmax.reduce(numbers, axis=axis))


def _largest_at(numbers: FloatArray, axis: int) -> FloatArray:
    places = np.argmax(np.where(np.isnan(numbers), -np.inf, numbers), axis=axis)
    return np.asarray(places, dtype=np.float64)


FEATURES: Mapping[str, Callable[[Outputs, Feature], FloatArray]] = {
    "number": lambda outputs, feature: outputs.number(feature.path),
    "low bit": lambda outputs, feature: low_bit(outputs.number(feature.path)),
    "least low bit": lambda outputs, feature: _extreme(_fmin)(
        replace(outputs, numbers=low_bit(outputs.plain), paths=()), feature
    ),
    "negative zero": lambda outputs, feature: (
        (outputs.number(feature.path) == 0) & np.signbit(outputs.number(feature.path))
    ).astype(np.float64),
    "is nan": lambda outputs, feature: np.isnan(outputs.number(feature.path)).astype(np.float64),
    "is infinite": lambda outputs, feature: np.isinf(outputs.number(feature.path)).astype(np.float64),
    "equals": lambda outputs, feature: (outputs.number(feature.path) == feature.constants[0]).astype(
        np.float64
    ),
    "kind": _kind,
    "word": lambda outputs, feature: _one_of(outputs.word(feature.path), feature),
    "whole output": lambda outputs, feature: _one_of(outputs.fingerprints, feature),
    "ranked outputs": lambda outputs, feature: _ranked(outputs.fingerprints, feature),
    "records put out": _equal,
    "sum": lambda outputs, feature: _finite(outputs).sum(axis=1),
    "norm": lambda outputs, feature: np.linalg.norm(_finite(outputs), axis=1),
    "maximum": _extreme(_fmax),
    "minimum": _extreme(_fmin),
    "place of the maximum": lambda outputs, feature: _largest_at(_placed(outputs, feature), axis=1),
    "half contrast": _contrast,
    "difference": _difference,
    # What an output lacks is NaN in a table: only numbers that are there can be counted.
    "count of numbers": lambda outputs, feature: (~np.isnan(outputs.plain)).sum(axis=1).astype(np.float64),
    "count of infinite": lambda outputs, feature: np.isinf(outputs.plain).sum(axis=1).astype(np.float64),
    "count of": lambda outputs, feature: (
        (outputs.plain == feature.constants[0]).sum(axis=1).astype(np.float64)
    ),
}
"""All features by name."""
