"""Profiles, strictness, floors, baselines and the files that a gate writes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from dpaudit.baseline import Baseline, load_baseline, measured, ratcheted, rows
from dpaudit.cli import app
from dpaudit.errors import UsageError
from dpaudit.gate import evaluate
from dpaudit.policy import parse_policy
from dpaudit.record import RECORD_NAME, AuditRecord, GateStatus, dump
from dpaudit.reports import sarif
from tests.sample_record import CLAIM, quiet_record, sample_record, with_target

TODAY = date(2026, 1, 5)
POLICY = """[gate]
auc = 0.6
epsilon_claimed = 8.0

[gate.profiles.release]
auc = 0.55
"tpr_at_fpr_0.01" = { limit = 0.5, warn = 0.001 }

[gate.profiles.nightly]
strict = true
test_accuracy = 0.99

[gate.profiles.nightly.targets.private]
auc = 0.5
"""


def status(text: str, metric: str, record: AuditRecord | None = None, profile: str = "") -> GateStatus:
    policy = parse_policy(text, Path("dpaudit.toml"), profile)
    result = evaluate(record or quiet_record(), policy, today=TODAY)
    return next(r.status for r in result.rows if (r.metric, r.target) == (metric, "private"))


def limits(profile: str) -> dict[str, tuple[float, str]]:
    policy = parse_policy(POLICY, Path("dpaudit.toml"), profile)
    return {t.metric: (t.limit, t.location) for t in policy.thresholds}


def test_a_profile_replaces_limits_of_the_same_metric_and_keeps_the_others():
    assert limits("") == {"auc": (0.6, "dpaudit.toml:2"), "epsilon_claimed": (8.0, "dpaudit.toml:3")}
    release = limits("release")
    assert release["auc"] == (0.55, "dpaudit.toml:6") and release["epsilon_claimed"][0] == 8.0
    assert release["tpr_at_fpr_0.01"] == (0.5, "dpaudit.toml:7")
    nightly = parse_policy(POLICY, Path("dpaudit.toml"), "nightly").thresholds
    assert [(t.metric, t.target) for t in nightly][-1] == ("auc", "private")
    assert limits("ci") == limits("")


@pytest.mark.parametrize(
    ("profile", "strict"), [("", False), ("ci", False), ("release", True), ("nightly", True)]
)
def test_a_release_is_strict_unless_it_says_otherwise(profile, strict):
    assert parse_policy(POLICY, Path("p.toml"), profile).strict is strict
    lenient = POLICY.replace("[gate.profiles.release]", "[gate.profiles.release]\nstrict = false")
    assert parse_policy(lenient, Path("p.toml"), "release").strict is False


@pytest.mark.parametrize(
    ("text", "profile", "hint"),
    [
        (POLICY, "relase", "'release'"),
        (POLICY.replace("nightly", "nigthly"), "nightly", "'nigthly'"),
        ("[gate]\nstrict = 1\n", "", "true or false"),
        ("[gate.profiles.ci]\nacu = 0.5\n", "ci", "'auc'"),
        ("[gate.profiles]\nci = 3\n", "", "NAME"),
        ("[gate]\ntest_accuracy = { limit = 0.9, warn = 0.8 }\n", "", "warn=0.8 >= limit"),
        ("[gate]\nceiling = { limit = 9.0, bound = 'upper' }\n", "", "bound"),
    ],
)
def test_a_mistake_in_a_profile_is_named(text, profile, hint):
    with pytest.raises(UsageError) as caught:
        evaluate(quiet_record(), parse_policy(text, Path("p.toml"), profile), today=TODAY)
    assert hint in str(caught.value) and caught.value.exit_code == 2


def test_what_warns_fails_where_it_is_strict():
    for strict, expected in ((False, (GateStatus.WARN, 0)), (True, (GateStatus.FAIL, 1))):
        text = "[gate]\nauc = {limit = 0.9, warn = 0.1}"
        policy = replace(parse_policy(text, Path("p.toml")), strict=strict)
        result = evaluate(quiet_record(), policy, today=TODAY)
        assert (result.status, result.exit_code) == expected
        without = replace(quiet_record(), targets=quiet_record().targets[:1])
        assert evaluate(without, replace(policy, thresholds=()), today=TODAY).exit_code == expected[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("test_accuracy = 0.9", GateStatus.PASS),
        ("test_accuracy = 0.95", GateStatus.FAIL),
        ("test_accuracy = {limit = 0.9, warn = 0.92}", GateStatus.WARN),
        ("train_accuracy = 0.9", GateStatus.FAIL),
        ("train_accuracy = 0.95", GateStatus.PASS),
        ("ceiling = 100.0", GateStatus.PASS),
        ("detectable = 9.2", GateStatus.PASS),
        ("detectable = 9.0", GateStatus.FAIL),
    ],
)
def test_power_and_accuracy_can_be_limited(text, expected):
    assert status(f"[gate]\n{text}\n", text.partition(" ")[0]) is expected


def test_what_was_not_measured_never_passes():
    bare = with_target(quiet_record(), "private", estimates=(), test_accuracy=None)
    for metric in ("ceiling", "detectable", "test_accuracy"):
        assert status(f"[gate]\n{metric} = 0.5\n", metric, bare) is GateStatus.NOT_RUN
    weak = replace(quiet_record().targets[0].estimates[2], ceiling=3.0)
    weaker = with_target(quiet_record(), "private", estimates=(weak,))
    assert status("[gate]\nceiling = 5.5\n", "ceiling", weaker) is GateStatus.FAIL


def moved(record: AuditRecord, by: float) -> AuditRecord:
    target = record.targets[0]
    rates = tuple(
        replace(r, value=r.value + by, lower=r.lower + by, upper=r.upper + by)
        if r.name == "auc" and r.lower is not None
        else r
        for r in target.rates
    )
    return with_target(record, target.name, rates=rates)


def judged(record: AuditRecord, before: Baseline) -> dict[str, GateStatus]:
    return {f"{r.metric} {r.source}": r.status for r in rows(record, before)}


def test_a_rate_is_worse_only_where_intervals_separate():
    before = Baseline(entries=measured(quiet_record()), file="b.json")
    assert set(judged(quiet_record(), before).values()) == {GateStatus.PASS}
    assert judged(moved(quiet_record(), 0.05), before)["baseline:auc lira"] is GateStatus.PASS
    assert judged(moved(quiet_record(), 0.07), before)["baseline:auc lira"] is GateStatus.FAIL
    result = evaluate(moved(quiet_record(), 0.07), today=TODAY, baseline=before)
    assert (result.status, result.exit_code) == (GateStatus.FAIL, 1)


def test_what_can_no_longer_be_compared_does_not_pass():
    before = Baseline(entries=measured(quiet_record()))
    without = with_target(quiet_record(), "private", rates=())
    assert judged(without, before)["baseline:auc lira"] is GateStatus.NOT_RUN
    assert evaluate(without, today=TODAY, baseline=before).exit_code == 3
    other = with_target(quiet_record(), "private", claim=replace(CLAIM, delta=1e-6))
    assert judged(other, before)["baseline:epsilon_claimed "] is GateStatus.NOT_RUN
    higher = with_target(quiet_record(), "private", claim=replace(CLAIM, epsilon=6.0))
    assert judged(higher, before)["baseline:epsilon_claimed "] is GateStatus.FAIL


def test_a_baseline_is_lowered_where_intervals_separate_and_never_raised():
    first = ratcheted(quiet_record(), None)
    auc = ("private", "auc", "lira", "all")

    def value(of: Baseline) -> float:
        return next(e.value for e in of.entries if e.key == auc)

    assert value(ratcheted(moved(quiet_record(), 0.2), first)) == value(first)
    assert value(ratcheted(moved(quiet_record(), -0.05), first)) == value(first)
    assert value(ratcheted(moved(quiet_record(), -0.07), first)) == pytest.approx(value(first) - 0.07)
    assert not any(entry.target == "plain" for entry in first.entries)


def test_a_baseline_is_read_as_it_was_written(tmp_path):
    first = ratcheted(quiet_record(), None)
    (tmp_path / "b.json").write_bytes(first.dump())
    assert set(load_baseline(tmp_path / "b.json").entries) == set(first.entries)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"format": 2, "entries": []}', b'{"format": 1, "entries": [{}]}']
)
def test_a_damaged_baseline_is_refused(tmp_path, content):
    (tmp_path / "b.json").write_bytes(content)
    with pytest.raises(UsageError, match="Expected a baseline"):
        load_baseline(tmp_path / "b.json")


def test_sarif_is_anchored_at_the_line_of_the_policy():
    text = "[gate]\nauc = 0.52\nepsilon_claimed = { limit = 9, warn = 5 }\n"
    result = evaluate(sample_record(), parse_policy(text, Path("ci/da paudit.toml")), today=TODAY)
    document = json.loads(sarif.render(sample_record(), result, "audits/x/record.json"))
    assert document["version"] == "2.1.0"
    (run,) = document["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    found = {(r["ruleId"], r["message"]["text"].split(" of ")[1].split(".")[0]): r for r in run["results"]}
    place = found["auc", "private"]["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "ci/da%20paudit.toml"}, "region": {"startLine": 2}}
    assert found["auc", "private"]["level"] == "error"
    assert found["epsilon_claimed", "private"]["level"] == "warning"
    assert all(rules[r["ruleIndex"]] == r["ruleId"] for r in run["results"])
    assert len({r["partialFingerprints"]["dpauditGate/v1"] for r in run["results"]}) == len(run["results"])
    alone = evaluate(sample_record(), today=TODAY)
    (verdict, *_) = json.loads(sarif.render(sample_record(), alone, "a/record.json"))["runs"][0]["results"]
    assert verdict["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "a/record.json"


def dpaudit(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in arguments])


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    (tmp_path / "rc").mkdir()
    (tmp_path / "rc" / RECORD_NAME).write_bytes(dump(quiet_record()))
    return tmp_path


def test_the_command_line_knows_profiles_strictness_and_exit_zero(folder):
    (folder / "dpaudit.toml").write_text(POLICY)
    assert dpaudit("gate", "rc").exit_code == 0
    assert dpaudit("gate", "rc", "--profile", "release").exit_code == 1
    assert dpaudit("gate", "rc", "--profile", "release", "--exit-zero").exit_code == 0
    told = json.loads(dpaudit("gate", "rc", "--profile", "nightly", "--json").output)
    assert (told["gate"]["profile"], told["gate"]["exit_code"]) == ("nightly", 1)
    for wrong in (("--profile", "relase"), ("--ratchet",), ("--baseline", "none.json")):
        caught = dpaudit("gate", "rc", *wrong, "--exit-zero").exception
        assert isinstance(caught, UsageError) and caught.exit_code == 2


def test_a_profile_of_the_plan_is_found(folder):
    text = "[gate]\nauc = 0.9\n[gate.profiles.hard]\nauc = 0.1\n"
    record = replace(quiet_record(), plan={"gate": {"auc": 0.9}}, plan_toml=text)
    (folder / "rc" / RECORD_NAME).write_bytes(dump(record))
    assert dpaudit("gate", "rc").exit_code == 0
    assert dpaudit("gate", "rc", "--profile", "hard").exit_code == 1
    assert dpaudit("gate", "rc", "--strict").exit_code == 0


def test_the_command_line_ratchets(folder):
    assert dpaudit("gate", "rc", "--baseline", "b.json", "--ratchet").exit_code == 0
    first = load_baseline(folder / "b.json")
    (folder / "rc" / RECORD_NAME).write_bytes(dump(moved(quiet_record(), -0.07)))
    assert dpaudit("gate", "rc", "--baseline", "b.json", "--ratchet").exit_code == 0
    lower = load_baseline(folder / "b.json")
    assert lower != first
    (folder / "rc" / RECORD_NAME).write_bytes(dump(quiet_record()))
    worse = dpaudit("gate", "rc", "--baseline", "b.json", "--ratchet")
    assert worse.exit_code == 1 and "got worse" in " ".join(worse.output.split())
    assert load_baseline(folder / "b.json") == lower


def test_the_command_line_writes_what_is_asked_for(folder, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder / "summary.md"))
    names = ("--junit", "j.xml", "--sarif", "s.sarif", "--markdown", "m.md")
    assert dpaudit("gate", "rc", *names).exit_code == 0
    assert json.loads((folder / "s.sarif").read_text())["runs"][0]["results"] == []
    assert (folder / "m.md").read_text() == (folder / "summary.md").read_text() != ""
    assert (folder / "j.xml").read_text().startswith("<?xml")
