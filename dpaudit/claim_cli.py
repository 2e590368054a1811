"""Options by which the command line states a claim."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpaudit.errors import UsageError, nearest

if TYPE_CHECKING:
    from dpaudit.claim import Ledger

ADJACENCIES = "add-remove or replace-one"
_CLAIM = "The claim"


def option(panel: str, text: str, *names: str, **more: Any) -> Any:
    """An option of the command line, in a panel of the help."""
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


Epsilon = Annotated[float | None, option(_CLAIM, "Claimed epsilon.")]
Delta = Annotated[float, option(_CLAIM, "Delta of the claim.")]
Noise = Annotated[
    float | None,
    option(_CLAIM, "Claimed sigma: tests the curve of these steps.", "--claim-noise-multiplier"),
]
Rate = Annotated[float | None, option(_CLAIM, "Claimed sampling rate of a record.")]
Steps = Annotated[int | None, option(_CLAIM, "Claimed number of noisy steps.")]
SamplerName = Annotated[str, option(_CLAIM, "How batches were drawn: poisson, shuffle or full-batch.")]
AdjacencyName = Annotated[str, option(_CLAIM, f"Neighbours of the claim: {ADJACENCIES}.")]
Unit = Annotated[str, option(_CLAIM, "Unit of the claim: record or user.")]
Gaussian = Annotated[
    bool, option(_CLAIM, "The whole run is claimed to be a Gaussian mechanism.", "--gaussian")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def known(option: str, value: str, right: Any) -> str:
    """A value that an enumeration has, or an error with the nearest one."""
    names = [str(name) for name in right]
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
    known("sampler", sampler, Sampler)
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
