"""`dpaudit bound`: options of the command line to the terms of a bound."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from dpaudit import prospects_cli
from dpaudit.address import only_local
from dpaudit.claim_cli import (
    ADJACENCIES,
    AdjacencyName,
    AsJson,
    Delta,
    Epsilon,
    Gaussian,
    Noise,
    Rate,
    SamplerName,
    Steps,
    Unit,
    known,
    ledger_of,
    option,
)
from dpaudit.errors import UsageError

_OUT = Path("audits")
_MOST_LOOKS = 1_000
_READING, _TEST = "What the file does not say", "The test"

File = Annotated[Path, typer.Argument(help="CSV, npz, Parquet, or a folder of ML Privacy Meter.")]
Higher = Annotated[
    bool | None,
    option(_READING, "Which scores mean member.", "--higher-is-member/--lower-is-member"),
]
Probabilities = Annotated[bool, option(_READING, "Scores are probabilities.", "--probabilities")]
DesignName = Annotated[
    str | None, option(_READING, "independent-runs, known-null, several-runs or one-run.", "--design")
]
Layout = Annotated[str, option(_READING, "long, matrix, tf-privacy, jax-privacy or privacy-meter.")]
Inclusion = Annotated[float | None, option(_READING, "Chance of each record of a run to be in.")]
Anew = Annotated[
    bool, option(_READING, "Members were drawn anew for each run, also where they repeat.", "--drawn-anew")
]
Inserted = Annotated[
    str | None, option(_READING, f"A record not in was left out, or exchanged: {ADJACENCIES}.")
]
Alpha = Annotated[float, option(_TEST, "Error probability of the verdict, over all lines.")]
Threshold = Annotated[float | None, option(_TEST, "Of independent runs, fixed before scoring.")]
Guesses = Annotated[int | None, option(_TEST, "Of one run, fixed before scoring.")]
Kappa = Annotated[float | None, option(_TEST, "Of known nulls, fixed before scoring.")]
Look = Annotated[str, option(_TEST, "2/5 if this is the second of five planned looks at growing data.")]
Seed = Annotated[int, option(_TEST, "Of ties and of the order of rows.")]
Control = Annotated[Path | None, option(_TEST, "Scores of a run without protection, to be caught.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the record.", callback=only_local)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(name="bound")(bound)
    prospects_cli.register(app)


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
    drawn_anew: Anew = False,
    inserted: Inserted = None,
    alpha: Alpha = 0.05,
    threshold: Threshold = None,
    guesses: Guesses = None,
    kappa: Kappa = None,
    look: Look = "1/1",
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
    from dpaudit.reports import jsonview
    from dpaudit.scoring.eligibility import Terms
    from dpaudit.scoring.scores import Design, Reading

    reading = Reading(
        layout=layout,
        design=None if design is None else Design(known("design", design, Design)),
        higher_is_member=higher_is_member,
        probabilities=probabilities,
        unit=unit,
        inclusion=inclusion_probability,
        drawn_anew=drawn_anew,
    )
    terms = Terms(
        alpha=_share(alpha, look),
        ledger=ledger_of(noise_multiplier, sample_rate, steps, sampler),
        adjacency=Adjacency(known("adjacency", adjacency, Adjacency)),
        inserted=None if inserted is None else Adjacency(known("inserted", inserted, Adjacency)),
        gaussian=gaussian,
        threshold=threshold,
        guesses=guesses,
        kappa=kappa,
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


def _share(alpha: float, look: str) -> float:
    """What a look such as "2/5" may spend of alpha."""
    from dpaudit.stats.multiplicity import spend

    part, _, whole = look.partition("/")
    if not (part.isdecimal() and whole.isdecimal() and 1 <= int(part) <= int(whole) <= _MOST_LOOKS):
        raise UsageError(
            f"Expected a look such as 2/5, the second of five planned ones, found {look!r}. "
            f"Plan at most {_MOST_LOOKS:,} looks."
        )
    return float(spend(alpha, int(whole))[int(part) - 1])
