"""The gate: a record and a policy give an exit code. No GPU, no torch, no training again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date, timedelta

from dpaudit.baseline import Baseline
from dpaudit.baseline import rows as held_against
from dpaudit.errors import UsageError, nearest
from dpaudit.evidence import Access
from dpaudit.gauges import Measured, measure
from dpaudit.policy import (
    FLOORS,
    KNOWN_METRICS,
    Policy,
    Threshold,
    Waiver,
    find_policy,
    load_policy,
    parse_policy,
)
from dpaudit.record import AuditRecord, GateResult, GateRow, GateStatus, TargetRecord
from dpaudit.verdict import Status

__all__ = ["Policy", "Threshold", "Waiver", "evaluate", "find_policy", "load_policy", "parse_policy"]

WAIVER_DAYS = 180
_ROUNDING = 1e-6
_DONE = ("cached", "finished")
_LETS_THROUGH = (GateStatus.PASS, GateStatus.WARN, GateStatus.WAIVED)


def evaluate(
    record: AuditRecord,
    policy: Policy | None = None,
    *,
    today: date | None = None,
    baseline: Baseline | None = None,
) -> GateResult:
    """Judge a record by its verdicts, its trials and the limits of a policy.

    Args:
        record: the audit. Its own status is not trusted: it is derived again from targets and trials.
        policy: limits and waivers; None asks for the verdict only.
        today: the day at which waivers are judged; the default is this day.
        baseline: what earlier releases measured; a rate that is worse by its interval fails.

    Returns:
        One row per gate and the exit code: 1 refuted or a limit exceeded, 4 trials missing, 3 too
        little to say, 0 otherwise. A refutation outranks missing trials; a limit that is exceeded
        outranks what could not be said.

    Raises:
        UsageError: a metric or target that the record does not know, or a waiver of too long a term.
    """
    policy, today = policy or Policy(), today or date.today()
    _check_names(record, policy)
    for waiver in policy.waivers:
        _check_term(waiver, today)
    # Whatever is no control is judged: a role that nobody knows takes no target out of the gate.
    verdicts = [_verdict_row(target) for target in record.targets if target.role != "control"]
    if not verdicts:
        verdicts = [_row("verdict", "", GateStatus.NOT_RUN, "No target was audited.")]
    verdicts += _unlike_planned(record)
    limits = [_limit_row(item, target, record, policy, today) for item, target in _pairs(record, policy)]
    trials = _trials_row(record)
    worse = held_against(record, baseline) if baseline else []
    rows = (*verdicts, *_control_rows(record), trials, *limits, *worse)
    status, code, reason = _decide(verdicts, trials, rows, strict=policy.strict)
    return GateResult(
        status=status,
        exit_code=code,
        reason=reason,
        rows=rows,
        policy=policy.file,
        date=today.isoformat(),
        profile=policy.profile,
    )


def _decide(
    verdicts: list[GateRow], trials: GateRow, rows: tuple[GateRow, ...], *, strict: bool
) -> tuple[GateStatus, int, str]:
    """The first thing that stops a release, worst first."""

    def first(rows: Iterable[GateRow], *statuses: GateStatus) -> GateRow | None:
        return next((row for row in rows if row.status in statuses), None)

    if row := first(verdicts, GateStatus.FAIL):
        return GateStatus.FAIL, 1, row.reason
    if trials.status not in _LETS_THROUGH:
        return trials.status, 4, trials.reason
    if row := first(rows, GateStatus.FAIL):
        return GateStatus.FAIL, 1, row.reason
    if row := first(rows, GateStatus.INCONCLUSIVE, GateStatus.NOT_RUN):
        return GateStatus.INCONCLUSIVE, 3, row.reason
    for status in (GateStatus.WARN, GateStatus.WAIVED):
        if row := first(rows, status):
            return (GateStatus.FAIL, 1, f"Strict: {row.reason}") if strict else (status, 0, row.reason)
    return GateStatus.PASS, 0, "Every gate let the release through."


def _row(metric: str, target: str, status: GateStatus, reason: str) -> GateRow:
    return GateRow(metric=metric, target=target, status=status, reason=reason)


def _verdict_row(target: TargetRecord) -> GateRow:
    status = {
        Status.REFUTED: GateStatus.FAIL,
        Status.NOT_REFUTED: GateStatus.PASS,
        Status.INCONCLUSIVE: GateStatus.INCONCLUSIVE,
    }[target.verdict.status]
    against = _against(target) if status is GateStatus.PASS else ""
    return GateRow(
        metric="verdict",
        target=target.name,
        status=GateStatus.FAIL if against else status,
        reason=against or target.verdict.reason,
        measured=target.verdict.epsilon_lower,
        bound="lower",
        limit=target.claim.epsilon if target.claim else None,
        source=target.verdict.decided_by or "",
    )


def _against(target: TargetRecord) -> str:
    """What the record itself holds against the verdict that a claim was not refuted; empty for nothing."""
    if target.findings:
        found = target.findings[0]
        return (
            f"The record contradicts itself: it says NOT REFUTED, where {found.check} ({found.where}) "
            f"expected {found.expected}, measured {found.measured}."
        )
    claim = target.claim
    if claim is None:
        return ""
    shown = [
        (estimate.epsilon_lower, estimate.source, max(claim.epsilon, estimate.claimed_epsilon or 0.0))
        for estimate in target.estimates
        if estimate.guarantee
        and estimate.epsilon_lower is not None
        and estimate.adjacency == claim.adjacency
        and math.isclose(estimate.delta, claim.delta)
        # A release's bound at this delta and its test of the claim look at different lines.
        and (estimate.access is not Access.RELEASE or (estimate.p_value or 0.0) <= estimate.alpha)
    ]
    for epsilon, source, claimed in shown:
        if not epsilon <= claimed * (1 + _ROUNDING):
            return (
                f"The record contradicts itself: it says NOT REFUTED, where {source} puts epsilon at "
                f"{epsilon:.4g} or more and {claimed:.4g} is claimed."
            )
    return ""


def _control_rows(record: AuditRecord) -> list[GateRow]:
    controls = [target for target in record.targets if target.role == "control"]
    if not controls:
        reason = "No positive control ran: nothing shows that these attacks would have caught a fault."
        return [_row("control", "", GateStatus.WARN, reason)]
    rows = []
    for target in controls:
        if target.caught and target.verdict.status is Status.NOT_REFUTED:
            status = GateStatus.INCONCLUSIVE
            reason = "The record contradicts itself: the control is called caught, and was not refuted."
        elif target.caught:
            status, reason = GateStatus.PASS, "The control was caught."
        elif target.caught is None:
            status, reason = GateStatus.NOT_RUN, "It is not known whether the control was caught."
        else:
            status = GateStatus.INCONCLUSIVE
            reason = "The control was not caught: these attacks had no power here."
        row = _row("control", target.name, status, reason)
        rows.append(replace(row, measured=target.verdict.epsilon_lower))
    return rows


def _planned(record: AuditRecord) -> dict[str, str]:
    """Role of each target of the record's own plan, by name; none where something else was audited."""
    targets = record.plan.get("targets")
    listed = [each for each in targets if isinstance(each, dict)] if isinstance(targets, list) else []
    return {str(each.get("name")): str(each.get("role", "audited")) for each in listed}


