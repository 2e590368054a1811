"""`dpaudit mechanism`: try to refute a claim about any release function, and replay a witness."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpaudit.address import only_local
from dpaudit.claim_cli import AsJson, known, option
from dpaudit.errors import UsageError

if TYPE_CHECKING:
    from dpaudit.mechanism.audit import MechanismAudit
    from dpaudit.mechanism.search import Progress
    from dpaudit.stats.guarantees import Guarantee

_CLAIM, _DATA, _EFFORT = "The claim", "The data", "How hard to look"
Name = Annotated[
    str | None,
    typer.Argument(
        metavar="MECHANISM", help="module:function of the data and a random state, or a known name."
    ),
]
Epsilon = Annotated[float | None, option(_CLAIM, "Claimed epsilon; by default the mechanism's own.")]
Delta = Annotated[float | None, option(_CLAIM, "Claimed delta; by default 0.")]
Points = Annotated[
    list[str] | None,
    option(_CLAIM, "A further point EPSILON:DELTA that is claimed of the same mechanism.", "--also"),
]
Mu = Annotated[float | None, option(_CLAIM, "The claim is mu-GDP instead.", "--mu")]
GaussianCurve = Annotated[
    bool,
    option(_CLAIM, "Hold a Gaussian mechanism to its whole curve through (epsilon, delta).", "--gaussian"),
]
Order = Annotated[
    float | None, option(_CLAIM, "The claim is Renyi privacy of this order instead.", "--renyi-order")
]
DomainText = Annotated[
    str | None, option(_DATA, "Such as 'list(float(0, 10))', or module:strategy; see docs/domains.md.")
]
Inside = Annotated[
    bool, option(_DATA, "Try no records outside of the domain, such as NaN or 11 in [0, 10].", "--inside")
]
Between = Annotated[
    str | None,
    option(_DATA, "Neighbours: add-remove or replace-one; by default the domain's.", "--adjacency"),
]
Samples = Annotated[int | None, option(_EFFORT, "Planned outputs; by default at most a million, by cost.")]
Examples = Annotated[int, option(_EFFORT, "Pairs of data sets to try.")]
Timeout = Annotated[float, option(_EFFORT, "Seconds for one call.")]
Workers = Annotated[int, option(_EFFORT, "Processes to draw in; 0 for one per core, at most 4.")]
Inline = Annotated[bool, option(_EFFORT, "Draw in this process.", "--inline")]
Alpha = Annotated[float, option(_EFFORT, "Error probability of a refutation.")]
Seed = Annotated[int, option(_EFFORT, "Of the search and of all outputs.")]
Full = Annotated[
    bool, option(_EFFORT, "Do not stop at the first decision: the best bound on the worst pair.", "--full")
]
Out = Annotated[Path, option("Files", "Where to write the witness.", "--witness")]
Folder = Annotated[
    Path | None,
    option(
        "Files", "Folder for a record and its HTML report, which `gate` reads.", "--out", callback=only_local
    ),
]
Replay = Annotated[
    Path | None, option("Files", "Count again on fresh outputs what a witness says.", "--replay")
]
Listed = Annotated[bool, typer.Option("--list", help="List the known mechanisms.")]
_EXIT = {"NOT REFUTED": 0, "REFUTED": 1, "INCONCLUSIVE": 3}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(name="mechanism")(mechanism)


def mechanism(
    name: Name = None,
    epsilon: Epsilon = None,
    delta: Delta = None,
    also: Points = None,
    mu: Mu = None,
    gaussian: GaussianCurve = False,
    renyi_order: Order = None,
    domain: DomainText = None,
    inside: Inside = False,
    adjacency: Between = None,
    samples: Samples = None,
    examples: Examples = 100,
    timeout: Timeout = 10.0,
    workers: Workers = 0,
    inline: Inline = False,
    alpha: Alpha = 0.01,
    seed: Seed = 0,
    full: Full = False,
    witness: Out = Path("witness.json"),
    out: Folder = None,
    replay: Replay = None,
    listed: Listed = False,
    as_json: AsJson = False,
) -> None:
    """Search for neighbouring data on which a release function leaks more than is claimed of it.

    Exit codes: 0 not refuted, 1 refuted, 3 inconclusive, 2 for a wrong option.
    """
    if listed:
        typer.echo(json.dumps(list(_names())) if as_json else "\n".join(_names()))
        return
    if replay is not None:
        raise typer.Exit(_replayed(name, replay, seed, alpha, as_json))
    if name is None:
        raise UsageError(
            "Expected MECHANISM, found none. Name it as module:function; --list shows known ones."
        )
    from dpaudit.claim import Adjacency
    from dpaudit.mechanism import Settings, audit_mechanism

    settings = Settings(
        alpha=alpha,
        samples=samples,
        examples=examples,
        timeout=timeout,
        workers=0 if inline else workers or _cores(),
        seed=seed,
        stop_early=not full,
    )
    between = None if adjacency is None else Adjacency(known("adjacency", adjacency, Adjacency))
    _refuse_unwritable(witness)
    target = load(name)
    with _bar() as progress:
        audit = audit_mechanism(
            target,
            epsilon=epsilon,
            delta=delta,
            domain=domain,
            adjacency=between,
            guarantee=_guarantee(target, epsilon, delta, also or [], mu, gaussian, renyi_order),
            inside=inside,
            name=name,
            settings=settings,
            path=Path.cwd(),
            progress=progress,
        )
    if audit.witness is not None:
        audit.witness.save(witness)
    if out is not None:
        _write_record(audit, out)
    _print(audit, witness, as_json)
    if out is not None and not as_json:
        typer.echo(f"Report: {out / 'report.html'}")
    raise typer.Exit(_EXIT[str(audit.verdict.status)])


def load(name: str) -> Any:
    """A mechanism by name: classes, and known names, are made with their default settings.

    Raises:
        UsageError: no such name, module or object.
    """
    import inspect

    from dpaudit.registry import LIBRARY_MECHANISMS, MECHANISMS, resolve

    table = {**MECHANISMS, **LIBRARY_MECHANISMS}
    found = resolve("mechanism", name, table, path=Path.cwd())
    if name in table or inspect.isclass(found):
        try:
            return found()
        except TypeError as error:
            raise UsageError(
                f"Expected {name} to be made without arguments, found: {error}. Give its settings defaults."
            ) from None
    return found


def _names() -> list[str]:
    from dpaudit.registry import LIBRARY_MECHANISMS, MECHANISMS

    return [*MECHANISMS, *LIBRARY_MECHANISMS]


def _cores() -> int:
    from dpaudit.backend import available_cores

    return min(available_cores(), 4)


def _guarantee(
    target: Any,
    epsilon: float | None,
    delta: float | None,
    also: list[str],
    mu: float | None,
    gaussian: bool,
    order: float | None,
) -> Guarantee | None:
    """The claim where it is more, or other, than (epsilon, delta).

    Raises:
        UsageError: claims that exclude each other, or lack a part.
    """
    from dpaudit.stats.guarantees import GaussianDP, RenyiDP, SeveralDP
    from dpaudit.stats.tradeoff import gaussian_mu

    kinds = [
        name
        for name, given in (
            ("--mu", mu),
            ("--gaussian", gaussian),
            ("--renyi-order", order),
            ("--also", also),
        )
        if given
    ]
    if not kinds:
        return None
    if len(kinds) > 1:
        raise UsageError(f"Expected one kind of claim, found {' and '.join(kinds)}. State one of them.")
    stated = 1e-5 if delta is None else delta
    if mu is not None and epsilon is not None:
        raise UsageError("Expected --mu or --epsilon, found both. State the one that is claimed.")
    if mu is not None:
        return GaussianDP(claimed=mu, delta=stated)
    epsilon = getattr(target, "epsilon", None) if epsilon is None else epsilon
    if epsilon is None:
        raise UsageError(f"Expected --epsilon with {kinds[0]}, found none. State it.")
    if order is not None:
        return RenyiDP(claimed=epsilon, order=order, delta=stated)
    if gaussian:
        delta = getattr(target, "delta", None) if delta is None else delta
        if not delta:
            raise UsageError(f"Expected --delta above 0 with --gaussian, found {delta}. State it.")
        return GaussianDP(claimed=gaussian_mu(epsilon, delta), delta=delta)
    return SeveralDP(points=((epsilon, delta or 0.0), *(_point(text) for text in also)))


def _point(text: str) -> tuple[float, float]:
    epsilon, _, delta = text.partition(":")
    try:
        return float(epsilon), float(delta)
    except ValueError:
        raise UsageError(f"Expected --also EPSILON:DELTA, found {text!r}. Write such as 2:1e-9.") from None


@contextmanager
def _bar() -> Iterator[Progress]:
    """A progress bar on stderr with the time left; silent where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        shown = ""

        def tell(what: str, done: int, total: int) -> None:
            nonlocal shown
            if what != shown:
                bar.reset(task, total=total, description=what)
                shown = what
            bar.update(task, completed=done, total=total)

        yield tell


