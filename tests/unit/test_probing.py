"""A probe measures what a trial takes, throws it away, and is ended when its time is over."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import tomllib
import zipfile

import numpy as np
import pytest
from typer.testing import CliRunner

from dpaudit.backend import Outcome
from dpaudit.canary import make_pool
from dpaudit.cli import app
from dpaudit.errors import TrialError, UsageError
from dpaudit.memory import forget_peak, held_by, peak
from dpaudit.plan import parse
from dpaudit.probing import Probe, _read, measure, part_of
from dpaudit.run import Job
from dpaudit.workload import workload

linux = pytest.mark.skipif(sys.platform != "linux", reason="the system does not say what a process held")
OWN = """
import time
import numpy as np
import torch

calls = []

def data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((220, 4))
    return x, (x[:, 0] > 0).astype(np.int64)

def fit(x, y, *, seed, device, seconds=0.0):
    calls.append(len(y))
    time.sleep(seconds)
    return torch.nn.Linear(x.shape[1], 2)
"""
PLAN = """
[data]
source = "probed:data"
canaries = 20
[compute]
device = "cpu"
[[targets]]
name = "own"
train = "probed:fit"
claim = { epsilon = 8.0 }
[attacks.loss-threshold]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "probed.py").write_text(OWN)
    (tmp_path / "plan.toml").write_text(PLAN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("probed", None)


def dpaudit(*words):
    return CliRunner().invoke(app, ["plan", "plan.toml", *words])


def test_what_a_trial_takes_is_measured_by_making_it(folder):
    plan = parse(tomllib.loads(PLAN))
    job = Job(plan=plan, plan_text=PLAN, plan_folder=folder, out=folder / "probe", command="test")
    (work,) = workload(job, "cpu").works
    probe = Probe(specs=work.specs, stacked=False, share=0.5, limit=60.0, asked=time.monotonic())
    seconds = measure(probe)
    import probed

    found = _read(work, folder / "probe", None)
    assert found.ended and found.seconds == seconds and found.trials == 1
    # Twice, since the first was over soon; on half of the half that is trained on.
    assert len(probed.calls) == 2 and probed.calls[0] == pytest.approx(50, abs=2)
    (result,) = (folder / "probe/trials").glob("*.npz")
    assert found.stored == result.stat().st_size
    with zipfile.ZipFile(result) as archive:
        assert found.held == sum(len(archive.read(name)) for name in archive.namelist())


@pytest.mark.slow
def test_the_command_trains_in_a_worker_and_leaves_nothing_behind(folder):
    done = dpaudit("--probe", "--json", "--price-per-hour", "2")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    (line,) = told["lines"]
    assert (line["trials"], line["done"], line["ended"], told["margin"]) == (1, 0, True, None)
    assert told["price"] == pytest.approx(2 * told["wall"] / 3600)
    assert 0 < line["seconds"] < 20 and told["startup"] >= 0
    assert sorted(path.name for path in folder.iterdir() if path.suffix) == ["plan.toml", "probed.py"]
    assert not (folder / "audits").exists()


def test_a_trial_that_does_not_end_is_ended_and_told_as_at_least(folder):
    start = time.monotonic()
    done = dpaudit("--probe", "--probe-seconds", "1.5", "--set", "targets.0.options.seconds=900.0")
    assert done.exit_code == 0, done.output
    assert time.monotonic() - start < 300
    flat = " ".join(done.stdout.split())
    assert all(float(seconds) >= 1.5 for seconds in re.findall(r"over ([\d.]+) s", flat))
    assert flat.count("over ") >= 2 and "at least" in flat
    assert "After 1.5 s this had not ended: own (audited)" in flat


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--price-per-hour", "2"), "Expected --probe with --price-per-hour"),
        (("--probe", "--probe-share", "0"), "Expected --probe-share=0.0 in (0.0, 1.0]"),
        (("--probe", "--probe-seconds", "-1"), "Expected --probe-seconds=-1.0"),
        (("--probe", "--workers", "0"), "Expected --workers=0"),
        (("--probe", "--claim-noise-multiplier", "1"), "Expected --claim-noise-multiplier, "),
        (
            ("--probe", "--claim-noise-multiplier", "1", "--sample-rate", "0.1", "--steps", "9"),
            "Expected --probe without",
        ),
        (("--probe", "--out", "/dev/null/x"), "found a file at /dev/null"),
        (("--probe", "--set", "targets.0.train=probed:fits"), "did you mean 'fit'"),
    ],
)
def test_a_wrong_option_is_one_line(words, said, folder):
    done = dpaudit(*words)
    assert isinstance(done.exception, UsageError) and said in str(done.exception)


def test_a_probe_that_raised_is_told_with_its_target(folder, tmp_path):
    job = Job(plan=parse({
        "data": {"source": "probed:data", "canaries": 20}, "attacks": {"loss-threshold": {}},
        "targets": [{"name": "own", "train": "probed:fit", "claim": {"epsilon": 8.0}}],
    }), plan_text="", plan_folder=folder, out=folder / "out", command="test")  # fmt: skip
    (work,) = workload(job, "cpu").works
    with pytest.raises(TrialError, match=r"Probing 'own' \(audited\): Expected it to train"):
        _read(work, tmp_path / "nothing", Outcome(key="0", error="Expected it to train, found no memory."))
    with pytest.raises(UsageError):
        _read(work, tmp_path / "nothing", Outcome(key="0", error="Expected this.", usage=True))


@pytest.mark.parametrize("share", [0.1, 0.25, 1.0])
def test_a_share_of_the_records_is_of_every_kind_alike(share):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((240, 3))
    pool = make_pool(
        x, rng.integers(0, 2, 240), n_canaries=40, test_fraction=0.1, rng=rng, groups={"at": np.arange(240)}
    )
    whole = pool.draw(rng)
    part = part_of(whole, share)
    for canary in (False, True):
        for member in (False, True):
            kept, all_ = (
                int(((each.canary == canary) & (each.member == member)).sum()) for each in (part, whole)
            )
            assert kept == int(np.ceil(share * all_)) > 0
    places = [int(np.flatnonzero((whole.x == row).all(axis=1))[0]) for row in part.x]
    for name in ("y", "member", "canary"):
        assert (getattr(part, name) == getattr(whole, name)[places]).all()
    assert (part.groups["at"] == whole.groups["at"][places]).all()
    assert len(part.test_y) == len(part.test_x) == int(np.ceil(share * len(whole.test_y)))


@linux
def test_the_peak_is_what_was_held_and_let_go():
    forget_peak()
    before = peak()
    assert before >= 0.5 * held_by(os.getpid()) > 0
    block = np.ones(8_000_000)
    del block
    assert peak() - before > 60_000_000
    forget_peak()
    assert peak() - before < 30_000_000
