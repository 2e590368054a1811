"""How long a trial takes and what it holds: measured in a worker, as a run would make it, and thrown away.

What is measured trains on the real data, in a folder that is removed afterwards. A probe that has not ended
after its seconds is ended, and what it says is said with "at least".
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from dpaudit.address import Place
from dpaudit.backend import Outcome, Task, gpu_memory
from dpaudit.canary import Canaries
from dpaudit.documents import contents, json_of
from dpaudit.errors import TrialError, UsageError
from dpaudit.games import execute_game
from dpaudit.memory import forget_peak, peak
from dpaudit.stacking import execute_stack
from dpaudit.store import Store, write_atomic
from dpaudit.trial import (
    AUDITED,
    SHADOW,
    TrialSpec,
    canaries_of,
    save_view,
    target_of,
    trained,
    training_function,
)
from dpaudit.workers import LocalEngine
from dpaudit.workload import Work

STACKED = 16
"""Models of a stack that is measured: more gain little, and take long."""
_SOON = 0.25
"""Share of its seconds within which a probe is made again."""
_LOADING = 600.0
"""Seconds beside those of the probe, for the import of the user's modules and the data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probing:
    """How trials are measured.

    Attributes:
        seconds: after which a probe is ended.
        repeats: probes of each kind.
        share: of the records; below 1, half of it is measured too, and a straight line drawn through both.
        workers: at work at once.
        memory: GiB that one may hold; 0 for what there is.
    """

    seconds: float = 60.0
    repeats: int = 1
    share: float = 1.0
    workers: int = 1
    memory: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one probe saw, or what a straight line through two says of all records.

    Attributes:
        trials: made at once.
        seconds: of all of them.
        ended: whether they ended; otherwise everything is "at least".
        startup: seconds from the order to the first line of work: those of earlier tasks of the worker too.
        loading: seconds for modules, data and whatever else a worker does once.
        memory: peak bytes of the worker; 0 where the system does not say.
        gpu: peak bytes of its GPU.
        gpu_total: bytes that the GPU has.
        stored: bytes of the results on disk.
        held: bytes of the results in memory.
        share: of the records.
    """

    trials: int
    seconds: float
    ended: bool
    startup: float
    loading: float
    memory: float
    gpu: float
    gpu_total: float
    stored: float = 0.0
    held: float = 0.0
    share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The argument of the task.

    Attributes:
        specs: trials to make; their folder is that of the probe.
        stacked: whether they are models of one stack.
        share: of the records.
        limit: seconds.
        asked: when it was handed over, by the clock that all processes of a machine share.
    """

    specs: tuple[TrialSpec, ...]
    stacked: bool
    share: float
    limit: float
    asked: float


def probes(
    works: Sequence[Work], probing: Probing, *, say: Callable[[str], object]
) -> list[tuple[Work, tuple[Measured, ...]]]:
    """What every repetition says of all records, for each kind of trial of which some are left.

    Costs `repeats` trials of each kind, or the seconds after which they are ended.

    Args:
        works: of a plan.
        probing: how to measure.
        say: told of what is measured now.

    Raises:
        TrialError: a trial raised, or its worker died.
        UsageError: a share of the records that hold planted secrets.
    """
    todo = [work for work in works if work.left]
    if probing.share < 1 and any(_canaries(work.specs[0]).secrets is not None for work in todo):
        raise UsageError(
            "Expected all records where secrets are planted in some, found --probe-share "
            f"{probing.share:g}. Leave it out."
        )
    found = []
    with TemporaryDirectory(prefix="dpaudit-probe-") as folder:
        for number, work in enumerate(todo):
            say(f"probing {work.target} ({work.kind}), {number + 1} of {len(todo)}")
            shares = (1.0,) if probing.share == 1 or not _alone(work) else (probing.share / 2, probing.share)
            seen = _measured(work, shares, probing, Path(folder) / str(number))
            rows = [seen[start : start + len(shares)] for start in range(0, len(seen), len(shares))]
            found.append((work, tuple(of_all_records(row) for row in rows)))
    return found


def of_all_records(points: Sequence[Measured]) -> Measured:
    """What one or two measurements say of all records; two by the straight line through them.

    Nothing falls with the number of records: where the smaller share took longer, the larger one counts.
    """
    last = points[-1]
    if len(points) == 1 or not all(point.ended for point in points):
        return replace(last, ended=all(point.ended for point in points))
    first = points[0]
    ahead = (1.0 - last.share) / (last.share - first.share)

    def line(name: str) -> float:
        one, other = float(getattr(first, name)), float(getattr(last, name))
        return other + max(other - one, 0.0) * ahead

    return replace(
        last,
        share=1.0,
        loading=max(first.loading, last.loading),
        seconds=line("seconds"),
        memory=line("memory"),
        gpu=line("gpu"),
        stored=line("stored"),
        held=line("held"),
    )