def _print(audit: MechanismAudit, path: Path, as_json: bool) -> None:
    from rich.console import Console

    from dpaudit.mechanism import text

    if as_json:
        typer.echo(json.dumps(text.document(audit), indent=1))
        return
    console = Console()
    lines = [("", f"{audit.verdict.status}: {audit.mechanism}: {audit.verdict.reason}"), *text.rows(audit)]
    lines += [("Note", note) for note in audit.notes]
    if audit.witness is not None:
        where = f" {audit.mechanism}" if ":" in audit.mechanism or audit.mechanism in _names() else ""
        again = f"{path}; to count again: dpaudit mechanism{where} --replay {path}"
        lines.append(("Witness", again))
    for title, value in lines:
        for line in _wrapped(title, value, console.width):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _write_record(audit: MechanismAudit, folder: Path) -> None:
    import shlex
    import sys

    from dpaudit.gate import evaluate
    from dpaudit.mechanism.recording import record_of
    from dpaudit.policy import find_policy
    from dpaudit.record import RECORD_NAME, dump
    from dpaudit.reports import html
    from dpaudit.store import write_atomic

    record = record_of(audit, command=shlex.join(["dpaudit", *sys.argv[1:]]))
    write_atomic(folder / RECORD_NAME, dump(record))
    page = html.render(record, evaluate(record, find_policy(Path.cwd())))
    write_atomic(folder / "report.html", page.encode())


