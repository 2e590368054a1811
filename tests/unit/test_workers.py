"""`dpaudit.workers`: a trial may hang, grow, flood, raise or be killed; every other one is run once."""

import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from dpaudit import workers
from dpaudit.backend import Outcome, Task
from dpaudit.memory import held_by, of_the_machine
from dpaudit.workers import SHOWN, LocalEngine

ROOT = Path(__file__).resolve().parents[2]
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
USERS_MODULE = """
import os, sys, time


class NeedsTwo(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("not even this")


def cannot_be_unpickled(argument):
    raise NeedsTwo("one", "two")


def cannot_be_put_into_words(argument):
    raise Unspeakable


def of_no_usual_kind(argument):
    raise BaseException("base")


def interrupted(argument):
    raise KeyboardInterrupt


def endless_words(argument):
    raise ValueError("\\x1b[2Jword " * 100_000)


def killed(argument):
    os.kill(os.getpid(), 9)


def closes_everything(argument):
    os.closerange(0, 256)


def without_stdout(argument):
    sys.stdout = sys.stderr = None
    return 4.0


def leaves_the_folder(argument):
    os.chdir("/")
    return 1.0


def folder_is(argument):
    if os.getcwd() != argument:
        raise ValueError(os.getcwd())
    return 1.0


def grows(argument):
    held = []
    while True:
        held.append(bytearray(b"x" * 10_000_000))


def floods(argument):
    for _ in range(argument):
        os.write(1, b"flood " * 100_000)
    return 3.0


def says(argument):
    print(argument)
    return 1.0


def names_its_start_method(argument):
    import multiprocessing
    raise ValueError(multiprocessing.get_start_method())


def sleeps(argument):
    time.sleep(argument)
    return argument


def notes(argument):
    folder, name = argument
    with open(f"{folder}/{name}", "x"):
        time.sleep(0.01)
    return 1.0
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """Tasks by name whose functions a fresh process can import; they need no torch, whose import is slow."""
    (tmp_path / "worker_tasks.py").write_text(USERS_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("dpaudit.workers.one_thread", int)
    import worker_tasks

    def make(name, argument=0, key=""):
        return Task(key=key or name, run=getattr(worker_tasks, name), argument=argument)

    yield make
    del sys.modules["worker_tasks"]


def good(key, seconds):
    return Task(key=key, run=float, argument=seconds)


def outcomes(tasks, **options):
    found = list(LocalEngine().outcomes(tasks, **{"workers": 2, "timeout": 60.0, **options}))
    assert sorted(outcome.key for outcome in found) == sorted(task.key for task in tasks)
    return {outcome.key: outcome for outcome in found}


def test_only_the_tasks_that_raise_leave_die_or_hang_are_lost(tasks):
    raising = ("cannot_be_unpickled", "cannot_be_put_into_words", "of_no_usual_kind", "interrupted")
    lost = [
        *map(tasks, (*raising, "endless_words", "killed", "closes_everything")),
        Task(key="leaving", run=sys.exit, argument=3),
        Task(key="dying", run=os._exit, argument=7),
        Task(key="hanging", run=time.sleep, argument=600),
    ]
    found = outcomes([good("before", 1.0), *lost, tasks("without_stdout"), good("after", 2.0)], timeout=3.0)
    errors = {key: outcome.error for key, outcome in found.items()}
    words = errors.pop("endless_words")
    assert words.startswith("ValueError: \N{REPLACEMENT CHARACTER}[2Jword") and len(words) < 2_100
    assert errors.pop("closes_everything").startswith("Expected the worker to live, found it dead")
    assert errors == {
        "before": "",
        "after": "",
        "without_stdout": "",
        "cannot_be_unpickled": "NeedsTwo: one and two",
        "cannot_be_put_into_words": "Unspeakable, which cannot be put into words",
        "of_no_usual_kind": "BaseException: base",
        "interrupted": "KeyboardInterrupt:",
        "leaving": "SystemExit: 3",
        "dying": "Expected the worker to live, found it dead (exit code 7).",
        "killed": "Expected the worker to live, found it dead (exit code -9).",
        "hanging": "Expected the trial to end within 3 s; raise compute.timeout.",
    }
    assert found["after"] == Outcome(key="after", seconds=2.0)


def test_processes_of_a_trial_start_as_they_would_without_an_audit(tasks):
    usual = multiprocessing.get_all_start_methods()[0]
    assert (
        outcomes([tasks("names_its_start_method")])["names_its_start_method"].error == f"ValueError: {usual}"
    )


@linux
def test_a_task_that_grows_is_ended_at_its_limit_and_no_other(tasks):
    found = outcomes([tasks("grows"), good("after", 2.0)], memory=0.5)
    words = re.match(r"Expected the trial to hold at most 0\.5 GiB, found (\S+) GiB", found["grows"].error)
    assert words and 0.5 <= float(words[1]) < 4.0  # by how much depends on who else is at work
    assert "compute.memory" in found["grows"].error
    assert found["after"].seconds == 2.0


@linux
def test_without_a_limit_all_together_may_hold_what_the_machine_has(tasks, monkeypatch):
    monkeypatch.setattr("dpaudit.workers.of_the_machine", lambda: 1 << 29)
    found = outcomes([tasks("grows"), good("after", 2.0)])
    assert found["grows"].error.startswith("Expected all workers together to hold at most 0.45 GiB")
    assert found["after"].seconds == 2.0


@linux
def test_memory_is_that_of_the_process_and_of_the_machine():
    assert 10_000_000 < held_by(os.getpid()) < of_the_machine()
    assert held_by(None) == held_by(2**30) == 0


def test_what_a_task_prints_goes_to_stderr_and_a_flood_of_it_nowhere(tasks, capsys):
    found = outcomes([tasks("says", "hello from a trial"), tasks("floods", 200)], workers=1)
    assert [found[key].error for key in ("says", "floods")] == ["", ""]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "hello from a trial" in shown.err
    assert shown.err.count("prints more, which is not shown") == 1
    assert len(shown.err) < SHOWN + 200


def test_a_task_that_leaves_the_folder_is_brought_back(tasks):
    moved = outcomes([tasks("leaves_the_folder"), tasks("folder_is", os.getcwd())], workers=1)
    assert [outcome.error for outcome in moved.values()] == ["", ""]


def test_no_worker_is_started_for_no_task(monkeypatch):
    monkeypatch.setattr("dpaudit.workers._start", None)
    assert outcomes([]) == {}


def test_a_clock_that_is_set_ends_no_trial(tasks, monkeypatch):
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 86_400 * (now() % 0.02 < 0.01))
    assert outcomes([tasks("sleeps", 0.3)])["sleeps"].error == ""


def test_workers_killed_at_random_cost_what_they_were_doing_and_nothing_hangs(tasks, tmp_path, monkeypatch):
    started, done, rng = [], threading.Event(), random.Random(5)
    start = workers._start

    def noted():
        worker = start()
        started.append(worker.process.pid)
        return worker

    def kill():
        while not done.wait(rng.uniform(0.05, 0.3)):
            try:
                os.kill(rng.choice(started[-2:] or [2**22 + 1]), signal.SIGKILL)
            except ProcessLookupError:
                continue

    monkeypatch.setattr("dpaudit.workers._start", noted)
    (tmp_path / "made").mkdir()
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        names = [str(i) for i in range(300)]
        found = outcomes([tasks("notes", (str(tmp_path / "made"), name), name) for name in names])
    finally:
        done.set()
        killer.join()
    assert len(started) > 2, "nothing was killed, so nothing was tested"
    lost = {key: outcome.error for key, outcome in found.items() if outcome.error}
    assert set(lost.values()) <= {"Expected the worker to live, found it dead (exit code -9)."}
    # A second run of any task would have found the file of the first.
    assert {path.name for path in (tmp_path / "made").iterdir()} >= set(names) - set(lost)


DRIVER = """
import sys, time
from dpaudit import workers
from dpaudit.backend import Task

if __name__ == "__main__":
    workers.one_thread = int
    start = workers._start
    def told():
        worker = start()
        print(worker.process.pid, flush=True)
        return worker
    workers._start = told
    engine = workers.LocalEngine()
    list(engine.outcomes([Task(key="a", run=time.sleep, argument=600)], workers=1, timeout=600.0))
"""


def gone(process):
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


@linux
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_audit_however_it_ends(tmp_path, end):
    (tmp_path / "driver.py").write_text(textwrap.dedent(DRIVER))
    driver = subprocess.Popen(
        [sys.executable, str(tmp_path / "driver.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with driver:
        worker = int(driver.stdout.readline())
        time.sleep(1.0 if end == signal.SIGINT else 0.0)
        driver.send_signal(end)
        driver.wait(30)
    deadline = time.monotonic() + 20
    while not gone(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(worker)
