"""Ghost clipping put to the test: its two backward passes, executed again with one record's loss changed.

No per-record gradient is formed there, so the step alone shows nothing of the clip. A record whose loss is
multiplied by 0 is a record that is not there; one whose loss is multiplied by a million has a huge gradient.
Records that the audit planted are left out in the same way, and what each of them adds is what its presence
changes in the sum.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np
import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from torch import nn

from dpaudit.check import BoolArray, FloatArray
from dpaudit.evidence import Finding, Movement
from dpaudit.protocols import RowArray
from dpaudit.targets.execution import clip_of
from dpaudit.targets.forward import kept_state
from dpaudit.targets.planted import Planted
from dpaudit.targets.randomness import ReplayRandomness
from dpaudit.targets.rows import flatten

_HUGE = 1e6
_LARGE = 1e3


class Ghost:
    """The farthest that one record was seen to move the sum that a private optimizer is handed."""

    def __init__(self, planted: Planted, wanted: Callable[[int], bool]):
        self._planted = planted
        self._wanted = wanted
        self._moved: dict[int, Movement] = {}
        self._steps: dict[int, int] = {}
        self._seen: set[int] = set()
        self._inside = False
        self._watching = False
        self._weighed: set[int] = set()
        self.unclipped = 0

    @contextmanager
    def watch(self, aside: Callable[[], Any], *, looks: bool = True) -> Iterator[None]:
        """Stand in for the backward pass of Opacus's loss.

        Args:
            aside: keeps other observers from looking at what is executed here.
            looks: whether the clip is put to the test, or planted records are only taken out.
        """
        kind: Any = DPTensorFastGradientClipping
        backward = kind.backward

        own = GradSampleModuleFastGradientClipping
        # Wrapped and hooked models share the class that defines it; loops that clip by hand ask for it.
        model: Any = next(each for each in own.__mro__ if "get_norm_sample" in vars(each))
        norms = model.get_norm_sample

        @wraps(norms)
        def weighed(module: Any) -> Any:
            self._weighed |= {id(p) for p in module.trainable_parameters}
            return norms(module)

        @wraps(backward)
        def watched(loss: Any, *args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return backward(loss, *args, **kwargs)
            self._weighed |= {id(p) for p in loss.optimizer.params}
            self._inside = True
            try:
                with aside():
                    if looks and self._due(loss.optimizer):
                        self._look(loss)
                    loss = self._without_planted(loss)
            finally:
                self._inside = False
            return backward(loss, *args, **kwargs)

        kind.backward, model.get_norm_sample = watched, weighed
        self._watching = True
        try:
            yield
        finally:
            kind.backward, model.get_norm_sample = backward, norms

    def left_out(self, parameter: nn.Parameter) -> BoolArray | None:
        """See `Planted.left_out`."""
        return self._planted.left_out(parameter)

    def moved(self, optimizer: Any) -> Movement | None:
        """The farthest so far; None before the first measurement."""
        return self._moved.get(id(optimizer))

    def step_made(self, optimizer: Any) -> None:
        """Count the steps, of which 0, 1, 2, 4, 8 and so on are looked at."""
        key = id(optimizer)
        self._steps[key] = self._steps.get(key, 0) + 1
        self._seen.discard(key)
        own = {id(p) for p in optimizer.params}
        clips_before = self._watching and isinstance(optimizer, DPOptimizerFastGradientClipping)
        if clips_before and self._weighed.isdisjoint(own):
            self.unclipped += any(p.grad is not None and bool(p.grad.any()) for p in optimizer.params)
        self._weighed -= own

    def findings(self) -> Iterator[Finding]:
        """Steps on gradients that no norm of a record's gradient was computed for."""
        if self.unclipped:
            steps = sum(self._steps.values())
            yield Finding(
                check="sensitivity",
                where="backward pass in ghost mode",
                expected="the norm of each record's gradient before the sum, which scales its loss",
                measured=f"{self.unclipped} of {steps} private steps on sums that nothing was clipped in",
                epsilon=float("inf"),
                remedy="Take the loss from the criterion that make_private returned.",
            )

    def _due(self, optimizer: Any) -> bool:
        step = self._steps.get(id(optimizer), 0)
        return step & (step - 1) == 0 and id(optimizer) not in self._seen

    def _without_planted(self, loss: Any) -> Any:
        """The loss of the own records; costs two passes for each planted one, at steps that want it."""
        own = self._planted.apart(len(loss.loss_per_sample))
        parameters = _parameters(loss)
        if own is None or not parameters:
            return loss
        found: RowArray = np.zeros((0, sum(p.numel() for p in parameters)), dtype=np.float32)
        if self._wanted(self._steps.get(id(loss.optimizer), 0)):
            try:
                found = _added(loss, own)
            except Exception as error:
                self._planted.lost = f"{type(error).__name__} when the backward passes were executed again"
        self._planted.formed(parameters[0], found)
        return _weighted(loss, own.astype(np.float64))

    def _look(self, loss: Any) -> None:
        key, rows = id(loss.optimizer), len(loss.loss_per_sample)
        if not rows:
            return
        self._seen.add(key)
        thorough = key not in self._moved
        try:
            for found in _movements(loss, sorted({0, rows - 1}) if thorough else [0]):
                if key not in self._moved or found.distance > self._moved[key].distance:
                    self._moved[key] = found
        except Exception:
            # Then the clip stays untested, which the replay says; training goes on.
            return


