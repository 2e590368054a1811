"""An audit of a mechanism as text, and as JSON."""

from __future__ import annotations

import math
from typing import Any

from dpaudit.mechanism.audit import MechanismAudit
from dpaudit.mechanism.confirmation import Confirmation
from dpaudit.mechanism.verdicts import strongest

_LONGEST = 300


def short(audit: MechanismAudit) -> str:
    """A few lines: the verdict, the pair and the event."""
    lines = [f"{audit.verdict.status}: {audit.mechanism}: {audit.verdict.reason}"]
    if audit.confirmations:
        lines += [f"  {name}: {value}" for name, value in _pair(audit, strongest(audit.confirmations))]
    return "\n".join(lines + [f"  note: {note}" for note in audit.notes])


def rows(audit: MechanismAudit) -> list[tuple[str, str]]:
    """Name and value of what a reader wants to know, in order."""
    found = [("Claim", f"{audit.guarantee.words()} on {audit.domain}")]
    if audit.confirmations:
        best = strongest(audit.confirmations)
        found += _pair(audit, best)
        found += _figures(audit, best)
    found.append(("Tried", f"{audit.examples:,} pairs, {audit.outputs:,} outputs"))
    return found


def _pair(audit: MechanismAudit, best: Confirmation) -> list[tuple[str, str]]:
    choice, pair, counts = best.tried.choice, best.tried.pair, best.counts
    assert choice is not None and audit.witness is not None
    likelier, other = (pair.second, pair.first) if choice.swapped else (pair.first, pair.second)
    return [
        ("Data", _cut(likelier)),
        ("Neighbour", _cut(other)),
        ("Event", audit.witness.event_words),
        (
            "Happened",
            f"{counts.hits:,} of {counts.trials:,} times, and {counts.other_hits:,} of "
            f"{counts.other_trials:,} on the neighbour",
        ),
    ]


def _figures(audit: MechanismAudit, best: Confirmation) -> list[tuple[str, str]]:
    symbol = audit.guarantee.symbol
    early = "; stopped at the first decision" if best.early else ""
    found = [("Lower bound", f"{symbol} {best.lower:.4g} (alpha {best.alpha:.3g}{early})")]
    if symbol != "epsilon":
        found.append(("", f"epsilon {best.epsilon_lower:.4g} at delta {audit.guarantee.delta:g}"))
    found.append(("Ceiling", f"{symbol} {best.ceiling:.4g}"))
    caught = "nothing" if best.detectable is None else f"{symbol} {best.detectable:.4g}"
    found.append(("Detectable", f"{caught} with probability 0.9, on an event as frequent"))
    return found


def _cut(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text):,} characters)"


def document(audit: MechanismAudit) -> dict[str, Any]:
    """The audit as JSON: numbers that are not finite are None."""
    best = strongest(audit.confirmations) if audit.confirmations else None
    return {
        "mechanism": audit.mechanism,
        "claim": audit.guarantee.words(),
        "domain": audit.domain,
        "status": str(audit.verdict.status),
        "reason": audit.verdict.reason,
        "notes": list(audit.notes),
        "alpha": audit.alpha,
        "examples": audit.examples,
        "outputs": audit.outputs,
        "seconds": round(audit.seconds, 3),
        "tested": len(audit.confirmations),
        **({} if best is None else _numbers(audit, best)),
    }


def _numbers(audit: MechanismAudit, best: Confirmation) -> dict[str, Any]:
    assert audit.witness is not None
    values = {
        "lower_bound": best.lower,
        "epsilon_lower": best.epsilon_lower,
        "p_value": best.p_value,
        "ceiling": best.ceiling,
        "detectable": best.detectable,
    }
    return {
        "event": audit.witness.event_words,
        "likelier": audit.witness.likelier,
        "other": audit.witness.other,
        "hits": best.counts.hits,
        "trials": best.counts.trials,
        "other_hits": best.counts.other_hits,
        "other_trials": best.counts.other_trials,
        **{k: v if v is None or math.isfinite(v) else None for k, v in values.items()},
    }
