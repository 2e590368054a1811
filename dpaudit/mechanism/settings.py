"""How hard an audit of a mechanism looks."""

from __future__ import annotations

from dataclasses import dataclass

from dpaudit.check import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How hard to look.

    Attributes:
        alpha: error probability of the verdict, over all pairs, directions and events.
        samples: planned outputs, over all pairs; None for a million, or fewer where these are slow.
            Least sizes of a screening, and tests of further candidates, come on top.
        examples: pairs of data sets that are tried.
        seconds: after which no further pair is tried.
        timeout: seconds for one call.
        workers: processes to draw in; 0 draws in this one. Batch mechanisms are always called here.
        seed: of the search and of all outputs.
        stop_early: whether to end at the first decision, which is what a test wants; otherwise all outputs
            are drawn on the worst pair, which gives the best bound.
    """

    alpha: float = 0.01
    samples: int | None = None
    examples: int = 100
    seconds: float = 60.0
    timeout: float = 10.0
    workers: int = 0
    seed: int = 0
    stop_early: bool = True

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        in_range("alpha", self.alpha, 0.0, 0.5, open_low=True, open_high=True)
        in_range("seconds", self.seconds, 0.0, float("inf"))
        in_range("timeout", self.timeout, 0.0, float("inf"), open_low=True)
        in_range("workers", self.workers, 0, 256)
        if self.samples is not None:
            in_range("samples", self.samples, 200, 1e10, remedy="An audit needs some outputs.")
        in_range("seed", self.seed, 0, 2**63)