def _refuse_unwritable(path: Path) -> None:
    """Say before the work is done that its result cannot be kept."""
    import os

    folder = next(each for each in (path.absolute().parent, *path.absolute().parents) if each.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"Expected --witness to be a file that can be written, found {path}. Name another.")


def _wrapped(title: str, value: str, width: int) -> list[str]:
    """A name and its value in two columns, or a paragraph where there is no name."""
    from textwrap import wrap

    if not title:
        return [*wrap(value, width), ""]
    start = f" {title:<12} "
    return wrap(
        value, width, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False
    )


def _replayed(name: str | None, path: Path, seed: int, alpha: float, as_json: bool) -> int:
    """Count what a witness says on fresh outputs; its own exit codes are those of an audit."""
    from dpaudit.mechanism.replaying import replay
    from dpaudit.mechanism.witness import load as load_witness

    known_witness = load_witness(path)
    called = name or known_witness.mechanism
    if called != known_witness.mechanism:
        typer.echo(f"The witness is of {known_witness.mechanism}; it is counted on {called}.", err=True)
    found = replay(known_witness, load(called), name=called, seed=seed, alpha=alpha)
    if as_json:
        typer.echo(json.dumps(found.document(), indent=1))
    else:
        typer.echo(found.words())
    return _EXIT["REFUTED" if found.refuted else "NOT REFUTED" if found.happened else "INCONCLUSIVE"]
