"""What an audit costs, from what its probes took: hours, memory, disk, money, and where to run it.

Plain arithmetic. Nothing here knows a price, and nothing is measured here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import t as student

from dpaudit.placing import Asked, Choice, Machine, choose, room_of, scheduled, warnings
from dpaudit.plan import ComputePlan
from dpaudit.probing import Measured
from dpaudit.workload import Work, Workload

LEVEL = 0.95
_HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Trials of one kind of one target, and what one of them takes.

    Attributes:
        work: which.
        seconds: of one trial, the mean of the probes.
        spread: standard deviation between probes; None with a single one.
        probes: how many there were.
        ended: whether all of them ended; otherwise everything is "at least".
        memory: peak bytes of a worker.
        gpu: peak bytes of its GPU.
        stored: bytes of one result on disk.
        held: bytes of one result in memory, when the audit is judged.
    """

    work: Work
    seconds: float
    spread: float | None
    probes: int
    ended: bool
    memory: float
    gpu: float
    stored: float
    held: float

    @property
    def total(self) -> float:
        """Seconds of all trials that are left."""
        return self.seconds * self.work.left

    @property
    def margin(self) -> float | None:
        """Half of the prediction interval of `total`; None with a single probe.

        For further trials whose seconds are normal and independent of those of the probes: the mean of R
        probes with standard deviation s predicts tasks of n_1, n_2, ... trials within
        t_(R-1) s sqrt((sum n)^2 / R + sum n^2) (Student 1908; the usual prediction interval).
        """
        if self.spread is None:
            return None
        quantile = float(student.ppf((1 + LEVEL) / 2, self.probes - 1))
        squares = sum(size**2 for size in self.work.tasks)
        return quantile * self.spread * math.sqrt(self.work.left**2 / self.probes + squares)


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What the trials that are left take, without the judgement at the end.

    Attributes:
        lines: by target and kind; only of kinds of which some are left.
        trials: of the plan.
        left: of them.
        tasks: for those.
        ended: whether every probe ended; otherwise everything is "at least".
        startup: seconds before a worker trains: its start, and what it loads once.
        seconds: of all workers together, starts included.
        margin: half of the prediction interval of `seconds`, at `LEVEL`; None with a single probe.
        wall: seconds by the clock.
        choice: of the engine.
        worker: peak bytes of one worker.
        gpu: peak bytes of the GPU for one worker.
        driver: bytes of the results of these kinds in memory, when the audit is judged.
        stored: bytes of all results on disk.
        gpu_seconds: of whole GPUs.
        machine_seconds: of whole machines.
        price: of those; None where nobody gave one.
        warnings: what would go wrong, and the remedy.
    """

    lines: tuple[Line, ...]
    trials: int
    left: int
    tasks: int
    ended: bool
    startup: float
    seconds: float
    margin: float | None
    wall: float
    choice: Choice
    worker: float
    gpu: float
    driver: float
    stored: float
    gpu_seconds: float
    machine_seconds: float
    price: float | None
    warnings: tuple[str, ...]


def line_of(work: Work, probes: Sequence[Measured]) -> Line:
    """What one trial takes, from the probes of its kind."""
    each = [probe.seconds / probe.trials for probe in probes]
    return Line(
        work=work,
        seconds=fmean(each),
        spread=stdev(each) if len(each) > 1 else None,
        probes=len(each),
        ended=all(probe.ended for probe in probes),
        memory=max(probe.memory for probe in probes),
        gpu=max(probe.gpu for probe in probes),
        stored=max(probe.stored / probe.trials for probe in probes),
        held=max(probe.held / probe.trials for probe in probes),
    )


def costs(
    load: Workload,
    measured: Sequence[tuple[Work, Sequence[Measured]]],
    compute: ComputePlan,
    machine: Machine,
    asked: Asked,
) -> Costs:
    """Put the probes of all kinds together. Costs one pass over the tasks.

    Args:
        load: what is to be done.
        measured: probes of every kind of which trials are left.
        compute: limits and engine of the plan.
        machine: where the probes ran.
        asked: workers and price.
    """
    lines = tuple(line_of(work, probes) for work, probes in measured)
    tasks = _tasks(load, lines)
    seen = [probe for _, probes in measured for probe in probes]
    worker, gpu, gpu_total = (
        max((getattr(probe, name) for probe in seen), default=0.0) for name in ("memory", "gpu", "gpu_total")
    )
    start, loading = _start(measured), max((probe.loading for probe in seen), default=0.0)
    ended = all(line.ended for line in lines)
    room = room_of(machine, worker, gpu, gpu_total)
    choice = choose(tasks, start if ended else 0.0, room, compute, machine, asked)
    # A worker of the local engine starts once, and one of a cluster for every task; inline, none does.
    startup = loading + (0.0 if choice.engine == "inline" else start)
    every, once = (startup, 0.0) if choice.engine.startswith("ray") else (0.0, startup)
    wall = scheduled([task + every for task in tasks], choice.workers, once) if tasks else 0.0
    starts = every * len(tasks) + once * min(choice.workers, len(tasks))
    return Costs(
        lines=lines,
        trials=sum(work.trials for work in load.works),
        left=load.left,
        tasks=len(tasks),
        ended=ended,
        startup=startup,
        seconds=sum(tasks) + starts,
        margin=_margin(lines) if ended else None,
        wall=wall,
        choice=choice,
        worker=worker,
        gpu=gpu,
        driver=_driver(lines),
        stored=_stored(lines),
        gpu_seconds=sum(tasks) * choice.gpus,
        machine_seconds=wall * choice.machines,
        price=None if asked.price is None else asked.price * wall * choice.machines / _HOUR,
        warnings=_warned(lines, room, compute, machine),
    )


def _tasks(load: Workload, lines: Sequence[Line]) -> list[float]:
    """Seconds of each task, in the order of the run."""
    each = {(line.work.target, line.work.kind): line.seconds for line in lines}
    groups = [(work.target, work.kind) for work in load.works]
    return [each[groups[place]] * trials for place, trials in load.order]


def _driver(lines: Sequence[Line]) -> float:
    return sum(line.held * line.work.trials for line in lines)


def _stored(lines: Sequence[Line]) -> float:
    return sum(line.stored * line.work.left for line in lines)


def _warned(
    lines: Sequence[Line], room: Mapping[str, int], compute: ComputePlan, machine: Machine
) -> tuple[str, ...]:
    seconds = {f"{line.work.target} ({line.work.kind})": line.seconds for line in lines}
    return tuple(warnings(seconds, room, compute, machine, stored=_stored(lines), driver=_driver(lines)))


def _margin(lines: Sequence[Line]) -> float | None:
    """Of the sum: the margins added.

    The root of their squares would do for independent normals (Banerjee 1961, Sankhya A 23); this is wider,
    and holds for kinds that are slow together too.
    """
    margins = [line.margin for line in lines]
    known = [margin for margin in margins if margin is not None]
    return sum(known) if known and len(known) == len(margins) else None


def _start(measured: Sequence[tuple[Work, Sequence[Measured]]]) -> float:
    """Seconds in which a worker starts, as seen by the first probe of each kind."""
    starts = [min(probe.startup for probe in probes) for _, probes in measured]
    return fmean(starts) if starts else 0.0
