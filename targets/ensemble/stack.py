"""Many models of one architecture as one: layer by layer where every layer is known, else by `vmap`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from dpaudit.targets.ensemble.dropout import Masks
from dpaudit.targets.ensemble.layers import Embedding, Gradients, Layer, Linear, Scale, Values
from dpaudit.targets.ensemble.patches import channels_first, cut

_STATELESS = (
    nn.Identity, nn.Flatten, nn.Unflatten, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU,
    nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Hardtanh, nn.Hardswish, nn.Softmax, nn.MaxPool1d,
    nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
)  # fmt: skip
"""Layers without parameters that treat every record by itself."""
_MIXING = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_TOLERANCE = 1e-4


class NotStackable(Exception):
    """These models cannot be trained as one; the message says why. Never leaves the package."""


class Stack(Protocol):
    """A batch of records for each model to gradients of each model."""

    def mean(self, values: Values, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> Gradients:
        """Gradients of the weighted sum of losses, for x (M, B, ...), y and weight (M, B)."""
        ...

    def clipped(
        self, values: Values, x: torch.Tensor, y: torch.Tensor, inside: torch.Tensor, max_grad_norm: float
    ) -> Gradients:
        """Sums over the records `inside` (M, B) of gradients clipped to `max_grad_norm`, as Opacus clips."""
        ...

    def logits(self, values: Values, x: torch.Tensor) -> torch.Tensor:
        """(M, n, classes) of records x (n, ...), with dropout switched off."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A layer with parameters, as part of a chain.

    Attributes:
        layer: over the stack.
        trained: whether its parameters are.
    """

    layer: Layer
    trained: bool


Part = Known | Masks | Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStack:
    """A chain of known layers; between them records of all models lie in one axis (M * B, ...).

    Attributes:
        parts: in order.
    """

    parts: tuple[Part, ...]

    def mean(self, values: Values, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> Gradients:
        """See `Stack`; no gradient of a record is formed."""
        found: Gradients = {}
        for layer, a, b in self._backward(values, x, y):
            found.update(layer.sums(a, b, weight, values))
        return found

    def clipped(
        self, values: Values, x: torch.Tensor, y: torch.Tensor, inside: torch.Tensor, max_grad_norm: float
    ) -> Gradients:
        """See `Stack`: one forward and backward pass, then norms in closed form, then weighted sums."""
        found = [layer.norms(a, b, values) for layer, a, b in self._backward(values, x, y)]
        squared = torch.stack([norms for norms, _ in found]).sum(0)
        weight = clip_factors(squared, max_grad_norm) * inside
        return {name: value for _, sums in found for name, value in sums(weight).items()}

    def logits(self, values: Values, x: torch.Tensor) -> torch.Tensor:
        """See `Stack`."""
        models = len(next(iter(values.values())))
        h = x.expand(models, *x.shape).flatten(0, 1)
        with torch.no_grad():
            for part in self.parts:
                if isinstance(part, Known):
                    h = part.layer.forward(h.reshape(models, -1, *h.shape[1:]), values)[0].flatten(0, 1)
                elif not isinstance(part, Masks):
                    h = part(h)
        return h.reshape(models, -1, *h.shape[1:])

    def numbers(self, values: Values, x: torch.Tensor) -> int:
        """That a step of one model on records x (k, ...) keeps: into layers, out of them, and back."""
        y = torch.zeros((1, len(x)), dtype=torch.int64, device=x.device)
        return sum(2 * a.numel() + 4 * b.numel() for _, a, b in self._backward(values, x[None], y))

    def _backward(
        self, values: Values, x: torch.Tensor, y: torch.Tensor
    ) -> Iterator[tuple[Layer, torch.Tensor, torch.Tensor]]:
        """Each trained layer with what went into it and the gradient of each record's loss at its output.

        The parameters themselves take no part in differentiation: their gradients would be formed twice.
        """
        h, shape = x.flatten(0, 1), x.shape[:2]
        layers: list[tuple[Layer, torch.Tensor]] = []
        outputs: list[torch.Tensor] = []
        with torch.enable_grad():
            for part in self.parts:
                if isinstance(part, Known):
                    out, a = part.layer.forward(h.reshape(*shape, *h.shape[1:]), values)
                    if part.trained:
                        out = out if out.requires_grad else out.requires_grad_()
                        layers.append((part.layer, a.detach()))
                        outputs.append(out)
                    h = out.flatten(0, 1)
                else:
                    own = isinstance(part, Masks)
                    h = part(h.reshape(*shape, *h.shape[1:])).flatten(0, 1) if own else part(h)
        back = torch.autograd.grad(h, outputs, logit_gradient(h.detach(), y.flatten()))
        for (layer, a), b in zip(layers, back, strict=True):
            yield layer, a, b


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedStack:
    """Any model whose forward pass is a function of its parameters and one record: `vmap` over the models.

    With clipping every record's gradient is formed: memory M * B * parameters.

    Attributes:
        model: one of them, whose code is run.
        trained: names of the trained parameters.
    """

    model: nn.Module
    trained: frozenset[str]

    def mean(self, values: Values, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> Gradients:
        """See `Stack`."""
        trained, rest = self._parted(values)

        def loss(
            trained: Values, rest: Values, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor
        ) -> torch.Tensor:
            logits = functional_call(self.model, {**rest, **trained}, (x,))
            return (cross_entropy(logits, y, reduction="none") * weight).sum()

        found: Gradients = vmap(grad(loss))(trained, rest, x, y, weight)
        return found

    def clipped(
        self, values: Values, x: torch.Tensor, y: torch.Tensor, inside: torch.Tensor, max_grad_norm: float
    ) -> Gradients:
        """See `Stack`."""
        trained, rest = self._parted(values)

        def loss(trained: Values, rest: Values, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return cross_entropy(functional_call(self.model, {**rest, **trained}, (x[None],)), y[None])

        rows = vmap(vmap(grad(loss), in_dims=(None, None, 0, 0)))(trained, rest, x, y)
        squared = torch.stack([row.flatten(2).square().sum(-1) for row in rows.values()]).sum(0)
        weight = (clip_factors(squared, max_grad_norm) * inside).unsqueeze(1)
        return {name: torch.bmm(weight, row.flatten(2)).view_as(row[:, 0]) for name, row in rows.items()}

    def logits(self, values: Values, x: torch.Tensor) -> torch.Tensor:
        """See `Stack`."""
        self.model.eval()
        with torch.no_grad():
            found: torch.Tensor = vmap(lambda v: functional_call(self.model, v, (x,)))(dict(values))
        self.model.train()
        return found

    def _parted(self, values: Values) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        trained = {name: value for name, value in values.items() if name in self.trained}
        return trained, {name: value for name, value in values.items() if name not in self.trained}


def logit_gradient(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Gradient of each record's cross-entropy at its logits (k, classes): softmax minus one at the label.

    Computed with classes in front, since a reduction over a short last axis takes four times as long.
    """
    found = torch.softmax(logits.t().contiguous(), dim=0)
    return found.scatter_add_(0, y[None], torch.full_like(found[:1], -1.0)).t().contiguous()


