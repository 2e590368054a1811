"""What a run says while it runs. The engine yields these; it never prints."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """The plan is accepted: how many trials it has and how many are already on disk."""

    folder: str
    trials: int
    cached: int
    device: str
    engine: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFinished:
    """One trial is on disk. `cached` says that it was there before."""

    key: str
    target: str
    kind: str
    seconds: float
    cached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialLost:
    """One trial raised, timed out, or its worker died; it is counted, never replaced by nothing."""

    key: str
    target: str
    kind: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysing:
    """Trials are done; the evidence on the targets is being judged."""

    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """The record is written."""

    folder: str
    exit_code: int


Event = RunStarted | TrialFinished | TrialLost | Analysing | RunFinished
"""Every event."""
