"""The policy of a gate: limits and waivers, read from the `[gate]` table of a TOML file."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from dpaudit.errors import UsageError, nearest

EPSILON_METRICS = ("epsilon_claimed", "epsilon_lower")
KNOWN_METRICS = (
    *EPSILON_METRICS,
    "auc",
    "extraction_success",
    "reconstruction_success",
    "tpr_at_fpr_0.001",
    "tpr_at_fpr_0.01",
    "tpr_at_fpr_0.1",
)
POLICY_NAMES = ("dpaudit.toml", "pyproject.toml")
_RESERVED = ("targets", "waivers")
_THRESHOLD_KEYS = ("bound", "limit", "warn")
_WAIVER_KEYS = ("approver", "expires", "limit", "metric", "reason", "target")
_Path = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A limit on one metric.

    Attributes:
        metric: "epsilon_lower", "epsilon_claimed", or the name of a rate.
        bound: which end of the interval is compared: "lower" or "upper".
        limit: the largest value that passes.
        warn: the largest value that passes without a warning; None for no such step.
        target: the target it is about; None for every audited one.
        location: `file:line` of the policy.
    """

    metric: str
    bound: str
    limit: float
    warn: float | None = None
    target: str | None = None
    location: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """A looser limit for a time, with a reason and somebody who answers for it. Never "ignore"."""

    metric: str
    limit: float
    reason: str
    approver: str
    expires: date
    target: str | None = None
    location: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Thresholds and waivers. Empty: the verdict alone decides."""

    thresholds: tuple[Threshold, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    file: str = ""


def find_policy(folder: Path) -> Policy:
    """Read the first policy in `folder`: `dpaudit.toml`, else `pyproject.toml`; empty if neither has one.

    Raises:
        UsageError: as `load_policy`, except that a file without a gate table is passed over.
    """
    for name in POLICY_NAMES:
        file = folder / name
        if file.is_file():
            text = _read(file)
            if _gate_table(_parse(text, file), file) is not None:
                return parse_policy(text, Path(name))  # a report should not tell where it was made
    return Policy()


def load_policy(file: Path) -> Policy:
    """Read the `[gate]` table of `file` (`[tool.dpaudit.gate]` of a pyproject.toml).

    Raises:
        UsageError: missing, not TOML, no gate table, an unknown key, or an impossible limit.
    """
    return parse_policy(_read(file), file)


def parse_policy(text: str, file: Path) -> Policy:
    """Read a policy from the text of `file`; see `load_policy`."""
    document = _parse(text, file)
    table = _gate_table(document, file)
    if table is None:
        found = ", ".join(document) or "nothing"
        raise UsageError(f"Expected a [{'.'.join(_prefix(file))}] table in {file}, found {found}. Add one.")
    lines, prefix = _lines(text), _prefix(file)

    def at(*path: str) -> str:
        line = lines.get(_split((*prefix, *path)))
        return f"{file}:{line}" if line else str(file)

    thresholds = [_threshold(metric, value, None, at(metric)) for metric, value in _entries(table, _RESERVED)]
    for target, limits in _tables(table.get("targets", {}), at("targets")):
        thresholds += [
            _threshold(metric, value, target, at("targets", target, metric))
            for metric, value in _entries(limits, ())
        ]
    entries = table.get("waivers", [])
    if not isinstance(entries, list):
        raise UsageError(f"Expected [[gate.waivers]] at {at('waivers')}, found {entries!r}. Double the [.")
    waivers = [_waiver(entry, at("waivers", str(index))) for index, entry in enumerate(entries)]
    for waiver in waivers:
        _refuse_useless(waiver, thresholds)
    return Policy(thresholds=tuple(thresholds), waivers=tuple(waivers), file=str(file))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Expected a policy at {file}, found: {error}. Name a readable TOML file.") from None


def _parse(text: str, file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"Expected {file} to be TOML, found: {error}. Repair that line.") from None


def _prefix(file: Path) -> _Path:
    return ("tool", "dpaudit", "gate") if file.name == "pyproject.toml" else ("gate",)


def _gate_table(document: dict[str, Any], file: Path) -> dict[str, Any] | None:
    """The gate table, or None; a near miss such as `[gates]` is an error, never silence."""
    table: Any = document
    for key in _prefix(file):
        if not isinstance(table, dict) or key not in table:
            known = [name for name in table if name.startswith("gat")] if isinstance(table, dict) else []
            if key == "gate" and known:
                raise UsageError(f"Expected [gate] in {file}, found [{known[0]}]: did you mean 'gate'?")
            return None
        table = table[key]
    if not isinstance(table, dict):
        raise UsageError(f"Expected [gate] in {file} to be a table, found {table!r}. Give it its own line.")
    return table


def _tables(value: Any, where: str) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(value, dict) or not all(isinstance(item, dict) for item in value.values()):
        raise UsageError(f"Expected [gate.targets.NAME] at {where}, found {value!r}. Limits go inside.")
    return list(value.items())


def _entries(table: Mapping[str, Any], reserved: _Path) -> Iterator[tuple[str, Any]]:
    """Metrics and their limits; `tpr_at_fpr_0.01 = x` means the same with and without quotes."""
    for key, value in table.items():
        if key in reserved:
            continue
        if isinstance(value, dict) and value and all(part.isdigit() for part in value):
            yield from ((f"{key}.{part}", limit) for part, limit in value.items())
        else:
            yield key, value


def _threshold(metric: str, value: Any, target: str | None, location: str) -> Threshold:
    fields = value if isinstance(value, dict) else {"limit": value}
    foreign = isinstance(value, dict) and not set(value) & set(_THRESHOLD_KEYS)
    if foreign or isinstance(value, (list, str, bool)):
        hint = nearest(metric, (*KNOWN_METRICS, *_RESERVED))
        raise UsageError(f"Expected {metric} at {location} to be a limit, found {value!r}: {hint}")
    _known_keys(fields, _THRESHOLD_KEYS, location)
    natural = "lower" if metric == "epsilon_lower" else "upper"
    bound = fields.get("bound", natural)
    allowed = (natural,) if metric in EPSILON_METRICS else ("lower", "upper")
    if bound not in allowed:
        raise UsageError(f"Expected bound of {metric} at {location} in {allowed}, found {bound!r}.")
    limit = _number("limit", fields.get("limit"), metric, location)
    warn = _number("warn", fields["warn"], metric, location) if "warn" in fields else None
    if warn is not None and warn > limit:
        raise UsageError(f"Expected warn={warn} <= limit={limit} of {metric} at {location}. Lower it.")
    return Threshold(metric=metric, bound=bound, limit=limit, warn=warn, target=target, location=location)


def _waiver(entry: Any, location: str) -> Waiver:
    if not isinstance(entry, dict):
        raise UsageError(f"Expected a [[gate.waivers]] table at {location}, found {entry!r}.")
    _known_keys(entry, _WAIVER_KEYS, location)
    for key in ("metric", "reason", "approver"):
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            found = entry.get(key)
            raise UsageError(f"Expected {key} of the waiver at {location}, found {found!r}. Write text.")
    if not isinstance(entry.get("target", ""), str):
        raise UsageError(
            f"Expected target of the waiver at {location}, found {entry['target']!r}. Write text."
        )
    expires = entry.get("expires")
    if isinstance(expires, str):
        with suppress(ValueError):
            expires = date.fromisoformat(expires)
    if type(expires) is not date:
        raise UsageError(f"Expected expires=YYYY-MM-DD of the waiver at {location}, found {expires!r}.")
    return Waiver(
        metric=entry["metric"],
        limit=_number("limit", entry.get("limit"), entry["metric"], location),
        reason=entry["reason"].strip(),
        approver=entry["approver"].strip(),
        expires=expires,
        target=entry.get("target"),
        location=location,
    )


def _known_keys(fields: Mapping[str, Any], known: _Path, location: str) -> None:
    for key in fields:
        if key not in known:
            raise UsageError(f"Expected a known key at {location}, found {key!r}: {nearest(key, known)}")


def _number(key: str, value: Any, metric: str, location: str) -> float:
    high = 1.0 if metric in KNOWN_METRICS and metric not in EPSILON_METRICS else math.inf
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= high
    if not good or math.isinf(value):
        raise UsageError(f"Expected {key}={value!r} of {metric} at {location} in [0, {high}]. Name a number.")
    return float(value)


def _refuse_useless(waiver: Waiver, thresholds: list[Threshold]) -> None:
    """A waiver loosens a limit that exists, to one that still says something."""
    about = [
        item
        for item in thresholds
        if item.metric == waiver.metric and (waiver.target is None or item.target in (None, waiver.target))
    ]
    if not about:
        limited = {item.metric for item in thresholds}
        hint = nearest(waiver.metric, limited) if limited else "no limit is set."
        raise UsageError(
            f"Expected the waiver at {waiver.location} to match a limit, found {waiver.metric!r}: {hint}"
        )
    strictest = min(item.limit for item in about)
    if waiver.limit <= strictest:
        raise UsageError(
            f"Expected limit={waiver.limit} of the waiver at {waiver.location} above the limit {strictest} "
            "that it loosens. Remove the waiver or raise it."
        )
    if waiver.metric not in EPSILON_METRICS and waiver.limit >= 1.0:
        raise UsageError(
            f"Expected limit={waiver.limit} of the waiver at {waiver.location} below 1: a rate never "
            "exceeds 1, so this would ignore the gate. Name a ceiling."
        )


def _lines(text: str) -> dict[_Path, int]:
    """The line of every key and table, by its path; lines inside multi-line values may be missed."""
    found: dict[_Path, int] = {}
    counts: dict[_Path, int] = {}
    table: _Path = ()
    for number, line in enumerate(text.splitlines(), start=1):
        bare = line.strip()
        if bare.startswith("["):
            table = _path_of(bare)
            if bare.startswith("[[") and table:
                counts[table] = counts.get(table, -1) + 1
                table = (*table, str(counts[table]))
            found.setdefault(table, number)
        elif "=" in bare and not bare.startswith("#"):
            found.setdefault(table + _path_of(bare.split("=", 1)[0] + "= 0"), number)
    return found


def _path_of(line: str) -> _Path:
    """The path that one line of TOML names; empty if the line is not a whole statement."""
    try:
        value: Any = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return ()
    path: list[str] = []
    while isinstance(value, (dict, list)) and value:
        if isinstance(value, list):
            value = value[0]
            continue
        key, value = next(iter(value.items()))
        path.append(key)
    return _split(tuple(path))


def _split(path: _Path) -> _Path:
    """The same path for a quoted key with a dot and for two bare keys."""
    return tuple(part for key in path for part in key.split("."))
