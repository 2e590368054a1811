"""From the record to tables of text, one function per table. Pure."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from dpaudit.estimate import Rate
from dpaudit.record import Accounted, AuditRecord, GateResult, TargetRecord
from dpaudit.reports import numbers

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of text.

    Attributes:
        caption: what the rows are.
        columns: (heading, kind) with kind "text", "number", "code" or "status".
        rows: cells in the order of the columns.
        empty: the sentence that stands where there are no rows.
    """

    caption: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    empty: str = "No data."


def metric_name(name: str) -> str:
    """The name of a metric in words."""
    if name.startswith("tpr_at_fpr_"):
        try:
            return f"TPR at {float(name.removeprefix('tpr_at_fpr_')) * 100:g} % FPR"
        except ValueError:
            return name
    known = {
        "auc": "AUC",
        "reconstruction_success": "Reconstruction success",
        "epsilon_lower": "Lower bound of ε",
        "epsilon_claimed": "Claimed ε",
        "verdict": "Verdict on the claim",
        "control": "Positive control",
        "trials": "Trials",
    }
    return known.get(name, name.replace("_", " "))


def rate_status(rate: Rate) -> str:
    """Where the interval of a rate lies against what the claim allows."""
    if rate.limit is None:
        return "NO LIMIT"
    if rate.lower is not None and rate.lower > rate.limit:
        return "ABOVE LIMIT"
    if rate.upper is None:
        return "NO INTERVAL"
    return "WITHIN LIMIT" if rate.upper <= rate.limit else "UNDECIDED"


def worst_first(rates: tuple[Rate, ...]) -> tuple[Rate, ...]:
    """Rates grouped by metric, the worst slice of each first."""

    def badness(rate: Rate) -> tuple[str, float, str, str]:
        worst = rate.value if rate.upper is None else rate.upper
        return rate.name, -worst if not math.isnan(worst) else math.inf, rate.source, rate.slice

    return tuple(sorted(rates, key=badness))


def estimates(target: TargetRecord) -> Table:
    """Every bound with what it rests on, strongest access first."""
    order = ["ledger", "replay", "step", "final-model"]
    rows = sorted(
        target.estimates, key=lambda e: (order.index(e.access), -(e.epsilon_lower or 0.0), e.source)
    )
    return Table(
        caption=f"Lower bounds of ε for {target.name}",
        columns=(
            ("Attack", "text"),
            ("Access", "text"),
            ("Bound", "number"),
            ("Claim", "number"),
            ("Ceiling", "number"),
            ("Detectable", "number"),
            ("Level", "number"),
            ("p", "number"),
            ("n", "number"),
            ("Method", "text"),
            ("It assumes", "text"),
        ),
        rows=tuple(
            (
                item.source,
                str(item.access),
                numbers.epsilon(item.epsilon_lower, end="lower"),
                "none" if item.claimed_epsilon is None else numbers.epsilon(item.claimed_epsilon),
                numbers.epsilon(item.ceiling if item.n_observations else None),
                "none" if item.detectable is None else numbers.epsilon(item.detectable),
                numbers.level(item.alpha),
                "none" if item.claimed_epsilon is None else numbers.p_value(item.p_value),
                numbers.count(item.n_observations),
                f"{item.method} ({item.adjacency})"
                if item.guarantee
                else f"{item.method} (descriptive only)",
                "; ".join(item.assumptions) or "nothing further",
            )
            for item in rows
        ),
        empty="No attack gave an estimate for this target.",
    )


def is_reconstruction(rate: Rate) -> bool:
    """Whether a rate is about recovering records rather than telling members apart."""
    return any(word in rate.name for word in ("reconstruct", "attribute", "extract", "inversion"))


