"""A section for a model card, with the metadata block that model hubs read (Hugging Face, model-index)."""

from __future__ import annotations

import math
from typing import Any

from dpaudit.record import AuditRecord, TargetRecord
from dpaudit.reports import numbers, tables, view, words, yaml_text
from dpaudit.reports.markdown import code, escape, table

_SHOWN = ("auc", "tpr_at_fpr_0.001", "tpr_at_fpr_0.01", "tpr_at_fpr_0.1", "reconstruction_success")


def render(record: AuditRecord) -> str:
    """The metadata of the card between lines of dashes, then the section in Markdown."""
    parts = [
        "\n".join(["---", *yaml_text.lines(_metadata(record)), "---"]),
        "## Privacy audit",
        f"**{escape(record.status)}.** {escape(words.headline(record))} "
        f"{escape(words.control_sentence(record))}",
        table(
            ("Target", "Status", "Claim", "Lower bound of ε", "Ceiling"),
            tuple(
                tuple(map(escape, (t.name, view.status_of(t), words.claim(t), *_bounds(t))))
                for t in words.shown(record)
            ),
        ),
        _rates(record),
        "What this does not say:",
        "\n".join(f"- {escape(line)}" for line in words.not_said(record)),
        f"Audited with dpaudit {escape(record.provenance.dpaudit_version)} on "
        f"{escape(record.provenance.created[:10])}, at a level of {numbers.level(record.alpha)} over all "
        "tests. "
        f"To repeat it: {code(record.provenance.command)}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _bounds(target: TargetRecord) -> tuple[str, str]:
    return view.at_least(target.verdict.epsilon_lower), numbers.epsilon(view.ceiling(target))


def _rates(record: AuditRecord) -> str:
    rows = [
        tuple(
            map(
                escape,
                (
                    target.name,
                    tables.metric_name(rate.name),
                    rate.source if rate.slice == "all" else f"{rate.source}, {rate.slice}",
                    numbers.rate(rate.name, rate.value),
                    numbers.interval(rate.name, rate.lower, rate.upper),
                ),
            )
        )
        for target in words.audited(record)
        for rate in worst(target)
    ]
    return table(("Target", "Metric", "Worst attack", "Value", "Interval"), tuple(rows)) if rows else ""


def worst(target: TargetRecord) -> tuple[Any, ...]:
    """The worst attack and wide slice by metric, of the metrics that a reader looks for."""
    found: dict[str, Any] = {}
    for rate in tables.worst_first(tuple(r for r in target.rates if not r.fine and r.name in _SHOWN)):
        found.setdefault(rate.name, rate)
    return tuple(rate for rate in found.values() if not math.isnan(rate.value))


def _metadata(record: AuditRecord) -> dict[str, Any]:
    results = [_result(target) for target in words.audited(record)]
    return {"tags": ["differential-privacy"], "model-index": [{"name": record.title, "results": results}]}


def _result(target: TargetRecord) -> dict[str, Any]:
    metrics = [
        {"type": "dp_audit_status", "name": "Verdict on the claim", "value": view.status_of(target)},
    ]
    numbers_of = {
        "epsilon_claimed": target.claim.epsilon if target.claim else None,
        "epsilon_lower": target.verdict.epsilon_lower,
        "epsilon_ceiling": view.ceiling(target),
        **{rate.name: rate.value for rate in worst(target)},
    }
    for name, value in numbers_of.items():
        if value is not None and not math.isnan(value):
            metrics.append({"type": name, "name": tables.metric_name(name), "value": value})
    return {
        "task": {"type": "privacy-audit", "name": f"Privacy audit of {target.name}"},
        "dataset": {"type": "training-data", "name": "the training data of the model"},
        "metrics": metrics,
    }
