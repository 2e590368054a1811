"""The audit record: one JSON document from which every report, gate and re-estimate is made."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dpaudit.address import Address, Place
from dpaudit.claim import Adjacency, Claim
from dpaudit.documents import contents, json_of
from dpaudit.errors import UsageError
from dpaudit.estimate import Estimate, Rate
from dpaudit.evidence import Access, Finding, Rebuilt
from dpaudit.verdict import Verdict

SCHEMA_VERSION = 1
RECORD_NAME = "record.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounted:
    """An epsilon recomputed from the ledger by one accountant under one adjacency."""

    accountant: str
    adjacency: Adjacency
    epsilon: float
    delta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A thinned series for a figure (at most 160 points); raw scores never enter the record.

    Attributes:
        kind: "roc" (FPR, TPR), "claimed-roc" (FPR, largest TPR the claim allows),
            "histogram-in" / "histogram-out" (bin centre, density), "anytime" (observations, epsilon lower
            bound so far), "epsilon-reported", "epsilon-recomputed" and "epsilon-lower" (steps, epsilon so
            far), "reconstruction" (baseline, success) or "reconstruction-limit"; "exposure" (bits, share of
            planted secrets with at least so many) and "extraction" (samples, share of secrets that come out),
            each with "-out" (of records that were left out) and "-limit" (what the claim allows).
        source: the attack.
        slice: group of records.
        x: abscissa.
        y: ordinate.
        lower: lower band, or empty.
        upper: upper band, or empty.
    """

    kind: str
    source: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    lower: tuple[float, ...] = ()
    upper: tuple[float, ...] = ()
    slice: str = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A row of the checklist of the guarantee: recomputed, checked, declared, unknown or contradicted."""

    name: str
    state: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """An attack class and whether it ran: RUN, NOT RUN or NOT APPLICABLE, with the reason."""

    attack: str
    target: str
    status: str
    access: Access
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """A trial of the plan: planned, finished, or lost; `attempts` is how often it was seen to start."""

    key: str
    target: str
    kind: str
    status: str
    seconds: float = 0.0
    error: str = ""
    attempts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRecord:
    """Everything that was found out about one target.

    Attributes:
        role: "audited" (its claim is judged) or "control" (must be caught).
        claim: as it really ran.
        alpha: the error that all tests of this target may spend together.
        caught: for controls, whether the attacks caught it.
        rebuilt: what attacks rebuilt of records; pictures of real ones only where the plan asks for them.
    """

    name: str
    role: str
    description: str
    claim: Claim | None
    recomputed: tuple[Accounted, ...]
    test_accuracy: float | None
    train_accuracy: float | None
    n_parameters: int
    alpha: float
    estimates: tuple[Estimate, ...]
    rates: tuple[Rate, ...]
    findings: tuple[Finding, ...]
    curves: tuple[Curve, ...]
    checklist: tuple[Check, ...]
    verdict: Verdict
    caught: bool | None = None
    weights_sha256: str = ""
    rebuilt: tuple[Rebuilt, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where the record comes from: hashes, environment, seeds, time.

    Attributes:
        salted: whether the hashes of data and draw were made with a salt, which is not in the record.
        committed: when plan, data, draw, code and trials were written down, before training; or empty.
        commitment_sha256: of that file.
        policy_sha256: of the policy file that applied when the audit began.
        lock_sha256: of the list of installed packages.
        excluded: finished trials in the folder that are no part of this audit.
    """

    created: str
    dpaudit_version: str
    command: str
    plan_sha256: str
    data_sha256: str
    code_sha256: str
    canary_commitment: str
    seed: int
    device: str
    engine: str
    environment: dict[str, str]
    seconds: float
    salted: bool = False
    committed: str = ""
    commitment_sha256: str = ""
    policy_sha256: str = ""
    lock_sha256: str = ""
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One audit. `status` is the worst over the audited targets, with the controls taken into account."""

    schema_version: int
    title: str
    alpha: float
    delta: float
    status: str
    reason: str
    exit_code: int
    plan: dict[str, Any]
    plan_toml: str
    targets: tuple[TargetRecord, ...]
    coverage: tuple[Coverage, ...]
    trials: tuple[TrialRecord, ...]
    provenance: Provenance


class GateStatus(StrEnum):
    """What a gate says. Only PASS, WARN and WAIVED let a release through."""

    PASS = "PASS"
    WARN = "WARN"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    WAIVED = "WAIVED"
    NOT_RUN = "NOT RUN"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRow:
    """One gate: what was measured, by which bound, against which limit, and who set that limit.

    Attributes:
        metric: "verdict", "control", "trials", or a metric that the policy limits.
        target: empty for gates of the whole record.
        status: see `GateStatus`.
        reason: one sentence with the numbers.
        measured: the bound that was compared; None where there is no data.
        bound: "lower" or "upper"; empty where nothing is compared.
        limit: of the policy; None likewise.
        source: the attack (and slice) that the measured value is from.
        location: `file:line` of the policy; empty for the gates that are always there.
        waiver: the waiver that applies, or one that no longer does.
    """

    metric: str
    target: str
    status: GateStatus
    reason: str
    measured: float | None = None
    bound: str = ""
    limit: float | None = None
    source: str = ""
    location: str = ""
    waiver: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What a policy says of a record. Not part of `record.json`: a new policy needs no new run.

    Attributes:
        exit_code: 0 pass, 1 failed or refuted, 3 inconclusive, 4 trials lost.
        policy: the file the limits came from; empty when only the verdict was asked.
        date: the day at which waivers were judged, ISO 8601.
        profile: the part of the policy that was asked for.
    """

    status: GateStatus
    exit_code: int
    reason: str
    rows: tuple[GateRow, ...]
    policy: str = ""
    date: str = ""
    profile: str = ""


