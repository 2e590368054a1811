"""What earlier releases measured, to be held against a new one: worse only where intervals separate.

A baseline says that nothing got worse than was seen before. It never says that little leaks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from dpaudit.documents import contents, json_of
from dpaudit.errors import UsageError
from dpaudit.record import AuditRecord, GateRow, GateStatus, TargetRecord

PREFIX = "baseline:"
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One number of a target, with both ends of its interval.

    Attributes:
        target: of the record.
        metric: a rate, or "epsilon_claimed", whose interval is a point.
        source: the attack; empty for the claim.
        slice: the group of records.
        about: what has to agree for a comparison: the level of the interval, or what the claim is about.
        value: measured.
        lower: end of the interval.
        upper: end of the interval.
    """

    target: str
    metric: str
    source: str
    slice: str
    about: str
    value: float
    lower: float
    upper: float

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What it is a number of."""
        return self.target, self.metric, self.source, self.slice


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """Entries, each of the best release so far, and the file they are from."""

    entries: tuple[Entry, ...]
    file: str = ""

    def dump(self) -> bytes:
        """Its file: JSON with sorted keys."""
        rows = [asdict(entry) for entry in sorted(self.entries, key=lambda entry: entry.key)]
        return (json.dumps({"format": _FORMAT, "entries": rows}, indent=1, sort_keys=True) + "\n").encode()


def load_baseline(file: Path) -> Baseline:
    """Read a baseline.

    Raises:
        UsageError: missing, or not one.
    """
    try:
        document = json_of(contents(file))
        if document["format"] != _FORMAT:
            raise ValueError(f"format {document['format']!r}")
        entries = tuple(_entry(row) for row in document["entries"])
    except FileNotFoundError:
        raise UsageError(f"Expected a baseline at {file}, found none. Write one with --ratchet.") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"Expected a baseline in {file}, found: {error}. Restore it, or write one with --ratchet."
        ) from None
    return Baseline(entries=entries, file=str(file))


def measured(record: AuditRecord) -> tuple[Entry, ...]:
    """Every number of the audited targets that has an interval; fine slices are left out."""
    return tuple(e for target in record.targets if target.role != "control" for e in _of(target))


def rows(record: AuditRecord, baseline: Baseline) -> list[GateRow]:
    """One gate for each entry: FAIL where the new interval lies above the old one."""
    now = {entry.key: entry for entry in measured(record)}
    if not baseline.entries:
        reason = "The baseline has no entries: nothing was compared."
        return [GateRow(metric=PREFIX.rstrip(":"), target="", status=GateStatus.WARN, reason=reason)]
    return [_row(entry, now.get(entry.key), record, baseline.file) for entry in baseline.entries]


def ratcheted(record: AuditRecord, baseline: Baseline | None) -> Baseline:
    """The baseline after a release: lowered where the new interval lies below the old one, never raised."""
    old = {entry.key: entry for entry in baseline.entries} if baseline else {}
    for entry in measured(record):
        before = old.get(entry.key)
        if before is None or (before.about == entry.about and entry.upper < before.lower):
            old[entry.key] = entry
    return Baseline(entries=tuple(old.values()), file=baseline.file if baseline else "")


def _of(target: TargetRecord) -> Iterator[Entry]:
    if target.claim is not None and math.isfinite(target.claim.epsilon):
        claim = target.claim
        about = f"delta {claim.delta:g}, {claim.adjacency}, per {claim.unit}"
        yield _made(target.name, "epsilon_claimed", "", "all", about, (claim.epsilon,) * 3)
    for rate in target.rates:
        if rate.lower is not None and rate.upper is not None and not rate.fine:
            numbers = rate.value, rate.lower, rate.upper
            if all(map(math.isfinite, numbers)):
                about = f"intervals of {1 - rate.alpha:.6g}"
                yield _made(target.name, rate.name, rate.source, rate.slice, about, numbers)


def _made(
    target: str, metric: str, source: str, group: str, about: str, numbers: tuple[float, float, float]
) -> Entry:
    value, lower, upper = numbers
    return Entry(
        target=target, metric=metric, source=source, slice=group, about=about, value=value, lower=lower,
        upper=upper,
    )  # fmt: skip


def _entry(row: dict[str, object]) -> Entry:
    texts = {name: str(row[name]) for name in ("target", "metric", "source", "slice", "about")}
    ends = {name: float(str(row[name])) for name in ("value", "lower", "upper")}
    if not all(map(math.isfinite, ends.values())) or not ends["lower"] <= ends["upper"]:
        raise ValueError(f"an interval from {ends['lower']} to {ends['upper']}")
    return Entry(**texts, **ends)  # type: ignore[arg-type]


def _row(before: Entry, now: Entry | None, record: AuditRecord, file: str) -> GateRow:
    status, reason = _judged(before, now)
    where = before.source if before.slice == "all" else f"{before.source} on {before.slice}"
    return GateRow(
        metric=f"{PREFIX}{before.metric}",
        target=before.target,
        status=status,
        reason=reason,
        measured=now.lower if now else None,
        bound="lower" if now else "",
        limit=before.upper,
        source=where,
        location=file,
    )


def _judged(before: Entry, now: Entry | None) -> tuple[GateStatus, str]:
    name = f"{before.metric}{f' of {before.source}' if before.source else ''} ({before.slice})"
    if now is None:
        return GateStatus.NOT_RUN, f"{name} is in the baseline and was not measured with an interval."
    if now.about != before.about:
        return GateStatus.NOT_RUN, f"{name} is not comparable: {before.about} before, {now.about} now."
    was = f"[{before.lower:.4g}, {before.upper:.4g}]"
    is_now = f"[{now.lower:.4g}, {now.upper:.4g}]"
    if now.lower > before.upper:
        return GateStatus.FAIL, f"{name} got worse: {is_now}, where the baseline is {was}."
    better = now.upper < before.lower
    word = "lies below the baseline" if better else "is not told apart from the baseline"
    return GateStatus.PASS, f"{name}, {is_now}, {word}, {was}."
