"""`dpaudit plan`: what an audit could show before anything is trained, and with `--probe` what it costs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpaudit.address import Address, Place, place_of
from dpaudit.claim_cli import AsJson, Noise, Rate, SamplerName, Steps, ledger_of, option
from dpaudit.errors import UsageError
from dpaudit.prospects_cli import stated, strict, table

if TYPE_CHECKING:
    from dpaudit.claim import Ledger
    from dpaudit.costing import Costs
    from dpaudit.placing import Asked, Machine
    from dpaudit.plan import AuditPlan
    from dpaudit.probing import Probing
    from dpaudit.run import Job

_PROBE = "What it costs"
_OUT = Path("audits")
PlanFile = Annotated[Path | None, typer.Argument(help="The plan; the default audit if left out.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="key.sub=value, over the plan.")]
Probe = Annotated[
    bool, option(_PROBE, "Train one trial of each kind, and say what the audit costs.", "--probe")
]
Seconds = Annotated[
    float, option(_PROBE, "After so many a probe is ended, and told as at least.", "--probe-seconds")
]
Repeats = Annotated[
    int,
    option(
        _PROBE, "Probes of each kind; from 2 on there is a margin, from 3 on a useful one.", "--probe-repeats"
    ),
]
Share = Annotated[
    float, option(_PROBE, "Train on this share of the records, and draw a line to all.", "--probe-share")
]
Workers = Annotated[
    int | None, option(_PROBE, "Workers at once; what the plan says if left out.", "--workers")
]
Price = Annotated[float | None, option(_PROBE, "Of one such machine, in any currency.", "--price-per-hour")]
Out = Annotated[
    str | None, option(_PROBE, "Folder or address of the record, where trials may lie already.", "--out")
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(name="plan")(plan)


def plan(
    plan_file: PlanFile = None,
    settings: Settings = None,
    noise_multiplier: Noise = None,
    sample_rate: Rate = None,
    steps: Steps = None,
    sampler: SamplerName = "poisson",
    probe: Probe = False,
    probe_seconds: Seconds = 60.0,
    probe_repeats: Repeats = 1,
    probe_share: Share = 1.0,
    workers: Workers = None,
    price_per_hour: Price = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Print what each attack of a plan could show, before anything is trained; or what the audit costs."""
    from dpaudit.plan import read

    audit_plan, text = read(plan_file, list(settings or []))
    folder = (plan_file.parent if plan_file else Path.cwd()).resolve()
    if not probe:
        given = {"--workers": workers, "--price-per-hour": price_per_hour, "--out": out}
        for name, value in given.items():
            if value is not None:
                raise UsageError(f"Expected --probe with {name}, found none. Add it: costs are measured.")
        _prospects(audit_plan, folder, ledger_of(noise_multiplier, sample_rate, steps, sampler), as_json)
        return
    from dpaudit.check import in_range
    from dpaudit.placing import Asked
    from dpaudit.run import Job

    if ledger_of(noise_multiplier, sample_rate, steps, sampler):
        raise UsageError("Expected --probe without a claim's ledger, found both. Costs do not depend on it.")
    in_range("--probe-seconds", probe_seconds, 0.0, 1e9, open_low=True)
    in_range("--probe-repeats", probe_repeats, 1, 1000)
    in_range("--probe-share", probe_share, 0.0, 1.0, open_low=True)
    in_range("--workers", 1 if workers is None else workers, 1, 1e6)
    in_range("--price-per-hour", price_per_hour or 0.0, 0.0, 1e9)
    job = Job(
        plan=audit_plan,
        plan_text=text,
        plan_folder=folder,
        out=place_of(out) if out else _OUT / (plan_file.stem if plan_file else "default"),
        command="dpaudit plan",
    )
    limits = probe_seconds, probe_repeats, probe_share
    _costs(job, limits, Asked(workers=workers or 0, price=price_per_hour), as_json)


def _prospects(audit_plan: AuditPlan, folder: Path, ledger: Ledger, as_json: bool) -> None:
    """What each attack could show."""
    from dpaudit.costing_text import counts
    from dpaudit.plan_prospects import of_plan
    from dpaudit.workload import counted

    found = of_plan(audit_plan, folder, ledger)
    if as_json:
        rows = {name: [strict(each) for each in prospects] for name, (_, prospects) in found.items()}
        typer.echo(json.dumps(rows, indent=1, allow_nan=False))
        return
    for name, (planned, prospects) in found.items():
        typer.echo(f"{name}: {stated(planned.claim)}")
        typer.echo(table(prospects))
    typer.echo(counts(counted(audit_plan, folder)))


def _costs(job: Job, limits: tuple[float, int, float], asked: Asked, as_json: bool) -> None:
    """What the audit costs, by probes in workers; progress goes to stderr."""
    from rich.console import Console

    from dpaudit import costing_text
    from dpaudit.backend import choose_device
    from dpaudit.costing import costs
    from dpaudit.probing import probes
    from dpaudit.workload import workload

    console = Console(stderr=True)
    with console.status("reading what is on disk"):
        machine = _machine(choose_device(job.plan.compute.device), job.out)
        probing = _probing(job, limits, asked, machine)
        load = workload(job, machine.device)
    with console.status("") as status:
        measured = probes(load.works, probing, say=status.update)
    total = costs(load, measured, job.plan.compute, machine, asked)
    if as_json:
        typer.echo(json.dumps(costing_text.as_json(total, machine, probing), indent=1, allow_nan=False))
        return
    _show(total, costing_text.sentences(total, machine, probing))


def _machine(device: str, out: Place) -> Machine:
    """What there is here."""
    from dpaudit.backend import available_cores, gpus_here
    from dpaudit.memory import of_the_machine
    from dpaudit.placing import Machine

    disk = 0.0
    if not isinstance(out, Address):
        there = next(place for place in (out.resolve(), *out.resolve().parents) if place.exists())
        if not there.is_dir():
            raise UsageError(f"Expected --out={out} to be a folder, found a file at {there}. Name another.")
        disk = shutil.disk_usage(there).free
    return Machine(
        cores=available_cores(),
        memory=of_the_machine(),
        gpus=gpus_here(device),
        disk=disk,
        device=device,
    )


def _probing(job: Job, limits: tuple[float, int, float], asked: Asked, machine: Machine) -> Probing:
    """Repetitions run as many at a time as trials will, on one machine."""
    from dpaudit.probing import Probing

    seconds, repeats, share = limits
    at_once = min(asked.workers or job.plan.compute.workers or machine.cores, machine.cores)
    return Probing(
        seconds=seconds, repeats=repeats, share=share, workers=at_once, memory=job.plan.compute.memory
    )


def _show(total: Costs, told: Iterable[tuple[str, str]]) -> None:
    """The table, and below it one paragraph under each heading."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from dpaudit.costing_text import table as lines

    console = Console()
    if total.left:
        console.print(lines(total))
    below = Table.grid(padding=(0, 2))
    below.add_column(style="bold", no_wrap=True)
    below.add_column(overflow="fold")
    for heading, words in told:
        below.add_row(heading, Text(words))
    console.print(below)
