"""Betting against a line: a test of one event that may stop at its first decision.

Pairs of outputs, one of each data set, pay x = [event on one] - slope [event on the other] - intercept, whose
mean is at most 0 under the claim. A wealth that stakes a share of itself on every pair is then no larger than
1 on average, and reaches 1 / alpha with probability at most alpha, whenever one stops (Ville 1939;
Waudby-Smith & Ramdas 2020, arXiv:2010.09686). It depends on the pairs by how many there were of each sort.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dpaudit.check import BoolArray
from dpaudit.stats.event_test import Line, largest_up_to

_STAKES = 0.98 * 0.6 ** np.arange(12)
"""Shares of the largest stake that cannot lose everything; the wealth is the mean over them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """How many pairs of outputs there were of each sort.

    Attributes:
        hit: the event on the data set where it is likelier, and not on the neighbour.
        other: on the neighbour alone.
        both: on both.
        neither: on none.
    """

    hit: int
    other: int
    both: int
    neither: int

    @property
    def total(self) -> int:
        """All pairs."""
        return self.hit + self.other + self.both + self.neither


def pairs(hits: BoolArray, other_hits: BoolArray) -> Pairs:
    """Count (n,) pairs by sort."""
    both, hit, other = (int(np.sum(x)) for x in (hits & other_hits, hits & ~other_hits, ~hits & other_hits))
    return Pairs(hit=hit, other=other, both=both, neither=hits.size - both - hit - other)


def log_wealth(seen: Pairs, line: Line) -> float:
    """Logarithm of the wealth after these pairs, in whatever order they came.

    Args:
        seen: up to and with the present look.
        line: that the claim allows.

    Returns:
        0 where the line allows everything.
    """
    payoffs = np.array([1.0, -line.slope, 1.0 - line.slope, 0.0]) - line.intercept
    worst = -float(payoffs.min())
    if worst <= 0 or payoffs.max() <= 0:
        return 0.0
    counts = np.array([seen.hit, seen.other, seen.both, seen.neither], dtype=np.float64)
    grown = np.log1p(np.outer(_STAKES / worst, payoffs)) @ counts
    return float(np.logaddexp.reduce(grown)) - math.log(_STAKES.size)


def largest_beaten(
    looks: list[Pairs],
    line_of: Callable[[float], Line],
    alpha: float,
    *,
    most: float,
    tolerance: float = 1e-3,
) -> float:
    """Lower bound of a parameter that holds at all looks together.

    Args:
        looks: pairs seen at each look.
        line_of: from a parameter to its line; lines rise with the parameter.
        alpha: error probability.
        most: where the search ends.
        tolerance: relative, given away on the safe side.

    Returns:
        The parameter up to which the wealth reached 1 / alpha at some look; 0 where there is none.
    """

    def beaten(parameter: float) -> bool:
        line = line_of(parameter)
        return any(log_wealth(seen, line) >= -math.log(alpha) for seen in looks)

    return largest_up_to(beaten, most=most, tolerance=tolerance)
