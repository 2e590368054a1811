"""The same offer to step attacks for training without privacy: the positive control.

What plain training releases in a step is the sum of the raw per-record gradients: nothing is clipped
and nothing is added. A record's gradient therefore comes out exactly as it went in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

import numpy as np
import torch

from dpaudit.matcher import GradientMatcher
from dpaudit.protocols import Execution, RowArray, Watcher
from dpaudit.targets.inversion import matcher
from dpaudit.targets.observe import active
from dpaudit.targets.rows import flatten


class PlainProbe:
    """Takes the place of `optimizer.step` of a plain torch optimizer; training itself is left alone."""

    max_grad_norm = 1.0
    noise_multiplier = 0.0
    optimizer = phase = 0
    forms_rows = True
    micro_batches = 1
    precision = float(torch.finfo(torch.float32).eps)

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        rows: Callable[[], torch.Tensor],
        given: Callable[[], tuple[torch.nn.Module, torch.Tensor]] | None = None,
    ):
        self._given = given
        self._optimizer = optimizer
        self._rows = rows
        self._original = optimizer.step
        observation = active()
        self._sessions = observation.claim_sessions()[1] if observation else ()
        self._cache: RowArray | None = None
        self.index = 0
        bound = MethodType(lambda _, *args, **kwargs: self._step(*args, **kwargs), optimizer)
        optimizer.step = bound  # type: ignore[method-assign]

    @property
    def _parameters(self) -> list[torch.nn.Parameter]:
        return [p for group in self._optimizer.param_groups for p in group["params"] if p.requires_grad]

    @property
    def names(self) -> tuple[str, ...]:
        """Position and shape of each parameter."""
        return tuple(f"#{i} {tuple(p.shape)}" for i, p in enumerate(self._parameters))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of elements of each parameter."""
        return tuple(p.numel() for p in self._parameters)

    def rows(self) -> RowArray:
        """Per-record gradients of the current batch, (b, d)."""
        if self._cache is None:
            array: RowArray = self._rows().detach().cpu().numpy()
            self._cache = array
        return self._cache

    def candidates(self) -> RowArray:
        """Records of the batch itself: where nothing is clipped or added, any record will do."""
        return self.rows()

    def release(
        self,
        *,
        insert: RowArray | None = None,
        remove: int | None = None,
        noise: bool = True,
        frozen: bool = False,
    ) -> RowArray:
        """The gradient that the optimizer is about to apply, as a sum, with one record more or less."""
        rows = self.rows()
        total = flatten([p.grad for p in self._parameters if p.grad is not None]) * len(rows)
        if remove is not None:
            total = total - rows[remove]
        released: RowArray = np.asarray(total if insert is None else total + insert, dtype=np.float32)
        return released

    def execute(
        self,
        batch: Sequence[RowArray] | None = None,
        *,
        after: Sequence[RowArray] | None = None,
        noise: bool = True,
        frozen: bool = False,
    ) -> Execution:
        """The sum of the rows: nothing is clipped and nothing is added."""
        released = self.release() if batch is None else np.concatenate([*batch]).sum(axis=0)
        return Execution(
            released=np.asarray(released, dtype=np.float32),
            updates=1,
            accounted=None,
            beside="",
            settings=(self.max_grad_norm,),
            random_state="",
        )

    def matcher(self) -> GradientMatcher | str:
        """See `dpaudit.matcher.Invertible`."""
        if self._given is None:
            return "the model behind the optimizer is not known"
        model, inputs = self._given()
        return matcher(model, model, self._parameters, inputs, self.rows(), self.precision)

    def _step(self, *args: Any, **kwargs: Any) -> Any:
        self._cache = None
        inserted = False
        for session in self._sessions:
            row = session.observe(self)
            if row is not None:
                inserted = True
                session.released(self.release(insert=row))
        watchers = [] if inserted else [s for s in self._sessions if isinstance(s, Watcher)]
        for watcher in watchers:
            watcher.about_to_step(self)
            watcher.stepped(self.release())
        self.index += 1
        return self._original(*args, **kwargs)
