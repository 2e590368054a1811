"""How an audit grows: workers, trials and scores against throughput, overhead, memory and the record's size.

    python bench/scale.py --trials 1000

One tiny training function, so that what is measured is the harness. First the soak: one run of so many
trials, with the memory of the driver and of its workers after each. Then the same plan on 1, 2 and 4
workers, inline, and on Ray where that is installed; the size of the record; and what `dpaudit plan --probe`
foretells of a run. The table goes to bench/results/scale.md; `--quick` takes a tenth of the trials.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from zoo import machine

from dpaudit.backend import available_cores
from dpaudit.costing import costs
from dpaudit.events import Analysing, RunFinished, RunStarted, TrialFinished, TrialLost
from dpaudit.memory import held_by, of_the_machine
from dpaudit.placing import Asked, Machine
from dpaudit.plan import parse
from dpaudit.probing import Probing, probes
from dpaudit.run import Job, run
from dpaudit.workload import workload

RESULTS = Path(__file__).parent / "results" / "scale.md"
KIB = 1 << 10
MARKS = (50, 250, 1000)
WORKERS = (1, 2, 4)
OWN = """
import time
import numpy as np
import torch

def load(records):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((records, 8))
    return x, (x[:, 0] > 0).astype(np.int64)

def small():
    return load(220)

def middle():
    return load(880)

def large():
    return load(3520)

def fit(x, y, *, seed, device, seconds=0.0):
    torch.manual_seed(seed)
    model = torch.nn.Linear(x.shape[1], 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    x, y = torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y)
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    end = time.process_time() + seconds
    while time.process_time() < end:
        torch.nn.functional.cross_entropy(model(x), y).backward()
    return model
