"""The command line: `dpaudit init`, `run`, `report`, `show`, `schema`; other commands register here."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from dpaudit import (
    __version__,
    bound_cli,
    gate_cli,
    ledger_cli,
    linkage_cli,
    mechanism_cli,
    plan_cli,
    records_cli,
    seal_cli,
    trace_cli,
)
from dpaudit.address import Place, place_of
from dpaudit.claim_cli import AsJson
from dpaudit.errors import DpauditError, Interrupted, UsageError, one_line
from dpaudit.gate_cli import Record, policy_of

app = typer.Typer(
    help="Check a claimed (epsilon, delta) before release: train, attack, measure, judge, report.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

bound_cli.register(app)
gate_cli.register(app)
plan_cli.register(app)
ledger_cli.register(app)
trace_cli.register(app)
mechanism_cli.register(app)
linkage_cli.register(app)
seal_cli.register(app)
records_cli.register(app)

_OUT = Path("audits")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"dpaudit {__version__}")
        raise typer.Exit


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write the plan.")] = Path("dpaudit-plan.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the default plan, to be edited."""
    from dpaudit.plan import default_toml
    from dpaudit.store import write_atomic

    if path.exists() and not force:
        raise UsageError(f"Expected no file at {path}, found one. Choose another name, or use --force.")
    write_atomic(path, default_toml().encode())
    said = f"Wrote {path}. Edit it, then: dpaudit run {path}"
    typer.echo(json.dumps({"plan": str(path)}) if as_json else said)


@app.command()
def run(
    plan: Annotated[Path | None, typer.Argument(help="The plan; the default audit if left out.")] = None,
    out: Annotated[
        str | None, typer.Option("--out", help="Folder or address of the record.", metavar="PLACE")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    engine: Annotated[str | None, typer.Option(help="local, inline, or ray[://ADDRESS].")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; 0 for one a core.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="key.sub=value, over the plan.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Train, attack, judge, and write the record and its report. The same command resumes."""
    from dpaudit.plan import read

    overrides = list(settings or [])
    given = {"device": device, "engine": engine, "workers": workers}
    overrides += [f"compute.{key}={value}" for key, value in given.items() if value is not None]
    audit_plan, text = read(plan, overrides)
    folder = place_of(out) if out else _OUT / (plan.stem if plan else "default")
    from dpaudit.policy import find_policy
    from dpaudit.progress import follow
    from dpaudit.run import Job
    from dpaudit.run import run as run_events

    job = Job(
        plan=audit_plan,
        plan_text=text,
        plan_folder=(plan.parent if plan else Path.cwd()).resolve(),
        out=folder,
        command=shlex.join(["dpaudit", *sys.argv[1:]]),
        policy_sha256=find_policy(Path.cwd()).sha256,
    )
    try:
        follow(run_events(job), quiet=quiet or as_json)
    except KeyboardInterrupt:
        raise Interrupted("Interrupted; the same command goes on where it stopped.") from None
    _write_reports(folder)
    _show(folder, quiet=quiet, as_json=as_json)
    raise typer.Exit(_exit_code(folder))


@app.command()
def report(
    record: Record,
    out: Annotated[
        str | None, typer.Option("--out", help="Where to write the page.", metavar="PLACE")
    ] = None,
    figures: Annotated[
        str | None, typer.Option(help="Folder for its figures as files.", metavar="PLACE")
    ] = None,
    formats: Annotated[str, typer.Option("--format", help="Of the figures: svg, png, pdf.")] = "svg",
    as_json: AsJson = False,
) -> None:
    """Write the HTML report of a record again, and its figures where asked."""
    wanted, place = _formats(formats), place_of(record)
    path = _write_reports(place, place_of(out) if out else None)
    drawn = [] if figures is None else _write_figures(place, place_of(figures), wanted)
    if as_json:
        typer.echo(json.dumps({"report": str(path), "figures": drawn}))
        return
    typer.echo(f"Report: {path}")
    if figures is not None:
        typer.echo(f"Figures: {len(drawn)} files in {figures}")


@app.command()
def show(
    record: Record,
    as_json: AsJson = False,
) -> None:
    """Print the verdict table of a record."""
    _show(place_of(record), quiet=False, as_json=as_json)


@app.command()
def schema() -> None:
    """Print the JSON Schema of record.json."""
    from dpaudit.record import json_schema

    typer.echo(json.dumps(json_schema(), indent=1, sort_keys=True))


def _write_reports(record_path: Place, out: Place | None = None) -> Place:
    """Write report.html beside the record, or where asked."""
    from dpaudit.gate import evaluate
    from dpaudit.record import load
    from dpaudit.reports import html
    from dpaudit.store import write_atomic

    record = load(record_path)
    folder = record_path if record_path.is_dir() else record_path.parent
    target = out or folder / "report.html"
    write_atomic(target, html.render(record, evaluate(record, policy_of(record, None))).encode())
    return target


def _formats(text: str) -> tuple[str, ...]:
    """The formats of figures that were asked for, each once."""
    from dpaudit.check import one_of
    from dpaudit.reports.figure_files import FORMATS

    return tuple(dict.fromkeys(one_of("--format", part.strip(), FORMATS) for part in text.split(",")))


def _write_figures(record_path: Place, folder: Place, formats: tuple[str, ...]) -> list[str]:
    """Write every figure in every format; returns the files."""
    from dpaudit.record import load
    from dpaudit.reports import figure_files
    from dpaudit.store import write_atomic

    files = figure_files.render(load(record_path), formats)
    for name, content in files.items():
        write_atomic(folder / name, content)
    return [str(folder / name) for name in files]


def _show(record_path: Place, *, quiet: bool, as_json: bool) -> None:
    """Print the verdict table, or the summary as JSON."""
    from rich.console import Console

    from dpaudit.record import load
    from dpaudit.reports import jsonview, text

    record = load(record_path)
    if as_json:
        typer.echo(jsonview.render(record), nl=False)
    elif not quiet:
        text.print_summary(record, Console())
        page = (record_path if record_path.is_dir() else record_path.parent) / "report.html"
        if page.exists():
            typer.echo(f"Report: {page}")


def _exit_code(record_path: Place) -> int:
    """Exit code of a record under the policy that applies here."""
    from dpaudit.gate import evaluate
    from dpaudit.record import load

    record = load(record_path)
    return evaluate(record, policy_of(record, None)).exit_code


def main() -> None:
    """Run the command line; every known error is one line on stderr and its exit code."""
    try:
        app()
    except DpauditError as error:
        typer.echo(f"dpaudit: {one_line(str(error))}", err=True)
        sys.exit(error.exit_code)
    except SystemExit as ended:
        if ended.code == Interrupted.exit_code:
            typer.echo("dpaudit: Interrupted.", err=True)
        raise
    except BrokenPipeError:
        sys.exit(0)
