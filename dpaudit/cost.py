"""What a ledger costs by every accountant there is, and whether a claimed epsilon covers it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from dpaudit import accounting
from dpaudit.claim import Adjacency, Ledger, Sampler
from dpaudit.errors import UsageError
from dpaudit.ledger import TOLERANCE, describe
from dpaudit.stats.sampler import unamplified

TIGHT, UPPER, LEAST, INFORMATION = "tight", "an upper bound", "a lower bound", "no bound"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Epsilon by one accountant.

    Attributes:
        accountant: its name.
        adjacency: the neighbouring relation.
        epsilon: at the delta asked for.
        bound: what it is to the true one: tight, an upper bound, a lower bound, or none.
    """

    accountant: str
    adjacency: Adjacency
    epsilon: float
    bound: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What steps cost, and what that says of a claim.

    Attributes:
        ledger: in words.
        delta: at which everything is stated.
        figures: by accountant.
        claimed: epsilon; None without a claim.
        status: COVERED, NOT COVERED or UNDECIDED; empty without a claim.
        reason: one sentence with the numbers.
        warnings: about delta.
    """

    ledger: str
    delta: float
    figures: tuple[Figure, ...]
    claimed: float | None
    status: str
    reason: str
    warnings: tuple[str, ...]


def cost(
    ledger: Ledger,
    *,
    delta: float,
    adjacency: Adjacency,
    claimed: float | None = None,
    records: int | None = None,
) -> Cost:
    """Account for a ledger and compare a claim with it.

    Args:
        ledger: the steps.
        delta: in (0, 1).
        adjacency: of the claim.
        claimed: epsilon.
        records: how many there were.

    Raises:
        UsageError: an impossible delta, epsilon or number of records.
    """
    _check(delta, claimed, records)
    figures = _figures(ledger, delta)
    least = accounting.epsilon_lower(ledger, delta, adjacency)
    most = accounting.pld_epsilon(ledger, delta, adjacency)
    status, reason = _compare(claimed, least, most, adjacency)
    return Cost(
        ledger=describe(ledger),
        delta=delta,
        figures=figures,
        claimed=claimed,
        status=status,
        reason=reason,
        warnings=_warnings(ledger, delta, records),
    )


def _check(delta: float, claimed: float | None, records: int | None) -> None:
    if not 0 < delta < 1:
        raise UsageError(
            f"Expected --delta={delta!r} in (0, 1). Below one over the number of records is usual."
        )
    if claimed is not None and not claimed >= 0:
        raise UsageError(f"Expected --epsilon={claimed!r} to be 0 or more. State the claim.")
    if records is not None and records < 1:
        raise UsageError(f"Expected --records={records} to be 1 or more. Leave it out if it is not known.")


def _figures(ledger: Ledger, delta: float) -> tuple[Figure, ...]:
    """Every figure that there is for this kind of sampling."""
    poisson = all(phase.sampler in (Sampler.POISSON, Sampler.FULL_BATCH) for phase in ledger)
    subsampled = any(phase.sampler is not Sampler.FULL_BATCH and phase.sample_rate < 1 for phase in ledger)
    pld = TIGHT if poisson else UPPER
    ours = Adjacency.ADD_REMOVE
    rows = [
        *(_pld(ledger, delta, each, pld) for each in Adjacency),
        Figure(accountant="PRV", adjacency=ours, epsilon=accounting.prv_epsilon(ledger, delta), bound=UPPER),
    ]
    rdp = accounting.rdp_epsilon(ledger, delta)
    if rdp is not None:
        rows.append(Figure(accountant="RDP", adjacency=ours, epsilon=rdp, bound=UPPER))
    gdp = accounting.gdp_epsilon(ledger, delta)
    rows.append(Figure(accountant="GDP, a limit", adjacency=ours, epsilon=gdp, bound=INFORMATION))
    if subsampled:
        shuffled = tuple(
            phase if phase.sampler is Sampler.FULL_BATCH else replace(phase, sampler=Sampler.SHUFFLE)
            for phase in ledger
        )
        for each in Adjacency:
            least = accounting.epsilon_lower(shuffled, delta, each)
            rows.append(Figure(accountant="shuffled batches", adjacency=each, epsilon=least, bound=LEAST))
        top = unamplified(ledger, delta)
        rows.append(Figure(accountant="without amplification", adjacency=ours, epsilon=top, bound=UPPER))
    return tuple(rows)


def _pld(ledger: Ledger, delta: float, adjacency: Adjacency, bound: str) -> Figure:
    epsilon = accounting.pld_epsilon(ledger, delta, adjacency)
    return Figure(accountant="PLD", adjacency=adjacency, epsilon=epsilon, bound=bound)


def _compare(claimed: float | None, least: float, most: float, adjacency: Adjacency) -> tuple[str, str]:
    """Status and reason; the slack is that between two sound accountants."""
    words = (
        f"{most:.4g}" if math.isclose(least, most, rel_tol=1e-3) else f"between {least:.4g} and {most:.4g}"
    )
    spent = f"These steps cost epsilon {words} ({adjacency})"
    if claimed is None:
        return "", f"{spent}. Give --epsilon to compare a claim."
    if least > claimed * (1 + TOLERANCE) + TOLERANCE:
        return "NOT COVERED", f"{spent}; a claim of {claimed:.4g} is too small."
    if most <= claimed * (1 + TOLERANCE) + TOLERANCE:
        return "COVERED", f"{spent}; a claim of {claimed:.4g} covers them, if they ran as stated."
    return "UNDECIDED", f"{spent}; no accountant proves or refutes {claimed:.4g} for this sampler."


def _warnings(ledger: Ledger, delta: float, records: int | None) -> tuple[str, ...]:
    found = []
    if records is not None and delta >= 1 / records:
        found.append(
            f"delta {delta:g} is not below 1/n = {1 / records:.2g}: publishing one record in full has it."
        )
    if any(phase.noise_multiplier == 0 for phase in ledger):
        found.append("without noise there is no finite epsilon.")
    return tuple(found)
