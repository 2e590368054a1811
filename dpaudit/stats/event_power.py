"""What a test of one event would have caught."""

from __future__ import annotations

import math

from dpaudit.stats.event_test import Counts, refutes
from dpaudit.stats.guarantees import Guarantee

_UNLUCKY = 1.2816
"""Standard normal quantile of 0.9: the power that is asked for."""
_TOLERANCE = 5e-3


def detectable(guarantee: Guarantee, counts: Counts, at: float, alpha: float, *, trials: int) -> float | None:
    """Smallest parameter at which the claim is refuted with probability 0.9, by the normal approximation.

    Takes an event whose probability on the neighbour is what was seen there, and the largest one that the
    parameter allows on the data set where it is likelier.

    Args:
        guarantee: the claim.
        counts: of the event that was tested.
        at: rate for which the line was chosen.
        alpha: of the test.
        trials: outputs on each data set.

    Returns:
        None where not even the largest parameter is refuted. Costs 20 tests.
    """
    other = (counts.other_hits + 0.5) / (counts.other_trials + 1.0)
    line = guarantee.line(guarantee.claimed, at)

    def caught(parameter: float) -> bool:
        allowed = guarantee.line(parameter, other)
        share = min(allowed.slope * other + allowed.intercept, 1.0)
        variance, other_variance = share * (1 - share) / trials, other * (1 - other) / trials
        spread = math.sqrt(variance + line.slope**2 * other_variance)
        if spread <= 0:
            return False
        # The likeliest of the outcomes that only one audit in ten falls short of.
        low = share - _UNLUCKY * variance / spread
        high = other + _UNLUCKY * line.slope * other_variance / spread
        unlucky = Counts(
            hits=max(math.floor(low * trials), 0),
            trials=trials,
            other_hits=min(math.ceil(high * trials), trials),
            other_trials=trials,
        )
        return refutes(unlucky, line, alpha)

    low, high = guarantee.claimed, max(guarantee.claimed * 1.05, 1e-3)
    while not caught(high):
        if high >= guarantee.most:
            return None
        low, high = high, min(high * 1.5, guarantee.most)
    while high - low > _TOLERANCE * high:
        middle = (low + high) / 2
        low, high = (low, middle) if caught(middle) else (middle, high)
    return high
