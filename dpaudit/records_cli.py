"""`dpaudit diff`, `reproduce`, `export` and `trend`: what a record is good for after its audit."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpaudit.address import only_local, place_of
from dpaudit.claim_cli import AsJson, known
from dpaudit.errors import Interrupted
from dpaudit.gate_cli import Record

if TYPE_CHECKING:
    from dpaudit.comparison import Row
    from dpaudit.repetition import Repetition

FORMS = ("annex", "dp-registry", "model-card")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(name="diff")(diff)
    app.command(name="reproduce")(reproduce)
    app.command(name="export")(export)
    app.command(name="trend")(trend)


def diff(
    first: Annotated[str, typer.Argument(help="Folder or address of a record.", metavar="A")],
    second: Annotated[str, typer.Argument(help="That of another one.", metavar="B")],
    as_json: AsJson = False,
) -> None:
    """Compare two records, where claim unit, neighbours, delta, confidence and method agree.

    Exit codes: 0 compared, 3 nothing could be compared.
    """
    from dpaudit.comparison import compare
    from dpaudit.record import load

    found = compare(load(place_of(first)), load(place_of(second)))
    if as_json:
        document = {"rows": [_row(row) for row in found.rows], "notes": list(found.notes)}
        typer.echo(json.dumps(document, indent=1, sort_keys=True, allow_nan=False))
    else:
        _print_rows(found.rows)
        _print_notes(found.notes)
    raise typer.Exit(0 if any(row.comparable and row.metric != "verdict" for row in found.rows) else 3)


def reproduce(
    record: Record,
    out: Annotated[
        str | None, typer.Option("--out", help="Keep the new record here.", metavar="PLACE")
    ] = None,
    beside: Annotated[
        Path | None, typer.Option("--beside", help="Folder of the user's own modules; else that of the plan.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Relative difference that counts as none.", min=0.0, max=1.0)
    ] = 1e-6,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the plan of a record again in another folder, and compare verdicts and numbers.

    Exit codes: 0 the same, 1 something differs, 4 trials are missing.
    """
    from dpaudit.progress import follow
    from dpaudit.record import load
    from dpaudit.repetition import job_of, repetition
    from dpaudit.run import run

    source = place_of(record)
    first = load(source)
    folder = source if source.is_dir() else source.parent
    with tempfile.TemporaryDirectory(prefix="dpaudit-") as temporary:
        place = place_of(out) if out else Path(temporary) / "again"
        try:
            follow(run(job_of(first, folder, place, beside)), quiet=quiet or as_json)
        except KeyboardInterrupt:
            raise Interrupted("Interrupted; with --out the same command goes on where it stopped.") from None
        found = repetition(first, place, tolerance=tolerance)
    if as_json:
        typer.echo(json.dumps(_repeated(found), indent=1, sort_keys=True, allow_nan=False))
    elif not quiet:
        _tell(found)
    raise typer.Exit(found.exit_code)


def export(
    form: Annotated[str, typer.Argument(help=f"What to write: {', '.join(FORMS)}.", metavar="FORM")],
    record: Record,
    out: Annotated[
        str | None, typer.Option("--out", help="Where to write it; else it is printed.", metavar="PLACE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a record as a section of a model card, an entry for a registry, or an evidence document."""
    from dpaudit.record import load
    from dpaudit.reports import annex, model_card, registry_entry
    from dpaudit.store import write_atomic

    found = load(place_of(record))
    renderers = {
        "annex": annex.render,
        "dp-registry": registry_entry.render,
        "model-card": model_card.render,
    }
    text = renderers[known("form", form, FORMS)](found)
    if out is not None:
        write_atomic(place_of(out), text.encode())
    if as_json:
        typer.echo(json.dumps({"form": form, "file": str(out) if out else None, "text": text}))
    elif out is not None:
        typer.echo(f"Wrote {out}.")
    else:
        typer.echo(text, nl=False)


def trend(
    folder: Annotated[
        Path, typer.Argument(help="Folder with records of several releases in it.", callback=only_local)
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to write the page.", callback=only_local)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write one page on the records of successive releases: bounds, claims and rates over time."""
    from dpaudit.reports import trend as page
    from dpaudit.store import write_atomic

    releases = page.releases(folder)
    if as_json:
        document = page.document(releases)
        typer.echo(json.dumps(document, indent=1, sort_keys=True, allow_nan=False))
        if out is None:
            return
    target = out or folder / "trend.html"
    write_atomic(target, page.render(releases, title=folder.resolve().name).encode())
    if not as_json:
        typer.echo(f"Trend over {len(releases)} records: {target}")


def _print_rows(rows: tuple[Row, ...]) -> None:
    from dpaudit.reports.text import printable

    width = max((len(f"{row.metric} {row.source}".strip()) for row in rows), default=0)
    target = ""
    for row in rows:
        if row.target != target:
            target = row.target
            typer.echo(printable(target))
        what = f"{row.metric} {row.source}".strip().ljust(min(width, 60))
        numbers = f"{_word(row.before)} -> {_word(row.after)}  " if row.comparable else ""
        typer.echo(printable(f"  {what}  {numbers}{row.word}"))


def _print_notes(notes: tuple[str, ...]) -> None:
    from dpaudit.reports.text import printable

    for note in notes:
        typer.echo(printable(f"Note: {note}"))


def _tell(found: Repetition) -> None:
    _print_rows(found.differing)
    _print_notes(found.notes)
    if found.missing:
        typer.echo(f"NOT REPRODUCED: {found.missing} trials are missing.")
    elif found.differing:
        typer.echo(f"NOT REPRODUCED: {len(found.differing)} verdicts or numbers differ, as listed.")
    else:
        typer.echo(f"REPRODUCED: {found.compared} verdicts and numbers are the same.")


def _repeated(found: Repetition) -> dict[str, Any]:
    return {
        "status": "REPRODUCED" if found.exit_code == 0 else "NOT REPRODUCED",
        "exit_code": found.exit_code,
        "compared": found.compared,
        "missing_trials": found.missing,
        "differing": [_row(row) for row in found.differing],
        "notes": list(found.notes),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "target": row.target,
        "metric": row.metric,
        "source": row.source,
        "before": _strict(row.before),
        "after": _strict(row.after),
        "comparable": row.comparable,
        "relation": row.word,
    }


def _strict(value: float | str | None) -> float | str | None:
    """JSON has no word for infinity."""
    from dpaudit.reports.jsonview import number

    return value if isinstance(value, str) else number(value)


def _word(value: float | str | None) -> str:
    return "no data" if value is None else value if isinstance(value, str) else f"{value:.4g}"
