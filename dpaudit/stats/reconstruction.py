"""Reconstruction games: how often the right one of n candidates is guessed, against what a claim allows.

Re-identification, attribute inference and reconstruction succeed with probability at most 1 - f(kappa), where
kappa is the success without the release (Hayes, Mahloujifar and Balle 2023, arXiv:2302.07225; Kulynych et
al. 2025, arXiv:2507.06969). A game is a rank audit at one fixed rank.
"""

from __future__ import annotations

import numpy as np

from dpaudit.check import in_range
from dpaudit.errors import UsageError
from dpaudit.estimate import Estimate
from dpaudit.evidence import Guesses
from dpaudit.stats.binomial import lower, tail
from dpaudit.stats.family import Family
from dpaudit.stats.inversion import Found, check_inputs, conclude, detectable_epsilon, epsilon_at
from dpaudit.stats.tradeoff import Gaussian


def success_limit(family: Family, baseline: float, unit: str = "run", *, scale: float | None = None) -> float:
    """Largest probability of a right guess that a claim, or the member at a scale, allows: 1 - f(baseline).

    Args:
        family: whose member is meant.
        baseline: kappa, in (0, 1): the probability of a right guess without the release.
        unit: "run", or "step" for one step, of the phase that leaks most.
        scale: of the member; by default `family.claimed_scale`.

    Raises:
        UsageError: an impossible baseline, another unit, or "step" without a ledger.
    """
    in_range("baseline", baseline, 0.0, 1.0, open_low=True, open_high=True)
    if unit not in ("step", "run"):
        raise UsageError(f"Expected unit to be 'step' or 'run', found {unit!r}. Name one of them.")
    scale = family.claimed_scale if scale is None else scale
    curve = Gaussian(mu=float(family.step_mean()) / scale) if unit == "step" else family.curve(scale)
    return float(curve.tpr(np.array([baseline]))[0])


def guesses(evidence: Guesses, family: Family, *, alpha: float) -> Estimate:
    """Bound from the number of right guesses, exact by the binomial law.

    Args:
        evidence: games that are independent, or whose success is bounded given the games before.
        family: under the adjacency of the evidence: replace-one where candidates stand for one another,
            add-remove where the record's slot is compared with an empty one.
        alpha: error probability.

    Returns:
        An estimate; without games one that says so. 30 curves of the family.

    Raises:
        UsageError: more successes than trials, an impossible baseline or unit, or another adjacency.
    """
    check_inputs(evidence.adjacency, family, alpha)
    right, games = evidence.successes, evidence.trials
    # Asked for even without games, because it refuses what is impossible.
    success_limit(family, evidence.baseline, evidence.unit)
    found = _invert(evidence, family, alpha) if games else Found()
    return conclude(
        evidence,
        family,
        found,
        alpha=alpha,
        method=f"right guesses, {right} of {games}",
        n=games,
        assumptions=("every candidate was equally likely a priori", "games are independent given the past"),
    )


def _invert(evidence: Guesses, family: Family, alpha: float) -> Found:
    games = evidence.trials

    def p_value(scale: float, right: float) -> float:
        limit = success_limit(family, evidence.baseline, evidence.unit, scale=scale)
        return float(tail(right, games, limit))

    claimed = family.claimed_scale
    counts = np.arange(games + 1)
    limit = success_limit(family, evidence.baseline, evidence.unit, scale=claimed)
    refuting = np.flatnonzero(tail(counts, games, limit) <= alpha)
    return Found(
        epsilon_lower=epsilon_at(lambda scale: p_value(scale, evidence.successes), family, alpha),
        p_value=p_value(claimed, evidence.successes),
        ceiling=epsilon_at(lambda scale: p_value(scale, games), family, alpha),
        detectable=detectable_epsilon(lambda scale: p_value(scale, float(refuting[0])), family)
        if refuting.size
        else None,
    )


def success_interval(evidence: Guesses, *, alpha: float) -> tuple[float | None, float | None]:
    """Exact two-sided interval of the probability of a right guess; (None, None) without games."""
    if not evidence.trials:
        return None, None
    low = float(lower(evidence.successes, evidence.trials, alpha / 2))
    high = 1.0 - float(lower(evidence.trials - evidence.successes, evidence.trials, alpha / 2))
    return low, high
