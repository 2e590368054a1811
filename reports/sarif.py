"""Gates that do not pass as SARIF 2.1.0 (OASIS, 2020), anchored at the line of the policy that set them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from dpaudit.record import AuditRecord, GateResult, GateRow, GateStatus
from dpaudit.reports.tables import metric_name

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {GateStatus.WARN: "warning", GateStatus.WAIVED: "note"}


def render(record: AuditRecord, gate: GateResult, file: str) -> str:
    """Write one result for each gate that warns, is waived, fails or cannot be judged.

    Args:
        record: for its title and version.
        gate: the rows.
        file: where the record lies; the anchor of gates that no policy set.
    """
    rows = [row for row in gate.rows if row.status is not GateStatus.PASS]
    rules = sorted({row.metric for row in rows})
    driver = {
        "name": "dpaudit",
        "version": record.provenance.dpaudit_version,
        "rules": [{"id": name, "shortDescription": {"text": metric_name(name)}} for name in rules],
    }
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"dpaudit/{record.title}/"},
        "results": [_result(row, gate, rules.index(row.metric), file) for row in rows],
    }
    document = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def _result(row: GateRow, gate: GateResult, rule: int, file: str) -> dict[str, Any]:
    target = row.target or "the whole record"
    text = f"{row.status}: {metric_name(row.metric)} of {target}. {row.reason} {row.waiver}".strip()
    mark = hashlib.sha256(f"{row.metric}\0{row.target}\0{row.source}".encode()).hexdigest()
    result: dict[str, Any] = {
        "ruleId": row.metric,
        "ruleIndex": rule,
        "level": _LEVELS.get(row.status, "error"),
        # Viewers make links of [words](address), and names in a record are not to make any.
        "message": {"text": text.replace("](", "] (")},
        "locations": [{"physicalLocation": _place(row.location or gate.policy or file)}],
        "partialFingerprints": {"dpauditGate/v1": mark[:32]},
    }
    if row.status is GateStatus.WAIVED:
        result["suppressions"] = [{"kind": "external", "justification": row.waiver}]
    return result


def _place(location: str) -> dict[str, Any]:
    """File and line of `file:line`; the first line where none is named."""
    file, _, line = location.rpartition(":")
    if not (file and line.isdecimal()):
        file, line = location, "1"
    if "://" in file:
        return {"artifactLocation": {"uri": quote(file, safe=":/")}, "region": {"startLine": 1}}
    path = Path(file)
    uri = path.as_uri() if path.is_absolute() else quote(str(PurePosixPath(path)))
    return {"artifactLocation": {"uri": uri}, "region": {"startLine": max(int(line), 1)}}
