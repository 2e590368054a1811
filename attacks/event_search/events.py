"""An output event: a threshold of one feature, fixed before it is counted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dpaudit.attacks.event_search.features import Feature
from dpaudit.attacks.event_search.learned import LearnedScore
from dpaudit.check import BoolArray, FloatArray
from dpaudit.outputs import Outputs, read_off


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a threshold of a readable feature.

    Attributes:
        feature: what is computed from an output.
        above: whether it is the side "greater than", else "at most".
        threshold: NaN features are on neither side.
    """

    feature: Feature
    above: bool
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """1 where an output lies on each of two sides, else 0.

    What leaks in one place often does so only where another allows it: where a sparse vector stopped says
    little, and how small the number is that it stopped at says little, but both together say much.

    Attributes:
        one: side of the one feature.
        other: side of the other.
    """

    one: Side
    other: Side

    def values(self, outputs: Outputs) -> FloatArray:
        """(n,) 1 or 0."""
        sides = (self.one, self.other)
        held = [_holds(side.feature.values(outputs), side.above, side.threshold) for side in sides]
        return (held[0] & held[1]).astype(np.float64)


def _holds(values: FloatArray, above: bool, threshold: float) -> BoolArray:
    with np.errstate(invalid="ignore"):
        result: BoolArray = values > threshold if above else values <= threshold
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Outputs whose feature lies on one side of a threshold.

    Attributes:
        feature: what is computed from an output.
        above: whether the event is "greater than", else "at most".
        threshold: NaN features are on neither side.
    """

    feature: Feature | Both | LearnedScore
    above: bool
    threshold: float

    def holds(self, outputs: Outputs) -> BoolArray:
        """(n,) whether it happened."""
        return _holds(self.feature.values(outputs), self.above, self.threshold)

    def words(self) -> str:
        """The event for a reader."""
        sign = ">" if self.above else "<="
        if isinstance(self.feature, LearnedScore):
            return f"a learned score of the output {sign} {self.threshold:.6g}"
        if isinstance(self.feature, Both):
            both = " and ".join(
                _words(side.feature, side.above, ">" if side.above else "<=", side.threshold)
                for side in (self.feature.one, self.feature.other)
            )
            return both if self.above else f"not both: {both}"
        return _words(self.feature, self.above, sign, self.threshold)


_YES_OR_NO = {
    "is nan": ("is NaN", "is not NaN"),
    "is infinite": ("is infinite", "is finite"),
    "negative zero": ("is -0.0", "is not -0.0"),
}
_PARTS = {"length": "the length", "types": "the types", "remainder": "the remainder by 2^32"}
"""What is read of a text, a list or a large whole number beside itself."""


def _words(feature: Feature, above: bool, sign: str, threshold: float) -> str:
    name, place = feature.name, _place(feature.path)
    is_not = "is" if above else "is not"
    match name:
        case "number":
            return f"{place} {sign} {threshold!r}"
        case "low bit" | "least low bit":
            return _low_bit_words(place if name == "low bit" else "a number of the output", above, threshold)
        case "is nan" | "is infinite" | "negative zero":
            return f"{place} {_YES_OR_NO[name][0 if above else 1]}"
        case "equals":
            return f"{place} {is_not} exactly {feature.constants[0]!r}"
        case "kind":
            return f"output {is_not}: {', '.join(feature.words)}"
        case "word" | "whole output":
            return f"{place} {is_not} {feature.shown or 'a certain one'}"
        case "records put out":
            least = math.floor(threshold) + 1 if math.isfinite(threshold) else threshold
            return f"{'at least' if above else 'fewer than'} {least} of its numbers equal a record bit by bit"
        case "difference":
            return f"output{feature.words[1]} - output{feature.words[0]} {sign} {threshold!r}"
        case "count of":
            return f"count of {feature.constants[0]!r} in the output {sign} {threshold!r}"
        case "ranked outputs":
            return f"the output is one of those that are {'likelier' if above else 'unlikelier'} there"
    return f"{name} of the output {sign} {threshold!r}"


def _place(path: str) -> str:
    """Where in an output a number or word is, for a reader."""
    path, part = path.rsplit("#", 1) if read_off(path) else (path, "")
    place = f"output{'.' if path[:1].isalpha() else ''}{path}"
    if not part:
        return place
    return (
        f"number {int(part) + 1} in {place}" if part.isdecimal() else f"{_PARTS.get(part, part)} of {place}"
    )


def _low_bit_words(place: str, above: bool, threshold: float) -> str:
    """`x` is a whole multiple of 2^g, or is not."""
    power = math.floor(threshold) + 1 if math.isfinite(threshold) else threshold
    return f"{place} {'is' if above else 'is not'} a whole multiple of 2^{power}"