def _unlike_planned(record: AuditRecord) -> Iterator[GateRow]:
    """Targets that the plan knows in another role, or that are gone."""
    roles = {target.name: target.role for target in record.targets}
    for name, role in _planned(record).items():
        if name not in roles:
            yield _row("verdict", name, GateStatus.NOT_RUN, f"{name} was planned and is not in the record.")
        elif roles[name] != role:
            reason = f"The record contradicts itself: {name} is {roles[name]!r} and was planned as {role!r}."
            yield _row("verdict", name, GateStatus.FAIL, reason)


def _trials_row(record: AuditRecord) -> GateRow:
    missing = [trial for trial in record.trials if trial.status not in _DONE]
    if missing:
        first = f" First: {missing[0].key} of {missing[0].target}: {missing[0].error or missing[0].status}."
        reason = f"{len(missing)} of {len(record.trials)} trials are missing.{first}"
        return _row("trials", "", GateStatus.NOT_RUN, reason)
    without = set(_planned(record)) - {trial.target for trial in record.trials}
    if without:
        reason = f"No trial of {min(without)}, which was planned, is in the record."
        return _row("trials", "", GateStatus.NOT_RUN, reason)
    return _row("trials", "", GateStatus.PASS, f"Missing: none of {len(record.trials)}.")


def _check_names(record: AuditRecord, policy: Policy) -> None:
    """Every metric and target of the policy exists; a rate of a plug-in is known once it was measured."""
    metrics = {*KNOWN_METRICS, *(rate.name for target in record.targets for rate in target.rates)}
    names = {target.name for target in record.targets}
    items: tuple[Threshold | Waiver, ...] = (*policy.thresholds, *policy.waivers)
    for item in items:
        if item.metric not in metrics:
            hint = nearest(item.metric, metrics)
            raise UsageError(f"Expected a known metric at {item.location}, found {item.metric!r}: {hint}")
        if item.target is not None and item.target not in names:
            hint = nearest(item.target, names)
            raise UsageError(f"Expected a target at {item.location}, found {item.target!r}: {hint}")


