"""The verdict in a terminal, in Markdown, in JUnit and in JSON says the same, whatever the names are."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from dpaudit.claim import Adjacency
from dpaudit.gate import evaluate, parse_policy
from dpaudit.record import AuditRecord, GateResult
from dpaudit.reports import jsonview, junit, markdown, tables, target_tables, text, view
from tests.sample_record import quiet_record, sample_record, with_target

POLICY = """[gate]
reconstruction_success = 0.14
tpr_at_fpr_0.01 = { limit = 0.1, warn = 0.05 }
"""


def gated(record: AuditRecord) -> GateResult:
    return evaluate(record, parse_policy(POLICY, Path("dpaudit.toml")), today=date(2025, 11, 3))


def printed(record: AuditRecord, width: int = 140, gate: GateResult | None = None, **options: object) -> str:
    stream = io.StringIO()
    text.print_summary(record, Console(file=stream, width=width, **options), gate)  # type: ignore[arg-type]
    return stream.getvalue()


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_terminal_shows_every_target_with_its_numbers(width: int) -> None:
    shown = printed(sample_record(), width)
    for word in ("NOT REFUTED", "REFUTED", "CAUGHT", "5.50", "5.45", "unbounded", "no noise"):
        assert word in shown
    assert max(map(len, shown.splitlines())) <= width


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" in printed(sample_record(), force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in printed(sample_record(), force_terminal=True, color_system="standard")


def test_a_terminal_obeys_no_name() -> None:
    record = with_target(quiet_record(), "private", name="[red]\x1b[2J[/red][link=x]y")
    assert "\x1b" not in printed(record)
    assert "[red]" in printed(record)


def test_the_gates_are_listed_where_there_is_a_policy() -> None:
    shown = printed(sample_record(), gate=gated(sample_record()))
    assert "Gate: FAIL (exit 1)" in shown
    assert "dpaudit.toml:2" in shown


def test_missing_trials_are_said() -> None:
    record = quiet_record()
    lost = replace(record.trials[0], status="lost")
    assert "1 of 34 trials missing" in printed(replace(record, trials=(lost, *record.trials[1:])))


def test_markdown_has_one_row_per_target_and_gate() -> None:
    record = sample_record()
    shown = markdown.render(record, gated(record))
    assert shown.startswith("## REFUTED: The claim of broken does not hold.")
    assert "| **NOT REFUTED** | private | 5.50 | 5.45 |" in shown
    assert "### Gate: FAIL (exit 1)" in shown
    assert shown == markdown.render(record, gated(record))


def test_markdown_obeys_no_name() -> None:
    shown = markdown.render(with_target(quiet_record(), "private", name="a|b\n<script>[x](y)`*"))
    assert "<script>" not in shown
    row = next(line for line in shown.splitlines() if "a\\|b" in line and line.startswith("|"))
    assert "\\[x\\](y)\\`\\*" in row


def test_junit_counts_what_does_not_pass() -> None:
    record = sample_record()
    root = ElementTree.fromstring(junit.render(record, gated(record)).encode())
    result = gated(record)
    assert int(root.get("tests", "0")) == len(result.rows)
    assert int(root.get("failures", "0")) == sum(row.status == "FAIL" for row in result.rows)
    assert {suite.get("name") for suite in root} == {"private", "broken", "plain", "whole record"}


def test_junit_makes_no_data_an_error() -> None:
    record = with_target(quiet_record(), "private", rates=())
    root = ElementTree.fromstring(junit.render(record, gated(record)).encode())
    assert int(root.get("errors", "0")) == 2


def test_junit_survives_characters_that_xml_cannot_write() -> None:
    record = with_target(quiet_record(), "private", name="a\x00\x1b<b>&\ud800\u2028")
    root = ElementTree.fromstring(junit.render(record, gated(record)).encode())
    assert any("a<b>&" in (suite.get("name") or "") for suite in root)


def test_json_is_strict_and_knows_infinity_and_nothing() -> None:
    record = with_target(sample_record(), "private", estimates=())
    found = json.loads(
        jsonview.render(record, gated(record)), parse_constant=lambda _: pytest.fail("not JSON")
    )
    private, broken, _ = found["targets"]
    assert (private["ceiling"], broken["epsilon_lower"]) == (None, "Infinity")
    assert found["exit_code"] == found["gate"]["exit_code"] == 1
    assert float(broken["epsilon_lower"]) == math.inf


def test_the_ceiling_speaks_of_comparable_estimates_only() -> None:
    private = quiet_record().targets[0]
    other = replace(private.estimates[1], delta=1e-3, ceiling=1e6)
    bare = replace(private, estimates=(private.estimates[1], other))
    assert view.ceiling(bare) == private.estimates[1].ceiling


def test_a_narrow_terminal_has_the_reasons_below_the_table() -> None:
    record = sample_record()
    wide, narrow = (printed(record, width, gated(record)) for width in (160, 80))
    assert "Why" in wide and "Why" not in narrow
    below = narrow.partition("Trials")[2]
    assert "Verdict on the claim of broken: Replay: 2.bias received no noise" in " ".join(below.split())
    assert "The control was caught." not in narrow


def test_a_ceiling_of_another_adjacency_is_shown_with_its_name() -> None:
    private = quiet_record().targets[0]
    seen = replace(private.estimates[1], adjacency=Adjacency.REPLACE_ONE, ceiling=3.0, claimed_epsilon=10.7)
    (row, *_) = view.verdict_rows(with_target(quiet_record(), "private", estimates=(seen,)))
    assert row.ceiling == "3.00 (replace-one)"
    for ceiling, status in ((3.0, "TOO LOW"), (11.0, "HIGH ENOUGH")):
        target = replace(private, estimates=(replace(seen, ceiling=ceiling),))
        assert view.cards(target, quiet_record())[1].status == status
    blunt = replace(private, estimates=(replace(seen, ceiling=math.inf, detectable=200.0),))
    card = view.cards(blunt, quiet_record())[1]
    assert card.status == "NO POWER" and "200.0 is caught nine times in ten" in card.interval


def test_targets_of_which_the_same_is_said_share_a_row_of_coverage() -> None:
    rows = tables.coverage(sample_record()).rows
    assert ("step-canary", "RUN", "private, broken, plain", "step", "600 steps") in rows
    assert len(rows) == 5


def test_trials_are_counted_by_what_became_of_them() -> None:
    record = quiet_record()
    lost = replace(record.trials[0], status="lost", error="out of memory")
    odd = replace(record.trials[1], status="excluded")
    record = replace(record, trials=(lost, odd, *record.trials[2:]))
    counted = tables.trial_counts(record).rows[-1]
    assert counted[:6] == ("all targets", "34", "24", "8", "1", "1")
    assert [row[4] for row in tables.lost_trials(record).rows] == ["out of memory", "no message"]


def test_rates_come_worst_group_first() -> None:
    groups = [row[1] for row in target_tables.rates(quiet_record().targets[0], reconstruction=False).rows]
    assert groups.index("digit 8") < groups.index("all", 3)


def test_an_epsilon_of_another_adjacency_is_not_compared_with_the_claim() -> None:
    said = [row[-1] for row in target_tables.recomputed(quiet_record().targets[0]).rows]
    assert said == ["equal", "equal", "not comparable"]
