"""The policy of a gate: limits and waivers, read from the `[gate]` table of a TOML file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

from dpaudit.documents import contents, toml_of
from dpaudit.errors import UsageError, nearest
from dpaudit.toml_lines import KeyPath, lines_of, split

EPSILON_METRICS = ("ceiling", "detectable", "epsilon_claimed", "epsilon_lower")
FLOORS = ("ceiling", "test_accuracy")
"""Metrics of which the limit is the least that passes; of all others it is the most."""

_BOUNDS = {"epsilon_lower": "lower", **dict.fromkeys((*FLOORS, "detectable", "train_accuracy"), "value")}
KNOWN_METRICS = (
    *EPSILON_METRICS,
    "attribute_success",
    "auc",
    "reidentification_success",
    "test_accuracy",
    "train_accuracy",
    "extraction_success",
    "reconstruction_success",
    "tpr_at_fpr_0.001",
    "tpr_at_fpr_0.01",
    "tpr_at_fpr_0.1",
)
POLICY_NAMES = ("dpaudit.toml", "pyproject.toml")
BUILT_IN_PROFILES = {"ci": False, "release": True}
"""Profiles that are there without a table, and whether they are strict."""

_LARGEST = 1e6
"""No limit is above it: what it would let through, a policy without the limit lets through more openly."""
_RESERVED = ("profiles", "strict", "targets", "waivers")
_THRESHOLD_KEYS = ("bound", "limit", "warn")
_WAIVER_KEYS = ("approver", "expires", "limit", "metric", "reason", "target")


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A limit on one metric.

    Attributes:
        metric: one of `KNOWN_METRICS`, or the name of a rate.
        bound: which end of the interval is compared: "lower" or "upper"; "value" where there is none.
        limit: the largest value that passes; of `FLOORS` the smallest.
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
    """Thresholds and waivers. Empty: the verdict alone decides.

    Attributes:
        sha256: of the file's text.
        strict: whether what warns, or is waived, fails.
        profile: that was asked for.
    """

    thresholds: tuple[Threshold, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    file: str = ""
    strict: bool = False
    profile: str = ""
    sha256: str = field(default="", compare=False)


def find_policy(folder: Path, profile: str = "") -> Policy:
    """Read the first policy in `folder`: `dpaudit.toml`, else `pyproject.toml`; empty if neither has one.

    Raises:
        UsageError: as `load_policy`, except that a file without a gate table is passed over.
    """
    for name in POLICY_NAMES:
        file = folder / name
        if file.is_file():
            text = _read(file)
            if _gate_table(_parse(text, file), file) is not None:
                return parse_policy(text, Path(name), profile)  # no report should tell where it was made
    return Policy(strict=_strictness(profile, {}, folder), profile=profile)


def load_policy(file: Path, profile: str = "") -> Policy:
    """Read the `[gate]` table of `file` (`[tool.dpaudit.gate]` of a pyproject.toml).

    Raises:
        UsageError: missing, not TOML, no gate table, an unknown key, or an impossible limit.
    """
    return parse_policy(_read(file), file, profile)


def parse_policy(text: str, file: Path, profile: str = "") -> Policy:
    """Read a policy from the text of `file`; limits of a profile replace those of the same metric.

    Of a profile's general limit and one that the file sets for a single target the tighter one holds there.
    """
    document = _parse(text, file)
    table = _gate_table(document, file)
    if table is None:
        found = ", ".join(document) or "nothing"
        raise UsageError(f"Expected a [{'.'.join(_prefix(file))}] table in {file}, found {found}. Add one.")
    lines, prefix = lines_of(text), _prefix(file)

    def at(*path: str) -> str:
        line = lines.get(split((*prefix, *path)))
        return f"{file}:{line}" if line else str(file)

    profiles = dict(_tables(table.get("profiles", {}), at("profiles")))
    limits = {name: _thresholds(part, at, "profiles", name) for name, part in profiles.items()}
    strict = _flag(table, at("strict")) or _strictness(profile, profiles, file)
    over = limits.get(profile, [])
    replaced = {(item.metric, item.target) for item in over}
    kept = [t for t in _thresholds(table, at) if (t.metric, t.target) not in replaced]
    thresholds = [_tightened(t, over) for t in kept] + over
    entries = table.get("waivers", [])
    if not isinstance(entries, list):
        raise UsageError(f"Expected [[gate.waivers]] at {at('waivers')}, found {entries!r}. Double the [.")
    waivers = [_waiver(entry, at("waivers", str(index))) for index, entry in enumerate(entries)]
    for waiver in waivers:
        _refuse_useless(waiver, thresholds + [item for part in limits.values() for item in part])
    return Policy(
        thresholds=tuple(thresholds),
        waivers=tuple(waivers),
        file=str(file),
        strict=strict,
        profile=profile,
        sha256=sha256(text.encode()).hexdigest(),
    )


def _thresholds(table: Mapping[str, Any], at: Callable[..., str], *path: str) -> list[Threshold]:
    """The limits of a table, then those of its targets."""
    found = [
        _threshold(metric, value, None, at(*path, metric)) for metric, value in _entries(table, _RESERVED)
    ]
    for target, limits in _tables(table.get("targets", {}), at(*path, "targets")):
        for metric, value in _entries(limits, ()):
            found.append(_threshold(metric, value, target, at(*path, "targets", target, metric)))
    return found


def _tightened(own: Threshold, over: list[Threshold]) -> Threshold:
    """A target's own limit, or the general one of the profile where that is tighter."""
    for general in over:
        if (
            own.target
            and general.target is None
            and (general.metric, general.bound) == (own.metric, own.bound)
        ):
            tighter = general.limit > own.limit if own.metric in FLOORS else general.limit < own.limit
            return replace(general, target=own.target) if tighter else own
    return own


