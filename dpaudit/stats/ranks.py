"""Ranks among never-inserted references: what a claim allows them, as a discrete law of normal scores.

A rank p-value lies on the grid j / (K + 1). Under a claim P(p <= u) is at most the claim's largest TPR at
u, so that its normal score Phi^-1(1 - p) is stochastically at most the variable computed here, and sums of
scores at most sums of independent such variables, also when each score is only bounded given its past.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import logsumexp, ndtri

from dpaudit.check import FloatArray, finite, in_range
from dpaudit.errors import UsageError
from dpaudit.stats.tradeoff import TradeOff

_MOST_ATOMS = 4096
_CELLS = 1 << 17
_ROUND_BELOW = 16
_LEAST = 1e-14


@dataclass(frozen=True, slots=True, kw_only=True)
class RankGrid:
    """Atoms of a rank p-value.

    Attributes:
        upper: (a,) largest p-value of each atom, ascending, the last one 1.
        score: (a,) largest normal score of each atom, descending.
    """

    upper: FloatArray
    score: FloatArray


def normal_score(p_values: FloatArray, n_references: int) -> FloatArray:
    """Phi^-1(1 - p) with p rounded up to the grid; p = 1 counts as half a rank below 1. Shape (n,).

    Raises:
        UsageError: no references, or a p-value outside (0, 1].
    """
    in_range("n_references", n_references, 1, float("inf"))
    p_values = finite("p_values", p_values)
    if p_values.size and (p_values.min() <= 0 or p_values.max() > 1):
        raise UsageError(
            f"Expected p_values in (0, 1], found {p_values.min():g} to {p_values.max():g}. "
            "Use (1 + number of references at or above) / (K + 1)."
        )
    rank = np.clip(np.ceil(p_values * (n_references + 1) - 1e-6), 1.0, n_references + 1.0)
    return _score_of_rank(rank, n_references)


def _score_of_rank(rank: FloatArray, n_references: int) -> FloatArray:
    # Phi^-1(1 - p) as -Phi^-1(p): 1 - p has no digits left for small p.
    score: FloatArray = -ndtri(np.minimum(rank, n_references + 0.5) / (n_references + 1))
    return score


@lru_cache(maxsize=32)
def rank_grid(n_references: int) -> RankGrid:
    """Atoms for K references; above 4,095 neighbouring ranks are merged, upwards, hence conservatively."""
    count = n_references + 1
    if count <= _MOST_ATOMS:
        last = np.arange(1.0, count + 1.0)
    else:
        near = np.unique(np.round(np.geomspace(1.0, count / 2, _MOST_ATOMS // 2)))
        last = np.unique(np.concatenate([near, count - near, [count]]))
    first = np.concatenate([[1.0], last[:-1] + 1.0])
    return RankGrid(upper=last / count, score=_score_of_rank(first, n_references))


def probabilities(curve: TradeOff, n_references: int) -> FloatArray:
    """(a,) probability of each atom of `rank_grid` under the stochastically smallest p a claim allows."""
    cumulative = np.minimum(np.maximum.accumulate(curve.tpr(rank_grid(n_references).upper)), 1.0)
    cumulative[-1] = 1.0
    atoms: FloatArray = np.diff(cumulative, prepend=0.0)
    return atoms


def moments(curve: TradeOff, n_references: int) -> tuple[float, float]:
    """Mean and variance of the normal score that a claim allows at most."""
    atoms, score = probabilities(curve, n_references), rank_grid(n_references).score
    mean = float(atoms @ score)
    return mean, float(atoms @ (score - mean) ** 2)


def log_mgf(curve: TradeOff, n_references: int, rates: FloatArray) -> FloatArray:
    """(l,) log E exp(rate * score) for non-negative rates (l,). Costs a * l."""
    atoms, score = probabilities(curve, n_references), rank_grid(n_references).score
    result: FloatArray = logsumexp(np.multiply.outer(rates, score), b=atoms, axis=1)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class SumLaw:
    """Upper tail of a sum of independent normal scores, on cells counted downwards from its maximum.

    Attributes:
        maximum: largest possible sum.
        cell: width of a cell.
        start: first cell that is held.
        slack: cells by which a total is lowered before it is looked up.
        tail: (cells,) P(sum >= maximum - (start + i) cell).
    """

    maximum: float
    cell: float
    start: int
    slack: float
    tail: FloatArray

    def at_least(self, total: float) -> float:
        """P(sum >= total), at least 1e-14."""
        last = int(np.floor((self.maximum - total) / self.cell + self.slack)) - self.start
        return _LEAST if last < 0 else float(self.tail[min(last, self.tail.size - 1)])

    def critical(self, alpha: float) -> float:
        """Least total whose tail is at most alpha; inf where even the maximum is likelier than that."""
        last = int(np.searchsorted(self.tail, alpha, side="right")) - 1
        if last + self.start < 0 or self.at_least(self.maximum) > alpha:
            return float("inf")
        # The cell's lower edge, moved by the slack that `at_least` will subtract again.
        return min(self.maximum, self.maximum - (last + self.start + 1 - self.slack - 1e-9) * self.cell)


def sum_law(curves: Sequence[TradeOff], counts: Sequence[int], n_references: int) -> SumLaw:
    """Law of the sum of `counts[i]` independent normal scores under each curve.

    By fast Fourier transform, in milliseconds whatever the counts. Below 16 scores atoms are rounded up to
    cells, which is conservative; from there on they are split between their two cells, which keeps the
    mean, and totals are lowered by the spread that this adds (0.1 of a deviation at 1e5 scores).
    """
    n = sum(counts)
    cells = _CELLS if n > 2000 else _CELLS // 4
    grid, atoms = rank_grid(n_references), [probabilities(curve, n_references) for curve in curves]
    top, reach = float(grid.score[0]), float(grid.score[0] - grid.score[-1])
    means = [float(a @ grid.score) for a in atoms]
    spread = sum(c * float(a @ (grid.score - m) ** 2) for a, m, c in zip(atoms, means, counts, strict=True))
    width = min(n * reach, 20.0 * np.sqrt(spread) + 4.0 * reach) + 1e-9
    cell = width / (cells - 4)
    # Distances below the largest score, in cells, so that the largest possible sum is met exactly.
    depth = (top - grid.score) / cell
    low = np.floor(depth + 1e-9).astype(np.int64)
    part = np.zeros_like(depth) if n < _ROUND_BELOW else np.maximum(depth - low, 0.0)
    transform = np.ones(cells // 2 + 1, dtype=np.complex128)
    for probability, count in zip(atoms, counts, strict=True):
        mass = np.bincount(low, weights=probability * (1 - part), minlength=cells)
        mass += np.bincount(low + 1, weights=probability * part, minlength=cells)[:cells]
        transform *= np.fft.rfft(mass) ** count
    distribution = np.maximum(np.fft.irfft(transform, n=cells), 0.0)
    # The circle holds all sums, or the window around their mean: depths are known modulo its length.
    centre = (n * top - float(np.dot(means, counts))) / cell
    start = max(0, int(np.floor(centre - cells / 2))) if n * reach > width else 0
    return SumLaw(
        maximum=n * top,
        cell=cell,
        start=start,
        slack=1e-6 + (np.sqrt(n) if n >= _ROUND_BELOW else 0.0),
        tail=np.clip(np.cumsum(np.roll(distribution, -(start % cells))), _LEAST, 1.0),
    )
