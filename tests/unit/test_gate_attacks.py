"""Records and policies made to pass: what contradicts itself, or is no number, lets nothing through."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dpaudit.baseline import Baseline, measured
from dpaudit.cli import app
from dpaudit.errors import UsageError
from dpaudit.evidence import Access
from dpaudit.gate import evaluate, parse_policy
from dpaudit.record import RECORD_NAME, AuditRecord, GateStatus, dump, load
from dpaudit.reports import markdown, sarif, trend
from dpaudit.verdict import Status, Verdict
from tests.sample_record import CLAIM, quiet_record, sample_record, with_target

TODAY = date(2026, 1, 5)
FORGED = Verdict(status=Status.NOT_REFUTED, reason="Nothing to see.")


def gated(text: str, record: AuditRecord) -> int:
    return evaluate(record, parse_policy(text, Path("dpaudit.toml")), today=TODAY).exit_code


def private(**changes: Any) -> AuditRecord:
    return with_target(quiet_record(), "private", **changes)


def estimates(**changes: Any) -> AuditRecord:
    return private(estimates=tuple(replace(e, **changes) for e in quiet_record().targets[0].estimates))


def rates(**changes: Any) -> AuditRecord:
    return private(rates=tuple(replace(r, **changes) for r in quiet_record().targets[0].rates))


def test_a_verdict_that_its_own_findings_contradict_does_not_pass():
    forged = with_target(sample_record(), "broken", verdict=FORGED)
    result = evaluate(forged, today=TODAY)
    assert result.exit_code == 1 and "contradicts itself" in result.reason
    assert evaluate(with_target(forged, "broken", findings=(), estimates=()), today=TODAY).exit_code == 0


def test_a_record_that_is_unlike_its_own_plan_does_not_pass():
    quiet = quiet_record()
    roles = [{"name": each.name, "role": each.role} for each in quiet.targets]
    planned = replace(quiet, plan={"targets": roles})
    assert evaluate(planned, today=TODAY).exit_code == evaluate(quiet, today=TODAY).exit_code == 0
    for changed, code in (
        (replace(planned, trials=()), 4),
        (replace(planned, trials=tuple(t for t in quiet.trials if t.target != "private")), 4),
        (replace(planned, targets=quiet.targets[1:]), 3),
        (with_target(planned, "private", role="control"), 1),
    ):
        assert evaluate(changed, today=TODAY).exit_code == code


@pytest.mark.parametrize("epsilon", [5.6, math.inf, math.nan])
def test_a_verdict_that_its_own_bounds_contradict_does_not_pass(epsilon: float):
    assert evaluate(estimates(epsilon_lower=epsilon), today=TODAY).exit_code == 1
    assert evaluate(estimates(epsilon_lower=epsilon, guarantee=False), today=TODAY).exit_code == 0


def test_a_bound_of_a_release_contradicts_only_with_its_test():
    loud = {"epsilon_lower": 5.6, "access": Access.RELEASE, "alpha": 0.01}
    assert evaluate(estimates(**loud, p_value=0.4), today=TODAY).exit_code == 0
    assert evaluate(estimates(**loud, p_value=0.001), today=TODAY).exit_code == 1


@pytest.mark.parametrize("epsilon", [None, 0.1, math.inf])
def test_any_finding_contradicts_a_quiet_verdict_with_or_without_a_claim(epsilon: float | None):
    finding = replace(sample_record().targets[1].findings[0], epsilon=epsilon)
    assert evaluate(private(findings=(finding,)), today=TODAY).exit_code == 1
    assert evaluate(private(findings=(finding,), claim=None), today=TODAY).exit_code == 1
    assert evaluate(private(claim=None), today=TODAY).exit_code == 0


def test_a_role_that_nobody_knows_is_judged():
    odd = with_target(sample_record(), "broken", role="retired")
    assert evaluate(odd, today=TODAY).exit_code == 1
    assert gated("[gate]\nauc = 0.1\n", private(role="Audited")) == 1


@pytest.mark.parametrize("status", ["crashed", "", "FINISHED"])
def test_a_trial_passes_by_being_finished_only(status: str):
    record = quiet_record()
    trials = (replace(record.trials[0], status=status), *record.trials[1:])
    assert evaluate(replace(record, trials=trials), today=TODAY).exit_code == 4


@pytest.mark.parametrize(
    ("policy", "record"),
    [
        ("auc = 0.9", rates(upper=math.nan)),
        ('auc = { limit = 0.9, bound = "lower" }', rates(lower=math.nan)),
        ("auc = 0.9", rates(value=math.nan)),
        ("ceiling = 1.0", estimates(ceiling=math.nan)),
        ("detectable = 100.0", estimates(detectable=math.nan)),
        ("epsilon_lower = 6.0", estimates(ceiling=math.nan)),
        ("epsilon_claimed = 8.0", private(recomputed=tuple(
            replace(row, epsilon=math.nan) for row in quiet_record().targets[0].recomputed
        ))),
        ("test_accuracy = 0.1", private(test_accuracy=math.nan)),
    ],
)  # fmt: skip
def test_what_is_no_number_never_passes(policy: str, record: AuditRecord):
    assert gated(f"[gate]\n{policy}\n", quiet_record()) == 0 or "detectable" in policy
    assert gated(f"[gate]\n{policy}\n", record) == 3


@pytest.mark.parametrize("number", ["nan", "inf", "-1", "1e300", "1" + "0" * 400, "9" * 5000, "[" * 5000])
def test_absurd_limits_are_wrong_usage(number: str):
    with pytest.raises(UsageError, match="Expected"):
        parse_policy(f"[gate]\nepsilon_claimed = {number}\n", Path("dpaudit.toml"))


def test_an_empty_baseline_warns():
    result = evaluate(quiet_record(), baseline=Baseline(entries=()), today=TODAY)
    assert (result.status, result.exit_code) == (GateStatus.WARN, 0)
    assert evaluate(
        quiet_record(), parse_policy("[gate]\nstrict = true\n", Path("x.toml")), today=TODAY,
        baseline=Baseline(entries=()),
    ).exit_code == 1  # fmt: skip


def test_a_baseline_holds_finite_numbers_only():
    unbounded = private(claim=replace(CLAIM, epsilon=math.inf))
    assert {e.metric for e in measured(quiet_record())} - {e.metric for e in measured(unbounded)} == {
        "epsilon_claimed"
    }


def with_own_policy(folder: Path) -> Path:
    text = "[gate]\nauc = 0.99\n"
    record = replace(quiet_record(), plan={"gate": {"auc": 0.99}}, plan_toml=text)
    (folder / RECORD_NAME).write_bytes(dump(record))
    return folder


@pytest.mark.parametrize(
    ("policy", "options", "code"),
    [
        ("", [], 0),
        ("[gate.profiles.ci]\nauc = 0.501\n", ["--profile", "ci"], 1),
        ("[gate]\nstrict = true\nauc = { limit = 0.9, warn = 0.5 }\n", [], 1),
        ("[gate.profiles.tight]\nauc = 0.501\n", ["--profile", "tight"], 1),
    ],
)
def test_a_record_does_not_bring_its_own_policy_where_the_folder_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, options: list[str], code: int
):
    with_own_policy(tmp_path)
    (tmp_path / "dpaudit.toml").write_text(policy)
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["gate", ".", *options]).exit_code == code


def test_half_a_pair_of_surrogates_is_wrong_usage(tmp_path: Path):
    document = json.loads(dump(quiet_record()))
    document["title"] = "odd \ud800 title"
    (tmp_path / RECORD_NAME).write_text(json.dumps(document))
    with pytest.raises(UsageError, match="surrogates"):
        load(tmp_path)
    document["title"] = "whole \U0001f600 title"
    (tmp_path / RECORD_NAME).write_text(json.dumps(document))
    assert load(tmp_path).title == document["title"]


def test_a_step_summary_that_cannot_be_written_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / RECORD_NAME).write_bytes(dump(quiet_record()))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    result = CliRunner().invoke(app, ["gate", str(tmp_path)])
    assert isinstance(result.exception, UsageError)


def test_names_make_no_links_in_sarif():
    record = quiet_record()
    name = "[click](https://example.org)"
    record = replace(record, targets=(replace(record.targets[0], name=name),))
    text = sarif.render(record, evaluate(record, parse_policy("[gate]\nauc = 0.1\n", Path("x"))), "r")
    assert "[click]" in text and "](https" not in text


def test_names_neither_reorder_nor_colour_a_step_summary():
    record = replace(quiet_record(), title="one \x1b[31m two \u202e three")
    command = replace(record.provenance, command="run \u202e \x1b]0;x\x07")
    text = markdown.render(replace(record, provenance=command))
    assert "three" in text and not any(char in text for char in "\x1b\x07\u202e")


@pytest.mark.parametrize(
    ("metric", "own", "profile", "limit"),
    [
        ("auc", 0.58, 0.55, 0.55),
        ("auc", 0.58, 0.6, 0.58),
        ("ceiling", 3.0, 8.0, 8.0),
        ("ceiling", 8.0, 3.0, 8.0),
    ],
)
def test_a_profile_is_not_loosened_by_the_limit_of_a_target(
    metric: str, own: float, profile: float, limit: float
):
    text = f"[gate.targets.private]\n{metric} = {own}\n[gate.profiles.release]\n{metric} = {profile}\n"
    found = parse_policy(text, Path("dpaudit.toml"), "release").thresholds
    assert [t.limit for t in found if t.target == "private"] == [limit]
    assert [t.limit for t in found if t.target is None] == [profile]


def test_a_control_that_was_not_refuted_is_not_caught():
    name = next(target.name for target in quiet_record().targets if target.role == "control")
    assert evaluate(with_target(quiet_record(), name, caught=True), today=TODAY).exit_code == 0
    forged = with_target(quiet_record(), name, caught=True, verdict=FORGED)
    assert evaluate(forged, today=TODAY).exit_code == 3


def test_a_folder_of_any_name_is_a_release(tmp_path: Path):
    folder = tmp_path / os.fsdecode(b"rc\xff $\\bad{$")
    folder.mkdir()
    (folder / RECORD_NAME).write_bytes(dump(quiet_record()))
    found = trend.releases(tmp_path)
    assert "rc?" in trend.render(found, title=folder.name).encode().decode()
