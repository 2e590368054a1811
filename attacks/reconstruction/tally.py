"""Games of one of n candidates, for several n at once: who is picked, and what the count is evidence of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dpaudit.check import BoolArray, FloatArray, in_range
from dpaudit.claim import Adjacency
from dpaudit.errors import UsageError
from dpaudit.evidence import Access, Guesses

MOST = 10_000
"""Candidates of a game; their scores are kept, n of them a game."""


def sizes_of(candidates: int | Sequence[int]) -> tuple[int, ...]:
    """Every n that is asked for, smallest first.

    Raises:
        UsageError: none, one out of range, or one twice.
    """
    given = (candidates,) if isinstance(candidates, int) else tuple(candidates)
    for n in given:
        in_range("candidates", n, 2, MOST)
    in_range("number of sizes in candidates", len(given), 1, 20)
    if len(set(given)) < len(given):
        raise UsageError(f"Expected candidates={list(given)} to differ, found one twice. Name each once.")
    return tuple(sorted(int(n) for n in given))


def tests_of(name: str, sizes: Sequence[int]) -> tuple[str, ...]:
    """Source of the evidence of each n: the attack itself where there is one."""
    return (name,) if len(sizes) == 1 else tuple(f"{name}, 1 of {n}" for n in sizes)


class Tally:
    """Games won and played, by n.

    Candidates come in random order but for the secret one in front, so that a game among the first n is a
    game of n, too. Games of one n are independent of each other if the rows are. Games of different n are
    not, and each n is a test of its own.
    """

    def __init__(self, sizes: Sequence[int]):
        self._sizes = tuple(sizes)
        self._won = dict.fromkeys(self._sizes, 0)
        self._played = dict.fromkeys(self._sizes, 0)

    def count(self, likelihood: FloatArray, rng: np.random.Generator, sizes: Sequence[int] = ()) -> None:
        """Pick the likeliest of each row; ties fall at random, and what is not a number speaks for nobody.

        Args:
            likelihood: (games, n) with the secret candidate first.
            rng: of the ties.
            sizes: for which these games count; by default all.
        """
        beaten = _beaten(np.where(np.isfinite(likelihood), likelihood, -np.inf), rng)
        for n in sizes or self._sizes:
            self._won[n] += int((~beaten[:, : n - 1].any(axis=1)).sum())
            self._played[n] += len(beaten)

    def evidence(
        self, name: str, access: Access, unit: str, adjacency: Adjacency = Adjacency.ADD_REMOVE
    ) -> tuple[Guesses, ...]:
        """Successes for each n that was played."""
        return tuple(
            Guesses(
                successes=self._won[n],
                trials=self._played[n],
                baseline=1.0 / n,
                unit=unit,
                source=source,
                access=access,
                adjacency=adjacency,
            )
            for n, source in zip(self._sizes, tests_of(name, self._sizes), strict=True)
            if self._played[n]
        )


def _beaten(likelihood: FloatArray, rng: np.random.Generator) -> BoolArray:
    """(games, n - 1) whether each other candidate is picked before the first."""
    coins = rng.random(likelihood.shape)
    own, coin = likelihood[:, :1], coins[:, :1]
    ahead: BoolArray = (likelihood[:, 1:] > own) | ((likelihood[:, 1:] == own) & (coins[:, 1:] > coin))
    return ahead
