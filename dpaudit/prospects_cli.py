"""`dpaudit power`: what each sampling design could show, and prospects as a table."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from dpaudit.claim_cli import (
    AdjacencyName,
    AsJson,
    Delta,
    Epsilon,
    Noise,
    Rate,
    SamplerName,
    Steps,
    known,
    ledger_of,
    option,
)
from dpaudit.errors import UsageError

if TYPE_CHECKING:
    from dpaudit.claim import Claim
    from dpaudit.prospects import Prospect

_SIZE = "Size"
_HEADINGS = (
    "attack",
    "observations",
    "alpha",
    "claim",
    "expected",
    "ceiling",
    "detectable",
    "twice caught from",
)
_LEGEND = (
    "expected: median bound if the code is correct and the attack optimal. ceiling: most that could be "
    "shown. detectable: least true epsilon caught nine times in ten. twice caught from: observations for "
    "that at twice the claim."
)
Alpha = Annotated[float, option(_SIZE, "Error probability of the verdict, over all lines.")]
Observations = Annotated[int, option(_SIZE, "Runs of one score, or records of a run of many.")]
Runs = Annotated[int, option(_SIZE, "Runs of the design of several runs.")]
References = Annotated[int, option(_SIZE, "Records that were not in, beside each canary.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(name="power")(power)


def power(
    epsilon: Epsilon = None,
    delta: Delta = 1e-5,
    noise_multiplier: Noise = None,
    sample_rate: Rate = None,
    steps: Steps = None,
    sampler: SamplerName = "poisson",
    adjacency: AdjacencyName = "add-remove",
    observations: Observations = 1000,
    runs: Runs = 10,
    references: References = 100,
    alpha: Alpha = 0.05,
    as_json: AsJson = False,
) -> None:
    """Print what each sampling design could show of a claim, and how much it takes."""
    from dpaudit import accounting
    from dpaudit.check import in_range
    from dpaudit.claim import Adjacency, Claim
    from dpaudit.prospects import Sizes, of_designs

    relation = Adjacency(known("adjacency", adjacency, Adjacency))
    ledger = ledger_of(noise_multiplier, sample_rate, steps, sampler)
    if epsilon is None:
        if not ledger:
            raise UsageError("Expected a claim, found none. State --epsilon, or the steps that are claimed.")
        epsilon = accounting.pld_epsilon(ledger, delta, relation)
    in_range("alpha", alpha, 0.0, 0.5, open_low=True, open_high=True)
    in_range("observations", observations, 2, 100_000)
    in_range("runs", runs, 2, 10_000)
    in_range("references", references, 2, 100_000)
    claim = Claim(epsilon=epsilon, delta=delta, adjacency=relation)
    sizes = Sizes(observations=observations, runs=runs, references=references)
    found = of_designs(claim, sizes, alpha=alpha)
    if as_json:
        typer.echo(json.dumps([strict(each) for each in found], indent=1, allow_nan=False))
        return
    typer.echo(stated(claim))
    typer.echo(table(found))


def strict(prospect: Prospect) -> dict[str, object]:
    """Fields as JSON has them; infinity as the text that `float` reads back."""
    return {name: "Infinity" if value == math.inf else value for name, value in asdict(prospect).items()}


def stated(claim: Claim) -> str:
    """A claim in one line."""
    from dpaudit.ledger import describe

    steps = f", for {describe(claim.ledger)}" if claim.ledger else ""
    return (
        f"Claim: epsilon {claim.epsilon:.4g} at delta {claim.delta:g}, {claim.adjacency} neighbours{steps}."
    )


def table(found: Sequence[Prospect]) -> str:
    """Prospects, one a line, and what their columns mean."""
    from dpaudit.bound_text import aligned, number, wrapped

    rows = [
        (
            each.name,
            each.observations,
            f"{each.alpha:.2g}",
            number(each.claimed),
            number(each.expected, down=True),
            number(each.ceiling),
            number(each.detectable),
            each.needed or "-",
        )
        for each in found
    ]
    notes = [f"{each.name}: {each.note}." for each in found if each.note]
    return "\n".join(["", *aligned((_HEADINGS, *rows)), "", *map(wrapped, [*notes, _LEGEND]), ""])
