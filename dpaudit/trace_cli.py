"""`dpaudit trace`: an unmodified training script under observation."""

from __future__ import annotations

import secrets
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpaudit.address import Place, place_of
from dpaudit.claim_cli import Epsilon, option
from dpaudit.errors import Interrupted
from dpaudit.memory import uncollected

if TYPE_CHECKING:
    from dpaudit.trace import Traced

_OUT = Path("audits")
_CLAIM, _LOOKING, _OUTPUT = "The claim", "How closely to look", "Output"
Script = Annotated[str, typer.Argument(help="The script, or with -m the name of a module.", metavar="SCRIPT")]
Arguments = Annotated[list[str] | None, typer.Argument(help="Its own arguments.", metavar="[ARGS]...")]
Module = Annotated[bool, typer.Option("--module", "-m", help="Run a module, as python -m does.")]
Delta = Annotated[float | None, option(_CLAIM, "Delta of the claim; else the one that the script asks for.")]
Alpha = Annotated[float, option(_CLAIM, "Error probability of the verdict.")]
Canaries = Annotated[
    bool,
    option(
        _LOOKING, "Insert canaries into real steps, which changes the weights.", "--canaries/--no-canaries"
    ),
]
Canary = Annotated[str, option(_LOOKING, "What they are: random, dirac or input (mislabelled records).")]
Every = Annotated[int, option(_LOOKING, "Canaries at the first 8 steps and at every so many-th.")]
Looks = Annotated[int, option(_LOOKING, "Steps that are re-executed on neighbouring batches.")]
StopEarly = Annotated[
    bool, option(_LOOKING, "Stop the script at a contradiction beyond doubt.", "--stop-early")
]
Control = Annotated[
    bool, option(_LOOKING, "Run the script again with a planted fault, to be caught.", "--control")
]
Fault = Annotated[str, option(_LOOKING, "The fault of that control.")]
Seed = Annotated[int | None, option(_LOOKING, "Of the audit's own random streams; else drawn and recorded.")]
Out = Annotated[str | None, option(_OUTPUT, "Folder or address of the record.", "--out", metavar="PLACE")]
Quiet = Annotated[bool, option(_OUTPUT, "Print nothing of the audit but errors.", "--quiet", "-q")]
AsJson = Annotated[
    bool, option(_OUTPUT, "Print a summary as JSON, and the script's output on stderr.", "--json")
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    settings = {"allow_interspersed_args": False, "ignore_unknown_options": False}
    app.command(name="trace", context_settings=settings)(trace)


def trace(
    script: Script,
    arguments: Arguments = None,
    module: Module = False,
    epsilon: Epsilon = None,
    delta: Delta = None,
    alpha: Alpha = 0.05,
    canaries: Canaries = True,
    canary: Canary = "random",
    every: Every = 40,
    looks: Looks = 6,
    stop_early: StopEarly = False,
    control: Control = False,
    fault: Fault = "half-noise",
    seed: Seed = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run a training script unchanged, look at its private steps, and judge its claim.

    Options of dpaudit come before the script; what follows it is the script's own.
    """
    with uncollected():
        from dpaudit.trace import Job, checked
        from dpaudit.trace import trace as run

    job = checked(
        Job(
            path=script,
            module=module,
            arguments=tuple(arguments or ()),
            out=place_of(out) if out else _OUT / (script.rpartition(".")[2] if module else Path(script).stem),
            command=shlex.join(["dpaudit", *sys.argv[1:]]),
            epsilon=epsilon,
            delta=delta,
            alpha=alpha,
            seed=secrets.randbelow(2**31) if seed is None else seed,
            canaries=canaries,
            canary=canary,
            every=every,
            looks=looks,
            stop_early=stop_early,
            fault=fault if control else None,
        )
    )
    traced = run(job, stdout=sys.stderr if as_json else None)
    with uncollected():
        code = _tell(traced, job.out, quiet=quiet, as_json=as_json)
    raise typer.Exit(code)


def _tell(traced: Traced, folder: Place, *, quiet: bool, as_json: bool) -> int:
    """Write the page, print the verdict, and return the exit code."""
    from rich.console import Console

    from dpaudit.gate import evaluate
    from dpaudit.policy import find_policy
    from dpaudit.record import RECORD_NAME
    from dpaudit.reports import html, jsonview, text
    from dpaudit.store import write_atomic

    gate = evaluate(traced.record, find_policy(Path.cwd()))
    page = folder / "report.html"
    write_atomic(page, html.render(traced.record, gate).encode())
    if traced.ended.how == "interrupted":
        raise Interrupted(f"Interrupted; what was found until then is in {folder / RECORD_NAME}.")
    if traced.answer:
        typer.echo(f"\n{traced.answer}", err=True)
    if as_json:
        typer.echo(jsonview.render(traced.record), nl=False)
    elif not quiet:
        text.print_summary(traced.record, Console())
        typer.echo(f"Report: {page}")
    return traced.record.exit_code if traced.ended.how == "crashed" else gate.exit_code
