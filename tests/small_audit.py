"""An audit of four small trials in this process, and what of its record must always come out the same."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dpaudit.backend import one_thread
from dpaudit.events import TrialFinished
from dpaudit.plan import parse
from dpaudit.record import AuditRecord, dump
from dpaudit.run import Job

OWN = """
import torch

def fit(x, y, *, seed, device):
    torch.manual_seed(seed)
    model = torch.nn.Linear(x.shape[1], 10)
    with torch.no_grad():  # Without autograd, whose threads a forked process would miss.
        labels = torch.nn.functional.one_hot(torch.as_tensor(y), 10).T
        model.weight += labels.to(model.weight) @ torch.as_tensor(x).to(model.weight) / len(x)
    return model
"""
PLAN = {
    "data": {"canaries": 20},
    "compute": {"engine": "inline", "device": "cpu"},
    "targets": [{"name": "own", "train": "small_own:fit", "claim": {"epsilon": 8.0}}],
    "attacks": {"lira": {"shadows": 3}},
}
TIMES = {"created": "", "seconds": 0.0, "committed": "", "commitment_sha256": ""}


def small_job(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    """The job; what it changed in this process is put back afterwards."""
    (folder / "small_own.py").write_text(OWN)
    monkeypatch.syspath_prepend(folder)
    threads = torch.get_num_threads()
    one_thread()
    yield Job(plan=parse(PLAN), plan_text="", plan_folder=folder, out=folder / "out", command="test")
    sys.modules.pop("small_own", None)
    torch.set_num_threads(threads)


def essence(record: AuditRecord) -> bytes:
    """A record without times, and whether a trial was made now or found."""
    trials = tuple(
        replace(
            trial, seconds=0.0, attempts=0, status="cached" if trial.status == "finished" else trial.status
        )
        for trial in record.trials
    )
    return dump(replace(record, trials=trials, provenance=replace(record.provenance, **TIMES)))


def made(events: Iterable[Any]) -> list[str]:
    """Keys of the trials that were run now, each of which must have been run once."""
    keys = [event.key for event in events if isinstance(event, TrialFinished) and not event.cached]
    assert len(keys) == len(set(keys))
    return keys
