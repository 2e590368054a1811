"""The instrumented Opacus optimizer: each real step is offered to the attacks before it happens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import Any, Protocol

import numpy as np
import torch
from opacus.optimizers import DPOptimizer

from dpaudit.evidence import Movement
from dpaudit.matcher import GradientMatcher
from dpaudit.protocols import Execution, RowArray, StepSession, StopTraining, Watcher
from dpaudit.targets import rows as rows_of
from dpaudit.targets.applied import copies_of
from dpaudit.targets.execution import Executor, clip_of
from dpaudit.targets.inversion import Models
from dpaudit.targets.places import caller
from dpaudit.targets.rows import flatten
from dpaudit.targets.threads import threads_of_numpy

__all__ = ["Logbook", "OptimizerProbe", "flatten"]


class Logbook(Protocol):
    """Where a probe writes down what ran, and who rides along."""

    @property
    def names(self) -> Mapping[int, str]:
        """Names of parameters by identity, as far as the model is known."""
        ...

    def seed(self) -> int:
        """A seed for re-executed steps."""
        ...

    def strip(self, parameters: Sequence[torch.nn.Parameter]) -> RowArray:
        """Take records that the audit planted out of the batch; returns their gradients, (k, d)."""
        ...

    def claim_sessions(self) -> tuple[int, Sequence[StepSession]]:
        """Number of an optimizer that steps for the first time, and the sessions that ride on it."""
        ...

    def first_step(self, place: str) -> None:
        """Enter the line that makes the first noisy step of an optimizer; empty if unknown."""
        ...

    def step_made(self, optimizer: DPOptimizer, batch_size: int | None) -> int:
        """Enter a noisy step and its batch size, where that is known; returns the index of its phase."""
        ...

    def step_unmade(self, optimizer: DPOptimizer, phase: int) -> None:
        """Strike out the step that was entered last: it raised, so nothing was released."""
        ...

    def releasing(
        self,
        parameters: Sequence[torch.nn.Parameter],
        released: RowArray,
        *,
        rows: Callable[[], RowArray],
        settings: tuple[float, ...],
        clip: float,
        precision: float,
        random: Callable[[], str],
    ) -> None:
        """A real step released (d,), as attacks are told it; may change the gradients that are applied."""
        ...


class OptimizerProbe:
    """Takes the place of `optimizer.step` and offers each step to the attacks before it happens.

    The step itself is always the optimizer's own, looked up at call time.
    """

    def __init__(self, optimizer: DPOptimizer, logbook: Logbook):
        self.optimizer = 0
        self._optimizer = optimizer
        self._logbook = logbook
        self._executor = Executor(optimizer, logbook.seed(), self._histories)
        self._sessions: Sequence[StepSession] = ()
        self._watchers: Sequence[Watcher] = ()
        self._micro_batches: list[int | None] = []
        self._candidates: RowArray = np.zeros((0, 0), dtype=np.float32)
        self._layout: tuple[int, ...] = ()
        self.index = 0
        self.phase = 0
        self._left: torch.Tensor | None = None
        self.watched = False
        self.unwatched_from: int | None = None
        self.written = 0
        # A bound method of the optimizer itself: learning-rate schedulers take it apart and bind it anew.
        optimizer.step = MethodType(lambda _, closure=None: self._stepped(closure), optimizer)
        optimizer.pre_step = MethodType(lambda _, closure=None: self._pre_step(closure), optimizer)

    @property
    def max_grad_norm(self) -> float:
        """Clipping norm over all parameters; per-layer norms are combined."""
        return clip_of(self._optimizer)

    @property
    def noise_multiplier(self) -> float:
        """The noise multiplier that the optimizer states."""
        return float(self._optimizer.noise_multiplier)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """Every trainable parameter that the underlying optimizer updates, in its order."""
        return self._executor.parameters

    @property
    def names(self) -> tuple[str, ...]:
        """Name in the model, or else position, and shape of each parameter."""
        known = self._logbook.names
        of = f"optimizer {self.optimizer + 1}: " if self.optimizer else ""
        return tuple(
            f"{of}{known.get(id(p), f'#{i}')} {tuple(p.shape)}" for i, p in enumerate(self.parameters)
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of elements of each parameter."""
        return tuple(p.numel() for p in self.parameters)

    @property
    def has_samples(self) -> bool:
        """Whether the optimizer is given per-record gradients of every parameter."""
        return all(rows_of.has_samples(p) for p in self.parameters)

    @property
    def forms_rows(self) -> bool:
        """Whether clipping is the optimizer's affair; ghost clipping hands it a sum that is clipped."""
        return not self._executor.clips_inside

    @property
    def clip_moved(self) -> Movement | None:
        """How far one record moves the sum that ghost clipping hands over; None where not measured."""
        coupling = getattr(self._logbook, "coupling", None)
        return None if coupling is None else coupling.ghost.moved(self._optimizer)

    @property
    def post_processed(self) -> int:
        """For how many batches it was seen that a release shows nothing but their noisy sum."""
        return self._executor.post_processed

    @property
    def micro_batches(self) -> int:
        """In how many parts the batch came."""
        return max(1, len(self._micro_batches))

    @property
    def precision(self) -> float:
        """Machine epsilon of the coarsest of parameters and per-record gradients."""
        kinds = {p.dtype for p in self.parameters}
        kinds |= {rows_of.samples(p).dtype for p in self.parameters if rows_of.has_samples(p)}
        return max(torch.finfo(kind).eps for kind in kinds)

    def rows(self) -> RowArray:
        """Per-record gradients of the current (micro-)batch, (b, d)."""
        if not self.has_samples:
            return np.zeros((0, sum(self.sizes)), dtype=np.float32)
        return rows_of.read(self.parameters)

    def candidates(self) -> RowArray:
        """See `StepOracle.candidates`: those of the last micro-batch."""
        return self._candidates

    def execute(
        self,
        batch: Sequence[RowArray] | None = None,
        *,
        after: Sequence[RowArray] | None = None,
        noise: bool = True,
        frozen: bool = False,
    ) -> Execution:
        """See `StepOracle.execute`. Costs one optimizer step, without forward or backward."""
        return self._executor.execute(batch, after=after, noise=noise, frozen=frozen)

    def release(
        self,
        *,
        insert: RowArray | None = None,
        remove: int | None = None,
        noise: bool = True,
        frozen: bool = False,
    ) -> RowArray:
        """See `StepOracle.release`. Costs one optimizer step, without forward or backward."""
        edit = None if insert is None and remove is None else lambda: self._edit(insert, remove)
        return self._executor.execute(edit=edit, noise=noise, frozen=frozen).released

    def matcher(self) -> GradientMatcher | str:
        """See `dpaudit.matcher.Invertible`."""
        if not self.has_samples or not self.forms_rows:
            return "no per-record gradients are formed"
        models = getattr(self._logbook, "models", None) or Models(())
        return models.matcher(self.parameters, self.rows, self.precision)

    def _pre_step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Stand in for `optimizer.pre_step`: a loop that calls it makes the step with the release itself."""
        if self._executor.stepping:
            returned: float | None = type(self._optimizer).pre_step(self._optimizer, closure)
            return returned
        return self._stepped(None, alone=True)

    def _stepped(self, closure: Callable[[], float] | None, *, alone: bool = False) -> float | None:
        returned = self._step(closure, alone=alone)
        coupling = getattr(self._logbook, "coupling", None)
        if coupling is not None:
            coupling.stepped()
        return returned

    def _step(self, closure: Callable[[], float] | None, *, alone: bool) -> float | None:
        """Stand in for `optimizer.step`: observe, insert, execute the real step, report what it released."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        optimizer = self._optimizer
        self._candidates = self._logbook.strip(self.parameters)
        if not self._micro_batches:
            self._executor.logical_batch_starts()
            self.written += self._left is not None and not _same(self._left, self._sums())
        self._micro_batches.append(len(rows_of.samples(self.parameters[0])) if self.has_samples else None)
        if optimizer._check_skip_next_step(pop_next=False):
            return self._executor.step(loss, alone=alone)
        known = [size for size in self._micro_batches if size is not None]
        batch_size = sum(known) if len(known) == len(self._micro_batches) else None
        if self.index == 0:
            self.optimizer, self._sessions = self._logbook.claim_sessions()
            self.watched = bool(self._sessions)
            self._watchers = [session for session in self._sessions if isinstance(session, Watcher)]
            self._logbook.first_step(caller())
            self._layout = self._identities()
        if self._sessions and self._identities() != self._layout:
            # What was measured of some coordinates cannot go on with others.
            self._sessions, self._watchers, self.unwatched_from = (), (), self.index
        self.phase = self._logbook.step_made(optimizer, batch_size)
        try:
            with threads_of_numpy().limit(limits=1, user_api="blas"):
                self._attacked_step(loss, alone)
        except StopTraining:
            raise
        except BaseException:
            self._logbook.step_unmade(optimizer, self.phase)
            raise
        finally:
            self._micro_batches = []
            self._executor.logical_batch_ends()
        self._stood()
        self.index += 1
        return self._executor.returned

    def _stood(self) -> None:
        """Keep how the weights stand once a step is made."""
        self._left = self._sums()
        bypass = getattr(self._logbook, "bypass", None)
        if bypass is not None:
            bypass.standing.stood(self.parameters)

    def _sums(self) -> torch.Tensor:
        """Of each parameter: they tell whether it was written to."""
        sums = [p.detach().sum(dtype=torch.float32) for p in self.parameters]
        return torch.stack([each.to(sums[0].device) for each in sums])

    def _identities(self) -> tuple[int, ...]:
        return tuple(id(p) for p in self.parameters)

    def _attacked_step(self, loss: float | None, alone: bool) -> None:
        raw = copies_of([p.grad for p in self._optimizer.params])
        bypass = getattr(self._logbook, "bypass", None)
        if bypass is not None:
            bypass.standing.moving(self.parameters)
        if self._sessions or getattr(self._logbook, "transcript", None) is not None:
            self._executor.look(self.index, self.micro_batches)
        inserted = None
        for session in self._sessions:
            row = session.observe(self)
            if row is not None:
                inserted = session
                self._edit(row, None)
        for watcher in self._watchers:
            watcher.about_to_step(self)

        # An adaptive norm is another one once the step was made.
        clip, settings = self.max_grad_norm, self._settings()

        def written(released: RowArray) -> None:
            self._written(released, clip, settings)
            if bypass is not None and not alone:
                bypass.handed(self._optimizer, raw, self._stood)

        handed = self._executor.capture(apply=True, replace=written, loss=loss, alone=alone)
        if alone and bypass is not None:
            bypass.released(self._optimizer, raw, self._stood)
        released = self._executor.released(handed)
        if inserted is not None:
            inserted.released(released)
        for watcher in self._watchers:
            watcher.stepped(released)

    def _settings(self) -> tuple[float, ...]:
        rates = [float(group["lr"]) for group in self._optimizer.original_optimizer.param_groups]
        return (self.noise_multiplier, self.max_grad_norm, *rates)

    def _written(self, released: RowArray, clip: float, settings: tuple[float, ...]) -> None:
        """Let the logbook keep a release before it is applied, and put another in its place."""
        self._logbook.releasing(
            self.parameters,
            self._executor.released([released]),
            rows=self.rows,
            settings=settings,
            clip=clip,
            precision=self.precision,
            random=self._executor.random_state,
        )

    def _edit(self, insert: RowArray | None, remove: int | None) -> None:
        """Add or leave out one record's gradient in the batch at hand."""
        mean_over = 1.0
        if self._executor.clips_inside:
            if insert is not None and not np.may_share_memory(insert, self._candidates):
                # What is added to a sum that is clipped already has to be clipped, too; what a planted record
                # adds to it was.
                shrink = min(1.0, self.max_grad_norm / max(float(np.linalg.norm(insert)), 1e-12))
                insert = np.asarray(insert * shrink, dtype=np.float32)
        elif self._optimizer.loss_reduction == "mean":
            mean_over = float(self._optimizer.expected_batch_size)
        rows_of.edit(self.parameters, insert, remove, mean_over=mean_over)

    def _histories(self) -> list[list[Any]]:
        """The accountants' lists of phases, which a re-executed step must not lengthen."""
        engines = getattr(self._logbook, "engines", None) or [getattr(self._logbook, "engine", None)]
        found = [getattr(getattr(engine, "accountant", None), "history", None) for engine in engines]
        return [history for history in found if isinstance(history, list)]


def _same(before: torch.Tensor, after: torch.Tensor) -> bool:
    """Whether no weight changed; other parameters than before cannot be compared."""
    if before.shape != after.shape:
        return True
    return bool(torch.allclose(before.cpu(), after.cpu(), rtol=0.0, atol=0.0, equal_nan=True))
