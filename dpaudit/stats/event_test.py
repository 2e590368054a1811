"""One event on two samples: an exact test that it is no likelier on one side than a line through the other.

Every claim about a mechanism is a set of lines: the event's probability p on one data set is at most
slope * q + intercept, where q is its probability on a neighbour. With (epsilon, delta) the line is
e^epsilon q + delta.

Both probabilities are unknown. A line fixes p once q is known, so that the p-value is the largest tail over q
in a confidence interval of q, plus what that interval may miss (Berger and Boos 1994, JASA 89). Two
Clopper-Pearson limits at half of alpha each would add their distances; this test adds their variances.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc

from dpaudit.check import FloatArray, in_range
from dpaudit.errors import UsageError
from dpaudit.stats.binomial import lower, upper

LEAST_P = 1e-14
"""Smallest p-value that is told: tails are differences of sums near 1, and these know no smaller ones."""
_MISSED = 0.02
"""Share of alpha that the interval of q may miss."""
_COARSE, _FINE = (24, 64), (128, 384)
"""Pieces of q and blocks of other hits. Both bound the tail from above; the fine ones more closely."""
_FAR = 8.5
"""Standard deviations beyond which a binomial is taken to be there altogether, which is conservative."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How often one event happened on two samples.

    Attributes:
        hits: on the data set where it is likelier.
        trials: independent outputs on that data set.
        other_hits: on the neighbour.
        other_trials: independent outputs on the neighbour.
    """

    hits: int
    trials: int
    other_hits: int
    other_trials: int

    def __post_init__(self) -> None:
        """Refuse more hits than trials."""
        for name, hits, trials in (
            ("hits", self.hits, self.trials),
            ("other_hits", self.other_hits, self.other_trials),
        ):
            in_range(name, hits, 0, trials, remedy="Count again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What a claim allows: p <= slope * q + intercept.

    Attributes:
        slope: positive; e^epsilon.
        intercept: delta; negative ones are allowed.
    """

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        """Refuse a line that no claim has."""
        in_range("slope", self.slope, 0.0, math.inf, open_low=True)
        if not math.isfinite(self.intercept):
            raise UsageError(f"Expected intercept={self.intercept!r} to be finite. Check the claim.")


def refutes(counts: Counts, line: Line, alpha: float) -> bool:
    """Whether the counts contradict p <= slope * q + intercept; wrong with probability at most alpha.

    Args:
        counts: of one event that was fixed before they were counted.
        line: fixed likewise.
        alpha: error probability.

    Returns:
        False without trials, and where alpha is below `LEAST_P`. Costs 5,000 incomplete beta functions, or
        100,000 where the coarse bounds of the tail from both sides leave it open, whatever the number of
        trials.
    """
    in_range("alpha", alpha, 0.0, 1.0, open_low=True, open_high=True)
    if not counts.trials or not counts.other_trials or math.isinf(line.slope) or alpha < 0.99 * LEAST_P:
        return False
    seen = _score(np.array(counts.hits), np.array(counts.other_hits), counts, line)
    if seen <= 0:
        return False
    missed = alpha * _MISSED
    low = float(lower(counts.other_hits, counts.other_trials, missed / 2))
    high = float(upper(counts.other_hits, counts.other_trials, missed / 2))
    allowed = alpha - missed
    if _largest_tail(float(seen), counts, line, low, high, _COARSE) <= allowed:
        return True
    if _some_tail(float(seen), counts, line, low, high) > allowed:
        return False
    return _largest_tail(float(seen), counts, line, low, high, _FINE) <= allowed


def p_value(counts: Counts, line: Line) -> float:
    """Least alpha at which `refutes`, to 1 %; 1 where none does, and `LEAST_P` where all larger ones do.

    What refutes at one alpha refutes at every larger one, because the interval of q only narrows.
    """
    if not refutes(counts, line, 1 - 1e-9):
        return 1.0
    low, high = math.log(LEAST_P), 0.0
    if refutes(counts, line, LEAST_P):
        return LEAST_P
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (low, middle) if refutes(counts, line, math.exp(middle)) else (middle, high)
    return math.exp(high)


def largest_refuted(
    counts: Counts, line_of: Callable[[float], Line], alpha: float, *, most: float, tolerance: float = 1e-4
) -> float:
    """Lower bound of a parameter: the largest one up to which every line is refuted.

    Args:
        counts: of one event that was fixed before they were counted.
        line_of: from a parameter to the line that it allows; lines rise with the parameter.
        alpha: error probability of the bound.
        most: where the search ends.
        tolerance: relative, given away on the safe side.

    Returns:
        At least 0. Costs 30 tests. Not every parameter below is tested: that what refutes a line refutes the
        lower ones too is not proven, and was so wherever it was tried.
    """
    in_range("most", most, 0.0, math.inf, open_low=True, open_high=True)
    return largest_up_to(lambda x: refutes(counts, line_of(x), alpha), most=most, tolerance=tolerance)


