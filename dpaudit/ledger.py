"""The claim's arithmetic done again: from what ran, by other accountants, under both adjacencies."""

from __future__ import annotations

from dpaudit import accounting
from dpaudit.claim import Adjacency, Claim, Ledger, Sampler
from dpaudit.evidence import Access, Finding
from dpaudit.protocols import View
from dpaudit.record import Accounted, Check

TOLERANCE = 0.02
"""Relative and absolute slack between two sound accountants: PRV's own error is 0.01 in epsilon."""


def recompute(claim: Claim | None) -> tuple[Accounted, ...]:
    """Epsilon of the ledger by PLD under both adjacencies, and by Opacus's PRV and RDP accountants."""
    if claim is None or not claim.ledger:
        return ()
    rows = [
        ("PLD", adjacency, accounting.pld_epsilon(claim.ledger, claim.delta, adjacency))
        for adjacency in Adjacency
    ]
    prv = accounting.prv_epsilon(claim.ledger, claim.delta)
    rows.append(("Opacus PRV", Adjacency.ADD_REMOVE, prv))
    rdp = accounting.rdp_epsilon(claim.ledger, claim.delta)
    if rdp is not None:
        rows.append(("RDP", Adjacency.ADD_REMOVE, rdp))
    return tuple(
        Accounted(accountant=name, adjacency=adjacency, epsilon=float(epsilon), delta=claim.delta)
        for name, adjacency, epsilon in rows
    )


def contradictions(claim: Claim | None, accounted: Ledger) -> tuple[Finding, ...]:
    """A claim below what its own ledger gives, by the tightest sound accountant."""
    if claim is None:
        return ()
    if not claim.ledger:
        return ()
    # The lower figure: for shuffled batches the upper one counts no amplification at all and would accuse.
    owed = accounting.epsilon_lower(claim.ledger, claim.delta, claim.adjacency)
    if owed <= claim.epsilon * (1 + TOLERANCE) + TOLERANCE:
        return ()
    return (
        Finding(
            check="accounting",
            where=claim.source,
            expected=f"epsilon of at least {owed:.3g} for what ran ({describe(claim.ledger)})",
            measured=f"a claim of {claim.epsilon:.3g} (accounted: {describe(accounted) or 'nothing'})",
            epsilon=owed,
            remedy="Account every noisy step with the sample rate, noise and sampler that ran.",
            source="ledger",
            access=Access.LEDGER,
        ),
    )


def describe(ledger: Ledger) -> str:
    """The phases in words, such as "600 poisson steps at sigma=1.5, q=0.0667"."""
    return "; ".join(
        f"{p.steps} {p.sampler} steps at sigma={p.noise_multiplier:.4g}, q={p.sample_rate:.4g}"
        for p in ledger
    )


def checklist(view: View | None, claim: Claim | None, recomputed: tuple[Accounted, ...]) -> tuple[Check, ...]:
    """Each part of the guarantee and how it is known: recomputed, checked, declared or unknown."""
    if claim is None or view is None:
        return (Check(name="claim", state="unknown", detail="No privacy was claimed for this training run."),)
    ledger = claim.ledger
    rows = [
        Check(name="unit of privacy", state="declared", detail=claim.unit),
        Check(name="adjacency", state="declared", detail=str(claim.adjacency)),
        _delta_row(claim),
        Check(
            name="epsilon",
            state="recomputed" if recomputed else "declared",
            detail=f"claimed {claim.epsilon:.4g} by {claim.source}",
        ),
    ]
    if ledger:
        sampler = {phase.sampler for phase in ledger}
        rows += [
            Check(name="ledger as it ran", state="recomputed", detail=describe(ledger)),
            Check(
                name="ledger as accounted",
                state="checked",
                detail=describe(view.accounted) or "nothing was accounted",
            ),
            Check(
                name="sampler",
                state="checked" if sampler == {Sampler.POISSON} else "unknown",
                detail=", ".join(sorted(sampler)),
            ),
        ]
    replayed = any(type(e).__name__ == "Replay" for e in view.evidence)
    rows += [
        Check(
            name="clipping and noise",
            state="checked" if replayed else "unknown",
            detail="by replay of the optimizer's own steps" if replayed else "no step was replayed",
        ),
        Check(
            name="preprocessing", state="unknown", detail="fitted inside the training function; not replayed"
        ),
        Check(
            name="hyper-parameter search",
            state="unknown",
            detail="not part of this run; costs privacy if on the data",
        ),
    ]
    return tuple(rows)


def _delta_row(claim: Claim) -> Check:
    if claim.dataset_size is None:
        return Check(name="delta below 1/n", state="unknown", detail="the number of records is not known")
    limit = 1.0 / claim.dataset_size
    words = "below" if claim.delta < limit else "NOT below"
    detail = f"delta {claim.delta:.2g} is {words} 1/n = {limit:.2g}"
    return Check(name="delta below 1/n", state="checked", detail=detail)
