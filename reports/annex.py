"""A record as an evidence document: who tested what, how, how often, with which result, and who signs.

Its parts follow what is asked of test reports: Annex IV 2(g) of Regulation (EU) 2024/1689 (dated and signed
by the responsible persons), EDPB Opinion 28/2024 (scope, frequency, quantity and quality of tests of each
class of attack), and NIST SP 800-226 (unit, neighbours, parameters). Whether it meets a duty is not said.
"""

from __future__ import annotations

from collections.abc import Sequence

from dpaudit.record import AuditRecord, TargetRecord
from dpaudit.reports import numbers, tables, target_tables, view, words
from dpaudit.reports.markdown import code, escape, table
from dpaudit.reports.tables import Table


def render(record: AuditRecord) -> str:
    """Write the document in Markdown."""
    source = record.provenance
    parts = [
        f"# Test report: {escape(record.title)}",
        f"Tested on {escape(source.created)} with dpaudit {escape(source.dpaudit_version)}. "
        "A report of tests and their results; whether it meets a legal duty is for others to judge.",
        f"## 1. Result: {escape(record.status)}",
        f"{escape(words.headline(record))} {escape(words.control_sentence(record))}",
        _rows(
            ("Status", "Target", "Claim ε", "Lower bound", "Ceiling", "Decided by", "Reason"),
            [
                (r.status, r.target, r.claim, r.epsilon_lower, r.ceiling, r.decided_by, r.reason)
                for r in view.verdict_rows(record)
            ],
        ),
        "\n".join(f"- {escape(line)}" for line in words.not_said(record)),
        "## 2. What is claimed",
        _rows(
            ("Target", "Claim", "Said by", "Records", "δ below 1/n"),
            [_claim(target) for target in words.audited(record)],
        ),
        "## 3. What was tested, with which access",
        _table(tables.coverage(record)),
        "## 4. Measurements",
        *(part for target in words.shown(record) for part in _measured(target)),
        "## 5. What the guarantee rests on",
        *(_table(target_tables.checklist(target)) for target in words.audited(record)),
        "## 6. Error probabilities spent",
        *_spent(record),
        "## 7. Trials",
        _table(tables.trial_counts(record)),
        _table(tables.lost_trials(record)),
        _excluded(record),
        "## 8. Provenance",
        _rows(("What", "Value"), list(tables.provenance(record))),
        f"To repeat it: {code(source.command)}, or {code('dpaudit reproduce RECORD')}.",
        "## 9. Responsible persons",
        "The record is signed with `dpaudit sign`, and signed off by another person with `dpaudit signoff`; "
        "`dpaudit verify` checks both. Without these, sign here.",
        _rows(
            ("Role", "Name", "Date", "Signature"),
            [(role, "", "", "") for role in ("Prepared by", "Reviewed by", "Released by")],
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def spending(record: AuditRecord) -> list[tuple[str, str, str, str]]:
    """The ledger of error probabilities: what each guaranteed bound may spend of the audit's alpha."""
    return [
        (target.name, item.source, item.method, numbers.level(item.alpha))
        for target in words.shown(record)
        for item in target.estimates
        if item.guarantee
    ]


def _spent(record: AuditRecord) -> tuple[str, str]:
    total = sum(item.alpha for t in record.targets for item in t.estimates if item.guarantee)
    sentence = (
        f"The whole audit may err with probability {numbers.level(record.alpha)}; its bounds spend "
        f"{numbers.level(total)} together, each at most what stands beside it."
    )
    return sentence, _rows(("Target", "Attack", "Method", "May err in"), spending(record))


def _measured(target: TargetRecord) -> tuple[str, ...]:
    return (
        f"### {escape(target.name)}: {escape(view.status_of(target))}",
        _table(target_tables.findings(target)) if target.findings else "",
        _table(target_tables.estimates(target)),
        _table(target_tables.rates(target, reconstruction=False)),
        _table(target_tables.rates(target, reconstruction=True)),
    )


def _claim(target: TargetRecord) -> tuple[str, ...]:
    claim = target.claim
    if claim is None:
        return target.name, "no claim", numbers.NONE, numbers.NO_DATA, numbers.NO_DATA
    size = claim.dataset_size
    below = numbers.NO_DATA if not size else "yes" if claim.delta < 1 / size else "no"
    return target.name, words.claim(target), claim.source, numbers.count(size), below


def _excluded(record: AuditRecord) -> str:
    names = record.provenance.excluded
    if not names:
        return ""
    return (
        f"{numbers.many(len(names), 'finished trial')} in the folder belong to no trial of this plan: "
        f"{escape(', '.join(names))}."
    )


def _table(found: Table) -> str:
    if not found.rows:
        return escape(found.empty)
    return f"{escape(found.caption)}:\n\n{_rows(tuple(name for name, _ in found.columns), list(found.rows))}"


def _rows(names: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    return table(names, tuple(tuple(map(escape, row)) for row in rows)) if rows else "No data."
