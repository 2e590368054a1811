"""Nothing is lost: full disks, damaged files, two drivers, kills, and training functions that misbehave."""

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dpaudit import store
from dpaudit.commitment import SALT_NAME
from dpaudit.events import RunFinished, RunStarted, TrialLost
from dpaudit.record import load
from dpaudit.run import run
from dpaudit.store import StoreError
from tests.small_audit import essence, made, small_job

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def job(tmp_path, monkeypatch):
    yield from small_job(tmp_path, monkeypatch)


def test_a_full_disk_costs_what_was_not_written_and_the_same_command_finishes(job, monkeypatch):
    undisturbed = replace(job, out=job.out.with_name("undisturbed"))
    assert len(made(run(undisturbed))) == 4
    (job.out / SALT_NAME).parent.mkdir(parents=True)
    shutil.copy(undisturbed.out / SALT_NAME, job.out / SALT_NAME)
    sync, left = os.fsync, [1_000]

    def full(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(store.os, "fsync", full)
    events = []
    with pytest.raises(StoreError, match=r"record\.json, found: No space left on device\. Free some space"):
        for event in run(job):
            events.append(event)
            left[0] = 2 if isinstance(event, RunStarted) else left[0]  # Room for two trials.
    lost = [event.error for event in events if isinstance(event, TrialLost)]
    assert len(made(events)) == 2 and len(lost) == 2
    assert all("No space left on device" in error and "\n" not in error for error in lost)
    monkeypatch.setattr(store.os, "fsync", sync)
    assert len(made(run(job))) == 2
    assert essence(load(job.out)) == essence(load(undisturbed.out))


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_trained(job, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("dpaudit.store.os.replace", refuse)
    monkeypatch.setattr("dpaudit.trial.training_seed", None)
    with pytest.raises(StoreError, match=r"Read-only file system\. Choose another folder with --out"):
        list(run(job))


def test_damaged_trials_are_set_aside_and_made_again_and_the_verdict_is_the_same(job):
    first = made(run(job))
    right = essence(load(job.out))
    cut, flipped, other, whole = (job.out / "trials" / f"{key}.npz" for key in first)
    cut.write_bytes(cut.read_bytes()[:-100])
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 4
    flipped.write_bytes(data)
    other.write_bytes(whole.read_bytes())
    assert sorted(made(run(job))) == sorted(first[:3])
    assert essence(load(job.out)) == right
    assert {path.stem for path in (job.out / "trials").glob("*.damaged")} == set(first[:3])


def test_two_drivers_on_one_folder_end_with_the_same_record(job):
    drivers, events = [run(job), run(job)], []
    while drivers:
        for driver in list(drivers):
            event = next(driver, None)
            events.append(event)
            if event is None:
                drivers.remove(driver)
    assert sum(isinstance(event, RunFinished) for event in events) == 2
    assert {trial.status for trial in load(job.out).trials} <= {"cached", "finished"}
    both = essence(load(job.out))
    assert made(run(job)) == []
    assert essence(load(job.out)) == both


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dpaudit", "run", "plan.toml", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


MISBEHAVING = """
import os, sys, time
import torch

def _model(x, seed):
    torch.manual_seed(seed)
    return torch.nn.Linear(x.shape[1], 10)

def good(x, y, *, seed, device):
    print("trained well")
    os.chdir("/")
    return _model(x, seed)

def hangs(x, y, *, seed, device):
    time.sleep(600)

def grows(x, y, *, seed, device):
    held = []
    while True:
        held.append(torch.ones(5_000_000))

def leaves(x, y, *, seed, device):
    sys.exit("enough")

def dies(x, y, *, seed, device):
    os._exit(3)

def floods(x, y, *, seed, device):
    for _ in range(50):
        print("flood " * 1_000_000)
    return _model(x, seed)

def raises(x, y, *, seed, device):
    raise ValueError("first\\nsecond")

def nonsense(x, y, *, seed, device):
    return "a model"
"""
ERRORS = {
    "hangs": "Expected the trial to end within 30 s; raise compute.timeout.",
    "grows": "Expected the trial to hold at most 2 GiB, found ",
    "leaves": "SystemExit: enough",
    "dies": "Expected the worker to live, found it dead (exit code 3).",
    "raises": "Expected 'bad:raises' to train, found ValueError: first second (bad.py:",
    "nonsense": "found ",
}


@pytest.mark.slow
def test_training_functions_that_misbehave_cost_themselves_alone(tmp_path):
    (tmp_path / "bad.py").write_text(MISBEHAVING)
    names = ("good", "floods", *ERRORS)
    targets = "".join(f'[[targets]]\nname = "{name}"\ntrain = "bad:{name}"\n' for name in names)
    limits = '[compute]\ndevice = "cpu"\nworkers = 2\ntimeout = 30\nmemory = 2\n'
    (tmp_path / "plan.toml").write_text(f"[data]\ncanaries = 20\n{limits}{targets}[attacks.replay]\n")
    out, err = start(tmp_path, "--json").communicate(timeout=400)
    record = load(tmp_path / "audits/plan")
    assert json.loads(out)["exit_code"] == record.exit_code == 4
    errors = {trial.target: trial.error for trial in record.trials}
    assert errors.pop("good") == errors.pop("floods") == ""
    assert errors.keys() == ERRORS.keys()
    for name, words in ERRORS.items():
        assert words in errors[name] and "\n" not in errors[name]
    assert {str(target.verdict.status) for target in record.targets} == {"INCONCLUSIVE"}
    assert "trained well" in err and "Traceback" not in err and len(err) < 100_000


@pytest.mark.slow
def test_an_audit_that_is_killed_again_and_again_loses_nothing(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "bench")
    import kills

    found = kills.campaign(5, seed=11, each=5)
    assert sum(found.kills.values()) == 5
    assert (found.again, found.differing) == (0, 0)
