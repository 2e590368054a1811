"""The model of a run at one step, differentiated by its input: what gradient inversion needs of it.

A copy of the model without Opacus's hooks is called with the live weights. That it and the cross-entropy of
its logits are what the run uses is not assumed: the gradients of records at hand have to come out as the
run's own loop formed them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from dpaudit.matcher import GradientMatcher
from dpaudit.protocols import RowArray, StepAttack
from dpaudit.riding import Inverts

_TOLERANCE = 1e-3
_NO_LIMIT = 1e12
_MOST = 64
"""Records at hand that are looked at."""


class Models:
    """The private models of a run, if an attack wants to differentiate one."""

    def __init__(self, attacks: Sequence[StepAttack]):
        self._wanted = any(isinstance(attack, Inverts) for attack in attacks)
        self._models: list[_Watched] = []

    def made(self, module: Any) -> None:
        """Keep what this one is given from now on."""
        if self._wanted and isinstance(module, nn.Module):
            self._models.append(_Watched(module))

    def matcher(
        self, parameters: Sequence[nn.Parameter], rows: Callable[[], RowArray], precision: float
    ) -> GradientMatcher | str:
        """The model that these parameters are of at this step, or the reason why it cannot be had."""
        for model in reversed(self._models):
            if model.owns(parameters):
                return matcher(model.model, model.live, parameters, model.inputs, rows(), precision)
        return "the model behind the optimizer is not known"


class _Watched:
    """A private model whose inputs are kept, the last ones only."""

    def __init__(self, module: Any):
        self.live: nn.Module = getattr(module, "_module", module)
        # The hooks are bound to Opacus's wrapper, which is not to be copied with them.
        self.model: nn.Module = copy.deepcopy(self.live, {id(module): module})
        for part in self.model.modules():
            for hooks in (part._forward_hooks, part._backward_hooks, part._forward_pre_hooks):
                hooks.clear()
        self.inputs: torch.Tensor | None = None
        module.register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if module.training and torch.is_grad_enabled():
            single = len(arguments) == 1 and isinstance(arguments[0], torch.Tensor)
            self.inputs = arguments[0].detach() if single else None

    def owns(self, parameters: Sequence[nn.Parameter]) -> bool:
        """Whether they are all of this model."""
        return {id(p) for p in parameters} <= {id(p) for p in self.live.parameters()}


def matcher(
    model: nn.Module,
    live: nn.Module,
    parameters: Sequence[nn.Parameter],
    inputs: torch.Tensor | None,
    rows: RowArray,
    precision: float,
) -> GradientMatcher | str:
    """The model at this step, or the reason why it cannot be had.

    Args:
        model: called, without hooks.
        live: holds the weights.
        parameters: in the order of the rows.
        inputs: of the last forward pass, (b, ...); None if there was none of one tensor alone.
        rows: per-record gradients (b, d) of that pass.
        precision: relative rounding error of a row.
    """
    if inputs is None or not len(rows) or len(inputs) < len(rows):
        return "no forward pass that takes one tensor and gives each record a gradient was seen"
    if not inputs.is_floating_point():
        return "its records are not numbers that can be changed a little"
    names = {id(p): name for name, p in live.named_parameters()}
    if any(id(p) not in names for p in parameters):
        return "the optimizer updates parameters of another model"
    own = {names[id(p)]: p.detach().clone() for p in parameters}
    rest = {name: value.detach() for name, value in live.named_parameters() if name not in own}
    rest |= {name: value.detach().clone() for name, value in live.named_buffers()}
    found = _Matcher(model, own, rest, inputs[: len(rows)][:_MOST])
    if found.head is None:
        return "its last layer is not a dense one, from which labels could be read"
    try:
        agrees = found.agrees(rows[:_MOST], max(_TOLERANCE, 16 * precision))
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
        return f"its forward pass cannot be differentiated twice by itself: {str(error).splitlines()[0]}"
    if not agrees:
        return "its records' gradients are not those of the cross-entropy of its logits, each by itself"
    return found


class _Matcher:
    """See `dpaudit.matcher.GradientMatcher`."""

    def __init__(
        self,
        model: nn.Module,
        own: Mapping[str, torch.Tensor],
        rest: Mapping[str, torch.Tensor],
        inputs: torch.Tensor,
    ):
        self._model, self._own, self._rest, self._inputs = model, dict(own), dict(rest), inputs
        ends = np.cumsum([0, *(value.numel() for value in own.values())]).tolist()
        self._place = {name: slice(a, b) for name, a, b in zip(own, ends[:-1], ends[1:], strict=True)}
        self.shape = tuple(inputs.shape[1:])
        with torch.no_grad():
            outputs = self._forward(self._own, inputs)
        self.classes = int(outputs.shape[-1]) if outputs.dim() == 2 else 0
        self._head, self.head = self._last()
        self.dense: tuple[int, int, int, int] | None = None
        self._labels = np.zeros((0, self.classes), dtype=np.float32)

    def agrees(self, rows: RowArray, tolerance: float) -> bool:
        """Whether the rows are what this model and loss make of the inputs, for labels read off the rows.

        The label of one record is where the gradient of the last layer is negative (Zhao, Mopuri and Bilen
        2020, arXiv:2001.02610).
        """
        assert self.head is not None
        head = rows[:, self.head].reshape(len(rows), self.classes, -1).sum(axis=2)
        self._labels = np.eye(self.classes, dtype=np.float32)[head.argmin(axis=1)]
        x = self._array(self._inputs)
        ours = self.rows(x, self._labels)
        apart = np.linalg.norm(ours - rows, axis=1)
        if not bool((apart <= tolerance * np.linalg.norm(rows, axis=1).max()).all()):
            return False
        # One step of the search, so that a layer without a second derivative shows here.
        self.match(
            x[:1, None], self._labels[:1, None], rows[:1], clip=np.ones(1, dtype=np.float32), cosine=True
        )
        self.dense = self._first(rows, x, tolerance)
        return True

    def batch(self) -> tuple[RowArray, RowArray]:
        """See `GradientMatcher.batch`."""
        return self._array(self._inputs), self._labels

    def rows(self, x: RowArray, labels: RowArray) -> RowArray:
        """See `GradientMatcher.rows`."""
        return self._array(self._rows(self._tensor(x), self._tensor(labels)))

    def probabilities(self, x: RowArray) -> RowArray:
        """See `GradientMatcher.probabilities`."""
        with torch.no_grad():
            return self._array(self._forward(self._own, self._tensor(x)).softmax(dim=-1))

    def features(self, x: RowArray) -> RowArray:
        """See `GradientMatcher.features`."""
        kept: list[torch.Tensor] = []
        handle = self._head.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
        try:
            with torch.no_grad():
                self._forward(self._own, self._tensor(x))
        finally:
            handle.remove()
        return self._array(kept[-1].reshape(len(x), -1))

    def match(
        self, x: RowArray, labels: RowArray, seen: RowArray, *, clip: RowArray, cosine: bool
    ) -> tuple[RowArray, RowArray, RowArray]:
        """See `GradientMatcher.match`."""
        k, b = x.shape[:2]
        records, of = self._tensor(x).requires_grad_(), self._tensor(labels).requires_grad_()
        wanted, limits = self._tensor(seen), self._tensor(np.minimum(clip, _NO_LIMIT))
        # One level of vectorisation over all records, however many batches: the other levels cost more.
        with torch.enable_grad():
            rows = self._rows(records.flatten(0, 1), of.flatten(0, 1)).reshape(k, b, -1)
            # A norm of exactly 0 has no derivative, and neither has an infinite limit.
            norms = (rows.square().sum(dim=2, keepdim=True) + 1e-24).sqrt()
            rows = rows * (limits[:, None, None] / norms).clamp(max=1.0)
            update = rows.sum(dim=1)
            if cosine:
                length = (update.square().sum(dim=1) + 1e-24).sqrt() * wanted.norm(dim=1).clamp(min=1e-12)
                apart = 1.0 - (update * wanted).sum(dim=1) / length
            else:
                apart = (update - wanted).square().sum(dim=1)
            slopes = torch.autograd.grad(apart.sum(), (records, of))
        return self._array(apart), self._array(slopes[0]), self._array(slopes[1])

    def _rows(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        def loss(own: dict[str, torch.Tensor], record: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            logits = self._forward(own, record[None])[0]
            return -(label * logits.log_softmax(dim=-1)).sum()

        gradients = vmap(grad(loss), in_dims=(None, 0, 0))(self._own, x, labels)
        return torch.cat([gradients[name].flatten(1) for name in self._own], dim=1)

    def _forward(self, own: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = functional_call(self._model, {**self._rest, **own}, (x,))
        return logits

    def _last(self) -> tuple[nn.Module, slice | None]:
        """The last dense layer with one output a class, and the place of its bias or else its weights."""
        for name, layer in reversed(list(self._model.named_modules())):
            if isinstance(layer, nn.Linear) and layer.out_features == self.classes:
                for kind in ("bias", "weight"):
                    if f"{name}.{kind}".lstrip(".") in self._place:
                        return layer, self._place[f"{name}.{kind}".lstrip(".")]
        return self._model, None

    def _first(self, rows: RowArray, x: RowArray, tolerance: float) -> tuple[int, int, int, int] | None:
        """The first layer, if it is dense and really is given the records as they are."""
        layers = [(n, m) for n, m in self._model.named_modules() if list(m.parameters(recurse=False))]
        name, layer = layers[0]
        weight, bias = (f"{name}.{kind}".lstrip(".") for kind in ("weight", "bias"))
        if not isinstance(layer, nn.Linear) or not {weight, bias} <= set(self._place):
            return None
        if layer.in_features != math.prod(self.shape):
            return None
        w, b = rows[:, self._place[weight]], rows[:, self._place[bias]]
        by_record = b[:, :, None] * x.reshape(len(x), 1, -1)
        apart = np.abs(by_record.reshape(w.shape) - w).max()
        if apart > tolerance * max(float(np.abs(w).max()), 1e-12):
            return None
        return self._place[weight].start, self._place[bias].start, layer.out_features, layer.in_features

    def _tensor(self, array: RowArray) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float32, device=self._inputs.device)

    @staticmethod
    def _array(tensor: torch.Tensor) -> RowArray:
        array: RowArray = tensor.detach().float().cpu().numpy()
        return array
