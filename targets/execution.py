"""The optimizer's own step, executed on any batch of per-record gradients, and everything put back.

What counts as released is what the underlying optimizer is handed, not what DPOptimizer says it computed.
Where that is post-processing of a noisy sum, it is the sum.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping

from dpaudit.protocols import Execution, RowArray
from dpaudit.targets.noisy_sum import NoisySum
from dpaudit.targets.randomness import ReplayRandomness
from dpaudit.targets.rows import flatten, write

_PER_PARAMETER = ("grad", "grad_sample", "summed_grad")
_LEFT_ALONE = ("original_optimizer", "generator", "step_hook", "step", "pre_step")
_State = tuple[dict[str, Any], list[dict[str, Any]]]


class Executor:
    """Executes `type(optimizer).step`, so that a subclass or a patched method is what runs."""

    def __init__(self, optimizer: DPOptimizer, seed: int, histories: Callable[[], list[list[Any]]]):
        self._optimizer = optimizer
        self._histories = histories
        self._random = ReplayRandomness(optimizer, seed)
        self._start: _State | None = None
        self.returned: float | None = None
        self.stepping = False
        self._noisy = NoisySum(optimizer, lambda: self.parameters, self.execute, clipped=self.clips_inside)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """Every trainable parameter that the underlying optimizer updates, in its order."""
        groups = self._optimizer.original_optimizer.param_groups
        return [p for group in groups for p in group["params"] if p.requires_grad]

    @property
    def clips_inside(self) -> bool:
        """Whether the optimizer is handed a sum that is clipped already: ghost and fast gradient clipping."""
        return isinstance(self._optimizer, DPOptimizerFastGradientClipping)

    @property
    def divisor(self) -> float:
        """What a mean over the expected batch divides by."""
        optimizer = self._optimizer
        if optimizer.loss_reduction != "mean":
            return 1.0
        try:
            return float(optimizer.expected_batch_size * optimizer.accumulated_iterations)
        except (ValueError, IndexError):
            return float(optimizer.expected_batch_size)

    def random_state(self) -> str:
        """Digest of the generators that noise is drawn from."""
        return _digest(self._random.of_torch())

    def logical_batch_starts(self) -> None:
        """Remember the state from which re-executions with several micro-batches set out."""
        self._start = _taken(self._optimizer, self.parameters, rows=False)

    def logical_batch_ends(self) -> None:
        """Forget that state."""
        self._start = None

    def execute(
        self,
        batch: Sequence[RowArray] | None = None,
        *,
        after: Sequence[RowArray] | None = None,
        edit: Callable[[], None] | None = None,
        noise: bool = True,
        frozen: bool = False,
    ) -> Execution:
        """See `StepOracle.execute`; `edit` changes the batch at hand first."""
        optimizer = self._optimizer
        with self._restored(frozen=frozen, at_hand=batch is None) as weights:
            if edit is not None:
                edit()
            if not noise:
                optimizer.noise_multiplier = 0.0
            accounted: list[int] = []
            hooked = optimizer.step_hook is not None
            optimizer.step_hook = (lambda _: accounted.append(1)) if hooked else None
            empty = [getattr(p, "grad_sample", None) for p in self.parameters]
            if after is not None:
                self._run(after, empty)
                optimizer.zero_grad()
                accounted.clear()
            handed = self.capture(apply=False) if batch is None else self._run(batch, empty)
            moved = [p.detach() - w for p, w in zip(self.parameters, weights, strict=True)]
            itself = any(bool(m.any()) for m in moved)
            return Execution(
                # A step that writes the weights itself releases what it wrote.
                released=self.released(handed) if handed else flatten(moved),
                updates=len({array.tobytes() for array in handed}) if handed else int(itself),
                accounted=len(accounted) if hooked else None,
                beside=_digest(moved) if handed and itself else "",
                settings=(clip_of(optimizer), *(float(group.get("lr", 0.0)) for group in _groups(optimizer))),
                random_state=self.random_state(),
            )

    def _run(self, batch: Sequence[RowArray], empty: Sequence[Any]) -> list[RowArray]:
        """Step through micro-batches as `BatchMemoryManager` does; all but the last are only accumulated."""
        optimizer = self._optimizer
        for part in batch[:-1]:
            optimizer._step_skip_queue = [True]
            self._lay(part, empty)
            self.step(None)
            optimizer.zero_grad()
        optimizer._step_skip_queue = []
        self._lay(batch[-1], empty)
        return self.capture(apply=False)

    def _lay(self, rows: RowArray, empty: Sequence[Any]) -> None:
        for parameter, before in zip(self.parameters, empty, strict=True):
            parameter.grad_sample = before  # type: ignore[attr-defined]
        divides = self._optimizer.loss_reduction == "mean" and not self.clips_inside
        write(self.parameters, rows, mean_over=float(max(len(rows), 1)) if divides else 1.0)

    def step(self, loss: float | None, *, alone: bool = False) -> float | None:
        """Step as the optimizer does, with what its closure, executed already, came to.

        With `alone` up to the release: what leads to it is executed, and the underlying optimizer is not.
        """
        closure = () if loss is None else (lambda: loss,)
        kind = type(self._optimizer)
        before, self.stepping = self.stepping, True
        try:
            returned: float | None = (kind.pre_step if alone else kind.step)(self._optimizer, *closure)
        finally:
            self.stepping = before
        return returned

    def capture(
        self,
        *,
        apply: bool,
        replace: Callable[[RowArray], None] | None = None,
        loss: float | None = None,
        alone: bool = False,
    ) -> list[RowArray]:
        """Execute the optimizer's step and return the gradients that reach the underlying optimizer.

        Args:
            apply: whether the underlying optimizer then makes its step.
            replace: called with them before that, and may change what parameters hold.
            loss: of the closure that the step was given; `returned` is what the step makes of it.
            alone: whether only the release is made, of which the underlying optimizer hears nothing.
        """
        optimizer = self._optimizer
        underlying = optimizer.original_optimizer
        shadowed = vars(underlying).get("step")
        original = underlying.step
        seen: list[RowArray] = []

        def take() -> None:
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
            seen.append(flatten(gradients) * np.float32(self.divisor))
            if replace is not None:
                replace(seen[-1])

        def step(*args: Any, **kwargs: Any) -> Any:
            take()
            return original(*args, **kwargs) if apply else None

        underlying.step = step
        try:
            with self._noisy.listening():
                self.returned = self.step(loss, alone=alone)
            if alone and self.returned:
                take()
        finally:
            if shadowed is None:
                del underlying.step
            else:
                underlying.step = shadowed
        return seen

    def look(self, index: int, parts: int) -> None:
        """Find out whether what this step releases is post-processing of a noisy sum: see `NoisySum`."""
        self._noisy.look(index, parts, clip_of(self._optimizer))

    @property
    def post_processed(self) -> int:
        """For how many batches it was seen that only their noisy sum shows; 0 where the sum is released."""
        return self._noisy.compared if self._noisy.trusted else 0

    def released(self, handed: Sequence[RowArray]) -> RowArray:
        """What a step released that `capture` saw: the last, or the noisy sum that it was made of."""
        if not handed:
            return np.zeros(sum(p.numel() for p in self.parameters), dtype=np.float32)
        return self._noisy.released(handed[-1])

    @contextmanager
    def _restored(self, *, frozen: bool, at_hand: bool) -> Iterator[list[torch.Tensor]]:
        """Undo everything that a step changes, the random state included; yields a copy of the weights."""
        optimizer, parameters = self._optimizer, self.parameters
        underlying = optimizer.original_optimizer
        fields = dict(vars(optimizer))
        kept = [{name: getattr(p, name, None) for name in _PER_PARAMETER} for p in parameters]
        weights = [p.detach().clone() for p in parameters]
        state = underlying.state
        rates = [_copied(group.get("lr")) for group in _groups(optimizer)]
        histories = [(history, list(history)) for history in self._histories()]
        try:
            # The step works on copies; the originals are what is put back.
            start = None if at_hand else self._start
            now = _taken(optimizer, parameters, rows=at_hand) if start is None else _copied(start)
            _give(optimizer, parameters, now)
            underlying.state = defaultdict(dict, {key: _copied(value) for key, value in state.items()})
            with self._random.frozen() if frozen else self._random.fresh():
                yield weights
        finally:
            underlying.state = state
            for group, rate in zip(_groups(optimizer), rates, strict=True):
                if rate is not None:
                    group["lr"] = rate
            for history, entries in histories:
                history[:] = entries
            vars(optimizer).clear()
            vars(optimizer).update(fields)
            for parameter, values, weight in zip(parameters, kept, weights, strict=True):
                for name, value in values.items():
                    setattr(parameter, name, value)
                if not torch.equal(parameter.detach(), weight):
                    parameter.data.copy_(weight)


def _groups(optimizer: DPOptimizer) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = optimizer.original_optimizer.param_groups
    return groups


def clip_of(optimizer: DPOptimizer) -> float:
    """The clipping norm that the optimizer states, over all parameters; per-layer norms are combined."""
    return float(np.linalg.norm(np.atleast_1d(np.asarray(optimizer.max_grad_norm, dtype=float))))


def _taken(optimizer: DPOptimizer, parameters: Sequence[torch.nn.Parameter], *, rows: bool) -> _State:
    """Copies of what a step may change in optimizer and parameters; of no record, without `rows`."""
    fields = {name: v if name in _LEFT_ALONE else _copied(v) for name, v in vars(optimizer).items()}
    on_parameters = []
    for parameter in parameters:
        values = {name: getattr(parameter, name, None) for name in _PER_PARAMETER}
        if not rows:
            values["grad_sample"] = _emptied(values["grad_sample"])
        on_parameters.append({name: _copied(value) for name, value in values.items()})
    return fields, on_parameters


def _give(optimizer: DPOptimizer, parameters: Sequence[torch.nn.Parameter], state: _State) -> None:
    fields, on_parameters = state
    vars(optimizer).clear()
    vars(optimizer).update(fields)
    for parameter, values in zip(parameters, on_parameters, strict=True):
        for name, value in values.items():
            setattr(parameter, name, value)


def _emptied(sample: Any) -> Any:
    """No records of the same shape, in as many backward passes."""
    if isinstance(sample, list):
        return [part[:0] for part in sample]
    return None if sample is None else sample[:0]


def _copied(value: Any) -> Any:
    """Copy tensors, arrays and the containers that hold them; share everything else.

    A tensor keeps Opacus's mark of having been processed.
    """
    match value:
        case torch.Tensor():
            copy = value.detach().clone()
            if getattr(value, "_processed", False):
                copy._processed = True  # type: ignore[attr-defined]
            return copy
        case np.ndarray():
            return value.copy()
        case dict():
            same = value.copy()
            same.update({key: _copied(part) for key, part in value.items()})
            return same
        case deque():
            return deque((_copied(part) for part in value), value.maxlen)
        case set():
            return set(value)
    return type(value)(_copied(part) for part in value) if type(value) in (list, tuple) else value


def _digest(tensors: Sequence[torch.Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        digest.update(tensor.detach().reshape(-1).cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
