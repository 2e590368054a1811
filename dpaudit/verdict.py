"""What the evidence says of a claim: refuted, not refuted, or too little to say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """Never "private", "safe" or "compliant"."""

    REFUTED = "REFUTED"
    NOT_REFUTED = "NOT REFUTED"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The judgement on one target.

    Attributes:
        status: see `Status`.
        reason: one sentence that says why, with the numbers.
        epsilon_lower: the largest valid lower bound; None if there is none.
        decided_by: name of the attack or check that decided; None if none did.
    """

    status: Status
    reason: str
    epsilon_lower: float | None = None
    decided_by: str | None = None
