"""The gates as JUnit XML, so that a CI system lists each as a test."""

from __future__ import annotations

from typing import Any

from dpaudit.record import AuditRecord, GateResult, GateRow, GateStatus
from dpaudit.reports.tables import gate_number


def render(record: AuditRecord, gate: GateResult) -> str:
    """Write one suite per target and one case per gate.

    FAIL is a failure; INCONCLUSIVE and NOT RUN are errors, because no data never passes; WARN and
    WAIVED pass and say so in their output.

    Args:
        record: for its title and time.
        gate: the rows to write.
    """
    from junitparser import JUnitXml, TestSuite

    document = JUnitXml(_text(record.title))
    for name in dict.fromkeys(row.target for row in gate.rows):
        suite = TestSuite(_text(name or "whole record"))
        suite.timestamp = _text(record.provenance.created)
        for row in gate.rows:
            if row.target == name:
                suite.add_testcase(_case(row))
        document.add_testsuite(suite)
    document.update_statistics()
    content = document.tostring()
    text = content.decode() if isinstance(content, bytes) else str(content)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _case(row: GateRow) -> Any:
    from junitparser import Error, Failure, TestCase

    case = TestCase(_text(row.metric), classname=_text(f"dpaudit.{row.target or 'record'}"), time=0.0)
    measured = gate_number(row.metric, row.measured, row.bound)
    limit = "none" if row.limit is None else gate_number(row.metric, row.limit, "")
    detail = _text(
        f"{row.status}: {row.reason}\n{row.bound or 'no'} bound {measured}, limit {limit}"
        f"{f', set at {row.location}' if row.location else ''}{f'. {row.waiver}' if row.waiver else ''}"
    )
    if row.status is GateStatus.FAIL:
        result: Any = Failure(_text(row.reason), "gate")
    elif row.status in (GateStatus.INCONCLUSIVE, GateStatus.NOT_RUN):
        result = Error(_text(row.reason), str(row.status))
    else:
        case.system_out = detail
        return case
    result.text = detail
    case.result = [result]
    return case


def _text(text: str) -> str:
    """Drop what XML 1.0 has no way to write."""
    return "".join(
        char
        for char in text
        if char in "\t\n\r"
        or 0x20 <= ord(char) <= 0xD7FF
        or 0xE000 <= ord(char) <= 0xFFFD
        or ord(char) > 0xFFFF
    )