def _check_term(waiver: Waiver, today: date) -> None:
    latest = today + timedelta(days=WAIVER_DAYS)
    if waiver.expires > latest:
        raise UsageError(
            f"Expected expires={waiver.expires} of the waiver at {waiver.location} at most "
            f"{WAIVER_DAYS} days ahead ({latest}). Shorten it; it can be renewed."
        )


def _pairs(record: AuditRecord, policy: Policy) -> Iterator[tuple[Threshold, TargetRecord]]:
    """Each threshold with each target it is about; a limit for one target replaces the general one."""
    own = {(item.metric, item.target) for item in policy.thresholds if item.target}
    for item in policy.thresholds:
        for target in record.targets:
            general = item.target is None and target.role != "control"
            if item.target == target.name or (general and (item.metric, target.name) not in own):
                yield item, target


def _limit_row(
    item: Threshold, target: TargetRecord, record: AuditRecord, policy: Policy, today: date
) -> GateRow:
    found = measure(target, record, item.metric, item.bound)
    status, reason = _compare(item, found)
    row = GateRow(
        metric=item.metric,
        target=target.name,
        status=status,
        reason=reason,
        measured=found.value,
        bound=item.bound,
        limit=item.limit,
        source=found.source,
        location=item.location,
    )
    return _waive(row, policy, today)


def _compare(item: Threshold, found: Measured) -> tuple[GateStatus, str]:
    """No data never passes, and neither does a quiet bound that could not have reached the limit."""
    what = item.metric if item.bound == "value" else f"{item.bound} bound of {item.metric}"
    if item.metric == "epsilon_claimed":
        what = "claimed or recomputed epsilon"
    if item.metric in FLOORS:
        return _compare_floor(item, found)
    if found.value is not None and not found.value <= item.limit:
        return GateStatus.FAIL, f"The {what} is {found.value:.4g}, above the limit {item.limit:g}."
    if found.missing:
        return (GateStatus.NOT_RUN if found.value is None else GateStatus.INCONCLUSIVE), found.missing
    if found.value is None:
        return GateStatus.NOT_RUN, f"There is no data on {item.metric}."
    if not found.power >= item.limit:
        return GateStatus.INCONCLUSIVE, (
            f"The {what} is {found.value:.4g}, but these observations could not show more than "
            f"{found.power:.4g}, below the limit {item.limit:g}."
        )
    if item.warn is not None and found.value > item.warn:
        return GateStatus.WARN, f"The {what} is {found.value:.4g}, above the warning level {item.warn:g}."
    return GateStatus.PASS, f"The {what} is {found.value:.4g}, within the limit {item.limit:g}."


def _compare_floor(item: Threshold, found: Measured) -> tuple[GateStatus, str]:
    """A value that has to be large enough."""
    if found.value is None:
        return GateStatus.NOT_RUN, found.missing
    if not found.value >= item.limit:
        return GateStatus.FAIL, f"{item.metric} is {found.value:.4g}, below the least of {item.limit:g}."
    if item.warn is not None and found.value < item.warn:
        return GateStatus.WARN, f"{item.metric} is {found.value:.4g}, below the warning level {item.warn:g}."
    return GateStatus.PASS, f"{item.metric} is {found.value:.4g}, at least {item.limit:g}."


def _waive(row: GateRow, policy: Policy, today: date) -> GateRow:
    """Apply the waiver of a failed row, or say why it no longer helps."""
    matching = [
        waiver
        for waiver in policy.waivers
        if waiver.metric == row.metric and waiver.target in (None, row.target)
    ]
    if row.status is not GateStatus.FAIL or not matching or row.measured is None:
        return row
    live = [waiver for waiver in matching if waiver.expires >= today]
    if not live:
        waiver = max(matching, key=lambda item: item.expires)
        expired = f"Expired on {waiver.expires} ({waiver.approver}, {waiver.location}): not applied."
        return replace(row, waiver=expired)
    waiver = max(live, key=lambda item: item.limit)
    terms = (
        f"Up to {waiver.limit:g} until {waiver.expires}, approved by {waiver.approver} "
        f"({waiver.location}): {waiver.reason}"
    )
    if row.measured > waiver.limit:
        return replace(row, waiver=f"Exceeded as well. {terms}")
    return replace(row, status=GateStatus.WAIVED, reason=f"{row.reason} Waived.", waiver=terms)