def clip_factors(squared: torch.Tensor, max_grad_norm: float) -> torch.Tensor:
    """What Opacus 1.6 multiplies a record's gradient by: C / (norm + 1e-6), at most 1."""
    return (max_grad_norm / (squared.sqrt() + 1e-6)).clamp(max=1.0)


def stacked(model: nn.Module, sample: torch.Tensor, seeds: torch.Tensor, *, private: bool) -> Stack:
    """The stack of models like this one.

    Args:
        model: one of them, in training mode, on its device.
        sample: a few records (k, ...), to try it on.
        seeds: (M,) of the models, for their dropout.
        private: whether records' gradients will be clipped.

    Raises:
        NotStackable: with the reason.
    """
    mixing = [type(m).__name__ for m in model.modules() if isinstance(m, _MIXING)]
    if mixing:
        raise NotStackable(f"{mixing[0]} mixes the records of a batch and keeps statistics of them")
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        raise NotStackable("its parameters are not all of type float32")
    parts = _parts(model, seeds)
    trained = frozenset(name for name, p in model.named_parameters() if p.requires_grad)
    found: Stack = LayerStack(parts=parts) if parts else MappedStack(model=model, trained=trained)
    try:
        _try(found, model, sample, private=private)
    except NotStackable:
        raise
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise NotStackable(f"torch.func.vmap cannot run it ({type(error).__name__}: {line})") from None
    return found


