"""What a target and an attack must offer; plug-ins satisfy these and inherit nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from dpaudit.canary import Canaries
from dpaudit.check import FloatArray
from dpaudit.claim import Claim
from dpaudit.evidence import Access, Evidence, Finding
from dpaudit.estimate import Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one training run released, and what was measured while it ran.

    Attributes:
        canaries: the pool, and who was in.
        scores: (n, classes) float64 log-probabilities of the final model over the pool.
        test_accuracy: on records outside the pool.
        train_accuracy: on the members with their true labels.
        n_parameters: trainable parameters.
        claim: as it really ran; None when no privacy was claimed.
        evidence: of the step attacks that rode on the run.
        findings: contradictions seen by the observer of the run.
        weights_sha256: hash of the final weights.
        seconds: how long the run took.
    """

    canaries: Canaries
    scores: FloatArray
    test_accuracy: float
    train_accuracy: float
    n_parameters: int
    claim: Claim | None
    evidence: tuple[Evidence, ...] = ()
    findings: tuple[Finding, ...] = ()
    weights_sha256: str = ""
    seconds: float = 0.0


class StepOracle(Protocol):
    """One optimizer step that can be re-executed from its exact state, as a step attack sees it.

    Rows are per-record gradients over all trainable parameters, flattened and concatenated in
    optimizer order: (k, d). Results are what the underlying optimizer was handed, times the
    divisor of the batch, so that they are in units of one record's gradient.
    """

    index: int
    phase: int
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    max_grad_norm: float
    noise_multiplier: float

    def rows(self) -> FloatArray:
        """Per-record gradients of the current batch, (b, d); needs memory b*d."""
        ...

    def record_gradients(self, x: FloatArray, y: FloatArray) -> FloatArray | None:
        """Gradients of given records at the current weights, (k, d); None where it cannot be had."""
        ...

    def release(
        self, *, insert: FloatArray | None = None, remove: int | None = None, noise: bool = True, frozen: bool = False
    ) -> FloatArray:
        """Execute the real step on a neighbouring batch without touching weights or state; (d,).

        Args:
            insert: (d,) gradient of a record to add.
            remove: index of a record to leave out.
            noise: False asks the optimizer for its step with a noise multiplier of 0.
            frozen: True restores the random state first, so that equal calls draw equal noise.
        """
        ...


class StepSession(Protocol):
    """One ride of a step attack on one run."""

    def observe(self, step: StepOracle) -> FloatArray | None:
        """Look at a step before it happens; may return a (d,) gradient to insert in the real one."""
        ...

    def released(self, gradient: FloatArray) -> None:
        """Receive what the real step released, (d,), if `observe` inserted something."""
        ...

    def evidence(self) -> tuple[Evidence, ...]:
        """What was collected."""
        ...


@runtime_checkable
class StepAttack(Protocol):
    """An attack that rides on a training run. Its fields are its recipe."""

    name: str
    access: Access

    def begin(self, canaries: Canaries, rng: np.random.Generator) -> StepSession:
        """Start a session for one run."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Leakage:
    """What an attack on final models found: evidence for bounds, rates for disclosure."""

    evidence: tuple[Evidence, ...] = ()
    rates: tuple[Rate, ...] = ()


@runtime_checkable
class ModelAttack(Protocol):
    """An attack on released models. Its fields are its recipe."""

    name: str
    access: Access
    shadows: int

    def scores(self, views: Sequence[View]) -> FloatArray:
        """Membership scores, (runs, n), higher = member; NaN where the attack cannot say."""
        ...


class Target(Protocol):
    """Something that trains on the members and releases a model. Its fields are its recipe."""

    name: str

    def train(
        self, canaries: Canaries, *, seed: int, device: str, attacks: Sequence[StepAttack] = ()
    ) -> View:
        """Train once, under observation by `attacks`."""
        ...
