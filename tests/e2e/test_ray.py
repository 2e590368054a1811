"""Engine `ray` on two real nodes: what is lost with a worker or a node runs again, and counts once."""

import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
ray = pytest.importorskip("ray", reason="the extra dpaudit[ray] is not installed")

from dpaudit.backend import Task  # noqa: E402
from dpaudit.cluster import RayEngine  # noqa: E402
from dpaudit.commitment import SALT_NAME  # noqa: E402
from dpaudit.events import TrialFinished, TrialLost  # noqa: E402
from dpaudit.plan import parse  # noqa: E402
from dpaudit.record import dump, load  # noqa: E402
from dpaudit.run import Job, run  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow
OWN = """
import time
import torch

def fit(x, y, *, seed, device):
    torch.manual_seed(seed)
    time.sleep(2)
    return torch.nn.Linear(x.shape[1], 10)
"""
PLAN = {
    "data": {"canaries": 20},
    "compute": {"engine": "inline", "device": "cpu"},
    "targets": [{"name": "own", "train": "ray_own:fit", "claim": {"epsilon": 8.0}}],
    "attacks": {"lira": {"shadows": 5}},
}


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes of one core each; the second one can be taken away."""
    from ray.cluster_utils import Cluster

    paths = [str(ROOT), *(path for path in sys.path if "ray" in path or "site-packages" in path)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.second = made.add_node(num_cpus=1)
    yield made
    ray.shutdown()
    made.shutdown()


def ray_workers() -> list[int]:
    """Processes in which Ray runs a trial now."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::run_one"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


TIMES = {"created": "", "seconds": 0.0, "committed": "", "commitment_sha256": ""}


def essence(folder: Path) -> bytes:
    record = load(folder)
    trials = tuple(replace(trial, seconds=0.0, attempts=0) for trial in record.trials)
    source = replace(record.provenance, engine="", plan_sha256="", **TIMES)
    return dump(replace(record, trials=trials, provenance=source, plan={}))


def test_an_audit_survives_the_loss_of_a_worker_and_of_a_node(tmp_path, monkeypatch, cluster):
    (tmp_path / "ray_own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "inline"
    job = Job(plan=parse(PLAN), plan_text="", plan_folder=tmp_path, out=folder, command="test")
    list(run(job))
    (tmp_path / "ray" / SALT_NAME).parent.mkdir(parents=True)
    shutil.copy(folder / SALT_NAME, tmp_path / "ray" / SALT_NAME)
    compute = job.plan.compute.model_copy(update={"engine": f"ray://{cluster.address}"})
    plan = job.plan.model_copy(update={"compute": compute})
    struck, events = [], []

    def strike():
        while not (found := ray_workers()):
            time.sleep(0.05)
        os.kill(found[0], signal.SIGKILL)
        struck.append("worker")
        while sum(isinstance(event, TrialFinished) for event in events) < 2:
            time.sleep(0.05)
        cluster.remove_node(cluster.second, allow_graceful=False)
        struck.append("node")

    killer = threading.Thread(target=strike, daemon=True)
    killer.start()
    for event in run(replace(job, plan=plan, out=tmp_path / "ray")):
        events.append(event)
    killer.join(10)
    assert struck == ["worker", "node"]
    assert [event.error for event in events if isinstance(event, TrialLost)] == []
    finished = [event.key for event in events if isinstance(event, TrialFinished)]
    assert len(finished) == len(set(finished)) == 6
    assert essence(tmp_path / "ray") == essence(folder)
    del sys.modules["ray_own"]


def test_the_limits_of_a_trial_hold_on_a_cluster_too(cluster):
    tasks = [
        Task(key="hangs", run=time.sleep, argument=600),
        Task(key="dies", run=os._exit, argument=3),
        Task(key="good", run=float, argument=2.0),
    ]
    found = {
        outcome.key: outcome
        for outcome in RayEngine(address=cluster.address).outcomes(tasks, workers=0, timeout=3.0)
    }
    assert found["hangs"].error == "Expected the trial to end within 3 s; raise compute.timeout."
    assert found["dies"].error == "Expected the worker to live, found it dead (exit code 3)."
    assert (found["good"].seconds, found["good"].error) == (2.0, "")
