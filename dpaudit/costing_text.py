"""What an audit costs, as a table for the terminal and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from dpaudit.costing import LEVEL, Costs, Line
from dpaudit.placing import Machine
from dpaudit.probing import Probing
from dpaudit.workload import Group

_COLUMNS = ("Target", "Kind", "Left", "One trial", "All", "Worker", "Result")


def as_json(costs: Costs, machine: Machine, probing: Probing) -> dict[str, Any]:
    """Seconds, bytes and counts under the names of the fields; never infinite."""
    lines = [
        {
            **{name: value for name, value in asdict(line).items() if name != "work"},
            "target": line.work.target,
            "kind": line.work.kind,
            "trials": line.work.trials,
            "done": line.work.done,
            "tasks": list(line.work.tasks),
            "stacked": line.work.stacked,
        }
        for line in costs.lines
    ]
    return {**asdict(costs), "lines": lines, "machine": asdict(machine), "probing": asdict(probing)}


def table(costs: Costs) -> Table:
    """One row for each kind of trial of which some are left."""
    found = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in _COLUMNS:
        found.add_column(name, justify="left" if name in ("Target", "Kind") else "right", no_wrap=True)
    for line in costs.lines:
        found.add_row(*_row(line))
    return found


def _row(line: Line) -> tuple[str, ...]:
    least = "" if line.ended else "over "
    return (
        line.work.target,
        line.work.kind + (", stacked" if line.work.stacked else ""),
        f"{line.work.left:,} of {line.work.trials:,}",
        least + duration(line.seconds),
        least + duration(line.total),
        size(line.memory),
        size(line.stored) if line.ended else "-",
    )


def sentences(costs: Costs, machine: Machine, probing: Probing) -> Iterator[tuple[str, str]]:
    """A heading and what is to be said under it."""
    least, choice = "" if costs.ended else "at least ", costs.choice
    yield (
        "Trials",
        f"{costs.trials:,}, of which {costs.trials - costs.left:,} are on disk; {costs.left:,} are left, in "
        f"{costs.tasks:,} tasks.",
    )
    if not costs.left:
        return
    yield "Measured", _measured(costs, machine, probing)
    margin = "" if costs.margin is None else f", plus or minus {duration(costs.margin)}"
    starts = "each task" if choice.engine.startswith("ray") else "each worker"
    clock = f"{least}{duration(costs.wall)} by the clock with {_workers(choice.workers)}"
    yield (
        "Time",
        f"{least}{duration(costs.seconds)} of workers{margin}, of which {duration(costs.startup)} before "
        f"{starts} trains; {clock}. "
        "The judgement at the end comes on top.",
    )
    if machine.gpus:
        yield (
            "GPU",
            f"{least}{duration(costs.gpu_seconds)} of GPUs; a worker takes {size(costs.gpu)} of one, so that "
            f"compute.gpus = {choice.gpus:g}.",
        )
    held = f"{size(costs.worker)} a worker" if costs.worker else "a worker's is not known on this system"
    yield (
        "Memory",
        f"{held}" + (f"; {size(costs.driver)} of results when they are judged." if costs.ended else "."),
    )
    if costs.ended:
        yield "Disk", f"{size(costs.stored)} of results."
    if costs.price is not None:
        yield (
            "Cost",
            f"{least}{costs.price:,.2f} for {duration(costs.machine_seconds)} of machines, "
            f"{choice.machines:,} at once.",
        )
    yield "Engine", f"{choice.engine}, {_workers(choice.workers)}: {choice.reason}."
    yield "Chunks", _chunks(costs)
    for warning in costs.warnings:
        yield "Warning", f"{warning}."


def _measured(costs: Costs, machine: Machine, probing: Probing) -> str:
    words = (
        "one probe of each kind"
        if probing.repeats == 1
        else f"{probing.repeats} probes of each kind, {min(probing.repeats, probing.workers)} at a time"
    )
    memory = f", {size(machine.memory)}" if machine.memory else ""
    where = f"on this machine ({machine.cores} cores{memory}, {machine.device})"
    if not costs.ended:
        late = [f"{line.work.target} ({line.work.kind})" for line in costs.lines if not line.ended]
        return (
            f"{words}, {where}. After {probing.seconds:g} s this had not ended: {', '.join(late)}. So all "
            'of it is "at least"; raise --probe-seconds, or take a --probe-share of the records.'
        )
    drawn = ""
    if probing.share < 1:
        drawn = (
            f" Training runs were made on {probing.share / 2:.3g} and {probing.share:.3g} of the records: "
            "what is told of all of them supposes that everything grows in a straight line."
        )
    if costs.margin is None:
        return f"{words}, {where}. That gives no margin of error: for one, take --probe-repeats 3.{drawn}"
    return (
        f"{words}, {where}. Margins hold with probability {LEVEL:g} if the seconds of trials are normal and "
        f"independent, on machines and under a load like these.{drawn}"
    )


def _chunks(costs: Costs) -> str:
    stacked = [line for line in costs.lines if line.work.stacked]
    if not stacked:
        return "one trial a task."
    words = "; ".join(
        f"{line.work.target}: {len(line.work.tasks):,} of up to {max(line.work.tasks):,} models"
        for line in stacked
    )
    return f"stacks of shadow models: {words}. Everything else: one trial a task."


def counts(found: dict[Group, int]) -> str:
    """Trials of a plan in one line."""
    kinds: dict[str, int] = {}
    for (_, kind), count in found.items():
        kinds[kind] = kinds.get(kind, 0) + count
    parts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
    return f"Trials: {sum(kinds.values()):,} ({parts}). What they cost: dpaudit plan --probe."


def _workers(count: int) -> str:
    return f"{count:,} worker{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, least in (("days", 172_800.0), ("h", 5_400.0), ("min", 120.0)):
        if seconds >= least:
            return f"{_three(seconds / {'days': 86_400.0, 'h': 3_600.0, 'min': 60.0}[unit])} {unit}"
    return f"{_three(seconds)} s" if seconds >= 0.1 or seconds == 0 else f"{_three(1e3 * seconds)} ms"


def size(count: float) -> str:
    """Bytes with three digits and a unit."""
    power = 0 if count < 1 else min(int(math.log2(count)) // 10, 4)
    return f"{_three(count / 1024**power)} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def _three(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
