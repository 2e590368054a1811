"""From tests of the members of a family to a bound in epsilon, its ceiling and what it can detect."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from dpaudit.check import in_range
from dpaudit.claim import Adjacency
from dpaudit.errors import UsageError
from dpaudit.estimate import Estimate
from dpaudit.evidence import Guesses, KnownNull, OneRun, Replay, TwoSample
from dpaudit.stats.family import SCALE_TOLERANCE, Family, search

POWER = 0.9
"""Probability with which `detectable` is detected."""

LEAST_P = 1e-14
"""Smallest p-value that is told apart from 0."""

_LEAST_TOLD = 1e-12


def told(p_value: float) -> str:
    """A p-value behind its name, such as "= 0.012": none is 0."""
    return f"= {p_value:.2g}" if p_value >= _LEAST_TOLD else f"< {_LEAST_TOLD:g}"


def epsilon_at(p_value: Callable[[float], float], family: Family, alpha: float) -> float:
    """Epsilon of the most private member that is still not rejected: a lower bound at level alpha.

    Args:
        p_value: of "leaks no more than the member at this scale"; non-increasing in the scale.
        family: what is searched.
        alpha: level of the tests.

    Returns:
        0 where not even perfect privacy is rejected.
    """
    return epsilon_where(lambda scale: math.log(max(p_value(scale), LEAST_P)) - math.log(alpha), family)


def epsilon_where(excess: Callable[[float], float], family: Family) -> float:
    """Epsilon of the most private member that is still not rejected, from any measure of the evidence for it.

    Args:
        excess: positive where the member at a scale is not rejected; non-increasing in the scale. The
            smoother it is, the fewer members are asked.
        family: what is searched.

    Returns:
        0 where not even perfect privacy is rejected.
    """
    low, high = family.scales
    if excess(high) > 0:
        return 0.0
    root = search(excess, low, high, start=family.claimed_scale)
    return family.epsilon(min(root * (1 + SCALE_TOLERANCE), high))


def detectable_epsilon(power: Callable[[float], float], family: Family) -> float | None:
    """Least true epsilon at which the claim is refuted with probability `POWER`.

    Args:
        power: probability of refuting the claim when the truth is the member at this scale; non-increasing.
        family: with its claim.

    Returns:
        None without a claim, or where no member is caught so often.
    """
    if family.claimed_epsilon is None:
        return None
    low, high = family.scales
    if power(low) < POWER:
        return None
    # Power of exactly 0.9 already counts, hence the hair's breadth.
    scale = search(lambda s: power(s) - POWER + 1e-12, low, high, start=family.claimed_scale)
    return family.epsilon(scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What an estimator found; `None` throughout where there was nothing to look at."""

    epsilon_lower: float | None = None
    p_value: float | None = None
    ceiling: float = 0.0
    detectable: float | None = None


def check_inputs(evidence_adjacency: Adjacency, family: Family, alpha: float) -> None:
    """Refuse a level outside (0, 0.5) and a family under another adjacency.

    Raises:
        UsageError: either of these.
    """
    in_range("alpha", alpha, 0.0, 0.5, open_low=True, open_high=True)
    if evidence_adjacency is not family.adjacency:
        raise UsageError(
            f"Expected a family under {evidence_adjacency} neighbours like the evidence, found "
            f"{family.adjacency}. Use family_for(claim, adjacency=evidence.adjacency)."
        )


def conclude(
    evidence: KnownNull | TwoSample | OneRun | Guesses | Replay,
    family: Family,
    found: Found,
    *,
    alpha: float,
    method: str,
    n: int,
    assumptions: tuple[str, ...],
) -> Estimate:
    """Put what was found into an `Estimate`, with where it came from."""
    return Estimate(
        epsilon_lower=found.epsilon_lower,
        delta=family.delta,
        alpha=alpha,
        adjacency=family.adjacency,
        method=method,
        source=evidence.source,
        access=evidence.access,
        ceiling=found.ceiling,
        n_observations=n,
        p_value=None if family.claimed_epsilon is None else found.p_value,
        claimed_epsilon=family.claimed_epsilon,
        detectable=found.detectable,
        assumptions=(*assumptions, family.assumption),
    )
