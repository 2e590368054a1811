"""The value of each metric of a record that a limit can be set on, and what it could have shown."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard

from dpaudit.estimate import Estimate
from dpaudit.record import AuditRecord, TargetRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The value that decides one metric of one target. `power` is the largest it could have shown."""

    value: float | None
    source: str = ""
    power: float = math.inf
    missing: str = ""


def measure(target: TargetRecord, record: AuditRecord, metric: str, bound: str) -> Measured:
    """The value of a metric that a limit is compared with.

    Args:
        target: it is measured on.
        record: the target is of.
        metric: one of the policy's names, or a rate.
        bound: "lower" or "upper" end of a rate's interval.
    """
    gauges: dict[str, Callable[[TargetRecord, AuditRecord, str], Measured]] = {
        "epsilon_lower": _epsilon_lower,
        "epsilon_claimed": _epsilon_claimed,
        "ceiling": _strength,
        "detectable": _strength,
        "test_accuracy": _accuracy,
        "train_accuracy": _accuracy,
    }
    return gauges[metric](target, record, metric) if metric in gauges else _rate(target, metric, bound)


def _strength(target: TargetRecord, record: AuditRecord, metric: str) -> Measured:
    """What the best estimate on the claim's own terms could have shown, or would have caught."""
    valid = [e for e in _valid(target, record) if e.n_observations and not math.isnan(e.ceiling)]
    if metric == "ceiling":
        found = [(estimate.ceiling, estimate.source) for estimate in valid]
        value, source = max(found, default=(None, ""))
    else:
        found = [(e.detectable, e.source) for e in valid if _known(e.detectable)]
        value, source = min(found, default=(None, ""))
    missing = f"{metric} is not known for any bound of {target.name}." if value is None else ""
    return Measured(value=value, source=source, missing=missing)


def _accuracy(target: TargetRecord, record: AuditRecord, metric: str) -> Measured:
    value = target.test_accuracy if metric == "test_accuracy" else target.train_accuracy
    if value is None or math.isnan(value):
        return Measured(value=None, missing=f"{metric} of {target.name} was not measured.")
    return Measured(value=value)


def _valid(target: TargetRecord, record: AuditRecord) -> list[Estimate]:
    """Guaranteed bounds at the delta and under the neighbours of the claim."""
    return [
        estimate
        for estimate in target.estimates
        if estimate.guarantee
        and math.isclose(estimate.delta, target.claim.delta if target.claim else record.delta)
        and (target.claim is None or estimate.adjacency == target.claim.adjacency)
    ]


def _epsilon_lower(target: TargetRecord, record: AuditRecord, metric: str) -> Measured:
    """Largest valid lower bound at the record's delta; other adjacencies and deltas are never compared."""
    valid = [estimate for estimate in _valid(target, record) if _known(estimate.epsilon_lower)]
    bounds = [(estimate.epsilon_lower or 0.0, estimate.source) for estimate in valid]
    bounds += [(f.epsilon, f.check) for f in target.findings if _known(f.epsilon)]
    if not bounds:
        return Measured(value=None, missing=f"No valid lower bound of epsilon for {target.name}.")
    value, source = max(bounds)
    # A ceiling that is no number is none.
    power = max((e.ceiling if _known(e.ceiling) else 0.0 for e in valid), default=math.inf)
    return Measured(value=value, source=source, power=power)


def _epsilon_claimed(target: TargetRecord, record: AuditRecord, metric: str) -> Measured:
    """The claimed epsilon, or what an accountant makes of the ledger where that is more."""
    if target.claim is None:
        return Measured(value=None, missing=f"{target.name} has no claim.")
    values = [(target.claim.epsilon, "claim")]
    values += [
        (row.epsilon, row.accountant)
        for row in target.recomputed
        if row.accountant == "PLD"  # the others are looser: their excess is theirs, not the model's
        and row.adjacency == target.claim.adjacency
        and math.isclose(row.delta, target.claim.delta)
    ]
    value, source = max(values, key=lambda pair: math.inf if math.isnan(pair[0]) else pair[0])
    if math.isnan(value):
        return Measured(value=None, missing=f"The epsilon recomputed for {target.name} is no number.")
    return Measured(value=value, source=source)


def _known(value: float | None) -> TypeGuard[float]:
    """NaN is no data."""
    return value is not None and not math.isnan(value)


def _rate(target: TargetRecord, metric: str, bound: str) -> Measured:
    """The worst attack and wide slice. Where that has no upper bound its value stands in, but cannot pass."""
    rates = [
        rate for rate in target.rates if rate.name == metric and not math.isnan(rate.value) and not rate.fine
    ]
    found = [(rate, rate.lower if bound == "lower" else rate.upper) for rate in rates]
    ends = [(rate, end if _known(end) else None) for rate, end in found]
    if bound == "lower":
        ends = [(rate, end) for rate, end in ends if end is not None]
    if not ends:
        reason = f"{metric} was not measured on {target.name} with a bound."
        return Measured(value=None, missing=reason if rates else reason.replace(" with a bound", ""))
    worst, end = max(ends, key=lambda pair: pair[0].value if pair[1] is None else pair[1])
    return Measured(
        value=worst.value if end is None else end,
        source=worst.source if worst.slice == "all" else f"{worst.source} on {worst.slice}",
        missing=f"{worst.source} measured {metric} without a bound above it." if end is None else "",
    )
