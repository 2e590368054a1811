"""The instrumented Opacus optimizer: its real step, re-executed on neighbouring batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any, Protocol

import numpy as np
import torch
from opacus.optimizers import DPOptimizer

from dpaudit.protocols import RowArray, StepSession, Watcher

_PER_PARAMETER = ("grad", "grad_sample", "summed_grad")


def flatten(tensors: Sequence[torch.Tensor]) -> RowArray:
    """Concatenate one tensor per parameter into (d,) on the CPU."""
    flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
    array: RowArray = flat.cpu().numpy()
    return array


class ReplayRandomness:
    """Random states of re-executed steps, apart from that of training, which is left as it was found.

    `frozen` replays all start from the state in which the real step will start; `fresh` ones go on
    in a stream of their own.
    """

    def __init__(self, optimizer: DPOptimizer, seed: int):
        self._optimizer = optimizer
        self._seed = seed
        self._stream: list[torch.Tensor] | None = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Restore the state at exit, so that the next call starts from it again."""
        before = self._state()
        try:
            yield
        finally:
            self._set(before)

    @contextmanager
    def fresh(self) -> Iterator[None]:
        """Draw from the replay stream and keep its place for the next call."""
        before = self._state()
        if self._stream is None:
            for generator in self._generators():
                generator.manual_seed(self._seed)
        else:
            self._set(self._stream)
        try:
            yield
        finally:
            self._stream = self._state()
            self._set(before)

    def _generators(self) -> list[torch.Generator]:
        generators = [torch.default_generator]
        if torch.cuda.is_available():
            generators += list(torch.cuda.default_generators)
        if isinstance(self._optimizer.generator, torch.Generator):
            generators.append(self._optimizer.generator)
        return generators

    def _state(self) -> list[torch.Tensor]:
        return [generator.get_state() for generator in self._generators()]

    def _set(self, states: list[torch.Tensor]) -> None:
        for generator, state in zip(self._generators(), states, strict=False):
            generator.set_state(state)


class Logbook(Protocol):
    """Where a probe writes down what ran, and who rides along."""

    def seed(self) -> int:
        """A seed for re-executed steps."""
        ...

    def claim_sessions(self) -> Sequence[StepSession]:
        """The sessions that ride on the first optimizer that steps."""
        ...

    def step_made(self, optimizer: DPOptimizer, batch_size: int | None) -> int:
        """Enter a noisy step and its batch size, where that is known; returns the index of its phase."""
        ...


