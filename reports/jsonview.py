"""A short JSON summary for scripts; the record itself has everything."""

from __future__ import annotations

import json
import math
from typing import Any

from dpaudit.record import AuditRecord, GateResult
from dpaudit.reports import view, words


def summary(record: AuditRecord, gate: GateResult | None = None) -> dict[str, Any]:
    """The verdict, one entry per target, and the gates; None is "no data", infinity is "Infinity"."""
    return {
        "title": record.title,
        "status": record.status,
        "exit_code": record.exit_code if gate is None else gate.exit_code,
        "reason": record.reason,
        "alpha": record.alpha,
        "targets": [
            {
                "name": target.name,
                "role": target.role,
                "status": view.status_of(target),
                "claimed_epsilon": number(target.claim.epsilon if target.claim else None),
                "delta": target.claim.delta if target.claim else record.delta,
                "epsilon_lower": number(target.verdict.epsilon_lower),
                "ceiling": number(view.ceiling(target)),
                "decided_by": target.verdict.decided_by,
                "reason": target.verdict.reason,
                "findings": len(target.findings),
            }
            for target in words.shown(record)
        ],
        "trials": {
            "planned": len(record.trials),
            "missing": sum(trial.status not in ("finished", "cached") for trial in record.trials),
        },
        "gate": None if gate is None else _gate(gate),
    }


def render(record: AuditRecord, gate: GateResult | None = None) -> str:
    """Write the summary with sorted keys."""
    return json.dumps(summary(record, gate), indent=1, sort_keys=True, allow_nan=False) + "\n"


def _gate(gate: GateResult) -> dict[str, Any]:
    return {
        "status": str(gate.status),
        "exit_code": gate.exit_code,
        "reason": gate.reason,
        "policy": gate.policy,
        "date": gate.date,
        "profile": gate.profile,
        "rows": [
            {
                "metric": row.metric,
                "target": row.target,
                "status": str(row.status),
                "measured": number(row.measured),
                "bound": row.bound,
                "limit": number(row.limit),
                "location": row.location,
                "reason": row.reason,
                "waiver": row.waiver,
            }
            for row in gate.rows
        ],
    }


def number(value: float | None) -> float | str | None:
    """JSON has no word for infinity: the record's spelling of it."""
    if value is None or math.isnan(value):
        return None
    return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")
