"""Two records are compared where that means something, and it is said why where it does not."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from dpaudit.claim import Adjacency
from dpaudit.cli import app
from dpaudit.comparison import SEPARATE_DOWN, SEPARATE_UP, TOGETHER, Row, compare, relation
from dpaudit.errors import UsageError
from dpaudit.estimate import Rate
from dpaudit.plan import read
from dpaudit.record import RECORD_NAME, AuditRecord, dump
from dpaudit.repetition import job_of, repetition
from dpaudit.run import Job, run
from tests.sample_record import CLAIM, quiet_record, with_target


def dpaudit(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in arguments])


def row(one: AuditRecord, two: AuditRecord, metric: str, start: str = "") -> Row:
    return next(
        r
        for r in compare(one, two).rows
        if (r.target, r.metric) == ("private", metric) and r.source.startswith(start)
    )


def private(record: AuditRecord):
    return next(target for target in record.targets if target.name == "private")


def test_a_record_is_equal_to_itself():
    found = compare(quiet_record(), quiet_record())
    assert all(r.comparable for r in found.rows) and not found.notes
    assert {r.word for r in found.rows} <= {"equal", "no data"}


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        (replace(CLAIM, delta=1e-6), "at delta 1e-05 and 1e-06"),
        (replace(CLAIM, unit="user"), "per record and per user"),
        (replace(CLAIM, adjacency=Adjacency.REPLACE_ONE), "add-remove and replace-one"),
        (None, "one of them has no claim"),
    ],
)
def test_claims_about_different_things_are_not_compared(claim, why):
    other = with_target(quiet_record(), "private", claim=claim)
    found = row(quiet_record(), other, "epsilon")
    assert not found.comparable and found.word == f"not comparable: {why}"
    assert not [
        r for r in compare(quiet_record(), other).rows if (r.target, r.metric) == ("private", "epsilon_lower")
    ]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"alpha": 0.01}, "at confidence 0.9833 and 0.99"),
        ({"delta": 1e-6}, "at delta 1e-05 and 1e-06"),
        ({"method": "guesswork"}, "method"),
    ],
)
def test_bounds_of_another_level_delta_or_method_are_not_compared(changes, why):
    target = private(quiet_record())
    estimates = (replace(target.estimates[0], **changes), *target.estimates[1:])
    other = with_target(quiet_record(), "private", estimates=estimates)
    found = row(quiet_record(), other, "epsilon_lower", "replay")
    assert not found.comparable and why in found.word
    assert row(quiet_record(), other, "epsilon_lower", "step-canary").comparable


def test_a_claim_with_another_epsilon_is_compared():
    other = with_target(quiet_record(), "private", claim=replace(CLAIM, epsilon=4.0))
    found = row(quiet_record(), other, "epsilon_claimed")
    assert (found.before, found.after, found.word) == (5.5, 4.0, "lower")


def rate(value: float, half: float | None) -> Rate:
    ends = (None, None) if half is None else (value - half, value + half)
    return Rate(name="auc", value=value, lower=ends[0], upper=ends[1], alpha=0.05, source="lira")


@pytest.mark.parametrize(
    ("one", "two", "word"),
    [
        (rate(0.5, 0.1), rate(0.8, 0.1), SEPARATE_UP),
        (rate(0.8, 0.1), rate(0.5, 0.1), SEPARATE_DOWN),
        (rate(0.5, 0.1), rate(0.65, 0.1), TOGETHER),
        (rate(0.5, 0.1), rate(0.5, 0.1), "equal"),
        (rate(0.5, None), rate(0.9, 0.1), "not told apart: no interval"),
        (rate(math.nan, None), rate(0.9, 0.1), "no data"),
    ],
)
def test_rates_are_told_apart_where_their_intervals_are(one, two, word):
    assert relation(one, two) == word


def test_a_target_and_a_rate_that_only_one_record_has_are_named():
    one = quiet_record()
    two = replace(with_target(one, "private", rates=()), targets=(replace(one.targets[0], rates=()),))
    found = compare(one, two)
    assert "only the first record has this target" in next(r.word for r in found.rows if r.target == "plain")
    assert "only the first record has it" in row(one, two, "auc").word


def test_what_differs_in_the_making_is_said():
    source = quiet_record().provenance
    other = replace(
        quiet_record(), provenance=replace(source, code_sha256="9" * 64, seed=7, data_sha256="8" * 64)
    )
    notes = " ".join(compare(quiet_record(), other).notes)
    assert "code differs" in notes and "seed differs: 20251103 and 7" in notes and "data differs" in notes
    salted = replace(other, provenance=replace(other.provenance, salted=True))
    assert "not known to be the same" in " ".join(compare(quiet_record(), salted).notes)


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    worse = with_target(quiet_record(), "private", claim=replace(CLAIM, epsilon=math.inf))
    for name, record in (("a", quiet_record()), ("b", worse)):
        (tmp_path / name).mkdir()
        (tmp_path / name / RECORD_NAME).write_bytes(dump(record))
    return tmp_path / "a", tmp_path / "b"


def test_the_command_line_compares(folders):
    a, b = folders
    assert dpaudit("diff", a, a).exit_code == 0
    found = dpaudit("diff", a, b)
    assert found.exit_code == 0 and "epsilon_claimed" in found.output and "higher" in found.output
    rows = json.loads(dpaudit("diff", a, b, "--json").output)["rows"]
    assert next(r for r in rows if r["metric"] == "epsilon_claimed")["after"] == "Infinity"


def test_records_that_have_nothing_in_common_end_with_3(folders, tmp_path):
    target = replace(private(quiet_record()), name="other")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / RECORD_NAME).write_bytes(dump(replace(quiet_record(), targets=(target,))))
    found = dpaudit("diff", folders[0], tmp_path / "c")
    assert found.exit_code == 3 and "not comparable" in found.output


def test_a_repetition_counts_what_differs_beyond_rounding(tmp_path):
    target = private(quiet_record())
    bound = replace(target.estimates[0], epsilon_lower=5.45 * (1 + 1e-9))
    close = with_target(quiet_record(), "private", estimates=(bound, *target.estimates[1:]))
    (tmp_path / RECORD_NAME).write_bytes(dump(close))
    assert repetition(quiet_record(), tmp_path).exit_code == 0
    strict = repetition(quiet_record(), tmp_path, tolerance=0.0)
    assert strict.exit_code == 1 and [r.metric for r in strict.differing] == ["epsilon_lower"]
    lost = replace(close, trials=(replace(close.trials[0], status="lost"), *close.trials[1:]))
    (tmp_path / RECORD_NAME).write_bytes(dump(lost))
    assert repetition(quiet_record(), tmp_path).exit_code == 4


def test_what_is_no_record_of_a_run_is_refused(tmp_path):
    other = replace(
        quiet_record(), provenance=replace(quiet_record().provenance, command="dpaudit trace x.py")
    )
    with pytest.raises(UsageError, match=r"dpaudit trace x\.py"):
        job_of(other, tmp_path, tmp_path / "new", None)


PLAN = """
[compute]
engine = "inline"
[[targets]]
name = "own"
train = "own:fit"
claim = { epsilon = 1.0 }
[attacks.loss-threshold]
"""
OWN = """
import numpy as np
def fit(x, y, *, seed, device):
    return lambda raw: raw[:, :10] * FACTOR
