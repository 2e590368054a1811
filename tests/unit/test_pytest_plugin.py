"""`assert_private` in pytest: what passes, what fails with which two lines, and with which options."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dpaudit.errors import UsageError
from dpaudit.privacy_tests import AssertPrivate
from dpaudit.record import RECORD_NAME, dump
from dpaudit.verdict import Status, Verdict
from tests.sample_record import quiet_record, sample_record, with_target

ROOT = Path(__file__).parents[2]
CLAIM = {
    "epsilon": 1,
    "domain": "list(float(0, 10))",
}


def good(data, rng):
    return len(data) + int(rng.geometric(1 - np.exp(-1))) - int(rng.geometric(1 - np.exp(-1)))


def bad(data, rng):
    return float(len(data))


def mute(data, rng):
    return None


RECORDS = """
import pytest

@pytest.mark.parametrize("name", ["rc/one", "rc/two"])
def test_record(assert_private, name):
    assert_private(name)

@pytest.mark.privacy
def test_marked():
    pass

def test_other():
    pass
"""


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "pytest", "-p", "dpaudit.pytest_plugin", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, "--strict-markers", "-q", *options], cwd=folder, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "test_records.py").write_text(RECORDS)
    for name in ("one", "two"):
        (tmp_path / "rc" / name).mkdir(parents=True)
        record = quiet_record() if name == "one" else sample_record()
        (tmp_path / "rc" / name / RECORD_NAME).write_bytes(dump(record))
    return tmp_path


def quick(**changes):
    from dpaudit.mechanism import Settings

    return {**CLAIM, "settings": Settings(samples=4000, examples=12, seconds=3.0), **changes}


def test_a_function_that_keeps_its_claim_passes():
    check = AssertPrivate()
    assert check(good, **quick()).verdict.status is Status.NOT_REFUTED
    assert [found.status for found in check.found] == ["NOT REFUTED"]
    assert json.loads(check.document())[0]["subject"] == "good"


@pytest.mark.parametrize(
    ("function", "first", "second"),
    [
        (bad, "REFUTED: bad: epsilon is at least", "1-DP is claimed; the ceiling was"),
        (mute, "INCONCLUSIVE: mute: It put out the same", "1-DP is claimed; the ceiling"),
    ],
)
def test_what_is_refuted_or_mute_fails_with_two_lines(function, first, second):
    with pytest.raises(AssertionError) as caught:
        AssertPrivate()(function, **quick())
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(first) and lines[1].startswith(second)


def test_a_test_of_records_fails_with_two_lines_and_tells_all(folder):
    done = run(folder, "test_records.py", "--privacy-out=found", "--tb=short")
    assert "1 failed, 3 passed" in done.stdout, done.stdout + done.stderr
    lines = [line[4:] for line in done.stdout.splitlines() if line.startswith("E   ")]
    assert len(lines) == 2 and lines[0].startswith("AssertionError: FAIL: Digits")
    assert "gate ends with 1; the ceiling was unbounded" in lines[1]
    summary = done.stdout.partition("= privacy =")[2]
    assert "PASS: Digits" in summary and "FAIL: Digits" in summary
    files = [json.loads(path.read_text())[0]["status"] for path in (folder / "found").iterdir()]
    assert sorted(files) == ["FAIL", "PASS"]


def test_tests_are_skipped_or_judged_by_what_is_asked_for(folder):
    assert "1 passed, 3 skipped" in run(folder, "test_records.py", "--no-privacy").stdout
    (folder / "hard.toml").write_text("[gate.profiles.hard]\nauc = 0.1\n")
    hard = ("--privacy-policy=hard.toml", "--privacy-profile=hard")
    done = run(folder, "test_records.py", "-m", "privacy", *hard)
    assert "2 failed, 1 passed, 1 deselected" in done.stdout and "above the limit 0.1" in done.stdout


def test_workers_write_each_their_own_file_and_all_are_told(folder):
    done = run(folder, "test_records.py", "-p", "xdist", "-n", "2", "--privacy-out=found")
    assert "1 failed, 3 passed" in done.stdout, done.stdout + done.stderr
    assert len(list((folder / "found").iterdir())) == 2
    assert done.stdout.partition("= privacy =")[2].count("Digits") >= 2


def test_the_plugin_imports_nothing_heavy():
    heavy = "[m for m in ('numpy', 'torch', 'typer') if m in sys.modules]"
    command = [sys.executable, "-c", f"import sys, dpaudit.pytest_plugin; print({heavy})"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_inconclusive_record_fails_with_its_ceiling():
    verdict = Verdict(status=Status.INCONCLUSIVE, reason="The ceiling 3.28 is below the claim of 5.50.")
    weak = replace(quiet_record().targets[0].estimates[2], ceiling=3.28)
    record = with_target(quiet_record(), "private", verdict=verdict, estimates=(weak,))
    with pytest.raises(AssertionError) as caught:
        AssertPrivate()(record)
    first, second = str(caught.value).splitlines()
    assert first.startswith("INCONCLUSIVE") and "the ceiling was 3.28" in second


def test_a_record_takes_no_claim():
    with pytest.raises(UsageError, match="epsilon="):
        AssertPrivate()(quiet_record(), epsilon=3)


def test_options_set_how_hard_to_look(monkeypatch):
    seen = []

    def fake(mechanism, **given):
        seen.append(given["settings"])
        raise UsageError("enough")

    monkeypatch.setattr("dpaudit.mechanism.audit_mechanism", fake)
    with pytest.raises(UsageError, match="enough"):
        AssertPrivate(samples=1234, seed=7)(len, epsilon=1)
    assert (seen[0].samples, seen[0].seed) == (1234, 7)