def largest_up_to(refuted: Callable[[float], bool], *, most: float, tolerance: float) -> float:
    """Largest parameter up to which all are refuted, found from below; 0 where not even 0 is."""
    if not refuted(0.0):
        return 0.0
    low, high = 0.0, min(1e-3, most)
    while refuted(high):
        if high >= most:
            return most
        low, high = high, min(2 * high, most)
    while high - low > tolerance * high:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def _score(hits: FloatArray, other_hits: FloatArray, counts: Counts, line: Line) -> FloatArray:
    """Excess of the shares over the line in standard deviations, as if they lay on it. Broadcasts.

    Where it is positive it rises with the hits and falls with the other hits. Its variance takes for q what
    all hits together say (Farrington and Manning 1990, Statistics in Medicine 9, with rare events in mind).
    """
    n, m = counts.trials, counts.other_trials
    excess = hits / n - line.slope * (other_hits / m) - line.intercept
    q = np.clip((hits + other_hits - n * line.intercept) / (n * line.slope + m), 1e-300, 1.0)
    p = np.clip(line.slope * q + line.intercept, 1e-300, 1.0)
    variance = p * (1 - p) / n + line.slope**2 * q * (1 - q) / m
    result: FloatArray = excess / np.sqrt(np.maximum(variance, 1e-300))
    return result


def _least_hits(seen: float, other_hits: FloatArray, counts: Counts, line: Line) -> FloatArray:
    """Least hits whose score reaches what was seen, for each number of other hits; n + 1 if none do."""
    low, high = np.zeros_like(other_hits), np.full_like(other_hits, counts.trials + 1.0)
    while np.any(high - low > 1):
        middle = np.minimum(np.floor((low + high) / 2), counts.trials)
        # What equals the score that was seen must count as reached, whatever its rounding.
        enough = _score(middle, other_hits, counts, line) >= seen * (1 - 1e-12)
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high


def _largest_tail(
    seen: float, counts: Counts, line: Line, low: float, high: float, grid: tuple[int, int]
) -> float:
    """Largest P(score at least as large as seen) over q between `low` and `high`, or a little more.

    Within a piece of q the hits are as likely as at its right end and the other hits as unlikely as at its
    left end: no q in the piece has a larger tail. The other hits are taken in blocks, each as if all of it
    lay at its least count, which again only enlarges the tail.
    """
    edges = np.linspace(low, high, grid[0] + 1)
    left, right = edges[:-1, None], edges[1:, None]
    chance = np.clip(line.slope * right + line.intercept, 0.0, 1.0)
    starts = _block_starts(low, high, counts.other_trials, grid[1])
    reached = _at_least(starts, counts.other_trials, left)
    mass = -np.diff(reached, axis=1, append=0.0)
    needed = _least_hits(seen, starts, counts, line)
    tails = np.sum(mass * _at_least(needed, counts.trials, chance), axis=1) + 1.0 - reached[:, 0]
    return float(min(tails.max(), 1.0))


def _some_tail(seen: float, counts: Counts, line: Line, low: float, high: float) -> float:
    """A tail that some q between `low` and `high` has at least: blocks are taken at their greatest count."""
    q = np.linspace(low, high, _COARSE[0] + 1)[:, None]
    starts = _block_starts(low, high, counts.other_trials, _COARSE[1])
    mass = -np.diff(_at_least(starts, counts.other_trials, q), axis=1, append=0.0)[:, :-1]
    needed = _least_hits(seen, starts[1:] - 1.0, counts, line)
    chance = np.clip(line.slope * q + line.intercept, 0.0, 1.0)
    return float(np.sum(mass * _at_least(needed, counts.trials, chance), axis=1).max(initial=0.0))


def _block_starts(low: float, high: float, trials: int, blocks: int) -> FloatArray:
    """(blocks,) least counts of the blocks into which the counts that q in [low, high] can give are cut."""
    first, last = (
        trials * q + side * (_FAR * math.sqrt(trials * q * (1 - q)) + _FAR**2)
        for q, side in ((low, -1), (high, 1))
    )
    start, end = max(math.floor(first), 0), min(math.ceil(last), trials)
    width = max(math.ceil((end - start + 1) / blocks), 1)
    return np.arange(start, end + 1, width, dtype=np.float64)


def _at_least(counts: FloatArray, trials: int, chance: FloatArray) -> FloatArray:
    """P(at least so many of the trials); 1 for none, 0 for more than there are."""
    inside = np.clip(counts, 1.0, float(trials))
    tail = betainc(inside, trials - inside + 1.0, chance)
    result: FloatArray = np.where(counts <= 0, 1.0, np.where(counts > trials, 0.0, tail))
    return result
