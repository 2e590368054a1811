"""From the record to what a reader sees first: verdicts and cards, and the page around them. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dpaudit import power
from dpaudit.claim import Claim
from dpaudit.estimate import Estimate, Rate
from dpaudit.evidence import Access
from dpaudit.record import AuditRecord, GateResult, TargetRecord
from dpaudit.reports import numbers, rebuilt, tables, target_tables, words
from dpaudit.reports.tables import Table, metric_name, rate_status, worst_first
from dpaudit.verdict import Status

_WORST = (Status.REFUTED, Status.INCONCLUSIVE, Status.NOT_REFUTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One number with what it means: its interval, its limit and the status that follows."""

    label: str
    value: str
    interval: str
    limit: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow:
    """One line of the verdict table."""

    status: str
    target: str
    role: str
    claim: str
    epsilon_lower: str
    ceiling: str
    decided_by: str
    reason: str


def status_of(target: TargetRecord) -> str:
    """The status word of a target; for controls, whether it was caught."""
    if target.role != "control":
        return str(target.verdict.status)
    return {True: "CAUGHT", False: "NOT CAUGHT", None: "NOT RUN"}[target.caught]


def comparable(target: TargetRecord) -> tuple[Estimate, ...]:
    """Guaranteed estimates that speak of the claim's adjacency and delta; all of them without a claim."""
    guaranteed = tuple(item for item in target.estimates if item.guarantee)
    if target.claim is None:
        return guaranteed
    claim = target.claim
    return tuple(
        item
        for item in guaranteed
        if item.adjacency == claim.adjacency and math.isclose(item.delta, claim.delta)
    )


def ceiling(target: TargetRecord) -> float | None:
    """The largest bound that the evidence on a target could have shown; None without observations."""
    return max((item.ceiling for item in comparable(target) if item.n_observations), default=None)


def reach(target: TargetRecord) -> Estimate | None:
    """The estimate with the largest ceiling: among comparable ones, else under another relation or delta."""
    seen = tuple(item for item in comparable(target) if item.n_observations)
    other = tuple(item for item in target.estimates if item.guarantee and item.n_observations)
    return max(seen or other, key=lambda item: item.ceiling, default=None)


def ceiling_words(target: TargetRecord) -> str:
    """The ceiling; where it is not of the claim's own adjacency, with the one that it is of."""
    found = reach(target)
    if found is None:
        return numbers.NO_DATA
    same = target.claim is None or found.adjacency == target.claim.adjacency
    return numbers.epsilon(found.ceiling) + ("" if same else f" ({found.adjacency})")


def _looking(target: TargetRecord) -> tuple[Estimate, ...]:
    """Bounds that can speak for silence: of what was made of the batches, not of how they were drawn."""
    return tuple(e for e in target.estimates if e.guarantee and e.access is not Access.LEDGER)


def _caught(target: TargetRecord) -> str:
    """What the sharpest attack detects, beside the ceiling, which few ever reach."""
    found = power.sharpest(power.able(_looking(target)))
    if found is None:
        return ""
    return f"; an ε of {numbers.epsilon(found.detectable)} is caught nine times in ten"


def _to_exceed(found: Estimate, claim: Claim | None) -> float:
    """The claim under the estimate's own adjacency; unbounded where nobody computed it."""
    if claim is not None and found.adjacency == claim.adjacency:
        return claim.epsilon
    return math.inf if found.claimed_epsilon is None else found.claimed_epsilon


def at_least(bound: float | None) -> str:
    """A lower bound of epsilon as a statement."""
    text = numbers.epsilon(bound, end="lower")
    return text if text in (numbers.NO_DATA, numbers.UNBOUNDED) else f"≥ {text}"


def verdict_rows(record: AuditRecord) -> tuple[VerdictRow, ...]:
    """One row per target, audited ones first."""
    return tuple(
        VerdictRow(
            status=status_of(target),
            target=target.name,
            role=target.role,
            claim=numbers.epsilon(target.claim.epsilon) if target.claim else "none",
            epsilon_lower=numbers.epsilon(target.verdict.epsilon_lower, end="lower"),
            ceiling=ceiling_words(target),
            decided_by=target.verdict.decided_by or numbers.NONE,
            reason=target.verdict.reason,
        )
        for target in words.shown(record)
    )


