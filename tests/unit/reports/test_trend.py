"""Successive releases on one page: in order of time, the same bytes for the same records, without script."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dpaudit.cli import app
from dpaudit.errors import UsageError
from dpaudit.record import RECORD_NAME, AuditRecord, dump
from dpaudit.reports import trend
from dpaudit.verdict import Status, Verdict
from tests.sample_record import CLAIM, quiet_record, with_target


def release(number: int) -> AuditRecord:
    record = with_target(quiet_record(), "private", claim=replace(CLAIM, epsilon=5.0 + number))
    source = replace(record.provenance, created=f"2026-0{9 - number}-01T00:00:00Z")
    return replace(record, provenance=source)


@pytest.fixture
def folder(tmp_path) -> Path:
    for number in range(3):
        place = tmp_path / "audits" / f"rc{number}"
        place.mkdir(parents=True)
        (place / RECORD_NAME).write_bytes(dump(release(number)))
    return tmp_path / "audits"


def test_releases_are_in_order_of_time_and_controls_are_left_out(folder):
    found = trend.releases(folder)
    assert [item.name for item in found] == ["rc2", "rc1", "rc0"]
    document = trend.document(found)
    assert list(document) == ["private"]
    assert [row["epsilon_claimed"] for row in document["private"]] == [7.0, 6.0, 5.0]
    assert document["private"][0]["rates"]["tpr_at_fpr_0.01"]["slice"] == "digit 8"


def test_the_page_has_no_script_and_the_same_bytes(folder):
    page = trend.render(trend.releases(folder), title="audits")
    assert page == trend.render(trend.releases(folder), title="audits")
    assert "<script" not in page and "Content-Security-Policy" in page
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
    assert page.count("<svg") == 3 and "rc1" in page and "2026-07-01" in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_no_data_and_unbounded_are_told_apart(folder):
    verdict = Verdict(status=Status.REFUTED, reason="no noise", epsilon_lower=math.inf)
    worst = with_target(release(0), "private", verdict=verdict, rates=())
    (folder / "rc0" / RECORD_NAME).write_bytes(dump(worst))
    table = trend.table("private", trend.points(trend.releases(folder))["private"])
    assert "unbounded" in table.rows[-1] and table.rows[-1][-1] == "no data"
    assert "<svg" in trend.render(trend.releases(folder), title="x")


def test_names_from_records_are_text(folder):
    evil = with_target(release(0), "private", name="<b>x</b>")
    (folder / "rc0" / RECORD_NAME).write_bytes(dump(evil))
    page = trend.render(trend.releases(folder), title="<i>")
    assert "<b>" not in page and "<i>" not in page


def test_the_command_writes_the_page_and_tells_the_numbers(folder):
    runner = CliRunner()
    done = runner.invoke(app, ["trend", str(folder)])
    assert done.exit_code == 0 and "3 records" in done.output
    assert (folder / "trend.html").read_text().startswith("<!DOCTYPE html>")
    told = json.loads(runner.invoke(app, ["trend", str(folder), "--json"]).output)
    assert len(told["private"]) == 3
    empty = runner.invoke(app, ["trend", str(folder / "rc0" / "none")])
    assert isinstance(empty.exception, UsageError)