"""


@dataclass(slots=True)
class Seen:
    """One run, as it was seen from outside.

    Attributes:
        at: (t,) seconds since the start of the run at which each trial was there.
        own: (t,) seconds that each took in its worker.
        driver: (t,) bytes of this process after each.
        workers: (t,) bytes of the largest worker.
        lost: errors.
        trained: seconds until the judgement began.
        judged: seconds that it took.
        record: bytes of record.json.
        results: bytes of all results.
    """

    at: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    driver: list[int] = field(default_factory=list)
    workers: list[int] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    trained: float = 0.0
    judged: float = 0.0
    record: int = 0
    results: int = 0


def job(
    folder: Path,
    name: str,
    *,
    trials: int,
    workers: int,
    engine: str,
    data: str = "small",
    seconds: float = 0.0,
) -> Job:
    """An audit of so many trials: one audited, the others shadow models."""
    document = {
        "seed": 3,
        "data": {"source": f"scale_own:{data}", "canaries": 20},
        "compute": {"device": "cpu", "engine": engine, "workers": workers},
        "targets": [
            {
                "name": "own",
                "train": "scale_own:fit",
                "options": {"seconds": seconds},
                "claim": {"epsilon": 8.0},
            }
        ],
        "attacks": {"lira": {"shadows": trials - 1}},
    }
    (folder / "scale_own.py").write_text(OWN)
    return Job(plan=parse(document), plan_text="", plan_folder=folder, out=folder / name, command="bench")


def watch(made: Job) -> Seen:
    """Run it, and look after every trial."""
    seen, start, here = Seen(), 0.0, os.getpid()
    for event in run(made):
        now = time.monotonic()
        match event:
            case RunStarted():
                start = now
            case TrialFinished():
                seen.at.append(now - start)
                seen.own.append(event.seconds)
                seen.driver.append(held_by(here))
                children = [held_by(child.pid) for child in multiprocessing.active_children()]
                seen.workers.append(max(children, default=0))
            case TrialLost():
                seen.lost.append(event.error)
            case Analysing():
                seen.trained = now - start
            case RunFinished():
                seen.judged = now - start - seen.trained
    seen.record = (made.out / "record.json").stat().st_size
    seen.results = sum(path.stat().st_size for path in (made.out / "trials").glob("*.npz"))
    return seen


def slope(values: list[int]) -> tuple[float, float]:
    """KiB a trial by least squares over the last nine tenths of a run, and its standard error.

    Neighbouring values hang together, so that the error is of the means of twenty stretches.
    """
    kept = np.array(values[len(values) // 10 :], dtype=np.float64) / KIB
    blocks = np.array_split(kept, min(20, len(kept)))
    y = np.array([block.mean() for block in blocks])
    x = np.cumsum([len(block) for block in blocks]) - np.array([len(block) / 2 for block in blocks])
    centred = x - x.mean()
    steep = float(centred @ y / (centred @ centred))
    rest = y - y.mean() - steep * centred
    return steep, float(np.sqrt(rest @ rest / max(len(y) - 2, 1) / (centred @ centred)))


def soak(folder: Path, trials: int) -> Iterator[str]:
    """Memory against the number of trials, in one run."""
    seen = watch(job(folder, "soak", trials=trials, workers=2, engine="local"))
    yield f"## Soak: {trials:,} trials in one run, 2 workers"
    yield ""
    yield (
        f"{len(seen.at):,} finished, {len(seen.lost)} lost; {seen.trained:.0f} s of training and "
        f"{seen.judged:.0f} s of judgement. Mean of a trial in its worker {1e3 * np.mean(seen.own):.1f} ms."
    )
    yield ""
    yield "| after | driver, MiB | largest worker, MiB |"
    yield "|--:|--:|--:|"
    marks = [mark for mark in MARKS if mark < trials] + [len(seen.at)]
    for mark in marks:
        driver, worker = seen.driver[mark - 1] / KIB**2, seen.workers[mark - 1] / KIB**2
        yield f"| {mark:,} trials | {driver:.1f} | {worker:.1f} |"
    for name, values in (("driver", seen.driver), ("largest worker", seen.workers)):
        steep, error = slope(values)
        yield f"| slope, {name} | {steep:.3f} KiB a trial | standard error {error:.3f} |"
    yield ""


def throughput(folder: Path, trials: int, ray: bool) -> Iterator[str]:
    """Trials a second once all workers are up, and what the harness takes of each."""
    yield "## Workers"
    yield ""
    yield (
        f"{trials:,} trials for each worker on {available_cores()} cores, of which the last half is "
        "counted: all workers are up by then. Overhead is the time of a core for each trial beyond what the "
        "trial took in its worker; with more workers than cores a trial waits for a core: it cannot be told."
    )
    yield ""
    yield "| engine | workers | until the first trial, s | trials/s | in the worker, ms | overhead, ms |"
    yield "|---|--:|--:|--:|--:|--:|"
    ways = [("inline", 1), *(("local", workers) for workers in WORKERS)]
    ways += [("ray", workers) for workers in (1, 2)] if ray else []
    for engine, workers in ways:
        count = (4 if engine == "ray" else trials) * workers
        seen = watch(job(folder, f"{engine}-{workers}", trials=count, workers=workers, engine=engine))
        if seen.lost:
            yield f"| {engine} | {workers} | lost: {seen.lost[0][:80]} | | | |"
            continue
        half = len(seen.at) // 2
        rate = (len(seen.at) - half) / (seen.at[-1] - seen.at[half - 1])
        own = float(np.mean(seen.own[half:]))
        over = f"{1e3 * (workers / rate - own):.1f}" if workers <= available_cores() else "-"
        yield f"| {engine} | {workers} | {seen.at[0]:.1f} | {rate:.3g} | {1e3 * own:.1f} | {over} |"
    if not ray:
        yield ""
        yield "Ray is not installed here, and was left out."
    yield ""


def sizes(folder: Path, trials: int) -> Iterator[str]:
    """What lies on disk against trials and records."""
    yield "## Record"
    yield ""
    yield "| trials | records in the pool | scores | record.json, KiB | results, KiB |"
    yield "|--:|--:|--:|--:|--:|"
    for count in (trials // 25, trials // 5, trials):
        yield _size(folder, max(count, 3), "small")
    for data in ("middle", "large"):
        yield _size(folder, max(trials // 25, 3), data)
    yield ""


def _size(folder: Path, trials: int, data: str) -> str:
    made = job(folder, f"size-{trials}-{data}", trials=trials, workers=0, engine="inline", data=data)
    seen = watch(made)
    records = {"small": 198, "middle": 792, "large": 3168}[data]
    scores = 2 * trials * records
    return f"| {trials:,} | {records:,} | {scores:,} | {seen.record / KIB:.1f} | {seen.results / KIB:.0f} |"


def foretold(folder: Path, trials: int, seconds: float) -> Iterator[str]:
    """What the probe says of a run, and what the run takes."""
    yield "## What `dpaudit plan --probe` foretells"
    yield ""
    yield (
        "| workers | probes | foretold, s | took, s | ratio | trials foretold, s | margin, s | took, s "
        "| judgement, s |"
    )
    yield "|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    here = Machine(cores=available_cores(), memory=of_the_machine(), gpus=0, disk=1e15, device="cpu")
    for workers in (1, 2):
        made = job(
            folder, f"foretold-{workers}", trials=trials, workers=workers, engine="local", seconds=seconds
        )
        load = workload(made, "cpu")
        probing = Probing(repeats=4, workers=workers)
        told = costs(
            load,
            probes(load.works, probing, say=lambda _: None),
            made.plan.compute,
            here,
            Asked(workers=workers),
        )
        seen = watch(made)
        yield (
            f"| {workers} | {probing.repeats} | {told.wall:.1f} | {seen.trained:.1f} "
            f"| {told.wall / seen.trained:.2f} | {told.seconds - workers * told.startup:.1f} "
            f"| {told.margin or 0:.1f} | {sum(seen.own):.1f} | {seen.judged:.1f} |"
        )
    yield ""
    yield (
        f"{trials} trials of {seconds:g} s and some; a ratio above 1 foretells too much. The first columns "
        "of seconds are by the clock, with the start of workers; the trials are summed, without it. What a "
        "trial took is counted by the trial itself, without the writing of its result."
    )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    trials = asked.trials // (10 if asked.quick else 1)
    ray = importlib.util.find_spec("ray") is not None
    begun, lines = time.monotonic(), ["# How an audit grows", "", machine(), ""]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        sys.path.insert(0, place)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
        parts = (
            soak(folder, trials),
            throughput(folder, max(trials // 10, 20), ray),
            sizes(folder, max(trials // 4, 25)),
            foretold(folder, 20 if asked.quick else 60, 0.2),
        )
        for part in parts:
            for line in part:
                print(line, flush=True)
                lines.append(line)
    command = " ".join(["python bench/scale.py", *sys.argv[1:]])
    lines[3:3] = ["", f"`{command}`, {time.monotonic() - begun:.0f} s"]
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