class OptimizerProbe:
    """Takes the place of `optimizer.step` and offers each step to the attacks before it happens.

    The step itself is always the optimizer's own, looked up at call time, so that a subclass, a
    patched `add_noise` or a swapped class is what gets executed. What counts as released is what the
    underlying optimizer is handed, not what DPOptimizer says it computed.
    """

    def __init__(self, optimizer: DPOptimizer, logbook: Logbook):
        self._optimizer = optimizer
        self._logbook = logbook
        self._random = ReplayRandomness(optimizer, logbook.seed())
        self._sessions: Sequence[StepSession] = ()
        self._micro_batches: list[int | None] = []
        self.index = 0
        self.phase = 0
        # A bound method of the optimizer itself: learning-rate schedulers take it apart and bind it anew.
        optimizer.step = MethodType(lambda _, closure=None: self._step(closure), optimizer)

    @property
    def max_grad_norm(self) -> float:
        """Clipping norm over all parameters; per-layer norms are combined."""
        return float(np.linalg.norm(np.atleast_1d(np.asarray(self._optimizer.max_grad_norm, dtype=float))))

    @property
    def noise_multiplier(self) -> float:
        """The noise multiplier that the optimizer states."""
        return float(self._optimizer.noise_multiplier)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """Every trainable parameter that the underlying optimizer updates, in its order."""
        groups = self._optimizer.original_optimizer.param_groups
        return [p for group in groups for p in group["params"] if p.requires_grad]

    @property
    def names(self) -> tuple[str, ...]:
        """Position and shape of each parameter."""
        return tuple(f"#{i} {tuple(p.shape)}" for i, p in enumerate(self.parameters))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of elements of each parameter."""
        return tuple(p.numel() for p in self.parameters)

    @property
    def forms_rows(self) -> bool:
        """Whether the optimizer is given per-record gradients; ghost clipping never forms them."""
        return all(_has_samples(p) for p in self.parameters)

    def rows(self) -> RowArray:
        """Per-record gradients of the current (micro-)batch, (b, d)."""
        if not self.forms_rows:
            return np.zeros((0, sum(self.sizes)), dtype=np.float32)
        stacked = torch.cat([_samples(p).detach().flatten(1).float() for p in self.parameters], dim=1)
        array: RowArray = stacked.cpu().numpy()
        return array

    def release(
        self,
        *,
        insert: RowArray | None = None,
        remove: int | None = None,
        noise: bool = True,
        frozen: bool = False,
    ) -> RowArray:
        """See `StepOracle.release`. Costs one optimizer step, without forward or backward."""
        with self._restored(frozen=frozen):
            self._edit_batch(insert, remove)
            if not noise:
                self._optimizer.noise_multiplier = 0.0
            self._optimizer.step_hook = None
            return self._capture(apply=False)

    def _step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Stand in for `optimizer.step`: observe, insert, execute the real step, report what it released."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        optimizer = self._optimizer
        self._micro_batches.append(len(_samples(self.parameters[0])) if self.forms_rows else None)
        if optimizer._check_skip_next_step(pop_next=False):
            type(optimizer).step(optimizer)
            return loss
        known = [size for size in self._micro_batches if size is not None]
        batch_size = sum(known) if len(known) == len(self._micro_batches) else None
        self._micro_batches = []
        if self.index == 0:
            self._sessions = self._logbook.claim_sessions()
        self.phase = self._logbook.step_made(optimizer, batch_size)
        inserted = None
        for session in self._sessions:
            row = session.observe(self)
            if row is not None:
                inserted = session
                self._edit_batch(row, None)
        released = self._capture(apply=True)
        if inserted is not None:
            inserted.released(released)
        self.index += 1
        for session in self._sessions:
            if isinstance(session, Watcher):
                session.stepped(released)
        return loss

    def _capture(self, *, apply: bool) -> RowArray:
        """Execute the optimizer's step and return the gradients that reach the underlying optimizer."""
        optimizer = self._optimizer
        underlying = optimizer.original_optimizer
        shadowed = vars(underlying).get("step")
        original = underlying.step
        seen: list[RowArray] = []

        def step(*args: Any, **kwargs: Any) -> Any:
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
            seen.append(flatten(gradients) * self._divisor())
            return original(*args, **kwargs) if apply else None

        underlying.step = step
        try:
            type(optimizer).step(optimizer)
        finally:
            if shadowed is None:
                del underlying.step
            else:
                underlying.step = shadowed
        return seen[-1] if seen else np.zeros(sum(self.sizes), dtype=np.float32)

    def _divisor(self) -> float:
        """What a mean over the expected batch divides by."""
        optimizer = self._optimizer
        if optimizer.loss_reduction != "mean":
            return 1.0
        return float(optimizer.expected_batch_size * optimizer.accumulated_iterations)

    def _edit_batch(self, insert: RowArray | None, remove: int | None) -> None:
        """Add or leave out one record's gradient in every `grad_sample`."""
        start = 0
        for parameter in self.parameters:
            stop = start + parameter.numel()
            if _has_samples(parameter):
                sample = _samples(parameter)
                if remove is not None:
                    sample = torch.cat([sample[:remove], sample[remove + 1 :]])
                if insert is not None:
                    row = torch.as_tensor(insert[start:stop], dtype=sample.dtype, device=sample.device)
                    sample = torch.cat([sample, row.view(1, *sample.shape[1:])])
                parameter.grad_sample = _as_before(  # type: ignore[attr-defined]
                    parameter.grad_sample,  # type: ignore[attr-defined]
                    sample,
                )
            elif insert is not None and parameter.grad is not None:
                # Ghost clipping hands over a sum that is clipped already: what is added has to be, too.
                shrink = min(1.0, self.max_grad_norm / max(float(np.linalg.norm(insert)), 1e-12))
                row = torch.as_tensor(insert[start:stop] * shrink, dtype=parameter.grad.dtype)
                parameter.grad = parameter.grad + row.view_as(parameter.grad).to(parameter.grad.device)
            start = stop

    @contextmanager
    def _restored(self, *, frozen: bool) -> Iterator[None]:
        """Undo everything that a step changes, the random state included."""
        optimizer = self._optimizer
        # Adaptive clipping keeps its norm in a tensor that it updates in place.
        fields = {name: _copy(value) for name, value in vars(optimizer).items()}
        fields["_step_skip_queue"] = list(optimizer._step_skip_queue)
        kept = [{name: _copy(getattr(p, name, None)) for name in _PER_PARAMETER} for p in self.parameters]
        try:
            with self._random.frozen() if frozen else self._random.fresh():
                yield
        finally:
            vars(optimizer).clear()
            vars(optimizer).update(fields)
            for parameter, values in zip(self.parameters, kept, strict=True):
                for name, value in values.items():
                    setattr(parameter, name, value)


def _has_samples(parameter: torch.nn.Parameter) -> bool:
    return getattr(parameter, "grad_sample", None) is not None


def _samples(parameter: torch.nn.Parameter) -> torch.Tensor:
    """Per-record gradients (b, ...) of one parameter, accumulated backward passes together."""
    sample: torch.Tensor | list[torch.Tensor] = parameter.grad_sample  # type: ignore[attr-defined]
    return sample if isinstance(sample, torch.Tensor) else torch.cat(sample)


def _as_before(before: Any, sample: torch.Tensor) -> Any:
    """Keep the number of accumulated backward passes, which scales the gradient."""
    if isinstance(before, list):
        sizes = [len(part) for part in before[:-1]]
        return [*torch.split(sample[: sum(sizes)], sizes), sample[sum(sizes) :]]
    return sample


def _copy(value: Any) -> Any:
    """Clone tensors without Opacus's processed mark, which belongs to the step that is undone."""
    if isinstance(value, torch.Tensor):
        copy = value.detach().clone()
        if getattr(value, "_processed", False):
            copy._processed = True  # type: ignore[attr-defined]
        return copy
    return [_copy(part) for part in value] if isinstance(value, list) else value
