"""What is going to be done is written down first, without telling the data to who can guess them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dpaudit.commitment import (
    COMMITMENT_NAME,
    SALT_NAME,
    Commitment,
    commit,
    counted,
    excluded,
    installed,
    read,
    salt_of,
)
from dpaudit.plan import parse
from dpaudit.record import RECORD_NAME, TrialRecord, dump, load
from dpaudit.run import Job, run
from tests.sample_record import quiet_record

DATA, DRAW = hashlib.sha256(b"data").hexdigest(), hashlib.sha256(b"draw").hexdigest()


def made(folder: Path, **changes: Any) -> Commitment:
    given = {
        "data": DATA, "draw": DRAW, "plan": "p" * 64, "policy": "", "code": "c" * 64, "seed": 3,
        "alpha": 0.05, "weights": {"lira": 1.0, "replay": 2.0}, "trials": ("a", "b"),
    }  # fmt: skip
    return commit(folder, **{**given, **changes})


def test_data_and_draw_are_hashed_with_a_salt_that_is_not_in_the_record(tmp_path):
    found, other = made(tmp_path / "one"), made(tmp_path / "two")
    text = (tmp_path / "one" / COMMITMENT_NAME).read_text()
    salt = salt_of(tmp_path / "one")
    assert salt is not None and salt not in text and DATA not in text and DRAW not in text
    assert found.data_sha256 == hashlib.sha256(bytes.fromhex(salt) + bytes.fromhex(DATA)).hexdigest()
    assert found.data_sha256 != other.data_sha256 and found.canary_commitment != other.canary_commitment


def test_an_audit_that_goes_on_keeps_its_commitment(tmp_path):
    first = made(tmp_path)
    file = tmp_path / COMMITMENT_NAME
    file.write_text(file.read_text().replace(first.created, "2026-01-02T03:04:05+00:00"))
    again = made(tmp_path)
    assert again.created == "2026-01-02T03:04:05+00:00" and again == read(tmp_path)
    assert made(tmp_path, alpha=0.01).created != again.created


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"packages": 3, "trials": []}'])
def test_a_damaged_commitment_is_written_anew(tmp_path, content):
    first = made(tmp_path)
    (tmp_path / COMMITMENT_NAME).write_bytes(content)
    assert read(tmp_path) is None
    assert replace(made(tmp_path), created=first.created) == first


def test_the_packages_are_those_that_are_installed(tmp_path):
    import numpy

    assert f"numpy=={numpy.__version__}" in installed()
    found = made(tmp_path)
    assert found.lock_sha256 == hashlib.sha256("\n".join(found.packages).encode()).hexdigest()


def test_trials_are_counted_over_interruptions(tmp_path):
    def trial(key: str, status: str, attempts: int = 1) -> TrialRecord:
        return TrialRecord(key=key, target="private", kind="audited", status=status, attempts=attempts)

    assert [t.attempts for t in counted(tmp_path, [trial("a", "lost"), trial("b", "cached")])] == [1, 1]
    earlier = replace(quiet_record(), trials=(trial("a", "lost", 2), trial("b", "finished", 2)))
    (tmp_path / RECORD_NAME).write_bytes(dump(earlier))
    now = [trial("a", "finished"), trial("b", "cached"), trial("c", "finished")]
    assert [t.attempts for t in counted(tmp_path, now)] == [3, 2, 1]


def test_finished_trials_of_another_plan_are_named(tmp_path):
    (tmp_path / "trials").mkdir()
    for name in ("a", "b", "x"):
        (tmp_path / "trials" / f"{name}.npz").touch()
    assert excluded(tmp_path, ("a", "b", "c")) == ("x",)


def test_a_run_commits_before_it_trains_and_the_record_says_to_what(tmp_path):
    (tmp_path / "own.py").write_text(
        "import json\nfrom pathlib import Path\n"
        "def fit(x, y, *, seed, device):\n"
        f"    assert json.loads(Path({str(tmp_path / 'out' / COMMITMENT_NAME)!r}).read_text())['trials']\n"
        "    return lambda raw: raw[:, :10]\n"
    )
    (tmp_path / "out/trials").mkdir(parents=True)
    (tmp_path / "out/trials/other.npz").touch()
    plan = parse(
        {
            "compute": {"engine": "inline"},
            "targets": [{"name": "own", "train": "own:fit", "claim": {"epsilon": 1.0}}],
            "attacks": {"loss-threshold": {}},
        }
    )
    job = Job(
        plan=plan, plan_text="", plan_folder=tmp_path, out=tmp_path / "out", command="", policy_sha256="ab"
    )
    for _ in range(2):
        list(run(job))
        record, committed = load(tmp_path / "out"), read(tmp_path / "out")
        source = record.provenance
        assert committed is not None and {t.status for t in record.trials} <= {"finished", "cached"}
        assert committed.trials == tuple(trial.key for trial in record.trials)
        assert source.commitment_sha256 == committed.sha256() and source.committed == committed.created
        assert source.data_sha256 == committed.data_sha256 and source.salted
        assert source.policy_sha256 == "ab" and source.excluded == ("other",)
        assert {t.attempts for t in record.trials} == {1}
    assert json.loads((tmp_path / "out" / SALT_NAME).read_text()).keys() == {"salt"}