def measure(probe: Probe) -> float:
    """Make the trials of a probe in this process, and write down what they took; returns seconds.

    The first training of a process imports and compiles: one that is over soon is made again, and what it
    took more than the second belongs to the loading.
    """
    began = time.monotonic()
    first = probe.specs[0]
    training_function(first.plan, target_of(first), first.plan_folder)
    canaries = part_of(_canaries(first), probe.share)
    loaded = time.monotonic()

    def end() -> None:
        _write(probe, began, loaded - began, time.monotonic() - loaded, ended=False)
        os._exit(0)

    forget_peak()
    late = threading.Timer(probe.limit, end)
    late.daemon = True
    late.start()
    try:
        seconds = more = _made(probe, canaries)
    finally:
        late.cancel()
    if seconds < _SOON * probe.limit:
        seconds = _made(probe, canaries)
    _write(probe, began, loaded - began + max(more - seconds, 0.0), seconds, ended=True)
    return seconds


def _write(probe: Probe, began: float, loading: float, seconds: float, *, ended: bool) -> None:
    first = probe.specs[0]
    taken, total = gpu_memory(first.device)
    stored, held = _sizes(probe.specs) if ended else (0, 0)
    found = Measured(
        trials=len(probe.specs),
        seconds=seconds,
        ended=ended,
        startup=began - probe.asked,
        loading=loading,
        memory=peak(),
        gpu=taken,
        gpu_total=total,
        stored=stored,
        held=held,
        share=probe.share,
    )
    write_atomic(_report(first.out), json.dumps(asdict(found)).encode())


def part_of(canaries: Canaries, share: float) -> Canaries:
    """A share of the records, equally of canaries and others, members or not, and of those outside.

    Args:
        canaries: without secrets.
        share: above 0; 1 for all.
    """
    if share == 1:
        return canaries
    kept = []
    for canary in (False, True):
        for member in (False, True):
            group = np.flatnonzero((canaries.canary == canary) & (canaries.member == member))
            kept.append(group[: math.ceil(share * len(group))])
    chosen = np.sort(np.concatenate(kept))
    outside = math.ceil(share * len(canaries.test_y))
    return replace(
        canaries,
        x=canaries.x[chosen],
        y=canaries.y[chosen],
        member=canaries.member[chosen],
        canary=canaries.canary[chosen],
        test_x=canaries.test_x[:outside],
        test_y=canaries.test_y[:outside],
        groups={name: values[chosen] for name, values in canaries.groups.items()},
    )


def _made(probe: Probe, canaries: Canaries) -> float:
    """Do what a task of a run does with these trials; returns seconds."""
    first, start = probe.specs[0], time.monotonic()
    if probe.stacked:
        execute_stack(probe.specs)
    elif first.kind in (AUDITED, SHADOW):
        save_view(first, trained(first, canaries))
    else:
        execute_game(first)
    return time.monotonic() - start


def _canaries(spec: TrialSpec) -> Canaries:
    return canaries_of(spec.plan, spec.plan_folder, spec.draw)


def _alone(work: Work) -> bool:
    """Whether each trial is one training run, which can be made on a share of the records."""
    return not work.stacked and work.kind in (AUDITED, SHADOW)


def _measured(work: Work, shares: tuple[float, ...], probing: Probing, folder: Path) -> list[Measured]:
    """Every repetition, and in it every share."""
    tasks, folders = list[Task](), list[Path]()
    asked = time.monotonic()
    for repeat in range(probing.repeats):
        for place, share in enumerate(shares):
            folders.append(folder / f"{repeat}-{place}")
            specs = tuple(replace(spec, out=folders[-1]) for spec in work.specs[:STACKED])
            probe = Probe(specs=specs, stacked=work.stacked, share=share, limit=probing.seconds, asked=asked)
            tasks.append(Task(key=str(len(tasks)), run=measure, argument=probe))
    outcomes = LocalEngine().outcomes(
        tasks,
        workers=min(probing.workers, len(tasks)),
        timeout=2 * probing.seconds + _LOADING,
        memory=probing.memory,
    )
    lost = {outcome.key: outcome for outcome in outcomes if outcome.error}
    return [_read(work, path, lost.get(task.key)) for task, path in zip(tasks, folders, strict=True)]


def _read(work: Work, folder: Path, lost: Outcome | None) -> Measured:
    """What a probe wrote down; the error of one that wrote nothing."""
    try:
        found = Measured(**json_of(contents(_report(folder))))
    except (OSError, ValueError, TypeError):
        kind = UsageError if lost is not None and lost.usage else TrialError
        error = lost.error if lost is not None else "Expected a probe to say what it took, found nothing."
        raise kind(f"Probing {work.target!r} ({work.kind}): {error}") from None
    return found


def _report(folder: Place) -> Place:
    return folder / "measured.json"


def _sizes(specs: Sequence[TrialSpec]) -> tuple[int, int]:
    """Bytes of the results on disk and in memory."""
    stored = held = 0
    for spec in specs:
        path = Path(str(Store(spec.out).path(spec.key)))  # The folder of a probe is on this machine.
        stored += path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            held += sum(member.file_size for member in archive.infolist())
    return stored, held
