"""What a design can show before it is run: observations needed, and the bound to expect of correct code."""

from __future__ import annotations

import math

from scipy.special import ndtri

from dpaudit.check import in_range
from dpaudit.errors import UsageError
from dpaudit.stats.family import Family
from dpaudit.stats.inversion import POWER, epsilon_at
from dpaudit.stats.ranks import moments, sum_law
from dpaudit.stats.tradeoff import Gaussian, TradeOff


def _curve(family: Family, scale: float, unit: str) -> TradeOff:
    if unit not in ("step", "run"):
        raise UsageError(f"Expected unit to be 'step' or 'run', found {unit!r}. Name one of them.")
    return Gaussian(mu=float(family.step_mean()) / scale) if unit == "step" else family.curve(scale)


def observations_needed(
    family: Family,
    epsilon: float,
    *,
    alpha: float,
    n_references: int,
    unit: str = "run",
    power: float = POWER,
    halves: bool = False,
) -> int | None:
    """Observations after which a fixed rank audit refutes the claim with the given probability.

    n = ((z_alpha s0 + z_power s1) / (m1 - m0))^2, with mean and deviation of the normal score under the claim
    and under the truth; four times as many if half of them are spent on the false-positive rate instead.

    Args:
        family: with its claim.
        epsilon: true epsilon, that of another member of the family.
        alpha: error probability.
        n_references: per observation.
        unit: "run", or "step" for steps of the phase that leaks most.
        power: in (0, 1).
        halves: for a design of runs with and without the canary.

    Returns:
        None where the truth is no worse than the claim. Near-normal: exact enough from about 10 on.

    Raises:
        UsageError: a family without a claim, or an impossible level, power or unit.
    """
    in_range("alpha", alpha, 0.0, 0.5, open_low=True, open_high=True)
    in_range("power", power, 0.0, 1.0, open_low=True, open_high=True)
    if family.claimed_epsilon is None:
        raise UsageError("Expected a claim to be refuted, found claimed_epsilon=None. State the claim.")
    claim = moments(_curve(family, family.claimed_scale, unit), n_references)
    truth = moments(_curve(family, family.scale_for(epsilon), unit), n_references)
    gap = truth[0] - claim[0]
    if gap <= 0:
        return None
    spread = float(-ndtri(alpha) * math.sqrt(claim[1]) + ndtri(power) * math.sqrt(truth[1]))
    return max(1, math.ceil((4 if halves else 1) * (spread / gap) ** 2))


def expected_bound(
    family: Family,
    n: int,
    *,
    alpha: float,
    n_references: int,
    unit: str = "run",
    epsilon: float | None = None,
) -> float:
    """Median bound that a fixed rank audit of n observations shows when the attack is optimal.

    Args:
        family: the claim's.
        n: observations, at least 1.
        alpha: error probability.
        n_references: per observation.
        unit: "run", or "step" for steps of the phase that leaks most.
        epsilon: true epsilon; by default the claimed one, that is, correct code.

    Returns:
        Epsilon. Correct code is not expected to show more, so that a low figure means little information.

    Raises:
        UsageError: an impossible level or unit, or fewer than one observation.
    """
    in_range("n", n, 1, math.inf)
    truth = family.claimed_scale if epsilon is None else family.scale_for(epsilon)
    total = n * moments(_curve(family, truth, unit), n_references)[0]
    return epsilon_at(
        lambda scale: sum_law((_curve(family, scale, unit),), (n,), n_references).at_least(total),
        family,
        alpha,
    )