def _movements(loss: Any, records: list[int]) -> Iterator[Movement]:
    """How far each of these records moves the sum, as it is and multiplied."""
    clip, rows = clip_of(loss.optimizer), len(loss.loss_per_sample)
    base, large = np.ones(rows), np.full(rows, _LARGE)
    everyone, all_large = _summed(loss, base), _summed(loss, large)
    for i in records:
        without = _summed(loss, _with(base, i, 0.0))
        yield _movement(everyone, without, clip, "a record of the batch removed")
        for scale in (_HUGE, -_HUGE):
            words = f"a record whose loss is {scale:g} times as large"
            yield _movement(_summed(loss, _with(base, i, scale)), without, clip, words)
        others = _summed(loss, _with(large, i, 0.0))
        yield _movement(
            all_large, others, clip, f"one of a batch of losses {_LARGE:g} times as large removed"
        )


def _with(weights: FloatArray, index: int, value: float) -> FloatArray:
    changed = weights.copy()
    changed[index] = value
    return changed


def _movement(one: list[torch.Tensor], other: list[torch.Tensor], clip: float, words: str) -> Movement:
    within = [float((a - b).norm()) / clip for a, b in zip(one, other, strict=True)]
    return Movement(
        distance=float(np.linalg.norm(within)), within=tuple(within), where=f"{words}, in ghost mode"
    )


def _added(loss: Any, own: BoolArray) -> RowArray:
    """(k, d) What each record that is not `own` adds to the sum of those that are, as it is clipped."""
    base = own.astype(np.float64)
    alone = _summed(loss, base)
    added = [
        [one - other for one, other in zip(_summed(loss, _with(base, int(i), 1.0)), alone, strict=True)]
        for i in np.flatnonzero(~own)
    ]
    return np.stack([flatten(parts) for parts in added])


def _parameters(loss: Any) -> list[nn.Parameter]:
    groups = loss.optimizer.original_optimizer.param_groups
    return [p for group in groups for p in group["params"] if p.requires_grad]


def _weighted(loss: Any, weights: FloatArray) -> Any:
    """The loss with each record's multiplied; one times 0 is left out, whatever it is."""
    tensor = loss.loss_per_sample
    factors = torch.as_tensor(weights, dtype=tensor.dtype, device=tensor.device)
    factors = factors.view(-1, *([1] * (tensor.dim() - 1)))
    changed = copy.copy(loss)
    changed.loss_per_sample = (tensor * factors).masked_fill(factors == 0, 0.0)
    return changed


def _summed(loss: Any, weights: FloatArray) -> list[torch.Tensor]:
    """What the two passes leave in the parameters when the records' losses are multiplied by `weights`."""
    changed, parameters = _weighted(loss, weights), _parameters(loss)
    # Gradients of whatever else the loss trains are left alone.
    reached = list({id(p): p for p in (*parameters, *loss.module._module.parameters())}.values())
    reached = [p for p in reached if p.requires_grad]
    with _put_back(loss, reached), _graph_retained(reached):
        for parameter in reached:
            parameter.grad = None
        changed.backward()
        return [
            torch.zeros_like(p, dtype=torch.float64) if p.grad is None else p.grad.detach().double()
            for p in parameters
        ]


@contextmanager
def _put_back(loss: Any, parameters: list[nn.Parameter]) -> Iterator[None]:
    """Undo what the passes change: activations that wait in layers, counters, norms and gradients."""
    kept = [(p, p.grad, {name: _listed(value) for name, value in vars(p).items()}) for p in parameters]
    owners = [(owner, dict(vars(owner))) for owner in (loss.module, loss.optimizer)]
    try:
        with ReplayRandomness().frozen(), kept_state(loss.module._module):
            yield
    finally:
        for owner, values in owners:
            vars(owner).clear()
            vars(owner).update(values)
        for parameter, gradient, values in kept:
            parameter.grad = gradient
            vars(parameter).clear()
            vars(parameter).update(values)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, list) else value


@contextmanager
def _graph_retained(reached: list[nn.Parameter]) -> Iterator[None]:
    """Let the real backward pass, which is still to come, find its graph."""
    autograd: Any = torch.autograd
    backward = autograd.backward

    def retaining(tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any) -> None:
        if len(args) > 1:
            kwargs["create_graph"] = args[1]
        kwargs.update(retain_graph=True, inputs=reached)
        backward(tensors, grad_tensors, **kwargs)

    autograd.backward = retaining
    try:
        yield
    finally:
        autograd.backward = backward
