"""Whether silence means something: what an audit that did not refute a claim would have caught."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dpaudit.claim import Claim
from dpaudit.estimate import Estimate

TIMES = 10.0
"""An attack that catches nothing below so many times the claim did not look for a leak of that claim."""
_ENOUGH = 1.0
"""Who catches this epsilon looked hard enough, however little is claimed."""


def able(estimates: Sequence[Estimate]) -> list[Estimate]:
    """Those whose observations could have refuted the claim, had all of them spoken against it."""
    return [e for e in estimates if e.claimed_epsilon is not None and e.ceiling > e.claimed_epsilon]


def telling(estimate: Estimate) -> bool:
    """Whether an able estimate would have caught a leak of the claim's own size.

    The ceiling alone does not say: where few games are played it is that of luck that nobody has, and where a
    record may never have been drawn it is unbounded although only a vast epsilon is caught nine times in ten.
    An estimator that cannot state what it detects is taken at its ceiling.
    """
    if estimate.detectable is None or estimate.claimed_epsilon is None:
        return True
    return estimate.detectable <= max(TIMES * estimate.claimed_epsilon, _ENOUGH)


def sharpest(estimates: Sequence[Estimate]) -> Estimate | None:
    """The one that catches the least above its own claim; None where none states what it catches."""
    known = [e for e in estimates if e.detectable is not None and e.claimed_epsilon is not None]
    return min(
        known, key=lambda e: (e.detectable or 0.0) / max(e.claimed_epsilon or 0.0, 1e-12), default=None
    )


def reach(estimates: Sequence[Estimate], claim: Claim) -> str:
    """What able estimates could have shown, and what they catch, as the end of a sentence."""
    found = sharpest(estimates)
    if found is None or found.detectable is None or found.claimed_epsilon is None:
        ceiling = max(e.ceiling for e in estimates)
        return f"could have shown {f'up to {ceiling:.3g}' if math.isfinite(ceiling) else 'any epsilon'}"
    terms = f", where {found.claimed_epsilon:.3g} is claimed under {found.adjacency}"
    return (
        f"{found.source} catches a true epsilon of {found.detectable:.3g} nine times in ten"
        f"{'' if found.adjacency is claim.adjacency else terms}"
    )
