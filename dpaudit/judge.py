"""From views to verdicts: one alpha over targets, attacks and estimators, and no verdict without power."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dpaudit import ledger, measure, membership, power, rebuilding
from dpaudit.claim import Claim, Sampler
from dpaudit.coverage import coverage as covered
from dpaudit.estimate import Estimate
from dpaudit.evidence import BLIND, CLIP_TESTED, REPEATED, Access, Finding, Note
from dpaudit.plan import AuditPlan, TargetPlan
from dpaudit.protocols import View
from dpaudit.record import Coverage, TargetRecord, TrialRecord
from dpaudit.stats.inversion import told
from dpaudit.stats.multiplicity import holm, split
from dpaudit.verdict import Status, Verdict

EXIT = {Status.NOT_REFUTED: 0, Status.REFUTED: 1, Status.INCONCLUSIVE: 3}
EXIT_LOST = 4
Runs = Mapping[int, View]
_UNCLAIMED = "No privacy was claimed: no private optimizer ran, and the plan declares no epsilon."
_UNSEEN = (
    "The training run was lost, so that nothing is known of what it claims; run the same command again to "
    "repeat it."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditJudgement:
    """What the whole audit says."""

    targets: tuple[TargetRecord, ...]
    coverage: tuple[Coverage, ...]
    status: str
    reason: str
    exit_code: int


def judge_audit(plan: AuditPlan, runs: Mapping[str, Runs], trials: Sequence[TrialRecord]) -> AuditJudgement:
    """Judge every target, then the audited ones in the light of the controls.

    Args:
        plan: the audit plan; its alpha is split evenly over the targets, by weight over the attacks.
        runs: finished runs by target and index of the draw; 0 is the audited model.
        trials: all trials of the plan, lost ones included.
    """
    alphas = split(plan.alpha, {target.name: 1.0 for target in plan.targets})
    claims = {t.name: claim_of(t, runs[t.name].get(0), plan.delta) for t in plan.targets}
    reference = next((claims[t.name] for t in plan.targets if t.role == "audited" and claims[t.name]), None)
    judged, coverage = [], []
    for target in plan.targets:
        claim = claims[target.name]
        if claim is None and target.role == "control":
            claim = reference
        views = runs[target.name]
        lost = sum(t.status == "lost" for t in trials if t.target == target.name)
        judged.append(_judge(plan, target, views, claim, alphas[target.name], lost, own=claims[target.name]))
        coverage += covered(plan, target.name, views)
    judged = _with_split(judged, runs)
    targets = tuple(_in_light_of_controls(target, judged) for target in judged)
    return _overall(targets, tuple(coverage), trials)


def claim_of(target: TargetPlan, view: View | None, delta: float) -> Claim | None:
    """The plan's declared epsilon, or else the one that the run's own accountant stated."""
    ran = view.claim if view else None
    if target.claim is None:
        return ran
    if ran is None:
        return Claim(epsilon=target.claim.epsilon, delta=delta, ledger=view.ledger if view else ())
    return replace(ran, epsilon=target.claim.epsilon, source="declared in the plan")


def _judge(
    plan: AuditPlan,
    target: TargetPlan,
    runs: Runs,
    claim: Claim | None,
    alpha: float,
    lost: int,
    *,
    own: Claim | None,
) -> TargetRecord:
    audited = runs.get(0)
    recomputed = ledger.recompute(own)
    # Composed for that a moment ago, and forgotten after the searches below.
    owed = ledger.contradictions(own, audited.accounted) if audited is not None else ()
    views = [runs[index] for index in sorted(runs)] if audited else []
    found = measure.measure(plan, views, claim, alpha)
    findings = _placed(found.findings, audited)
    if audited is not None and own is not None:
        findings += owed
        findings += _declared_but_not_private(target, audited, own)
    left = alpha - measure.spent_on_law(plan, alpha)
    judged = verdict(
        claim, found.estimates, findings, measure.weights(plan), left, lost, unseen=audited is None
    )
    return TargetRecord(
        name=target.name,
        role=target.role,
        description=f"{target.train}"
        + (f", fault {target.options['fault']}" if "fault" in target.options else ""),
        claim=own,
        recomputed=recomputed,
        test_accuracy=audited.test_accuracy if audited else None,
        train_accuracy=audited.train_accuracy if audited else None,
        n_parameters=audited.n_parameters if audited else 0,
        alpha=alpha,
        estimates=found.estimates,
        rates=found.rates,
        findings=findings,
        curves=(*found.curves, *ledger.course(audited, own, found.curves)),
        checklist=ledger.checklist(audited, own, recomputed),
        verdict=_as_far_as_drawn(_as_far_as_seen(judged, audited), plan),
        weights_sha256=audited.weights_sha256 if audited else "",
        rebuilt=rebuilding.rebuilt(plan, audited),
    )


def _placed(findings: tuple[Finding, ...], view: View | None) -> tuple[Finding, ...]:
    """Findings about steps, with the line that makes them."""
    if view is None or not view.place:
        return findings
    return tuple(
        replace(f, where=f"{f.where}; steps of {view.place}") if f.access is Access.REPLAY else f
        for f in findings
    )


def _as_far_as_seen(judged: Verdict, view: View | None) -> Verdict:
    """Silence is inconclusive where a part of the guarantee was out of sight."""
    notes = [e for e in (view.evidence if view else ()) if isinstance(e, Note)]
    tested = any(note.check == CLIP_TESTED for note in notes)
    blind = [note for note in notes if note.check in BLIND and not (tested and note.check in REPEATED)]
    if not blind or judged.status is not Status.NOT_REFUTED:
        return judged
    reason = f"{blind[0].check}: {blind[0].measured}. {blind[0].meaning} {judged.reason}"
    return replace(judged, status=Status.INCONCLUSIVE, reason=reason)


def _as_far_as_drawn(judged: Verdict, plan: AuditPlan) -> Verdict:
    """Without a draw there is no bound, however strong the attack."""
    if not plan.data.non_members or plan.data.drawn or judged.status is not Status.INCONCLUSIVE:
        return judged
    words = (
        "Nobody says that chance alone decided who was in (data.drawn), so that what tells members from "
        "others may be the data and not the model: the rates describe this split and bound nothing."
    )
    return replace(judged, reason=f"{words} {judged.reason}")


def _declared_but_not_private(target: TargetPlan, view: View, claim: Claim) -> tuple[Finding, ...]:
    """An epsilon for a model that was trained, beside an engine that was made, without a private step.

    A script returns no model: whether it trained at all, its observer knows.
    """
    trained = bool(view.scores.size)
    if claim.ledger or math.isinf(claim.epsilon) or view.claim is None or not trained:
        return ()
    return (
        Finding(
            check="private steps",
            where=target.train,
            expected=f"noisy steps behind a claim of epsilon {claim.epsilon:g}",
            measured="an engine that was made, and no private step",
            epsilon=math.inf,
            remedy="Train with the optimizer and loader that make_private returned.",
            source="ledger",
        ),
    )


def verdict(
    claim: Claim | None,
    estimates: Sequence[Estimate],
    findings: Sequence[Finding],
    weights: Mapping[str, float],
    alpha: float,
    lost: int,
    *,
    unseen: bool = False,
) -> Verdict:
    """Refuted by a finding or by weighted Holm at `alpha`; not refuted only where refuting was possible.

    Args:
        claim: what is tested; None leaves nothing to refute.
        estimates: at levels that add up to at most `alpha`.
        findings: deterministic contradictions.
        weights: pre-registered weight of each estimate, by `measure.label`.
        alpha: of this target.
        lost: trials that did not finish.
        unseen: whether the audited run is one of them.
    """
    guarantees = [e for e in estimates if e.guarantee]
    if claim is None:
        return _inconclusive(_UNSEEN if unseen else _UNCLAIMED, guarantees)
    if math.isinf(claim.epsilon):
        return _inconclusive("An unbounded epsilon is claimed, which nothing can contradict.", guarantees)
    best = _best(claim, guarantees, findings)
    if findings:
        first = max(findings, key=lambda f: f.epsilon if f.epsilon is not None else -1.0)
        reason = f"{first.check} ({first.where}): expected {first.expected}, measured {first.measured}."
        return Verdict(status=Status.REFUTED, reason=reason, epsilon_lower=best, decided_by=first.check)
    refuted = _refuted(guarantees, weights, alpha, best)
    if refuted is not None:
        return refuted
    if lost:
        return _inconclusive(
            f"{lost} trials were lost; run the same command again to repeat them.", guarantees
        )
    return _not_refuted(claim, guarantees, best)


def _not_refuted(claim: Claim, guarantees: Sequence[Estimate], best: float | None) -> Verdict:
    """Not refuted if some attack could have refuted the claim, else inconclusive."""
    # That batches were drawn as stated says nothing of what was made of them.
    looked = [e for e in guarantees if e.access is not Access.LEDGER]
    able = power.able(looked)
    if able and not any(power.telling(e) for e in able):
        return _inconclusive(
            f"No attack could be expected to refute {_number(claim.epsilon)}: {power.reach(able, claim)}, "
            f"which is more than {power.TIMES:g} times as much.",
            guarantees,
        )
    if not able:
        highest = max(looked, key=lambda e: e.ceiling, default=None)
        terms = ""
        if highest and highest.claimed_epsilon is not None and highest.adjacency is not claim.adjacency:
            terms = f", which is {_number(highest.claimed_epsilon)} under {highest.adjacency}"
        return _inconclusive(
            f"No attack could have refuted {_number(claim.epsilon)}{terms}: the ceiling of this audit is "
            f"{_number(highest.ceiling if highest else 0.0)}.{_unstated(claim)}",
            guarantees,
        )
    strongest = max(able, key=lambda e: e.epsilon_lower or 0.0)
    shown = _bound(best)
    if best is None:
        shown = f"{_bound(strongest.epsilon_lower or 0.0)} under {strongest.adjacency}"
    return Verdict(
        status=Status.NOT_REFUTED,
        reason=f"No attack contradicts epsilon {_number(claim.epsilon)}; {strongest.source} shows at least "
        f"{shown}, and {power.reach(able, claim)}.",
        epsilon_lower=best,
        decided_by=strongest.source,
    )


def _unstated(claim: Claim) -> str:
    """Why no epsilon can be stated for what ran, if that is so."""
    unknown = sum(phase.steps for phase in claim.ledger if phase.sampler is Sampler.UNKNOWN)
    if not unknown:
        return ""
    return (
        f" How the batches of {unknown} steps were drawn is not known, so their epsilon is not: "
        "train on the batches of the loader that make_private returned."
    )


def _refuted(
    estimates: Sequence[Estimate], weights: Mapping[str, float], alpha: float, best: float | None
) -> Verdict | None:
    """The strongest of the tests that reject under weighted Holm; None if none does."""
    p_values = {measure.label(e): e.p_value for e in estimates if e.p_value is not None}
    adjusted = holm(p_values, {name: weights[name] for name in p_values}) if p_values else {}
    rejecting = [e for e in estimates if adjusted.get(measure.label(e), 1.0) <= alpha]
    if not rejecting:
        return None
    strongest = max(rejecting, key=lambda e: (_exceeds(e), e.epsilon_lower or 0.0))
    name, claimed = measure.label(strongest), _number(strongest.claimed_epsilon)
    words = f"contradicts what the claim of {claimed} rests on, without a bound above it"
    if _exceeds(strongest):
        words = f"puts epsilon at {_bound(strongest.epsilon_lower)} or more where {claimed} is claimed"
    return Verdict(
        status=Status.REFUTED,
        reason=f"{name} {words} ({strongest.adjacency}, adjusted p {told(adjusted[name])}).",
        epsilon_lower=best,
        decided_by=strongest.source,
    )


def _exceeds(estimate: Estimate) -> bool:
    lower, claimed = estimate.epsilon_lower, estimate.claimed_epsilon
    return lower is not None and claimed is not None and lower > claimed


def _best(claim: Claim, estimates: Sequence[Estimate], findings: Sequence[Finding]) -> float | None:
    """Largest bound under the claim's own adjacency; bounds under another one are not comparable."""
    bounds = [
        e.epsilon_lower for e in estimates if e.epsilon_lower is not None and e.adjacency is claim.adjacency
    ]
    bounds += [f.epsilon for f in findings if f.epsilon is not None]
    return max(bounds, default=None)