"""


@pytest.mark.slow
def test_an_audit_is_reproduced_and_a_changed_one_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text(PLAN)
    (tmp_path / "own.py").write_text(OWN.replace("FACTOR", "1"))
    plan, text = read(Path("plan.toml"))
    list(
        run(
            Job(
                plan=plan,
                plan_text=text,
                plan_folder=tmp_path,
                out=tmp_path / "first",
                command="dpaudit run plan.toml --out first",
            )
        )
    )
    before = {p: p.read_bytes() for p in (tmp_path / "first").rglob("*") if p.is_file()}
    again = dpaudit("reproduce", "first", "--out", "second", "--json")
    assert again.exit_code == 0, again.output
    found = json.loads(again.output)
    assert found["status"] == "REPRODUCED" and found["compared"] >= 3 and found["notes"] == []
    assert {p: p.read_bytes() for p in (tmp_path / "first").rglob("*") if p.is_file()} == before
    (tmp_path / "first/record.json").write_bytes(
        (tmp_path / "first/record.json").read_bytes().replace(b'"test_accuracy": 0.', b'"test_accuracy": 0.9')
    )
    changed = dpaudit("reproduce", "first", "--out", "second")
    assert changed.exit_code == 1 and "test_accuracy" in changed.output, changed.output
    assert (tmp_path / "second/record.json").exists()
