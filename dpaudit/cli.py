"""The command line: `dpaudit init`, `run`, `gate`, `report`, `show`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpaudit import __version__, bound_cli, ledger_cli, mechanism_cli, trace_cli
from dpaudit.errors import DpauditError, Interrupted, UsageError

if TYPE_CHECKING:
    from dpaudit.policy import Policy
    from dpaudit.record import AuditRecord

app = typer.Typer(
    help="Check a claimed (epsilon, delta) before release: train, attack, measure, judge, report.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

bound_cli.register(app)
ledger_cli.register(app)
trace_cli.register(app)
mechanism_cli.register(app)

RecordArgument = Annotated[Path, typer.Argument(help="Folder of the record, or its record.json.")]
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
) -> None:
    """Write the default plan, to be edited."""
    from dpaudit.plan import default_toml
    from dpaudit.store import write_atomic

    if path.exists() and not force:
        raise UsageError(f"Expected no file at {path}, found one. Choose another name, or use --force.")
    write_atomic(path, default_toml().encode())
    typer.echo(f"Wrote {path}. Edit it, then: dpaudit run {path}")


@app.command()
def run(
    plan: Annotated[Path | None, typer.Argument(help="The plan; the default audit if left out.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the record.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    engine: Annotated[str | None, typer.Option(help="local or inline.")] = None,
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
    folder = out or _OUT / (plan.stem if plan else "default")
    from dpaudit.progress import follow
    from dpaudit.run import Job
    from dpaudit.run import run as run_events

    job = Job(
        plan=audit_plan,
        plan_text=text,
        plan_folder=(plan.parent if plan else Path.cwd()).resolve(),
        out=folder,
        command=shlex.join(["dpaudit", *sys.argv[1:]]),
    )
    try:
        follow(run_events(job), quiet=quiet or as_json)
    except KeyboardInterrupt:
        raise Interrupted("Interrupted; the same command goes on where it stopped.") from None
    _write_reports(folder)
    _show(folder, quiet=quiet, as_json=as_json)
    raise typer.Exit(_exit_code(folder))


@app.command()
def gate(
    record: RecordArgument,
    policy: Annotated[Path | None, typer.Option(help="TOML file with a [gate] table.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Judge a record by a policy; the exit code says how it went. Needs no GPU and no training."""
    raise typer.Exit(_gate(record, policy, junit, as_json))


@app.command()
def report(
    record: RecordArgument,
    out: Annotated[Path | None, typer.Option("--out", help="Where to write the page.")] = None,
    figures: Annotated[Path | None, typer.Option(help="Folder for its figures as files.")] = None,
    formats: Annotated[str, typer.Option("--format", help="Of the figures: svg, png, pdf.")] = "svg",
) -> None:
    """Write the HTML report of a record again, and its figures where asked."""
    wanted = _formats(formats)
    path = _write_reports(record, out)
    typer.echo(f"Report: {path}")
    if figures is not None:
        typer.echo(f"Figures: {_write_figures(record, figures, wanted)} files in {figures}")


@app.command()
def show(
    record: RecordArgument, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Print the verdict table of a record."""
    _show(record, quiet=False, as_json=as_json)


@app.command()
def schema() -> None:
    """Print the JSON Schema of record.json."""
    import json

    from dpaudit.record import json_schema

    typer.echo(json.dumps(json_schema(), indent=1, sort_keys=True))


def _write_reports(record_path: Path, out: Path | None = None) -> Path:
    """Write report.html beside the record, or where asked."""
    from dpaudit.gate import evaluate
    from dpaudit.record import load
    from dpaudit.reports import html
    from dpaudit.store import write_atomic

    record = load(record_path)
    folder = record_path if record_path.is_dir() else record_path.parent
    target = out or folder / "report.html"
    write_atomic(target, html.render(record, evaluate(record, _policy(record, None))).encode())
    return target


def _formats(text: str) -> tuple[str, ...]:
    """The formats of figures that were asked for, each once."""
    from dpaudit.check import one_of
    from dpaudit.reports.figure_files import FORMATS

    return tuple(dict.fromkeys(one_of("--format", part.strip(), FORMATS) for part in text.split(",")))


def _write_figures(record_path: Path, folder: Path, formats: tuple[str, ...]) -> int:
    """Write every figure in every format; returns how many files there are."""
    from dpaudit.record import load
    from dpaudit.reports import figure_files
    from dpaudit.store import write_atomic

    files = figure_files.render(load(record_path), formats)
    for name, content in files.items():
        write_atomic(folder / name, content)
    return len(files)


def _show(record_path: Path, *, quiet: bool, as_json: bool) -> None:
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


def _gate(record_path: Path, policy_file: Path | None, junit_file: Path | None, as_json: bool) -> int:
    """Evaluate the policy, print the gates, write what was asked for; returns the exit code."""
    import os

    from rich.console import Console

    from dpaudit.gate import evaluate
    from dpaudit.record import load
    from dpaudit.reports import jsonview, junit, markdown, text
    from dpaudit.store import write_atomic

    record = load(record_path)
    result = evaluate(record, _policy(record, policy_file))
    if junit_file is not None:
        write_atomic(junit_file, junit.render(record, result).encode())
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(markdown.render(record, result))
    if as_json:
        typer.echo(jsonview.render(record, result), nl=False)
    else:
        text.print_summary(record, Console(), result)
    return result.exit_code


def _policy(record: AuditRecord, file: Path | None) -> Policy:
    """The policy named, else that of the current folder, else the [gate] table of the record's own plan."""
    from dpaudit.policy import find_policy, load_policy, parse_policy

    if file is not None:
        return load_policy(file)
    here = find_policy(Path.cwd())
    if here.thresholds or not record.plan.get("gate"):
        return here
    return parse_policy(record.plan_toml, Path("plan.toml"))


def _exit_code(record_path: Path) -> int:
    """Exit code of a record under the policy that applies here."""
    from dpaudit.gate import evaluate
    from dpaudit.record import load

    record = load(record_path)
    return evaluate(record, _policy(record, None)).exit_code


def main() -> None:
    """Run the command line; every known error is one line on stderr and its exit code."""
    try:
        app()
    except DpauditError as error:
        typer.echo(f"dpaudit: {error}", err=True)
        sys.exit(error.exit_code)
    except SystemExit as ended:
        if ended.code == Interrupted.exit_code:
            typer.echo("dpaudit: Interrupted.", err=True)
        raise
    except BrokenPipeError:
        sys.exit(0)