_ADAPTER: TypeAdapter[AuditRecord] = TypeAdapter(AuditRecord)


def dump(record: AuditRecord) -> bytes:
    """Serialise with sorted keys, so that equal records are equal bytes. Infinity and NaN become text."""
    document = _finite(_ADAPTER.dump_python(record, mode="python"))
    return json.dumps(document, sort_keys=True, indent=1, allow_nan=False).encode()


def _finite(value: Any) -> Any:
    """Replace infinities and NaN, which JSON has no word for, by the strings that `float` reads back."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _beside(path: Place) -> str:
    """What to do where a folder has no record: name the folders in it that have one, or run."""
    if isinstance(path, Address):
        return "Run `dpaudit run` with --out first, or name the address of a record."
    found = sorted(str(file.parent) for file in path.glob(f"*/{RECORD_NAME}")) if path.is_dir() else []
    if not found:
        return "Run `dpaudit run` first, or name its folder."
    return f"Name one of its folders: {', '.join(found[:4])}{', ...' if len(found) > 4 else ''}."


def load(path: Place) -> AuditRecord:
    """Read a record from its folder or its JSON file, or from the address of one.

    Raises:
        UsageError: missing, out of reach, not JSON, of a newer schema, or not a record.
    """
    file = path
    try:
        file = path / RECORD_NAME if path.is_dir() else path
        document = json_of(contents(file))
    except FileNotFoundError:
        raise UsageError(f"Expected a record at {file}, found nothing. {_beside(path)}") from None
    except OSError as error:
        raise UsageError(
            f"Expected to read a record at {file}, found: {error.strerror or error}. "
            f"See that {'the address can be reached' if isinstance(file, Address) else 'it may be read'}."
        ) from None
    except ValueError as error:
        raise UsageError(
            f"Expected {file} to be a JSON record, found: {error}. Restore it or run again."
        ) from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int):
        raise UsageError(
            f"Expected {file} to have an integer schema_version, found {version!r}. Not a record."
        )
    if version > SCHEMA_VERSION:
        raise UsageError(
            f"Expected schema_version<={SCHEMA_VERSION} in {file}, found {version}. "
            "It was written by a newer dpaudit: upgrade this one."
        )
    try:
        return _ADAPTER.validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"Expected a complete record in {file}, found at {where}: {first['msg']}.") from None
    except UsageError as error:
        raise UsageError(f"Expected a complete record in {file}. {error}") from None


def json_schema() -> dict[str, Any]:
    """JSON Schema of `record.json`."""
    return _ADAPTER.json_schema()
