"""Tables of text: what a table is, and those about the whole record. Pure."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from dpaudit.baseline import PREFIX
from dpaudit.estimate import Rate
from dpaudit.record import AuditRecord, GateResult, Provenance
from dpaudit.reports import numbers, words

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
    if name.startswith(PREFIX):
        return f"{metric_name(name.removeprefix(PREFIX))} against the baseline"
    if name.startswith("tpr_at_fpr_"):
        try:
            return f"TPR at {float(name.removeprefix('tpr_at_fpr_')) * 100:g} % FPR"
        except ValueError:
            return name
    if name.startswith("extraction_rate_"):
        return f"Secrets that {int(name.split('_')[2]):,} samples bring out"
    known = {
        "auc": "AUC",
        "extraction_success": "Secrets ranked first of all candidates",
        "extracted_pii_rate": "Recall of secrets in sampled texts",
        "extracted_pii_precision_rate": "Precision of secrets in sampled texts",
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
    if math.isnan(rate.value):
        return "TOO FEW"
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


def gates(result: GateResult) -> Table:
    """Every gate, those that stop the release first."""
    order = ["FAIL", "NOT RUN", "INCONCLUSIVE", "WARN", "WAIVED", "PASS"]
    rows = sorted(result.rows, key=lambda row: order.index(row.status))
    return Table(
        caption="Every gate, those that stop a release first",
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
    metric = metric.removeprefix(PREFIX)
    if metric in ("verdict", "control", "ceiling", "detectable") or metric.startswith("epsilon"):
        return numbers.epsilon(value, end=bound)
    return numbers.rate(metric, value, end=bound)


def models(record: AuditRecord) -> Table:
    """What was trained: data, parameters, their ratio, and how well it works."""
    rows = []
    for target in words.shown(record):
        size = target.claim.dataset_size if target.claim else None
        known = size is not None and target.n_parameters > 0
        rows.append(
            (
                target.name,
                words.claim(target),
                target.claim.source if target.claim else numbers.NONE,
                numbers.count(size),
                numbers.count(target.n_parameters) if target.n_parameters else numbers.NO_DATA,
                numbers.plain((size or 0) / target.n_parameters) if known else numbers.NO_DATA,
                numbers.percent(target.test_accuracy),
                numbers.percent(target.train_accuracy),
            )
        )
    names = ("Records", "Parameters", "Records per parameter", "Test accuracy", "Accuracy on members")
    return Table(
        caption="What was trained",
        columns=(
            ("Target", "text"),
            ("Claim", "text"),
            ("Said by", "text"),
            *((name, "number") for name in names),
        ),
        # Scores that were supplied and release functions come without any training.
        rows=tuple(rows) if record.trials else (),
        empty="Nothing was trained in this audit.",
    )


def trial_counts(record: AuditRecord) -> Table:
    """Trials planned, finished, taken from the store, and lost, per target."""
    targets = sorted({trial.target for trial in record.trials})
    rows = []
    for name in (*targets, "all targets"):
        trials = [trial for trial in record.trials if name in (trial.target, "all targets")]
        status = Counter(trial.status for trial in trials)
        other = len(trials) - sum(status[key] for key in ("finished", "cached", "lost"))
        counted = (len(trials), status["finished"], status["cached"], status["lost"], other)
        retried = numbers.count(sum(trial.attempts > 1 for trial in trials))
        spent = numbers.duration(sum(trial.seconds for trial in trials))
        rows.append((name, *(numbers.count(number) for number in counted), retried, spent))
    return Table(
        caption="Trials and the time they took",
        columns=(
            ("Target", "text"),
            *(
                (name, "number")
                for name in ("Planned", "Finished", "Cached", "Lost", "Other", "Retried", "Time")
            ),
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


def coverage(record: AuditRecord) -> Table:
    """Every attack class and whether it ran; targets of which the same is to be said share a row."""
    groups: dict[Row, list[str]] = {}
    for row in record.coverage:
        groups.setdefault((row.attack, row.status, str(row.access), row.reason), []).append(row.target)
    return Table(
        caption="Every attack, and on which targets",
        columns=(
            ("Attack", "text"),
            ("Status", "status"),
            ("Targets", "text"),
            ("Access", "text"),
            ("Reason", "text"),
        ),
        rows=tuple(
            (attack, status, ", ".join(dict.fromkeys(targets)), access, reason)
            for (attack, status, access, reason), targets in groups.items()
        ),
        empty="The record does not say which attacks ran.",
    )


def _commitments(source: Provenance) -> tuple[tuple[str, str], ...]:
    """What newer records say of the time before training."""
    salted = "with a salt that is kept in trials/" if source.salted else ""
    left_out = numbers.many(len(source.excluded), "trial") if source.excluded else ""
    return (
        ("Hashes of data and draw", salted),
        ("Committed before training", source.committed),
        ("Commitment, SHA-256", source.commitment_sha256),
        ("Policy, SHA-256", source.policy_sha256),
        ("Installed packages, SHA-256", source.lock_sha256),
        ("In the folder and no part of this audit", left_out),
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
        *(((label, value)) for label, value in _commitments(source) if value),
        ("Root seed", str(source.seed)),
        ("Device", source.device),
        ("Engine", source.engine),
        ("Time", numbers.duration(source.seconds)),
        ("Environment", ", ".join(f"{key} {value}" for key, value in sorted(source.environment.items()))),
    )
