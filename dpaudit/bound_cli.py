"""`dpaudit bound`: options of the command line to the terms of a bound."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpaudit.errors import UsageError, nearest

if TYPE_CHECKING:
    from dpaudit.claim import Ledger

_OUT = Path("audits")
_ADJACENCIES = "add-remove or replace-one"


def _option(panel: str, text: str, *names: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel)


_CLAIM, _READING, _TEST = "The claim", "What the file does not say", "The test"
File = Annotated[Path, typer.Argument(help="CSV, npz, Parquet, or a folder of ML Privacy Meter.")]
Epsilon = Annotated[float | None, _option(_CLAIM, "Claimed epsilon.")]
Delta = Annotated[float, _option(_CLAIM, "Delta of the claim.")]
Noise = Annotated[
    float | None,
    _option(_CLAIM, "Claimed sigma: tests the curve of these steps.", "--claim-noise-multiplier"),
]
Rate = Annotated[float | None, _option(_CLAIM, "Claimed sampling rate of a record.")]
Steps = Annotated[int | None, _option(_CLAIM, "Claimed number of noisy steps.")]
SamplerName = Annotated[str, _option(_CLAIM, "How batches were drawn: poisson, shuffle or full-batch.")]
AdjacencyName = Annotated[str, _option(_CLAIM, f"Neighbours of the claim: {_ADJACENCIES}.")]
Unit = Annotated[str, _option(_CLAIM, "Unit of the claim: record or user.")]
Gaussian = Annotated[
    bool, _option(_CLAIM, "The whole run is claimed to be a Gaussian mechanism.", "--gaussian")
]
Higher = Annotated[
    bool | None,
    _option(_READING, "Which scores mean member.", "--higher-is-member/--lower-is-member"),
]
Probabilities = Annotated[bool, _option(_READING, "Scores are probabilities.", "--probabilities")]
DesignName = Annotated[
    str | None, _option(_READING, "independent-runs, known-null, several-runs or one-run.", "--design")
]
Layout = Annotated[str, _option(_READING, "long, matrix, tf-privacy, jax-privacy or privacy-meter.")]
Inclusion = Annotated[float | None, _option(_READING, "Chance of each record of a run to be in.")]
Inserted = Annotated[
    str | None, _option(_READING, f"A record not in was left out, or exchanged: {_ADJACENCIES}.")
]
Alpha = Annotated[float, _option(_TEST, "Error probability of the verdict, over all lines.")]
Threshold = Annotated[float | None, _option(_TEST, "Of independent runs, fixed before scoring.")]
Guesses = Annotated[int | None, _option(_TEST, "Of one run, fixed before scoring.")]
Seed = Annotated[int, _option(_TEST, "Of ties and of the order of rows.")]
Control = Annotated[Path | None, _option(_TEST, "Scores of a run without protection, to be caught.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the record.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(name="bound")(bound)


def bound(
    scores: File,
    epsilon: Epsilon = None,
    delta: Delta = 1e-5,
    noise_multiplier: Noise = None,
    sample_rate: Rate = None,
    steps: Steps = None,
    sampler: SamplerName = "poisson",
    adjacency: AdjacencyName = "add-remove",
    unit: Unit = "record",
    gaussian: Gaussian = False,
    higher_is_member: Higher = None,
    probabilities: Probabilities = False,
    design: DesignName = None,
    layout: Layout = "auto",
    inclusion_probability: Inclusion = None,
    inserted: Inserted = None,
    alpha: Alpha = 0.05,
    threshold: Threshold = None,
    guesses: Guesses = None,
    seed: Seed = 0,
    control: Control = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Bound epsilon from scores made elsewhere; test the claim; write the record and its report."""
    # Accounting takes a second to import, and `--help` should not.
    from dpaudit import bound as api
    from dpaudit.claim import Adjacency
    from dpaudit.eligibility import Terms
    from dpaudit.reports import jsonview
    from dpaudit.scores import Design, Reading

    reading = Reading(
        layout=layout,
        design=None if design is None else Design(_known("design", design, Design)),
        higher_is_member=higher_is_member,
        probabilities=probabilities,
        unit=unit,
        inclusion=inclusion_probability,
    )
    terms = Terms(
        alpha=alpha,
        ledger=ledger_of(noise_multiplier, sample_rate, steps, sampler),
        adjacency=Adjacency(_known("adjacency", adjacency, Adjacency)),
        inserted=None if inserted is None else Adjacency(_known("inserted", inserted, Adjacency)),
        gaussian=gaussian,
        threshold=threshold,
        guesses=guesses,
        seed=seed,
    )
    result = api.bound(
        scores,
        epsilon=epsilon,
        delta=delta,
        reading=reading,
        terms=terms,
        control=control,
        command=shlex.join(["dpaudit", *sys.argv[1:]]),
    )
    report = result.write(out or _OUT / scores.stem)
    if as_json:
        typer.echo(jsonview.render(result.record), nl=False)
    elif not quiet:
        typer.echo(str(result))
        typer.echo(f"Report: {report}")
    raise typer.Exit(result.record.exit_code)


def _known(option: str, value: str, known: Any) -> str:
    names = [str(name) for name in known]
    if value not in names:
        raise UsageError(f"Expected a known --{option}, found {value!r}: {nearest(value, names)}")
    return value


def ledger_of(
    noise_multiplier: float | None, sample_rate: float | None, steps: int | None, sampler: str
) -> Ledger:
    """The claimed steps, or none.

    Raises:
        UsageError: only some of the settings are there, or impossible ones.
    """
    from dpaudit.claim import Phase, Sampler

    given = {"--claim-noise-multiplier": noise_multiplier, "--sample-rate": sample_rate, "--steps": steps}
    _known("sampler", sampler, Sampler)
    if noise_multiplier is None or sample_rate is None or steps is None:
        lacking = [name for name, value in given.items() if value is None]
        if len(lacking) == len(given):
            return ()
        raise UsageError(f"Expected {', '.join(given)} together, found no {lacking[0]}. State all or none.")
    if steps < 1:
        raise UsageError(f"Expected --steps={steps} to be 1 or more. State the number of noisy steps.")
    phase = Phase(
        noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps, sampler=Sampler(sampler)
    )
    return (phase,)
