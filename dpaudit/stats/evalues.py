"""Bounds from independent runs with and without the canary that hold whenever one stops looking.

A wealth that starts at 1 and is bet on in or out, at odds that no mechanism under the claim beats, reaches
1 / alpha with probability at most alpha (Ville). The bets are certified for the curve of the claim, be it
Gaussian, a ledger's or a bare (epsilon, delta), whatever the scores are (`certified`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from dpaudit.check import FloatArray, finite
from dpaudit.errors import UsageError
from dpaudit.estimate import Estimate
from dpaudit.evidence import TwoSample
from dpaudit.stats.betting import CELLS, Round, ScorePlan, planned_cells, rounds
from dpaudit.stats.certified import cells_of, numeraire, pair
from dpaudit.stats.family import Family
from dpaudit.stats.inversion import Found, check_inputs, conclude, detectable_epsilon, epsilon_where
from dpaudit.stats.tradeoff import TradeOff

__all__ = ["ScorePlan", "anytime", "log_wealth"]

_UNLUCKY = 1.2816
_LOOKS = 512


def log_wealth(curve: TradeOff, played: Sequence[Round]) -> FloatArray:
    """(n,) logarithm of the wealth after each pair that was bet on, against one curve.

    Both scores of a pair are bet on before either is seen. With E0 and E1 their mean payoffs,
    E0 E1 <= ((E0 + E1) / 2)^2 <= 1, so that an alternating design is as good as fair coins.
    Costs n and one projection per round.
    """
    gains = [np.zeros(0)]
    for each, payoff in zip(played, _payoffs(curve, played), strict=True):
        gains.append(payoff[each.cell_in, 1] + payoff[each.cell_out, 0])
    return np.cumsum(np.concatenate(gains))


def _payoffs(curve: TradeOff, played: Sequence[Round]) -> list[FloatArray]:
    """(k, 2) logarithms of what each round's cells pay against a curve; zeros where nothing is bet."""
    against = pair(curve)
    beliefs = [each.belief(against) for each in played]
    return [np.zeros((CELLS, 2)) if b is None else numeraire(b, against) for b in beliefs]


def _counts(played: Sequence[Round]) -> list[FloatArray]:
    """Per round (looks, k, 2) how many scores of out and in fell into each cell since the look before.

    There are at most 512 looks in a round, evenly spaced by the round's length alone: a wealth that is looked
    at less often is reached less often, never more.
    """
    counts = []
    for each in played:
        n = each.cell_in.size
        looks = min(n, _LOOKS)
        # Pairs up to and with the end of a stretch belong to it.
        stretch = (np.arange(n) * looks) // max(n, 1)
        both = [
            np.bincount(stretch * CELLS + cell, minlength=looks * CELLS).reshape(looks, CELLS)
            for cell in (each.cell_out, each.cell_in)
        ]
        counts.append(np.stack(both, axis=2).astype(np.float64))
    return counts


def _largest(curve: TradeOff, played: Sequence[Round], counts: Sequence[FloatArray]) -> float:
    """Largest logarithm of the wealth at any look, at least 0. Costs one projection per round."""
    gains = [
        np.tensordot(c, payoff, axes=2) for c, payoff in zip(counts, _payoffs(curve, played), strict=True)
    ]
    return max(float(np.cumsum(np.concatenate([np.zeros(1), *gains])).max()), 0.0)


def anytime(evidence: TwoSample, family: Family, *, alpha: float, plan: ScorePlan | None = None) -> Estimate:
    """Bound that stays valid when runs are added, or no longer added, because of what was seen.

    Scores enter by their order only. Without a plan what to bet is learned from earlier pairs, and the
    first eight pairs are not bet on.

    Args:
        evidence: pairs (one run with, one without) in observation order; surplus runs are left out.
        family: under the adjacency of the evidence. With `EpsilonDeltaFamily` nothing beyond
            (epsilon, delta) is assumed.
        alpha: error probability over all stopping times together.
        plan: what to expect of scores, pre-registered.

    Returns:
        An estimate; without pairs one that says so. Costs 30 curves of the family and, for each,
        2.5 log(n / 8) projections.

    Raises:
        UsageError: no runs of one kind, scores that are not finite, or another adjacency.
    """
    check_inputs(evidence.adjacency, family, alpha)
    scores_in, scores_out = finite("scores_in", evidence.scores_in), finite("scores_out", evidence.scores_out)
    n = min(scores_in.size, scores_out.size)
    if not n and max(scores_in.size, scores_out.size):
        raise UsageError(
            f"Expected runs of both kinds, found {scores_in.size} with and {scores_out.size} without the "
            "canary. Train some of the other kind."
        )
    found = _invert(scores_out[:n], scores_in[:n], family, alpha, plan) if n else Found()
    return conclude(
        evidence,
        family,
        found,
        alpha=alpha,
        method="certified betting, anytime" + ("" if plan is None else ", planned"),
        n=2 * n,
        assumptions=("the runs are independent, and paired in the order in which they were made",),
    )


def _invert(
    scores_out: FloatArray, scores_in: FloatArray, family: Family, alpha: float, plan: ScorePlan | None
) -> Found:
    n = scores_in.size
    log_p_value = _log_p_value_of(scores_out, scores_in, family, plan)
    return Found(
        epsilon_lower=_bound(log_p_value, family, alpha),
        p_value=math.exp(log_p_value(family.claimed_scale)),
        ceiling=_ceiling(n, family, alpha, plan),
        detectable=detectable_epsilon(_power(family, n, alpha, plan), family),
    )


def _log_p_value_of(
    scores_out: FloatArray, scores_in: FloatArray, family: Family, plan: ScorePlan | None
) -> Callable[[float], float]:
    played = list(rounds(scores_out, scores_in, plan))
    counts = _counts(played)
    return lambda scale: -_largest(family.curve(scale), played, counts)


def _bound(log_p_value: Callable[[float], float], family: Family, alpha: float) -> float:
    return epsilon_where(lambda scale: log_p_value(scale) - math.log(alpha), family)


@lru_cache(maxsize=256)
def _ceiling(n: int, family: Family, alpha: float, plan: ScorePlan | None) -> float:
    """Bound of scores that never overlap; remembered, because it depends on the design alone."""
    far = np.arange(1.0, n + 1) * 1e6
    return _bound(_log_p_value_of(-far, far, family, plan), family, alpha)


def _power(family: Family, n: int, alpha: float, plan: ScorePlan | None) -> Callable[[float], float]:
    """Whether the wealth reaches 1 / alpha in nine of ten audits, by its normal approximation."""
    claim = pair(family.curve(family.claimed_scale))
    # What learning costs a one-parameter belief.
    needed = -math.log(alpha) + (0.5 * math.log(n) if plan is None else 0.0)

    def power(scale: float) -> float:
        law = pair(family.curve(scale))
        if plan is None:
            truth = belief = cells_of(law, CELLS)
        else:
            # Normal scores as far apart as the curve is at its middle.
            middle = 2 * float(np.interp(0.5, law.pooled, law.knots))
            truth, belief = planned_cells(plan, middle), planned_cells(plan, plan.mu)
        payoff = numeraire(np.maximum(belief, 1e-12), claim)
        mean = np.sum(truth * payoff, axis=0)
        deviation = math.sqrt(max(n * float(np.sum(truth * (payoff - mean) ** 2)), 0.0))
        return float(n * float(mean.sum()) - _UNLUCKY * deviation >= needed)

    return power