def rates(target: TargetRecord, *, reconstruction: bool) -> Table:
    """Disclosure rates of membership, or of reconstruction, worst slice first."""
    what = "Reconstruction" if reconstruction else "Membership"
    return Table(
        caption=f"{what} rates of {target.name}, worst group first",
        columns=(
            ("Metric", "text"),
            ("Group", "text"),
            ("Value", "number"),
            ("Interval", "number"),
            ("Claim allows", "number"),
            ("Status", "status"),
            ("n", "number"),
            ("Attack", "text"),
        ),
        rows=tuple(
            (
                metric_name(rate.name),
                rate.slice,
                numbers.rate(rate.name, rate.value),
                numbers.interval(rate.name, rate.lower, rate.upper),
                numbers.NONE if rate.limit is None else numbers.rate(rate.name, rate.limit),
                rate_status(rate),
                numbers.count(rate.n) if rate.n else numbers.NO_DATA,
                rate.source,
            )
            for rate in worst_first(target.rates)
            if is_reconstruction(rate) is reconstruction
        ),
        empty=f"{what} was not measured on {target.name}.",
    )


def gates(result: GateResult) -> Table:
    """Every gate, those that stop the release first."""
    order = ["FAIL", "NOT RUN", "INCONCLUSIVE", "WARN", "WAIVED", "PASS"]
    rows = sorted(result.rows, key=lambda row: order.index(row.status))
    return Table(
        caption="Gates",
        columns=(
            ("Gate", "text"),
            ("Target", "text"),
            ("Measured", "number"),
            ("Bound", "text"),
            ("Limit", "number"),
            ("Set at", "code"),
            ("Status", "status"),
            ("Why", "text"),
        ),
        rows=tuple(
            (
                metric_name(row.metric),
                row.target or "whole record",
                numbers.NONE if row.metric == "trials" else gate_number(row.metric, row.measured, row.bound),
                row.bound or numbers.NONE,
                numbers.NONE if row.limit is None else gate_number(row.metric, row.limit, ""),
                row.location or "always",
                str(row.status),
                f"{row.reason} {row.waiver}".strip(),
            )
            for row in rows
        ),
    )


def gate_number(metric: str, value: float | None, bound: str) -> str:
    """A measured value or a limit of a gate, in the unit of its metric."""
    if metric in ("verdict", "control") or metric.startswith("epsilon"):
        return numbers.epsilon(value, end=bound)
    return numbers.rate(metric, value, end=bound)


def trial_counts(record: AuditRecord) -> Table:
    """Trials planned, finished, taken from the store, and lost, per target."""
    targets = sorted({trial.target for trial in record.trials})
    rows = []
    for name in (*targets, "all targets"):
        trials = [trial for trial in record.trials if name in (trial.target, "all targets")]
        status = Counter(trial.status for trial in trials)
        other = len(trials) - sum(status[key] for key in ("finished", "cached", "lost"))
        counted = (len(trials), status["finished"], status["cached"], status["lost"], other)
        spent = numbers.duration(sum(trial.seconds for trial in trials))
        rows.append((name, *(numbers.count(number) for number in counted), spent))
    return Table(
        caption="Trials",
        columns=(
            ("Target", "text"),
            *((name, "number") for name in ("Planned", "Finished", "Cached", "Lost", "Other", "Time")),
        ),
        rows=tuple(rows) if record.trials else (),
        empty="This audit needed no trials.",
    )


def lost_trials(record: AuditRecord) -> Table:
    """The trials that are not there, with their errors."""
    return Table(
        caption="Trials that are missing",
        columns=(
            ("Trial", "code"),
            ("Target", "text"),
            ("Kind", "text"),
            ("Status", "text"),
            ("Error", "text"),
        ),
        rows=tuple(
            (trial.key, trial.target, trial.kind, trial.status, trial.error or "no message")
            for trial in record.trials
            if trial.status not in ("finished", "cached")
        ),
        empty="No trial is missing.",
    )


def findings(target: TargetRecord) -> Table:
    """Deterministic contradictions between what was claimed and what ran."""
    return Table(
        caption=f"Contradictions found in {target.name}",
        columns=(
            ("Check", "text"),
            ("Where", "code"),
            ("Expected", "text"),
            ("Measured", "text"),
            ("ε that follows", "number"),
            ("Remedy", "text"),
        ),
        rows=tuple(
            (f.check, f.where, f.expected, f.measured, numbers.epsilon(f.epsilon, end="lower"), f.remedy)
            for f in target.findings
        ),
        empty="No contradiction was found between what was claimed and what ran.",
    )


