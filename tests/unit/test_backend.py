"""`dpaudit.backend`: whatever one task does, it costs that task alone."""

import os
import sys

import pytest

from dpaudit.backend import (
    InlineEngine,
    Outcome,
    Task,
    available_cores,
    choose_device,
    device_name,
    one_thread,
)
from dpaudit.cluster import RayEngine
from dpaudit.errors import UsageError
from dpaudit.plan import ComputePlan
from dpaudit.run import _engine
from dpaudit.workers import LocalEngine

USERS_MODULE = """
from dpaudit.errors import TrialError, UsageError


class NeedsTwo(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def several_lines(argument):
    raise RuntimeError("first\\n  second\\tthird")


def cannot_be_unpickled(argument):
    raise NeedsTwo("one", "two")


def users_mistake(argument):
    raise UsageError("Expected a, found b.")


def loss_is_nan(argument):
    raise TrialError("Expected finite logits.")
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """Tasks by name whose functions a fresh process can import."""
    (tmp_path / "backend_tasks.py").write_text(USERS_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import backend_tasks

    def make(name, argument=0):
        return Task(key=name, run=getattr(backend_tasks, name), argument=argument)

    yield make
    del sys.modules["backend_tasks"]


def good(key, seconds):
    return Task(key=key, run=float, argument=seconds)


def outcomes(engine, tasks, **options):
    found = list(engine.outcomes(tasks, **{"workers": 2, "timeout": 60.0, **options}))
    assert sorted(outcome.key for outcome in found) == sorted(task.key for task in tasks)
    return {outcome.key: outcome for outcome in found}


RAISED = {
    "several_lines": ("RuntimeError: first second third", False),
    "cannot_be_unpickled": ("NeedsTwo: one and two", False),
    "users_mistake": ("Expected a, found b.", True),
    "loss_is_nan": ("Expected finite logits.", False),
}


def expect_raised(found):
    for name, (error, usage) in RAISED.items():
        assert found[name] == Outcome(key=name, error=error, usage=usage)


def test_inline_yields_each_outcome_in_order_as_it_is_there():
    done = []

    def run(argument):
        done.append(argument)
        return argument

    stream = InlineEngine().outcomes(
        [Task(key=str(i), run=run, argument=i) for i in range(3)], workers=1, timeout=1.0
    )
    assert next(stream) == Outcome(key="0", seconds=0)
    assert done == [0]
    assert [outcome.key for outcome in stream] == ["1", "2"]


def test_inline_turns_what_a_task_raises_into_one_line_and_goes_on(tasks):
    leaving = Task(key="leaving", run=sys.exit, argument="enough")
    found = outcomes(InlineEngine(), [*map(tasks, RAISED), leaving, good("after", 2.0)])
    expect_raised(found)
    assert found["leaving"].error == "SystemExit: enough"
    assert found["after"] == Outcome(key="after", seconds=2.0)


def test_inline_lets_an_interrupt_through():
    def interrupt(argument):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(InlineEngine().outcomes([Task(key="a", run=interrupt, argument=0)], workers=1, timeout=1.0))


def test_the_plan_names_the_engine_and_the_address_of_a_cluster():
    def engine(name, device="cpu", **options):
        return _engine(ComputePlan(engine=name, **options), device)

    assert isinstance(engine("local"), LocalEngine)
    assert engine("ray") == RayEngine()
    assert engine("ray://10.0.0.1:6379", gpus=0.25) == RayEngine(address="10.0.0.1:6379", gpus=0.25)
    assert engine("ray", "cuda") == RayEngine(gpus=1.0)
    for wrong in ("rey", "local://here", "inline://here"):
        with pytest.raises(UsageError, match="Expected "):
            engine(wrong)


def test_ray_is_asked_for_in_one_line_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'dpaudit\[ray\]'"):
        list(RayEngine().outcomes([good("a", 1.0)], workers=1, timeout=1.0))
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_a_worker_keeps_to_one_thread():
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        one_thread()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_this_process_may_use_at_least_one_core():
    assert 1 <= available_cores() <= os.cpu_count()


@pytest.fixture(params=[False, True], ids=["without a GPU", "with a GPU"])
def has_cuda(request, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param)
    return request.param


def test_auto_takes_the_gpu_if_there_is_one(has_cuda):
    assert choose_device("auto") == ("cuda" if has_cuda else "cpu")


def test_cpu_is_the_cpu_whatever_there_is(has_cuda):
    assert choose_device("cpu") == "cpu"
    assert device_name("cpu") == "cpu"


def test_cuda_without_a_gpu_is_refused_and_never_replaced_by_the_cpu(has_cuda):
    if has_cuda:
        assert choose_device("cuda") == "cuda"
        return
    with pytest.raises(UsageError, match="Expected a CUDA device for device='cuda', found none"):
        choose_device("cuda")
