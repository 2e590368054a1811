"""Where trials should run: how many a machine carries, which engine, and what would go wrong."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dpaudit.memory import GIB
from dpaudit.plan import ComputePlan

USABLE = 0.9
"""Share of the memory of machine and GPU that trials may fill; see `dpaudit.workers`."""
_CORES, _MEMORY, _GPU = "cores", "memory", "GPU memory"
_FINEST = 10_000
"""Parts of a GPU that a trial can be given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where the probe ran.

    Attributes:
        cores: that may be used.
        memory: bytes; 0 where the system does not say.
        gpus: on which trials train.
        disk: bytes that are free where the results go; 0 where nothing says, as of an address.
        device: cpu or cuda.
    """

    cores: int
    memory: float
    gpus: int
    disk: float
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the user wants to know.

    Attributes:
        workers: at work at once; 0 for what the plan says, or as many as this machine carries.
        price: of an hour of one such machine, in whatever currency; None without.
    """

    workers: int = 0
    price: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Where to run.

    Attributes:
        engine: "inline", "local", "ray" or its address; "none" where nothing is left to do.
        workers: at work at once.
        machines: like this one, that carry them.
        gpus: what one worker takes of a GPU.
        reason: in one line.
    """

    engine: str
    workers: int
    machines: int
    gpus: float
    reason: str


def room_of(machine: Machine, worker: float, gpu: float, gpu_total: float) -> dict[str, int]:
    """How many workers each part of this machine carries; parts of which nothing is known are left out.

    Args:
        machine: this one.
        worker: peak bytes of a worker.
        gpu: peak bytes of its GPU.
        gpu_total: bytes that a GPU has.
    """
    room = {_CORES: machine.cores}
    if machine.memory and worker:
        room[_MEMORY] = int(USABLE * machine.memory // worker)
    if machine.gpus and gpu and gpu_total:
        room[_GPU] = machine.gpus * int(USABLE * gpu_total // gpu)
    return {part: max(count, 1) for part, count in room.items()}


def choose(
    tasks: Sequence[float],
    start: float,
    room: Mapping[str, int],
    compute: ComputePlan,
    machine: Machine,
    asked: Asked,
) -> Choice:
    """An engine for tasks of so many seconds.

    Args:
        tasks: seconds of each.
        start: seconds in which a worker starts; 0 where the tasks take nobody knows how long.
        room: of `room_of`.
        compute: engine and workers of the plan.
        machine: this one.
        asked: workers that the user asks for.
    """
    if not tasks:
        return Choice(engine="none", workers=0, machines=0, gpus=0.0, reason="every trial is on disk")
    tight = min(room, key=lambda part: room[part])
    most = room[tight]
    workers = min(asked.workers or compute.workers or most, len(tasks))
    gpus = _share_of_gpu(room, machine)
    carries = f"one such machine carries {most} ({tight})"
    if compute.engine.startswith("ray"):
        engine, reason = compute.engine, f"the plan names it; {carries}"
    elif workers > most:
        engine, reason = "ray", f"{workers} are to be at work at once, and {carries}"
    elif machine.gpus > 1 and workers > 1:
        engine, reason = "ray", f"the local engine trains on the first of the {machine.gpus} GPUs alone"
    elif sum(tasks) < start:
        workers, engine = 1, "inline"
        reason = f"all trials take {sum(tasks):.2g} s, less than a worker takes to start ({start:.2g} s)"
    else:
        engine, reason = "local", carries
    return Choice(
        engine=engine, workers=workers, machines=math.ceil(workers / most), gpus=gpus, reason=reason
    )


def _share_of_gpu(room: Mapping[str, int], machine: Machine) -> float:
    if not machine.gpus:
        return 0.0
    return math.floor(_FINEST * machine.gpus / max(room.get(_GPU, machine.gpus), machine.gpus)) / _FINEST


def scheduled(tasks: Sequence[float], workers: int, start: float) -> float:
    """Seconds by the clock: each task in its turn goes to the worker that is free first.

    Args:
        tasks: seconds of each, in the order of the run.
        workers: at once.
        start: seconds before a worker takes its first task.

    Costs a logarithm of the workers for each task.
    """
    free = [start] * min(workers, len(tasks))
    for task in tasks:
        heapq.heapreplace(free, free[0] + task)
    return max(free, default=0.0)


def warnings(
    seconds: Mapping[str, float],
    room: Mapping[str, int],
    compute: ComputePlan,
    machine: Machine,
    *,
    stored: float,
    driver: float,
) -> Iterator[str]:
    """What would go wrong with this plan here, each with its remedy.

    Args:
        seconds: of one trial of each kind, by its name.
        room: of `room_of`.
        compute: limits of the plan.
        machine: this one.
        stored: bytes that the results take on disk.
        driver: bytes that they take when they are judged.
    """
    for name, each in seconds.items():
        if each > compute.timeout:
            yield (
                f"a trial of {name} takes {each:,.0f} s or more and would be lost after "
                f"{compute.timeout:,.0f} s: set compute.timeout = {2 * math.ceil(each)} or more"
            )
    tight = min(room, key=lambda part: room[part])
    starts = compute.workers or machine.cores
    if compute.engine == "local" and starts > room[tight] and tight != _CORES:
        yield (
            f"compute.workers = {compute.workers} starts {starts}, and {tight} carries {room[tight]}: "
            f"set compute.workers = {room[tight]}"
        )
    if machine.disk and stored > machine.disk:
        yield (
            f"the results take {stored / GIB:.3g} GiB and {machine.disk / GIB:.3g} GiB are free: "
            "choose another --out"
        )
    if machine.memory and driver > USABLE * machine.memory:
        yield (
            f"the results take {driver / GIB:.3g} GiB of memory when they are judged, where there are "
            f"{machine.memory / GIB:.3g} GiB: judge on a larger machine, or plan fewer shadow models"
        )