def ledger(target: TargetRecord) -> Table:
    """The phases that really ran."""
    return Table(
        caption=f"What ran: the ledger of {target.name}",
        columns=(
            ("Phase", "text"),
            ("Sampling", "text"),
            ("Rate q", "number"),
            ("Noise multiplier", "number"),
            ("Clip C", "number"),
            ("Steps T", "number"),
        ),
        rows=tuple(
            (
                f"{index}",
                str(phase.sampler),
                numbers.plain(phase.sample_rate),
                numbers.plain(phase.noise_multiplier),
                numbers.plain(phase.max_grad_norm),
                numbers.count(phase.steps),
            )
            for index, phase in enumerate(target.claim.ledger if target.claim else (), start=1)
        ),
        empty="No ledger: only epsilon and delta are known.",
    )


def recomputed(target: TargetRecord) -> Table:
    """Epsilon recomputed from the ledger; compared with the claim only under its adjacency and delta."""

    def against(row: Accounted) -> str:
        claim = target.claim
        if claim is None:
            return "no claim"
        if row.adjacency != claim.adjacency or not math.isclose(row.delta, claim.delta):
            return "not comparable"
        difference = row.epsilon - claim.epsilon
        if not math.isfinite(difference):
            return "differs"
        if abs(difference) < 0.005:
            return "equal"
        return f"{numbers.epsilon(abs(difference))} {'more' if difference > 0 else 'less'}"

    return Table(
        caption=f"ε of {target.name} recomputed from its ledger",
        columns=(
            ("Accountant", "text"),
            ("Adjacency", "text"),
            ("ε", "number"),
            ("δ", "number"),
            ("Against the claim", "text"),
        ),
        rows=tuple(
            (
                row.accountant,
                str(row.adjacency),
                numbers.epsilon(row.epsilon),
                numbers.power_of_ten(row.delta),
                against(row),
            )
            for row in target.recomputed
        ),
        empty="Epsilon was not recomputed.",
    )


def checklist(target: TargetRecord) -> Table:
    """The parts of the guarantee, and how each is known."""
    return Table(
        caption=f"What the guarantee of {target.name} rests on",
        columns=(("Part", "text"), ("State", "status"), ("Detail", "text")),
        rows=tuple((row.name, row.state.upper(), row.detail) for row in target.checklist),
        empty="There is no guarantee to check.",
    )


def coverage(record: AuditRecord) -> Table:
    """Every attack class and whether it ran, per target."""
    return Table(
        caption="Coverage",
        columns=(
            ("Attack", "text"),
            ("Target", "text"),
            ("Status", "status"),
            ("Access", "text"),
            ("Reason", "text"),
        ),
        rows=tuple((r.attack, r.target, r.status, str(r.access), r.reason) for r in record.coverage),
        empty="The record does not say which attacks ran.",
    )


def provenance(record: AuditRecord) -> tuple[tuple[str, str], ...]:
    """Where the record comes from, as labels and values."""
    source = record.provenance
    return (
        ("Created", source.created),
        ("dpaudit", source.dpaudit_version),
        ("Plan, SHA-256", source.plan_sha256 or numbers.NO_DATA),
        ("Data, SHA-256", source.data_sha256 or numbers.NO_DATA),
        ("Code, SHA-256", source.code_sha256 or numbers.NO_DATA),
        *((f"Weights of {t.name}, SHA-256", t.weights_sha256) for t in record.targets if t.weights_sha256),
        ("Draw of canaries, committed", source.canary_commitment or numbers.NO_DATA),
        ("Root seed", str(source.seed)),
        ("Device", source.device),
        ("Engine", source.engine),
        ("Time", numbers.duration(source.seconds)),
        ("Environment", ", ".join(f"{key} {value}" for key, value in sorted(source.environment.items()))),
    )
