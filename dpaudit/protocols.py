"""What a target and an attack must offer; plug-ins satisfy these and inherit nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dpaudit.canary import Canaries
from dpaudit.check import FloatArray, IntArray
from dpaudit.claim import Claim, Ledger, Spending
from dpaudit.evidence import Access, Batch, Evidence, Finding

RowArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one training run released, and what was measured while it ran.

    Attributes:
        canaries: the pool, and who was in.
        scores: (n, classes) float64 log-probabilities of the final model over the pool; (n, 1) where the
            model gives a record one likelihood: the mean of its tokens.
        test_accuracy: on records outside the pool.
        train_accuracy: on the members with their true labels.
        n_parameters: trainable parameters.
        claim: as it really ran; None when no privacy was claimed.
        ledger: the private phases as they ran, also without an accountant.
        accounted: the phases that the run's own accountant was told of.
        evidence: of the step attacks that rode on the run.
        findings: contradictions seen by the observer of the run.
        weights_sha256: hash of the final weights.
        seconds: how long the run took.
        spending: epsilon over the course of training, by accountant.
        place: file and line of the user's own code that makes the private steps; empty if unknown.
        stopped: at which step an attack stopped the run, which then has no final model: `scores` are (n, 0).
        test_scores: (k, classes) as `scores`, over the records outside the game.
        queries: (q, n, classes) as `scores`, over changed copies of the pool, the same for every model.
        distances: (d, n) how far along each direction the label changes, in standard deviations of the
            features; 0 where it is wrong already, inf where it never changes.
        gradient_norms: (n,) of the loss of each record over all trainable parameters.
        substituted: (v, n, classes) as `scores`, with each value of a sensitive column in turn.
        secret_scores: (s, K + 1) log-probability of each planted secret after what stands before it in its
            record, and of K others in its place.
        secret_tokens: (s, w) of each token of the planted secrets under the sampling scheme; 0 behind them.
        generated: (g, t) tokens of sampled texts.
        representatives: (classes, ...) of each class a record that the model takes for it most surely.
        linear: (classes, features + 1) weights and then bias of a model that is linear.
        stationary: (m, ...) records of which the weights of a two-layer network could be made.

    The last ten are empty unless an attack of the plan asks for them (`Asks`).
    """

    canaries: Canaries
    scores: FloatArray
    test_accuracy: float
    train_accuracy: float
    n_parameters: int
    claim: Claim | None
    ledger: Ledger = ()
    accounted: Ledger = ()
    evidence: tuple[Evidence, ...] = ()
    findings: tuple[Finding, ...] = ()
    weights_sha256: str = ""
    seconds: float = 0.0
    spending: tuple[Spending, ...] = ()
    stopped: int | None = None
    place: str = ""
    test_scores: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    queries: FloatArray = field(default_factory=lambda: np.zeros((0, 0, 0)))
    distances: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    gradient_norms: FloatArray = field(default_factory=lambda: np.zeros(0))
    substituted: FloatArray = field(default_factory=lambda: np.zeros((0, 0, 0)))
    secret_scores: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    secret_tokens: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    generated: IntArray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    representatives: FloatArray = field(default_factory=lambda: np.zeros(0))
    linear: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    stationary: FloatArray = field(default_factory=lambda: np.zeros(0))


