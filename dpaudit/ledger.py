"""The claim's arithmetic done again: from what ran, by other accountants, under both adjacencies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from dpaudit import accounting
from dpaudit.claim import Adjacency, Claim, Ledger, Sampler
from dpaudit.evidence import CLIP_TESTED, Access, Finding, Note, Sampling
from dpaudit.protocols import View
from dpaudit.record import Accounted, Check, Curve

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
    if not claim.ledger or any(phase.sampler is Sampler.UNKNOWN for phase in claim.ledger):
        return ()  # Batches drawn nobody knows how owe no epsilon that could be stated.
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


REPORTED, RECOMPUTED, LOWER = "epsilon-reported", "epsilon-recomputed", "epsilon-lower"
_CHECKPOINTS = 12
_COARSE = 1e-2


def course(view: View | None, claim: Claim | None, curves: Sequence[Curve]) -> Iterator[Curve]:
    """Epsilon over the course of training: as the accountant states it, recomputed, and shown at least.

    Args:
        view: the run.
        claim: of the run itself, with its ledger.
        curves: of the attacks; the anytime bound is brought to the scale of steps, over which its
            observations are spread evenly.
    """
    if view is None or claim is None or not claim.ledger:
        return
    for spending in view.spending:
        yield Curve(
            kind=REPORTED,
            source=spending.accountant,
            x=tuple(float(step) for step in spending.steps),
            y=tuple(float(f"{value:.6g}") for value in spending.epsilon),
        )
    # Phases of an earlier session stand behind those that ran, whose numbers the evidence refers to.
    in_order = (*claim.ledger[len(view.ledger) :], *view.ledger)
    total = sum(phase.steps for phase in in_order)
    at = sorted({round(1 + (total - 1) * i / (_CHECKPOINTS - 1)) for i in range(_CHECKPOINTS)})
    values = [
        accounting.epsilon_lower(_first(in_order, step), claim.delta, claim.adjacency, coarsest=_COARSE)
        for step in at
    ]
    yield Curve(
        kind=RECOMPUTED,
        source="PLD",
        x=tuple(float(step) for step in at),
        y=tuple(float(f"{value:.6g}") for value in values),
    )
    ran = sum(phase.steps for phase in view.ledger)
    for curve in curves:
        if curve.kind == "anytime" and curve.x:
            x = tuple(round(total - ran + value / curve.x[-1] * ran, 2) for value in curve.x)
            yield replace(curve, kind=LOWER, x=x)


def _first(ledger: Ledger, steps: int) -> Ledger:
    """The part of a ledger up to a number of steps."""
    kept = []
    for phase in ledger:
        if steps > 0:
            kept.append(replace(phase, steps=min(phase.steps, steps)))
        steps -= phase.steps
    return tuple(kept)


def describe(ledger: Ledger) -> str:
    """The phases in words, such as "600 poisson steps at sigma=1.5, q=0.0667"."""
    return "; ".join(
        f"{p.steps} {p.sampler} steps at sigma={p.noise_multiplier:.4g}, q={p.sample_rate:.4g}"
        for p in ledger
    )


def checklist(view: View | None, claim: Claim | None, recomputed: tuple[Accounted, ...]) -> tuple[Check, ...]:
    """Each part of the guarantee and how it is known: recomputed, checked, declared or unknown."""
    if claim is None or view is None:
        detail = (
            "The training run was lost." if view is None else "No privacy was claimed for this training run."
        )
        none = Check(name="claim", state="unknown", detail=detail)
        return (none, *(notes(view) if view else ()))
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
        rows += [
            Check(name="ledger as it ran", state="recomputed", detail=describe(ledger)),
            Check(
                name="ledger as accounted",
                state="checked",
                detail=describe(view.accounted) or "nothing was accounted",
            ),
            _sampler_row(view, {phase.sampler for phase in ledger}),
        ]
    replayed = any(type(e).__name__ == "Replay" for e in view.evidence)
    rows += [
        Check(
            name="clipping and noise",
            state="checked" if replayed else "unknown",
            detail="by replay of the optimizer's own steps" if replayed else "no step was replayed",
        ),
        _preprocessing_row(view),
        Check(
            name="hyper-parameter search",
            state="unknown",
            detail="not part of this run; costs privacy if on the data",
        ),
    ]
    return (*rows, *notes(view))


def notes(view: View) -> Iterator[Check]:
    """What was noticed and contradicts no claim by itself."""
    for note in view.evidence:
        if isinstance(note, Note):
            detail = f"{note.where}: {note.measured}. {note.meaning}"
            state = "checked" if note.check == CLIP_TESTED else "warning"
            yield Check(name=note.check, state=state, detail=detail)


def _preprocessing_row(view: View) -> Check:
    again = any(isinstance(note, Note) and note.check == CLIP_TESTED for note in view.evidence)
    detail = (
        "trained again with one record replaced, under the same releases"
        if again
        else "fitted inside the training function; not replayed"
    )
    return Check(name="preprocessing", state="checked" if again else "unknown", detail=detail)


def _sampler_row(view: View, kinds: set[Sampler]) -> Check:
    seen = [draws for each in view.evidence if isinstance(each, Sampling) for draws in each.draws]
    steps = sum(int(draws.sizes.size) for draws in seen)
    words = ", ".join(sorted(kinds))
    if not steps:
        return Check(name="sampler", state="declared", detail=f"{words}; no batch was looked at")
    known = "their records" if all(draws.records.size for draws in seen) else "some by their sizes alone"
    detail = f"{words}; {steps} batches looked at, {known}"
    return Check(name="sampler", state="checked" if kinds == {Sampler.POISSON} else "unknown", detail=detail)


def _delta_row(claim: Claim) -> Check:
    if claim.dataset_size is None:
        return Check(name="delta below 1/n", state="unknown", detail="the number of records is not known")
    limit = 1.0 / claim.dataset_size
    if claim.delta < limit:
        detail = f"delta {claim.delta:.2g} is below 1/n = {limit:.2g}"
        return Check(name="delta below 1/n", state="checked", detail=detail)
    detail = (
        f"delta {claim.delta:.2g} is not below 1/n = {limit:.2g}: publishing one record in full, drawn at "
        "random, satisfies such a claim"
    )
    return Check(name="delta below 1/n", state="warning", detail=detail)
