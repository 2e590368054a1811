"""`dpaudit linkage`: options of the command line to a linkage audit."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpaudit.address import only_local
from dpaudit.claim_cli import AsJson, option

if TYPE_CHECKING:
    from dpaudit.linkage.audit import Linkage
    from dpaudit.record import AuditRecord

_OUT = Path("audits")
_KNOWN, _TEST = "What others know", "The audit"

File = Annotated[Path, typer.Argument(help="The table: CSV, or Parquet with pyarrow.")]
Quasi = Annotated[str, option(_KNOWN, "Columns that others may know, with commas between.", "--quasi")]
Sensitive = Annotated[str | None, option(_KNOWN, "Column that nobody should learn.")]
Register = Annotated[Path | None, option(_KNOWN, "File of persons with the same columns.")]
Identity = Annotated[str | None, option(_KNOWN, "Column of the register that names a person.")]
Truth = Annotated[str | None, option(_KNOWN, "Column of the table with the right name, to measure.")]
Epsilon = Annotated[float, option(_TEST, "Of the noisy counts beside the table.")]
Least = Annotated[int, option(_TEST, "Required: so many records in every class; exit code 1 else.", "--k")]
Alpha = Annotated[float, option(_TEST, "What all intervals together may miss with.")]
Seed = Annotated[int, option(_TEST, "Of the halves and of the noise.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the record.", callback=only_local)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(name="linkage")(linkage)


def linkage(
    table: File,
    quasi: Quasi,
    sensitive: Sensitive = None,
    register: Register = None,
    identity: Identity = None,
    truth: Truth = None,
    epsilon: Epsilon = 1.0,
    k: Least = 0,
    alpha: Alpha = 0.05,
    seed: Seed = 0,
    out: Out = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Look for persons in a table without names, beside noisy counts of the same table."""
    from dpaudit.linkage.audit import Asked, audit

    asked = Asked(
        table=table,
        quasi=tuple(name.strip() for name in quasi.split(",") if name.strip()),
        sensitive=sensitive,
        register=register,
        identity=identity,
        truth=truth,
        epsilon=epsilon,
        k=k,
        alpha=alpha,
        seed=seed,
    )
    found = audit(asked, command=shlex.join(["dpaudit", *sys.argv[1:]]))
    report = _write(found.record, out or _OUT / f"linkage-{table.stem}")
    if as_json:
        typer.echo(_as_json(found))
    elif not quiet:
        typer.echo(_as_text(found))
        typer.echo(f"Report: {report}")
    raise typer.Exit(found.record.exit_code)


def _write(record: AuditRecord, folder: Path) -> Path:
    from dpaudit.record import RECORD_NAME, dump
    from dpaudit.reports import html
    from dpaudit.store import write_atomic

    write_atomic(folder / RECORD_NAME, dump(record))
    page = folder / "report.html"
    write_atomic(page, html.render(record).encode())
    return page


def _as_json(found: Linkage) -> str:
    import json
    from dataclasses import asdict

    (target,) = found.record.targets
    document = {
        "status": found.record.status,
        "exit_code": found.record.exit_code,
        "reason": found.record.reason,
        **asdict(found.found),
        "rates": [asdict(rate) for rate in target.rates],
    }
    return json.dumps(document, indent=1, sort_keys=True)


def _as_text(found: Linkage) -> str:
    from textwrap import fill

    from dpaudit.bound_text import aligned
    from dpaudit.reports import numbers
    from dpaudit.reports.tables import metric_name
    from dpaudit.reports.text import printable

    (target,) = found.record.targets
    rows = [("rate", "of", "value", "interval", "n")]
    rows += [
        (
            metric_name(rate.name),
            rate.slice,
            numbers.rate(rate.name, rate.value),
            numbers.interval(rate.name, rate.lower, rate.upper) if rate.lower is not None else "counted",
            f"{rate.n:,}",
        )
        for rate in target.rates
    ]
    lines = [f"{target.name}: {target.description}", "", *aligned(rows), ""]
    lines += [fill(f"{row.name}: {row.detail}.", 100, subsequent_indent="  ") for row in target.checklist]
    lines += ["", fill(found.record.reason, 100)]
    return "\n".join(printable(part) for line in lines for part in line.split("\n"))