class StopTraining(BaseException):
    """Raised by a step attack that has seen enough; the target catches it and says where it stopped.

    Not an Exception, so that training code which survives its own errors does not survive this.
    """

    def __init__(self, step: int, reason: str):
        super().__init__(f"stopped at step {step}: {reason}")
        self.step = step
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What one execution of the optimizer's step did.

    Attributes:
        released: (d,) what the underlying optimizer was handed last, times the divisor of the batch, or the
            noisy sum where that is post-processing of one; what the step wrote into the weights where it
            handed over nothing.
        updates: number of different gradients handed over.
        accounted: calls of the accountant's hook; None where there is no hook.
        beside: digest of what the step wrote into the weights by itself; empty if nothing.
        settings: clipping norm and then learning rates that the optimizer states afterwards.
        random_state: digest of the random generators afterwards.
    """

    released: RowArray
    updates: int
    accounted: int | None
    beside: str
    settings: tuple[float, ...]
    random_state: str


class StepOracle(Protocol):
    """One optimizer step that can be re-executed from its exact state, as a step attack sees it.

    Rows are per-record gradients over all trainable parameters, flattened and concatenated in
    optimizer order: (k, d). Releases are what the underlying optimizer was handed, times the
    divisor of the batch, so that they are in units of one record's gradient.

    Attributes:
        optimizer: number of the private optimizer that makes the step, from 0.
        index: number of the step among those of that optimizer, from 0.
        phase: index into the ledger as it ran.
        names: name of each parameter.
        sizes: number of elements of each parameter; they add up to d.
        max_grad_norm: clipping norm that the optimizer states.
        noise_multiplier: noise multiplier that the optimizer states.
        forms_rows: whether per-record gradients exist, so that the clip can be put to the test.
        micro_batches: in how many parts the batch came.
        precision: relative rounding error of one per-record gradient.
    """

    optimizer: int
    index: int
    phase: int

    @property
    def names(self) -> tuple[str, ...]:
        """See the attribute."""
        ...

    @property
    def sizes(self) -> tuple[int, ...]:
        """See the attribute."""
        ...

    @property
    def max_grad_norm(self) -> float:
        """See the attribute."""
        ...

    @property
    def noise_multiplier(self) -> float:
        """See the attribute."""
        ...

    @property
    def forms_rows(self) -> bool:
        """See the attribute."""
        ...

    @property
    def micro_batches(self) -> int:
        """See the attribute."""
        ...

    @property
    def precision(self) -> float:
        """See the attribute."""
        ...

    def rows(self) -> RowArray:
        """Per-record gradients of the current (micro-)batch before clipping, (b, d); memory b*d."""
        ...

    def candidates(self) -> RowArray:
        """Per-record gradients of records that the audit planted, (k, d); they are not in the batch."""
        ...

    def execute(
        self,
        batch: Sequence[RowArray] | None = None,
        *,
        after: Sequence[RowArray] | None = None,
        noise: bool = True,
        frozen: bool = False,
    ) -> Execution:
        """Execute the real step on a batch of one's own without touching weights or state.

        Args:
            batch: micro-batches (b_i, d) of per-record gradients, possibly empty; None for the batch at
                hand. Where none are formed, the optimizer finds their sum, clipped already.
            after: a batch of one's own to make a step on first, so that what it leaves behind shows.
            noise: as in `release`.
            frozen: as in `release`.

        Raises:
            Exception: whatever the step raises on this batch.
        """
        ...

    def release(
        self,
        *,
        insert: RowArray | None = None,
        remove: int | None = None,
        noise: bool = True,
        frozen: bool = False,
    ) -> RowArray:
        """Execute the real step on a neighbouring batch without touching weights or state; (d,).

        Args:
            insert: (d,) gradient of a record to add, before clipping.
            remove: index of a record to leave out.
            noise: False asks the optimizer for its step with a noise multiplier of 0.
            frozen: True restores the random state first, so that equal calls draw equal noise.
        """
        ...


class StepSession(Protocol):
    """One ride of a step attack on one run."""

    def observe(self, step: StepOracle) -> RowArray | None:
        """Look at a step before it happens; may return a (d,) gradient to insert in the real one."""
        ...

    def released(self, gradient: RowArray) -> None:
        """Receive what the real step released, (d,), if `observe` inserted something."""
        ...

    def evidence(self) -> tuple[Evidence, ...]:
        """What was collected."""
        ...


@runtime_checkable
class Watcher(Protocol):
    """A session that sees every real step, canaries of other sessions included."""

    def about_to_step(self, step: StepOracle) -> None:
        """Look at the batch as it will be used."""
        ...

    def stepped(self, released: RowArray) -> None:
        """Receive what the real step released, (d,)."""
        ...


@runtime_checkable
class BatchSession(Protocol):
    """A session that sees the records of every noisy step of every optimizer."""

    def drawn(self, batch: Batch) -> None:
        """Receive the batch of the step that is about to be made."""
        ...


@runtime_checkable
class StepAttack(Protocol):
    """An attack that rides on a training run. Its fields are its recipe."""

    @property
    def name(self) -> str:
        """In the plan and in the report."""
        ...

    @property
    def access(self) -> Access:
        """What its adversary sees."""
        ...

    def begin(self, canaries: Canaries, rng: np.random.Generator) -> StepSession:
        """Start a session for one run."""
        ...


@runtime_checkable
class ModelAttack(Protocol):
    """An attack on released models. Its fields are its recipe."""

    name: str
    access: Access
    shadows: int

    def scores(self, targets: Sequence[View], shadows: Sequence[View]) -> FloatArray:
        """Membership scores of every record in every target, higher = member.

        Args:
            targets: the released models that are attacked.
            shadows: models that the adversary trained itself, with their members; `self.shadows` of them.

        Returns:
            (targets, n); NaN where the attack cannot say.
        """
        ...


class Target(Protocol):
    """Something that trains on the members and releases a model. Its fields are its recipe."""

    name: str

    def train(
        self, canaries: Canaries, *, seed: int, device: str, attacks: Sequence[StepAttack] = ()
    ) -> View:
        """Train once, under observation by `attacks`."""
        ...