def _try(stack: Stack, model: nn.Module, sample: torch.Tensor, *, private: bool) -> None:
    """Run a stack of one such model once, and hold it to what the model itself says of each record."""
    values = {name: value.detach().clone()[None] for name, value in state(model).items()}
    before = {name: value.clone() for name, value in values.items()}
    model.eval()
    with torch.no_grad():
        own = torch.cat([model(sample[i : i + 1]) for i in range(len(sample))])
    model.train()
    if own.dim() != 2:
        raise NotStackable(f"it gives outputs of shape {tuple(own.shape)}, not one row of logits a record")
    if not torch.allclose(stack.logits(values, sample)[0], own, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise NotStackable("what it says of a record depends on the other records of the batch")
    label = torch.zeros((1, len(sample)), dtype=torch.int64, device=sample.device)
    weight = torch.ones((1, len(sample)), device=sample.device)
    if private and isinstance(stack, MappedStack):
        stack.clipped(values, sample[None], label, weight, 1.0)
    elif isinstance(stack, MappedStack):
        stack.mean(values, sample[None], label, weight)
    if any(not torch.equal(before[name], value) for name, value in values.items()):
        raise NotStackable("its forward pass changes its buffers")


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, each once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _parts(model: nn.Module, seeds: torch.Tensor) -> tuple[Part, ...] | None:
    """The chain that a model is; None if it is another thing than known layers in a row."""
    leaves = list(_leaves(model, ""))
    modules = [module for _, module in leaves]
    if any(p is None for p in modules) or len({id(m) for m in modules}) < len(modules):
        return None
    hooked = any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
    owners = [p for _, p in model.named_parameters(remove_duplicate=False)]
    if hooked or len({id(p) for p in owners}) < len(owners):
        return None
    parts: list[Part] = []
    for number, (name, module) in enumerate(leaves):
        found = _part(name, module, seeds, number)
        if found is None:
            return None
        parts += found
    return tuple(parts) if any(isinstance(p, Known) and p.trained for p in parts) else None


def _leaves(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    if type(module) is not nn.Sequential:
        yield prefix, module
        return
    for name, child in module.named_children():
        yield from _leaves(child, f"{prefix}{name}." if type(child) is nn.Sequential else f"{prefix}{name}")


def _part(name: str, module: nn.Module, seeds: torch.Tensor, number: int) -> Sequence[Part] | None:
    """The steps that stand for one layer; None if it is not known."""
    if type(module) in _STATELESS:
        module = copy.copy(module)
        # In place, it would overwrite what the layer before has to remember.
        vars(module).update({"inplace": False} if "inplace" in vars(module) else {})
        return (module,)
    if type(module) is nn.Dropout:
        return (Masks(rate=module.p, seeds=seeds, layer=number),) if module.p else ()
    parameters = dict(module.named_parameters())
    if len({p.requires_grad for p in parameters.values()}) > 1 or list(module.buffers()):
        return None
    trained = any(p.requires_grad for p in parameters.values())
    names = {kind: f"{name}.{kind}" if name else kind for kind in parameters}
    weight, bias = names.get("weight", ""), names.get("bias", "")
    match module:
        case nn.Linear() if type(module) is nn.Linear:
            return (Known(layer=Linear(weight=weight, bias=bias), trained=trained),)
        case nn.Conv1d() | nn.Conv2d() if type(module) in (nn.Conv1d, nn.Conv2d):
            patches = cut(module)
            linear = Known(layer=Linear(weight=weight, bias=bias), trained=trained)
            return None if patches is None else (patches, linear, channels_first)
        case nn.Embedding() if type(module) is nn.Embedding:
            plain = module.padding_idx is None and module.max_norm is None
            plain = plain and not module.scale_grad_by_freq and not module.sparse
            return (Known(layer=Embedding(weight=weight), trained=trained),) if plain else None
        case nn.LayerNorm() | nn.GroupNorm() if type(module) in (nn.LayerNorm, nn.GroupNorm):
            scale = Scale(weight=weight, bias=bias, trailing=isinstance(module, nn.GroupNorm))
            normal = _normalisation(module)
            return (normal, Known(layer=scale, trained=trained)) if weight else (normal,)
    return None


def _normalisation(module: nn.LayerNorm | nn.GroupNorm) -> Callable[[torch.Tensor], torch.Tensor]:
    """The layer without weight and bias."""
    if isinstance(module, nn.LayerNorm):
        shape, eps = module.normalized_shape, module.eps
        return lambda h: nn.functional.layer_norm(h, shape, eps=eps)
    groups, small = module.num_groups, module.eps
    return lambda h: nn.functional.group_norm(h, groups, eps=small)
