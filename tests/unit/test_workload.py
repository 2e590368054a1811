"""What a plan would do is what a run does: the same trials, the same tasks, less what is on disk."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from dpaudit import games
from dpaudit.backend import InlineEngine
from dpaudit.events import Analysing, TrialFinished
from dpaudit.plan import parse
from dpaudit.protocols import View
from dpaudit.record import load
from dpaudit.run import Job, run
from dpaudit.workload import Workload, counted, workload

OWN = """
import numpy as np
import torch

def data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 4))
    return x, (x[:, 0] > 0).astype(np.int64)

def fit(x, y, *, seed, device):
    torch.manual_seed(seed)
    return torch.nn.Linear(x.shape[1], 2)
"""
BASE = {
    "data": {"source": "workload_own:data", "canaries": 20},
    "compute": {"device": "cpu", "engine": "inline", "workers": 2},
    "recipe": {"epochs": 1, "hidden": []},
}
OURS = {"name": "own", "train": "workload_own:fit", "claim": {"epsilon": 8.0}}
PLAIN = {"name": "plain", "train": "plain", "role": "control"}
PLANS = {
    "one run": ([OURS], {"loss-threshold": {}}),
    "shadows of two targets, one stacked": ([OURS, PLAIN], {"lira": {"shadows": 20}, "loss-threshold": {}}),
    "a game, which own functions cannot play": ([OURS, PLAIN], {"worst-case": {"models": 5}}),
}


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Makes a job of targets and attacks."""
    (tmp_path / "workload_own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(games, "TOGETHER", 2)

    def make(targets, attacks):
        plan = parse({**BASE, "targets": targets, "attacks": attacks})
        return Job(plan=plan, plan_text="", plan_folder=tmp_path, out=tmp_path / "out", command="test")

    yield make
    sys.modules.pop("workload_own", None)


def by_kind(load_: Workload) -> Counter[tuple[str, str]]:
    return Counter({(work.target, work.kind): work.trials for work in load_.works})


@pytest.mark.parametrize("name", PLANS)
def test_the_trials_that_are_counted_are_those_that_are_made(name, job, monkeypatch):
    tasks = []
    outcomes = InlineEngine.outcomes

    def noted(self, given, **limits):
        tasks.extend(len(task.argument) if isinstance(task.argument, tuple) else 1 for task in given)
        return outcomes(self, given, **limits)

    monkeypatch.setattr(InlineEngine, "outcomes", noted)
    made = job(*PLANS[name])
    before = workload(made, "cpu")
    assert not made.out.exists(), "a look at what is to be done writes nothing"
    list(run(made))
    record = load(made.out)
    assert {trial.status for trial in record.trials} == {"finished"}
    assert by_kind(before) == Counter((trial.target, trial.kind) for trial in record.trials)
    assert counted(made.plan, made.plan_folder) == dict(by_kind(before))
    assert [size for _, size in before.order] == tasks
    assert before.left == len(record.trials) == sum(tasks)
    for place, work in enumerate(before.works):
        assert work.tasks == tuple(size for at, size in before.order if at == place)
        assert work.stacked == (work.target == "plain" and work.kind == "shadow")
    after = workload(made, "cpu")
    assert (after.left, after.order) == (0, ())
    assert by_kind(after) == by_kind(before)


def test_the_games_are_counted(job):
    load_ = workload(job(*PLANS["a game, which own functions cannot play"]), "cpu")
    assert by_kind(load_)["plain", "worst-case"] == 3  # Five models, two a trial.
    assert by_kind(load_)["own", "worst-case"] == 0


def test_what_is_on_disk_is_left_out_and_what_is_damaged_is_not(job):
    made = job([OURS], {"lira": {"shadows": 3}})
    list(run(made))
    results = sorted((made.out / "trials").glob("*.npz"))
    results[0].unlink()
    results[1].write_bytes(results[1].read_bytes()[:100])
    load_ = workload(made, "cpu")
    assert sum(work.done for work in load_.works) == 2
    assert load_.left == 2
    # Another plan has other trials.
    other = replace(made, plan=made.plan.model_copy(update={"seed": 9}))
    assert workload(other, "cpu").left == 4


def test_a_run_keeps_no_result_in_memory_until_it_judges(job):
    held = []
    for event in run(job([OURS], {"lira": {"shadows": 12}})):
        if isinstance(event, TrialFinished):
            held.append(sum(type(each) is View for each in gc.get_objects()))
    assert len(held) == 13
    assert max(held) - held[0] <= 1


def test_a_result_that_goes_before_it_is_judged_is_a_lost_trial(job):
    made = job([OURS], {"lira": {"shadows": 3}})
    for event in run(made):
        if isinstance(event, Analysing):
            sorted((made.out / "trials").glob("*.npz"))[0].unlink()
    lost = [trial for trial in load(made.out).trials if trial.status == "lost"]
    assert len(lost) == 1
    assert "run the same command again" in lost[0].error
    list(run(made))
    assert [trial.status for trial in load(Path(made.out)).trials].count("finished") == 1