def _strictness(profile: str, profiles: Mapping[str, Mapping[str, Any]], where: Path) -> bool:
    """Whether a profile is strict, which has to be one of the file or built in."""
    known = {*BUILT_IN_PROFILES, *profiles}
    if profile and profile not in known:
        raise UsageError(f"Expected a profile of {where}, found {profile!r}: {nearest(profile, known)}")
    table = profiles.get(profile, {})
    return _flag(table, str(where)) if "strict" in table else BUILT_IN_PROFILES.get(profile, False)


def _flag(table: Mapping[str, Any], location: str) -> bool:
    value = table.get("strict", False)
    if not isinstance(value, bool):
        raise UsageError(f"Expected strict at {location} to be true or false, found {value!r}.")
    return value


def _read(file: Path) -> str:
    try:
        return contents(file).decode()
    except (OSError, ValueError) as error:
        raise UsageError(f"Expected a policy at {file}, found: {error}. Name a readable TOML file.") from None


def _parse(text: str, file: Path) -> dict[str, Any]:
    try:
        return toml_of(text)
    except ValueError as error:
        raise UsageError(f"Expected {file} to be TOML, found: {error}. Repair that line.") from None


def _prefix(file: Path) -> KeyPath:
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


def _entries(table: Mapping[str, Any], reserved: KeyPath) -> Iterator[tuple[str, Any]]:
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
    natural = _BOUNDS.get(metric, "upper")
    bound = fields.get("bound", natural)
    allowed = (natural,) if metric in EPSILON_METRICS or natural == "value" else ("lower", "upper")
    if bound not in allowed:
        raise UsageError(f"Expected bound of {metric} at {location} in {allowed}, found {bound!r}.")
    limit = _number("limit", fields.get("limit"), metric, location)
    warn = _number("warn", fields["warn"], metric, location) if "warn" in fields else None
    if warn is not None and (warn < limit if metric in FLOORS else warn > limit):
        sign, remedy = (">=", "Raise it") if metric in FLOORS else ("<=", "Lower it")
        raise UsageError(f"Expected warn={warn} {sign} limit={limit} of {metric} at {location}. {remedy}.")
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


def _known_keys(fields: Mapping[str, Any], known: KeyPath, location: str) -> None:
    for key in fields:
        if key not in known:
            raise UsageError(f"Expected a known key at {location}, found {key!r}: {nearest(key, known)}")


def _number(key: str, value: Any, metric: str, location: str) -> float:
    high = 1.0 if metric in KNOWN_METRICS and metric not in EPSILON_METRICS else _LARGEST
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= high
    if not good:
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
    if waiver.metric in FLOORS:
        raise UsageError(
            f"Expected a waiver of a limit at {waiver.location}, found one of {waiver.metric!r}, a floor."
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