def cards(target: TargetRecord, record: AuditRecord) -> tuple[Card, ...]:
    """The few numbers that a reader should see first about a target."""
    bound, claimed = target.verdict.epsilon_lower, target.claim.epsilon if target.claim else None
    best = reach(target)
    weak = best is not None and claimed is not None and best.ceiling <= _to_exceed(best, target.claim)
    found = [
        Card(
            label="Lower bound of ε",
            value=at_least(bound),
            interval=f"level {numbers.level(1 - target.alpha)}, over all tests of this target",
            limit=f"claim: {words.claim(target)}",
            status=status_of(target),
        ),
        Card(
            label="Ceiling of the audit",
            value=ceiling_words(target),
            interval="the most these observations could have shown" + _caught(target),
            limit="must exceed the claim" if claimed is not None else "no claim to exceed",
            status="NO DATA"
            if best is None
            else "TOO LOW"
            if weak
            else "NO POWER"
            if claimed is not None and not any(map(power.telling, power.able(_looking(target))))
            else "HIGH ENOUGH"
            if claimed
            else "NO LIMIT",
        ),
    ]
    names = (sharpest(target), "reconstruction_success")
    wide = tuple(rate for rate in target.rates if not rate.fine)
    worst = (next((r for r in worst_first(wide) if r.name == name), None) for name in names)
    return (*found, *(_rate_card(rate) for rate in worst if rate is not None))


def sharpest(target: TargetRecord) -> str:
    """The membership metric to show first: the TPR at 1 % FPR, else at the smallest FPR, else the AUC."""
    names = {rate.name for rate in target.rates if rate.name.startswith("tpr_at_fpr_")}
    if "tpr_at_fpr_0.01" in names or not names:
        return "tpr_at_fpr_0.01" if names else "auc"
    return min(names)


def _rate_card(rate: Rate) -> Card:
    where = rate.source if rate.slice == "all" else f"{rate.source}, worst group: {rate.slice}"
    return Card(
        label=metric_name(rate.name),
        value=numbers.rate(rate.name, rate.value),
        interval=f"{numbers.interval(rate.name, rate.lower, rate.upper)} ({where})",
        limit="the claim sets no limit"
        if rate.limit is None
        else f"the claim allows {numbers.rate(rate.name, rate.limit)}",
        status=rate_status(rate),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetView:
    """Everything the page shows about one target, figures aside."""

    anchor: str
    name: str
    role: str
    description: str
    status: str
    reason: str
    decided_by: str
    cards: tuple[Card, ...]
    findings: Table
    estimates: Table
    membership: Table
    reconstruction: Table
    recovered: tuple[str, ...]
    rebuilt: Table
    rebuilt_released: Table
    rebuilt_words: str
    ledger: Table
    recomputed: Table
    checklist: Table


@dataclass(frozen=True, slots=True, kw_only=True)
class PageView:
    """Everything the page shows, figures aside."""

    title: str
    status: str
    headline: str
    reasons: tuple[tuple[str, str, str], ...]
    reason: str
    control: str
    missing: str
    not_said: tuple[str, ...]
    level: str
    targets: tuple[TargetView, ...]
    gate: GateResult | None
    gates: Table | None
    coverage: Table
    models: Table
    trials: Table
    lost: Table
    provenance: tuple[tuple[str, str], ...]
    glossary: tuple[tuple[str, str], ...]
    command: str
    plan: str
    created: str
    embeds_records: bool


def page(record: AuditRecord, gate: GateResult | None = None) -> PageView:
    """Compute everything that the page shows from the record and, where there is one, the gate."""
    return PageView(
        title=record.title,
        status=record.status,
        headline=words.headline(record),
        reasons=tuple(
            (status_of(target), target.name, target.verdict.reason)
            for target in sorted(
                words.audited(record), key=lambda target: _WORST.index(target.verdict.status)
            )
        ),
        reason="" if any(record.reason.endswith(t.verdict.reason) for t in record.targets) else record.reason,
        control=words.control_sentence(record),
        missing=words.trials_sentence(record),
        not_said=words.not_said(record),
        level=numbers.level(record.alpha),
        targets=tuple(
            _target(target, index, record) for index, target in enumerate(words.shown(record), start=1)
        ),
        gate=gate,
        gates=tables.gates(gate) if gate else None,
        coverage=tables.coverage(record),
        models=tables.models(record),
        trials=tables.trial_counts(record),
        lost=tables.lost_trials(record),
        provenance=tables.provenance(record),
        glossary=words.GLOSSARY,
        command=record.provenance.command,
        plan=record.plan_toml,
        created=record.provenance.created,
        embeds_records=rebuilt.embeds_records(record),
    )


def _target(target: TargetRecord, index: int, record: AuditRecord) -> TargetView:
    return TargetView(
        anchor=f"target-{index}",
        name=target.name,
        role=target.role,
        description=target.description,
        status=status_of(target),
        reason=target.verdict.reason,
        decided_by=target.verdict.decided_by or "",
        cards=cards(target, record),
        findings=target_tables.findings(target),
        estimates=target_tables.estimates(target),
        membership=target_tables.rates(target, reconstruction=False),
        reconstruction=target_tables.rates(target, reconstruction=True),
        recovered=words.recovered(target),
        rebuilt=rebuilt.table(target),
        rebuilt_released=rebuilt.released_table(target),
        rebuilt_words=rebuilt.sentence(target),
        ledger=target_tables.ledger(target),
        recomputed=target_tables.recomputed(target),
        checklist=target_tables.checklist(target),
    )
