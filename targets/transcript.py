"""What one training run did at each private step, and a run that is made to release the same again.

If every release of a second run is replaced by that of the first, then all that is computed from releases and
public data alone is the same in both: weights, number of steps, settings, and whatever is handed over at
the end. What differs on neighbouring data went around the mechanism.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from opacus import GradSampleModule
from torch.nn.modules.module import register_module_forward_pre_hook

from dpaudit.check import IntArray
from dpaudit.protocols import RowArray
from dpaudit.targets.batches import chosen
from dpaudit.targets.batches import tensors as tensors_of

_MOST = 50_000_000
_LARGEST = 20_000_000
_PROJECTIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One private step.

    Attributes:
        settings: with which it began: noise multiplier, clipping norm, learning rates, and last the sampling
            rate.
        weights: digest of the parameters before the step.
        inputs: digest of what the model was given since the last step.
        records: (b,) numbers of the batch's records; empty where unknown.
        rows: (b, 4) projections of per-record gradients of the last micro-batch; empty where none are formed.
        released: (d,) what the step itself released, in units of a record's gradient.
        clip: clipping norm with which it began; one that adapts is another when the step is made.
        precision: relative rounding error of a gradient.
        random: digest of the random state after the backward pass, from which the noise is drawn.
    """

    settings: tuple[float, ...]
    weights: str
    inputs: str
    records: IntArray
    rows: RowArray
    released: RowArray
    clip: float
    precision: float
    random: str


@dataclass(slots=True)
class Transcript:
    """The private steps of one run.

    Attributes:
        follow: transcript whose releases take the place of this run's own; None to release as computed.
        drop: numbers of records that are left out of every batch.
        limit: steps after which the run is left; None for no limit.
        steps: in order.
        items: digest of each record that was handed out, by its number.
        result: digests of what was handed over at the end, by name.
        complete: whether all of it was kept.
        whole: whether every batch consisted of one row for each of its records.
    """

    follow: Transcript | None = None
    drop: frozenset[int] = frozenset()
    limit: int | None = None
    steps: list[Moment] = field(default_factory=list)
    items: dict[int, str] = field(default_factory=dict)
    result: dict[str, str] = field(default_factory=dict)
    complete: bool = True
    whole: bool = True
    _handed: list[list[torch.Tensor]] = field(default_factory=list)
    _inputs: list[str] = field(default_factory=list)
    _floats: int = 0

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Take down what private models are given."""

        def given(module: Any, inputs: Any) -> None:
            if isinstance(module, GradSampleModule) and module.training:
                self._inputs.append(digest([t for t in inputs if isinstance(t, torch.Tensor)]))

        handle = register_module_forward_pre_hook(given)
        try:
            yield
        finally:
            handle.remove()

    def passing(self, root: Any, records: IntArray, batch: Any) -> tuple[IntArray, Any]:
        """Keep what a loader hands out, and leave out of it what is to be dropped."""
        tensors = tensors_of(batch, len(records))
        self.whole = self.whole and bool(tensors or not len(records))
        for i, number in enumerate(records.tolist()):
            if number not in self.items:
                self.items[number] = digest([tensor[i] for tensor in tensors])
        kept = np.array(
            [i for i, number in enumerate(records.tolist()) if number not in self.drop], dtype=int
        )
        if len(kept) == len(records) or not tensors:
            return records, batch
        return records[kept], chosen(batch, len(records), torch.as_tensor(kept))

    def step(
        self,
        parameters: Sequence[torch.nn.Parameter],
        *,
        settings: tuple[float, ...],
        records: IntArray,
        rows: RowArray,
        released: RowArray,
        clip: float,
        precision: float,
        random: str,
    ) -> None:
        """Keep a step that is about to be applied, and put the followed run's release in its place."""
        index = len(self.steps)
        inputs, self._inputs = " ".join(self._inputs), []
        self.steps.append(
            Moment(
                settings=settings,
                weights=digest(parameters),
                inputs=inputs,
                records=records,
                rows=_projected(rows),
                released=released,
                clip=clip,
                precision=precision,
                random=random,
            )
        )
        self._floats += 2 * released.size
        self.complete = self.complete and self._floats <= _MOST
        if self.follow is None:
            # `grad` itself is handed over, so what is kept has to be a copy.
            kept = [torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p in parameters]
            self._handed.append(kept)
        elif index < len(self.follow._handed):
            for parameter, release in zip(parameters, self.follow._handed[index], strict=True):
                parameter.grad = release.clone()

    def hand_over(self, model: Any) -> None:
        """Keep digests of what training returned."""
        if isinstance(model, torch.nn.Module):
            self.result = {name: digest([value]) for name, value in model.state_dict().items()}

    @property
    def enough(self) -> bool:
        """Whether the run can be left."""
        over = self.limit is not None and len(self.steps) >= self.limit
        longer = self.follow is not None and len(self.steps) > len(self.follow.steps) + 1
        return over or longer or not self.complete


def _projected(rows: RowArray) -> RowArray:
    """(b, d) to (b, 4): enough to tell rows apart."""
    if rows.size > _LARGEST:
        return rows[:0, :_PROJECTIONS]
    along = np.random.default_rng(rows.shape[1]).standard_normal((rows.shape[1], _PROJECTIONS))
    projected: RowArray = rows @ along.astype(np.float32)
    return projected


def digest(tensors: Sequence[torch.Tensor]) -> str:
    """Of the bytes of tensors, in order."""
    made = hashlib.blake2b(digest_size=12)
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        made.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return made.hexdigest()