def _inconclusive(reason: str, estimates: Sequence[Estimate]) -> Verdict:
    bounds = [e.epsilon_lower for e in estimates if e.epsilon_lower is not None]
    return Verdict(status=Status.INCONCLUSIVE, reason=reason, epsilon_lower=max(bounds, default=None))


def _with_split(judged: list[TargetRecord], runs: Mapping[str, Runs]) -> list[TargetRecord]:
    """The checklists with a row about the split; every target was trained on the same draw."""
    pool = next((r[0].canaries for r in runs.values() if 0 in r and r[0].scores.size), None)
    row = membership.told_apart(pool) if pool is not None else None
    return [replace(t, checklist=(*t.checklist, row)) for t in judged] if row else judged


def _in_light_of_controls(target: TargetRecord, judged: Sequence[TargetRecord]) -> TargetRecord:
    """Mark controls as caught or not; silence about an audited target counts only if all were."""
    if target.role == "control":
        return replace(target, caught=target.verdict.status is Status.REFUTED)
    missed = [t.name for t in judged if t.role == "control" and t.verdict.status is not Status.REFUTED]
    if missed and target.verdict.status is Status.NOT_REFUTED:
        reason = (
            f"The control {missed[0]!r} was not caught, so silence means nothing. {target.verdict.reason}"
        )
        return replace(target, verdict=replace(target.verdict, status=Status.INCONCLUSIVE, reason=reason))
    return target


def _overall(
    targets: tuple[TargetRecord, ...], coverage: tuple[Coverage, ...], trials: Sequence[TrialRecord]
) -> AuditJudgement:
    order = (Status.REFUTED, Status.INCONCLUSIVE, Status.NOT_REFUTED)
    worst = min((t for t in targets if t.role == "audited"), key=lambda t: order.index(t.verdict.status))
    code = EXIT[worst.verdict.status]
    if code != EXIT[Status.REFUTED] and any(trial.status == "lost" for trial in trials):
        code = EXIT_LOST
    return AuditJudgement(
        targets=targets,
        coverage=coverage,
        status=worst.verdict.status,
        reason=f"{worst.name}: {worst.verdict.reason}",
        exit_code=code,
    )


def _bound(value: float | None) -> str:
    """A lower bound is rounded down, so that its spelling does not overstate it."""
    if value is None or not math.isfinite(value):
        return _number(value)
    return f"{math.floor(value * 100) / 100:g}"


def _number(value: float | None) -> str:
    if value is None:
        return "no data"
    return f"{value:.3g}" if math.isfinite(value) else "an unbounded epsilon"
