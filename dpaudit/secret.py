"""Secrets that are planted in sequences of tokens: the space they are drawn from, and where they stand."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpaudit.check import FloatArray, IntArray
from dpaudit.errors import UsageError

PADDING = -1
_STREAM = 0x5EC2E7
_MOST = 10**18
Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """What secrets of a kind look like: one alternative of each slot, one slot after the other.

    No alternative of a slot begins another one of it. Then different choices are different sequences of which
    none begins another, so that the probabilities a model gives to all of them add up to at most 1.

    Attributes:
        name: such as "phone".
        slots: the alternatives of each slot, token ids each; every one as likely as the others.
    """

    name: str
    slots: tuple[tuple[Tokens, ...], ...]

    def __post_init__(self) -> None:
        """Refuse alternatives that cannot be told apart, and a space without a choice."""
        for slot in self.slots:
            ordered = sorted(slot)
            for first, second in pairwise(ordered):
                if second[: len(first)] == first:
                    raise UsageError(
                        f"Expected alternatives in {self.name!r} of which none begins another, found "
                        f"{first!r} and {second!r}. End each with the token that follows it."
                    )
            if not slot or min(min(tokens, default=0) for tokens in slot) < 0:
                raise UsageError(f"Expected token ids of 0 or more in {self.name!r}, found {slot!r}.")
        if not 2 <= self.size <= _MOST:
            raise UsageError(
                f"Expected {self.name!r} to have from 2 to 1e18 secrets, found {self.size}. Change its slots."
            )

    @property
    def size(self) -> int:
        """How many secrets there are, each as likely as the others."""
        return math.prod(len(slot) for slot in self.slots)

    @property
    def longest(self) -> int:
        """Tokens of the longest secret."""
        return sum(max(len(tokens) for tokens in slot) for slot in self.slots)

    def spelled(self, number: IntArray) -> IntArray:
        """Secrets (n, longest) by their numbers (n,) in [0, size), padded with -1 at the end."""
        parts, rest = [], np.asarray(number, dtype=np.int64)
        for slot in reversed(self.slots):
            rest, chosen = np.divmod(rest, len(slot))
            width = max(len(tokens) for tokens in slot)
            table = np.array([[*tokens, *[PADDING] * (width - len(tokens))] for tokens in slot], np.int64)
            parts.append(table.reshape(len(slot), width)[chosen])
        joined = np.concatenate(parts[::-1], axis=1)
        order = np.argsort(joined == PADDING, axis=1, kind="stable")
        spelled: IntArray = np.take_along_axis(joined, order, axis=1)
        return spelled

    def draw(self, count: int, rng: np.random.Generator) -> IntArray:
        """Numbers (count,) of secrets, drawn evenly and independently."""
        return rng.integers(0, self.size, size=count, dtype=np.int64)

    def others(self, number: int, count: int, rng: np.random.Generator) -> IntArray:
        """Numbers (count,) of other secrets, drawn evenly without replacement from all but one.

        Together with a secret that was itself drawn evenly they are exchangeable: each is as likely as any
        other to be the one that was planted. Needs count < size.
        """
        if self.size <= 4 * count:
            return _past(rng.permutation(self.size - 1)[:count], number)
        found = np.zeros(0, dtype=np.int64)
        while len(found) < count:
            # The first of equal draws stays where it was, so that the order stays random.
            drawn = np.concatenate([found, rng.integers(0, self.size - 1, size=count, dtype=np.int64)])
            found = drawn[np.sort(np.unique(drawn, return_index=True)[1])]
        return _past(found[:count], number)


def _past(number: IntArray, left_out: int) -> IntArray:
    """Numbers of a space without one of its members."""
    return np.asarray(number + (number >= left_out), dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """Which records hold a secret, of which format, and where.

    Attributes:
        formats: what they look like.
        kind: (n,) index into `formats`; -1 where a record holds none.
        start: (n,) first token of the secret.
        stop: (n,) the token behind its last one.
        number: (n,) of the secret that was planted; -1 before one is.
        stream: of the draw of candidates, drawn with the secrets.
    """

    formats: tuple[Format, ...]
    kind: IntArray
    start: IntArray
    stop: IntArray
    number: IntArray
    stream: int = 0

    @classmethod
    def at(cls, formats: tuple[Format, ...], kind: IntArray, start: IntArray, stop: IntArray) -> Secrets:
        """Places of n records, (n,) each, at which secrets can be planted."""
        made = [np.asarray(part, dtype=np.int64) for part in (kind, start, stop)]
        return cls(
            formats=formats, kind=made[0], start=made[1], stop=made[2], number=np.full(len(made[0]), -1)
        )

    def of(self, rows: IntArray) -> Secrets:
        """Those of these records."""
        parts = {name: getattr(self, name)[rows] for name in ("kind", "start", "stop", "number")}
        return replace(self, **parts)

    @property
    def planted(self) -> IntArray:
        """Records that hold a planted secret."""
        return np.flatnonzero((self.kind >= 0) & (self.number >= 0)).astype(np.int64)

    @property
    def references(self) -> int:
        """How many other secrets even the smallest space of a planted one holds; 0 without any."""
        used = np.unique(self.kind[self.planted])
        return min((self.formats[kind].size - 1 for kind in used), default=0)

    def parts(self) -> tuple[NDArray[Any], ...]:
        """Everything that determines places, secrets and candidates, as arrays to be hashed."""
        spelt = np.frombuffer(repr(self.formats).encode(), dtype=np.uint8)
        return self.kind, self.start, self.stop, self.number, np.array([self.stream]), spelt

    def plant(self, x: FloatArray, rows: IntArray, rng: np.random.Generator) -> tuple[FloatArray, Secrets]:
        """Put a fresh secret into each of these records; what stood there is gone.

        Returns:
            Tokens (n, t), and the places, of these records alone.

        Raises:
            UsageError: a record without a place for one, without a token before it, or without room.
        """
        without = rows[self.kind[rows] < 0]
        if without.size:
            raise UsageError(
                f"Expected a place for a secret in every canary, found none in {without.size} of "
                f"{rows.size}. Plant fewer canaries, or name more places."
            )
        first = rows[self.start[rows] < 1]
        if first.size:
            raise UsageError(
                f"Expected a token before each secret, found none in record {first[0]}. Begin "
                "records with one, such as a mark of their beginning."
            )
        x, number, stop = x.copy(), np.full(len(self.kind), -1), self.stop.copy()
        for row in rows:
            chosen = self.formats[self.kind[row]]
            number[row] = chosen.draw(1, rng)[0]
            longest = chosen.longest
            x[row], stop[row] = self._with(
                x[row], int(row), chosen.spelled(number[row : row + 1])[0], longest
            )
        kind, stream = np.where(number >= 0, self.kind, -1), int(rng.integers(2**31))
        return x, replace(self, kind=kind, stop=stop, number=number, stream=stream)

    def _with(self, record: FloatArray, row: int, secret: IntArray, longest: int) -> tuple[FloatArray, int]:
        said = secret[secret != PADDING]
        behind = record[self.stop[row] :]
        behind = behind[behind != PADDING]
        whole = np.concatenate([record[: self.start[row]], said, behind])
        # Every candidate has to fit, and not the drawn one alone: what fails must not depend on the draw.
        needed = max(len(whole), int(self.start[row]) + longest)
        if needed > len(record):
            raise UsageError(
                f"Expected room for {needed} tokens in record {row}, found {len(record)}. Pad records "
                f"with {PADDING} for the longest secret."
            )
        padded = np.full(len(record), float(PADDING))
        padded[: len(whole)] = whole
        return padded, int(self.start[row]) + len(said)

    def candidates(self, row: int, count: int) -> IntArray:
        """(count + 1, longest) the planted secret of a record and then others of its space.

        The others are drawn from a stream of their own, fresh with the secrets: one that is known beforehand
        would leave the secret less likely than others of some sets of candidates.
        """
        chosen: Format = self.formats[int(self.kind[row])]
        own = int(self.number[row])
        others = chosen.others(own, count, np.random.default_rng([_STREAM, self.stream, row]))
        numbers: IntArray = np.append(own, others).astype(np.int64)
        return chosen.spelled(numbers)

    def spelled(self) -> IntArray:
        """(s, longest of all) tokens of the planted secrets, padded with -1, in the order of `planted`."""
        width = max((each.longest for each in self.formats), default=0)
        said = np.full((len(self.planted), width), PADDING, dtype=np.int64)
        for place, row in enumerate(self.planted):
            tokens = self.formats[self.kind[row]].spelled(self.number[row : row + 1])[0]
            said[place, : len(tokens)] = tokens
        return said
