"""The sensitive value of a person, guessed from the table and from noisy counts of the same table.

Half of the records are released and the other half are people who are not in: what is guessed right of the
former and not of the latter is what the release gives away (the comparison of Jayaraman and Evans 2022,
arXiv:2209.01292). Under pure epsilon-DP no guess is right more often than 1 - f(baseline), the baseline being
its success where the person was out (Kulynych et al. 2025, arXiv:2507.06969).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dpaudit.check import BoolArray, FloatArray, IntArray
from dpaudit.linkage.columns import combined
from dpaudit.targets.mechanisms.additive import Laplace

MOST_CELLS = 4_000_000
_CHUNK = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Guessed:
    """How often a sensitive value was guessed right.

    Attributes:
        release: "table" or "noisy counts".
        right_in: of the people in the release.
        people_in: how many they are.
        right_out: of the people who are not in.
        people_out: how many they are.
    """

    release: str
    right_in: int
    people_in: int
    right_out: int
    people_out: int


def halves(records: int, rng: np.random.Generator) -> BoolArray:
    """(n,) who is in the release: half of the records, drawn at random."""
    inside = np.zeros(records, dtype=np.bool_)
    inside[rng.permutation(records)[: records // 2]] = True
    return inside


def from_table(quasi: Mapping[str, IntArray], sensitive: IntArray, inside: BoolArray) -> Guessed:
    """Look people up: the commonest value among the released records that look like them."""
    key = combined(list(quasi.values()))
    width = int(sensitive.max()) + 1
    cells, times = np.unique(key[inside] * width + sensitive[inside], return_counts=True)
    order = np.argsort(times, kind="stable")
    guess = np.full(int(key.max()) + 1, np.bincount(sensitive[inside]).argmax(), dtype=np.int64)
    # The last one written stays, which is the commonest.
    guess[cells[order] // width] = cells[order] % width
    return _counted("table", guess[key] == sensitive, inside)


def from_noisy_counts(
    quasi: Mapping[str, IntArray],
    sensitive: IntArray,
    inside: BoolArray,
    epsilon: float,
    rng: np.random.Generator,
) -> Guessed | None:
    """Guess from noisy counts of each quasi-identifier with the sensitive value, by naive Bayes.

    A record counts in one cell of each table, so that Laplace noise of scale (tables / epsilon) makes all of
    them epsilon-DP under adding or removing one. The lists of values are taken as known to anybody.

    Returns:
        None where no table has at most `MOST_CELLS` cells.
    """
    width = int(sensitive.max()) + 1
    used = {name: c for name, c in quasi.items() if (int(c.max()) + 1) * width <= MOST_CELLS}
    if not used:
        return None
    noise = Laplace(epsilon=epsilon, sensitivity=float(len(used)))
    tables = {
        name: _noisy(codes[inside] * width + sensitive[inside], int(codes.max()) + 1, width, noise, rng)
        for name, codes in used.items()
    }
    totals = np.maximum(np.mean([table.sum(axis=0) for table in tables.values()], axis=0), 1.0)
    prior = totals / totals.sum()
    given = {name: _given(table, prior, noise.scale * width) for name, table in tables.items()}
    right = np.zeros(len(sensitive), dtype=np.bool_)
    for start in range(0, len(sensitive), _CHUNK):
        part = slice(start, start + _CHUNK)
        score = np.log(prior) + sum(given[name][codes[part]] for name, codes in used.items())
        right[part] = np.argmax(score, axis=1) == sensitive[part]
    return _counted("noisy counts", right, inside)


def _noisy(cells: IntArray, values: int, width: int, noise: Laplace, rng: np.random.Generator) -> FloatArray:
    """Noisy counts (values, width)."""
    counts = np.bincount(cells, minlength=values * width).reshape(values, width)
    return np.asarray(noise.sample(counts, 1, rng)[0])


def _given(table: FloatArray, prior: FloatArray, weight: float) -> FloatArray:
    """Log ratio (values, width) of each sensitive value given a quasi-identifier to its share of all.

    Drawn to the share of all with the weight of so many records, since small counts are mostly noise.
    """
    counts = np.maximum(table, 0.0)
    shares = (counts + weight * prior) / (counts.sum(axis=1, keepdims=True) + weight)
    return np.asarray(np.log(shares / prior))


def _counted(release: str, right: BoolArray, inside: BoolArray) -> Guessed:
    return Guessed(
        release=release,
        right_in=int(right[inside].sum()),
        people_in=int(inside.sum()),
        right_out=int(right[~inside].sum()),
        people_out=int((~inside).sum()),
    )
