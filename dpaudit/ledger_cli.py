"""`dpaudit ledger`: what a number of noisy steps costs, from the numbers alone."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated

import typer

from dpaudit.claim_cli import AdjacencyName, AsJson, Delta, Epsilon, SamplerName, known, option

if TYPE_CHECKING:
    from dpaudit.cost import Cost

_TRAINING = "The training"
Noise = Annotated[
    float, option(_TRAINING, "Deviation of the noise over the clipping norm (sigma).", "--noise-multiplier")
]
Rate = Annotated[
    float, option(_TRAINING, "Probability of a record to be in a batch (q): batch size over records.")
]
Steps = Annotated[int, option(_TRAINING, "Number of noisy steps (T): epochs over q.")]
Records = Annotated[int | None, option(_TRAINING, "Number of records, to compare delta with 1/n.")]
_EXIT = {"COVERED": 0, "NOT COVERED": 1, "UNDECIDED": 3}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(name="ledger")(ledger)


def ledger(
    noise_multiplier: Noise,
    sample_rate: Rate,
    steps: Steps,
    delta: Delta = 1e-5,
    epsilon: Epsilon = None,
    sampler: SamplerName = "poisson",
    adjacency: AdjacencyName = "add-remove",
    records: Records = None,
    as_json: AsJson = False,
) -> None:
    """Account for training done anywhere, by several accountants; compare with a claimed epsilon.

    Exit codes: 0 without a claim or where it covers the steps, 1 where it does not, 3 where nothing
    proves it for this sampler, 2 for a wrong option.
    """
    from dpaudit.claim import Adjacency
    from dpaudit.claim_cli import ledger_of
    from dpaudit.cost import cost

    found = cost(
        ledger_of(noise_multiplier, sample_rate, steps, sampler),
        delta=delta,
        adjacency=Adjacency(known("adjacency", adjacency, Adjacency)),
        claimed=epsilon,
        records=records,
    )
    typer.echo(_as_json(found) if as_json else _as_text(found))
    raise typer.Exit(_EXIT.get(found.status, 0))


def _as_json(found: Cost) -> str:
    document = {
        "ledger": found.ledger,
        "delta": found.delta,
        "claimed_epsilon": found.claimed,
        "status": found.status,
        "reason": found.reason,
        "warnings": list(found.warnings),
        "figures": [
            {
                "accountant": row.accountant,
                "adjacency": str(row.adjacency),
                "epsilon": row.epsilon if math.isfinite(row.epsilon) else None,
                "bound": row.bound,
            }
            for row in found.figures
        ],
    }
    return json.dumps(document, indent=1)


def _as_text(found: Cost) -> str:
    from textwrap import fill

    from dpaudit.bound_text import aligned, number

    rows = [("accountant", "neighbours", "epsilon", "it is")]
    rows += [(row.accountant, str(row.adjacency), number(row.epsilon), row.bound) for row in found.figures]
    lines = [f"{found.ledger}, delta {found.delta:g}", "", *aligned(rows), ""]
    lines += [fill(f"Warning: {text}", width=100) for text in found.warnings]
    lines.append(fill(f"{found.status}: {found.reason}" if found.status else found.reason, width=100))
    return "\n".join(lines)
