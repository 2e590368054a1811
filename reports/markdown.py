"""The verdict as Markdown, for the step summary of a CI job."""

from __future__ import annotations

import html
import re

from dpaudit.record import AuditRecord, GateResult
from dpaudit.reports import tables, view, words
from dpaudit.reports.tables import Row
from dpaudit.reports.text import printable


def render(record: AuditRecord, gate: GateResult | None = None) -> str:
    """Write the verdict, one row per target, the gates, the contradictions, and what is not said.

    Args:
        record: the audit.
        gate: what a policy said of it, where there is one.
    """
    parts = [
        f"## {escape(record.status)}: {escape(words.headline(record))}",
        escape(record.title),
        table(
            ("Status", "Target", "Claim ε", "Lower bound", "Ceiling", "Decided by", "Reason"),
            tuple(
                (
                    f"**{r.status}**",
                    *map(escape, (r.target, r.claim, r.epsilon_lower, r.ceiling, r.decided_by, r.reason)),
                )
                for r in view.verdict_rows(record)
            ),
        ),
        escape(words.control_sentence(record)),
    ]
    if gate is not None:
        rows = tables.gates(gate)
        parts += [
            f"### Gate: {gate.status} (exit {gate.exit_code})",
            escape(gate.reason),
            table(
                tuple(name for name, _ in rows.columns), tuple(tuple(map(escape, row)) for row in rows.rows)
            ),
        ]
    for target in view.page(record).targets:
        if target.findings.rows:
            names = tuple(name for name, _ in target.findings.columns)
            body = tuple(tuple(map(escape, row)) for row in target.findings.rows)
            parts += [f"### {escape(target.findings.caption)}", table(names, body)]
    parts += ["### What this does not say", "\n".join(f"- {escape(line)}" for line in words.not_said(record))]
    parts.append(f"Reproduce: {code(record.provenance.command)}")
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text that Markdown and HTML leave alone, on one line, without what reorders or hides it."""
    flat = printable(" ".join(text.split()))
    return re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", html.escape(flat, quote=False))


def code(text: str) -> str:
    """Text as code, on one line."""
    flat = printable(" ".join(text.split())).replace("`", "'")
    return f"`{flat}`"


def table(names: tuple[str, ...], rows: tuple[Row, ...]) -> str:
    """A table of cells that are escaped already."""
    lines = [names, tuple("---" for _ in names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
