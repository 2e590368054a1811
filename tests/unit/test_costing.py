"""The arithmetic of costs: totals, margins, schedules, room, engines, and what is said of them."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from dpaudit import costing_text
from dpaudit.costing import LEVEL, Costs, _margin, costs, line_of
from dpaudit.memory import GIB
from dpaudit.placing import Asked, Machine, choose, room_of, scheduled, warnings
from dpaudit.plan import ComputePlan
from dpaudit.probing import Measured, Probing, of_all_records
from dpaudit.workload import Work, Workload

HERE = Machine(cores=8, memory=16.0 * GIB, gpus=0, disk=1e12, device="cpu")


def probe(seconds: float, **other: object) -> Measured:
    base = Measured(
        trials=1, seconds=seconds, ended=True, startup=3.0, loading=1.0, memory=GIB, gpu=0.0, gpu_total=0.0,
        stored=1000.0, held=4000.0,
    )  # fmt: skip
    return replace(base, **other)


def work(
    kind: str, trials: int, *, done: int = 0, tasks: tuple[int, ...] = (), stacked: bool = False
) -> Work:
    return Work(
        target="own",
        kind=kind,
        trials=trials,
        done=done,
        tasks=tasks or (1,) * (trials - done),
        stacked=stacked,
    )


AUDITED, SHADOWS = work("audited", 1), work("shadow", 100, done=40)
LOAD = Workload(works=(AUDITED, SHADOWS), order=((0, 1), *((1, 1),) * 60))


def told(asked: Asked | None = None) -> Costs:
    measured = [(AUDITED, (probe(100.0),)), (SHADOWS, (probe(10.0),))]
    return costs(LOAD, measured, ComputePlan(), HERE, asked or Asked())


def test_the_bill_by_hand():
    found = told(Asked(workers=4, price=1.5))
    assert (found.trials, found.left, found.tasks) == (101, 61, 61)
    assert found.seconds == 100 + 60 * 10 + 4 * (3 + 1)
    # One worker has the long trial; the other three make sixty short ones meanwhile, or nearly.
    assert found.wall == scheduled([100.0] + [10.0] * 60, 4, 4.0) == 4 + 180
    assert found.price == pytest.approx(1.5 * 184 / 3600)
    assert found.stored == 61 * 1000  # only what is still to be written
    assert found.driver == 101 * 4000  # all of it is judged
    assert found.choice.engine == "local" and found.choice.machines == 1
    assert found.margin is None


def test_a_cluster_starts_a_worker_for_every_task_and_its_machines_are_paid():
    found = told(Asked(workers=20, price=2.0))
    assert found.choice.engine == "ray" and found.choice.machines == 3
    assert found.seconds == 700 + 61 * 4
    assert found.price == pytest.approx(2.0 * 3 * found.wall / 3600)


def naive(tasks: list[float], workers: int, start: float) -> float:
    """Time in steps of one second."""
    todo, left, now = list(tasks), [0.0] * workers, start
    while todo or any(left):
        for place, rest in enumerate(left):
            if not rest and todo:
                left[place] = todo.pop(0)
        left = [max(rest - 1, 0.0) for rest in left]
        now += 1
    return now


@pytest.mark.parametrize("workers", [1, 2, 5, 40])
def test_the_schedule_is_that_of_a_clock(workers):
    tasks = np.random.default_rng(workers).integers(1, 30, 25).astype(float).tolist()
    assert scheduled(tasks, workers, 7.0) == naive(tasks, workers, 7.0)
    assert scheduled([], workers, 7.0) == 0.0


@pytest.mark.parametrize("tasks", [(1,) * 50, (16, 16, 8), (1,)])
def test_the_margin_holds_as_often_as_it_says(tasks):
    rng, probes, trials, hits = np.random.default_rng(1), 3, 1500, 0
    for _ in range(trials):
        seen = line_of(
            work("shadow", sum(tasks), tasks=tasks), [probe(s) for s in rng.normal(10.0, 1.0, probes)]
        )
        truth = float(np.array(tasks) @ rng.normal(10.0, 1.0, len(tasks)))
        hits += abs(truth - seen.total) <= seen.margin
    print(f"attained {hits / trials:.3f} of {LEVEL}")
    assert abs(hits / trials - LEVEL) < 4 * math.sqrt(LEVEL * (1 - LEVEL) / trials)


@pytest.mark.parametrize("probes", [2, 4])
def test_the_margin_of_the_sum_of_two_kinds_holds(probes):
    rng, trials, hits = np.random.default_rng(2), 1000, 0
    for _ in range(trials):
        lines = [
            line_of(work(kind, 20), [probe(s) for s in rng.normal(10.0, scale, probes)])
            for kind, scale in (("shadow", 1.0), ("game", 3.0))
        ]
        truth = rng.normal(10.0, 1.0, 20).sum() + rng.normal(10.0, 3.0, 20).sum()
        hits += abs(truth - sum(line.total for line in lines)) <= _margin(lines)
    print(f"attained {hits / trials:.3f} of {LEVEL}")
    assert hits / trials > LEVEL - 4 * math.sqrt(LEVEL * (1 - LEVEL) / trials)


def test_one_probe_has_no_margin_and_a_stack_is_counted_by_its_models():
    assert line_of(SHADOWS, [probe(10.0)]).margin is None
    stack = work("shadow", 40, tasks=(20, 20), stacked=True)
    line = line_of(stack, [probe(8.0, trials=16, stored=3200.0)])
    assert (line.seconds, line.total, line.stored) == (0.5, 20.0, 200.0)


def test_a_straight_line_is_continued_to_all_records():
    def at(share: float) -> Measured:
        return probe(2 + 50 * share, memory=100 + 40 * share, stored=8 * share, share=share)

    whole = of_all_records([at(0.1), at(0.2)])
    assert whole.seconds == pytest.approx(52) and whole.memory == pytest.approx(140)
    assert whole.stored == pytest.approx(8) and whole.share == 1.0
    # Noise does not make more records cheaper.
    assert of_all_records([probe(9.0, share=0.1), probe(7.0, share=0.2)]).seconds == 7.0
    assert not of_all_records([probe(1.0, share=0.1), probe(60.0, share=0.2, ended=False)]).ended


def test_what_a_machine_carries():
    assert room_of(HERE, 5 * GIB, 0, 0) == {"cores": 8, "memory": 2}
    assert room_of(replace(HERE, memory=0.0), 5 * GIB, 0, 0) == {"cores": 8}
    gpu = replace(HERE, gpus=2, device="cuda")
    assert room_of(gpu, GIB, 20 * GIB, 80 * GIB)["GPU memory"] == 6
    # A trial that fits nowhere is tried all the same.
    assert room_of(HERE, 100 * GIB, 0, 0)["memory"] == 1


@pytest.mark.parametrize(
    ("tasks", "machine", "asked", "compute", "engine", "said"),
    [
        ([], HERE, 0, {}, "none", "on disk"),
        ([10.0] * 50, HERE, 0, {}, "local", "8 (cores)"),
        ([10.0] * 50, HERE, 64, {}, "ray", "50 are to be"),
        ([10.0] * 50, replace(HERE, gpus=4), 0, {}, "ray", "first of the 4 GPUs"),
        ([0.01] * 50, HERE, 0, {}, "inline", "than a worker takes to start"),
        ([10.0] * 50, HERE, 64, {"engine": "ray://10.0.0.1:6379"}, "ray://10.0.0.1:6379", "the plan"),
    ],
)
def test_the_engine_and_why(tasks, machine, asked, compute, engine, said):
    room = room_of(machine, GIB, 0, 0)
    found = choose(tasks, 3.0, room, ComputePlan(**compute), machine, Asked(workers=asked))
    assert found.engine == engine and said in found.reason


@pytest.mark.parametrize("each", [1.0, 7.0, 11.0, 27.0])
def test_so_many_trials_share_a_gpu_as_fit(each):
    machine = replace(HERE, gpus=1, cores=64, memory=1000.0 * GIB)
    room = room_of(machine, GIB, each * GIB, 80 * GIB)
    found = choose([60.0] * 90, 3.0, room, ComputePlan(), machine, Asked())
    fit = math.floor(0.9 * 80 / each)
    assert found.workers == min(fit, 64)
    assert fit * found.gpus <= 1 < (fit + 1) * found.gpus + 0.01


def test_what_would_go_wrong_is_said_with_its_remedy():
    tight = replace(HERE, disk=1e6)
    said = list(
        warnings(
            {"own (audited)": 1000.0},
            {"cores": 8, "memory": 3},
            ComputePlan(),
            tight,
            stored=2e6,
            driver=2e10,
        )
    )
    for part in ("compute.timeout = 2000", "compute.workers = 3", "--out", "larger machine"):
        assert any(part in each for each in said), said
    assert not list(warnings({"own": 1.0}, {"cores": 8}, ComputePlan(), HERE, stored=1.0, driver=1.0))


def words(found: Costs) -> str:
    return "\n".join(f"{a}: {b}" for a, b in costing_text.sentences(found, HERE, Probing()))


def test_a_probe_that_did_not_end_says_at_least_everywhere():
    measured = [(AUDITED, (probe(60.0, ended=False),)), (SHADOWS, (probe(10.0),))]
    said = words(costs(LOAD, measured, ComputePlan(), HERE, Asked(price=1.0)))
    assert said.count("at least") >= 4 and "own (audited)" in said and "--probe-seconds" in said
    assert "Disk" not in said and "results" not in said
    assert "at least" not in words(told())


def test_the_table_fits_a_narrow_terminal_and_nothing_is_cut():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(costing_text.table(told()))
    text = console.export_text()
    assert "shadow" in text and "60 of 100" in text and "\N{HORIZONTAL ELLIPSIS}" not in text


def test_where_nothing_is_left_nothing_else_is_said():
    done = Workload(works=(work("audited", 1, done=1),), order=())
    found = costs(done, [], ComputePlan(), HERE, Asked(price=3.0))
    assert (found.seconds, found.wall, found.price, found.choice.engine) == (0.0, 0.0, 0.0, "none")
    assert words(found).startswith("Trials: 1, of which 1 are on disk") and "\n" not in words(found)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (0.0123, "12.3 ms"), (59, "59 s"), (130, "2.17 min"), (7200, "2 h"), (1e6, "11.6 days")],
)
def test_durations(seconds, shown):
    assert costing_text.duration(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (1023, "1,023 B"), (1024, "1 KiB"), (5 << 30, "5 GiB")]
)
def test_sizes(count, shown):
    assert costing_text.size(count) == shown
