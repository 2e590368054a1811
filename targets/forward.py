"""The model's own forward pass, executed once more with the other records of the batch changed.

Nothing is left behind: buffers, attributes of modules and the random state are put back.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from dpaudit.targets.randomness import ReplayRandomness

_KEPT = 0
_PLACES = 16
_ROUNDING = 1e-3
_DROPOUTS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")


class Untestable(Exception):
    """Why nothing can be said of this pass."""


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """One forward pass of a private model that a look was due at.

    Attributes:
        module: the `GradSampleModule`.
        run: its forward, bound to it.
        arguments: positional ones.
        keywords: the others.
        autocast: device, precision and whether it was on.
        outputs: first and last output of a layer with per-record gradients, one row a record.
        moved: layer whose input was seen to depend on other records; empty if none.
        swayed: how much of a record's gradient other records sway; None until tested.
    """

    module: Any
    run: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    autocast: tuple[str, torch.dtype, bool]
    outputs: list[torch.Tensor] = field(default_factory=list)
    moved: str = ""
    apart: float = 0.0
    swayed: float | None = None
    place: str = ""

    def tolerance(self, tensor: torch.Tensor) -> float:
        """Relative difference that may be rounding, in the precision of a tensor or of the pass."""
        _, kind, enabled = self.autocast
        kinds = (tensor.dtype, kind) if enabled else (tensor.dtype,)
        return max(_ROUNDING, *(16 * float(torch.finfo(each).eps) for each in kinds))


def layers_of(module: Any) -> dict[nn.Module, str]:
    """Layers of which Opacus forms per-record gradients, by name: a row of their inputs is a record."""
    names = {layer: name for name, layer in module._module.named_modules()}
    return {
        layer: names[layer] or type(layer).__name__ for layer in module.iterate_submodules(module._module)
    }


def kept_outputs(call: Call, layers: Sequence[nn.Module], rows: int) -> ExitStack:
    """Hold on to the first and the last output of those layers that has so many rows, while open."""

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        if not isinstance(output, torch.Tensor) or not output.requires_grad:
            return
        if output.dim() > 1 and len(output) == rows and output.is_floating_point():
            call.outputs[1:] = [output] if call.outputs else []
            call.outputs[:1] = call.outputs[:1] or [output]

    return _hooked(layers, keep, before=False)


def row_that_moves(call: Call, handed: Sequence[torch.Tensor], rows: int) -> tuple[str, float]:
    """Change every record but one, and find the first layer at which that one's row moves.

    The others become copies of one of them, so that every value is one that the data has.

    Args:
        call: the pass.
        handed: what the data loader handed out; tensors of the call that equal one of these are records.
        rows: b, records in the batch.

    Returns:
        Name of the layer, and by how much of its norm the row moved; empty and 0 where none did.

    Raises:
        Untestable: two equal executions differ, or the pass draws other random numbers for other records.
    """
    changed = _others_alike(call, handed, rows)
    layers = layers_of(call.module)
    random = ReplayRandomness()
    start = random.state()
    quiet = redirect_stdout(io.StringIO())
    with random.frozen(), kept_state(call.module), torch.no_grad(), quiet, _without_dropout():
        first, ended = _inputs(call, call.arguments, call.keywords, layers, random)
        random.set(start)
        again, _ = _inputs(call, call.arguments, call.keywords, layers, random)
        random.set(start)
        other, otherwise = _inputs(call, *changed, layers, random)
    if not _equal(ended, otherwise):
        raise Untestable("the model draws other random numbers for other records")
    for name in first:
        for one, same, two in zip(first[name], again[name], other.get(name, []), strict=False):
            if one.shape != two.shape or len(one) != rows:
                continue
            tolerance = call.tolerance(one)
            if _apart(one, same, tolerance) > tolerance:
                raise Untestable("two equal forward passes differ")
            distance = _apart(one, two, tolerance)
            if distance > tolerance:
                return name, distance
    return "", 0.0


def _others_alike(
    call: Call, handed: Sequence[torch.Tensor], rows: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with every record but the first replaced by one in the middle of the batch."""
    tensors = [t for t in tensors_of((call.arguments, call.keywords)) if t.dim() and len(t) == rows]
    records = [t for t in tensors if any(_same(t, each) for each in handed)] or tensors[:1]
    if not records:
        raise Untestable("no argument of the model has a row for each record")
    chosen = {id(t) for t in records}
    index = torch.full((rows,), rows // 2)
    index[_KEPT] = _KEPT

    def change(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach()[index.to(tensor.device)] if id(tensor) in chosen else tensor

    return _mapped(call.arguments, change), _mapped(call.keywords, change)


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether they hold the same values, on whatever device and in whatever shape."""
    if one.numel() != other.numel():
        return False
    return bool(torch.equal(one.detach().reshape(-1).cpu(), other.reshape(-1).cpu().to(one.dtype)))


def _inputs(
    call: Call, arguments: Any, keywords: Any, layers: dict[nn.Module, str], random: ReplayRandomness
) -> tuple[dict[str, list[torch.Tensor]], list[Any]]:
    """What each layer is given, in the order of its calls, and the random state afterwards."""
    found: dict[str, list[torch.Tensor]] = {}

    def keep(layer: nn.Module, given: tuple[Any, ...], *_: Any) -> None:
        if given and isinstance(given[0], torch.Tensor) and given[0].is_floating_point():
            found.setdefault(layers[layer], []).append(given[0].detach().clone())

    device, kind, enabled = call.autocast
    autocast = torch.autocast(device, dtype=kind, enabled=enabled)
    with kept_state(call.module), _hooked(list(layers), keep, before=True), autocast:
        call.run(*arguments, **keywords)
    return found, random.state()


def _apart(one: torch.Tensor, two: torch.Tensor, tolerance: float) -> float:
    """How far the record that stayed moved, over its norm; 0 where its row only changed its place."""
    before, after = one.flatten(1).double(), two.flatten(1).double()
    size = float(before[_KEPT].norm())
    if not (size > 0 and bool(torch.isfinite(before).all())):
        return 0.0
    distance = float((after[_KEPT] - before[_KEPT]).norm()) / size
    if distance <= tolerance:
        return distance
    # Code that sorts its records moves rows: then the same features are in another one.
    alike = after[len(after) // 2]
    others = after[(after - alike).norm(dim=1) > tolerance * alike.norm()][:_PLACES]
    nearest = torch.cdist(before, torch.cat([others, alike[None]])).min(dim=1).values
    # Noise that is drawn by place makes every copy another row: the one that was copied is where it was.
    nearest = torch.minimum(nearest, (after - before).norm(dim=1))
    norms = before.norm(dim=1)
    return 0.0 if bool((nearest <= tolerance * norms)[norms > 0].any()) else distance


@contextmanager
def kept_state(module: nn.Module) -> Iterator[None]:
    """Put back buffers, attributes and what lists and dictionaries among them hold."""
    attributes = [(part, dict(vars(part))) for part in module.modules()]
    held = [
        (value, value.copy())
        for _, values in attributes
        for value in values.values()
        if isinstance(value, (list, dict, set))
    ]
    written = [tensor for _, values in attributes for tensor in _plain_tensors(values)]
    before = [tensor.detach().clone() for tensor in written]
    try:
        yield
    finally:
        for part, values in attributes:
            vars(part).clear()
            vars(part).update(values)
        for container, content in held:
            if isinstance(container, list):
                container[:] = content
            elif list(container) != list(content) or isinstance(container, dict):
                container.clear()
                container.update(content)
        for tensor, value in zip(written, before, strict=True):
            if not torch.equal(tensor, value):
                # Not in place as far as autograd knows, which may have saved it for the backward pass.
                tensor.data.copy_(value)


def _plain_tensors(values: dict[str, Any]) -> Iterator[torch.Tensor]:
    """Buffers and tensors that a module keeps beside them."""
    for value in (*values.get("_buffers", {}).values(), *values.values()):
        if isinstance(value, torch.Tensor):
            yield value


@contextmanager
def _without_dropout() -> Iterator[None]:
    """Turn dropout into nothing: its masks go by place, and a row may change its place."""
    functional: Any = nn.functional
    originals = {name: getattr(functional, name) for name in _DROPOUTS}
    for name in _DROPOUTS:
        setattr(functional, name, lambda given, *_, **__: given)
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(functional, name, original)


def _hooked(layers: Sequence[nn.Module], hook: Callable[..., None], *, before: bool) -> ExitStack:
    stack = ExitStack()
    for layer in layers:
        handle = layer.register_forward_pre_hook(hook) if before else layer.register_forward_hook(hook)
        stack.callback(handle.remove)
    return stack


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor of nested arguments."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, nn.utils.rnn.PackedSequence):
        raise Untestable("packed sequences")
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors_of(part)
    elif type(value) in (list, tuple):
        for part in value:
            yield from tensors_of(part)


def _mapped(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        same = value.copy()
        same.update({key: _mapped(part, change) for key, part in value.items()})
        return same
    if type(value) in (list, tuple):
        return type(value)(_mapped(part, change) for part in value)
    return value


def _equal(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two random states are the same."""
    for a, b in zip(one, other, strict=True):
        if isinstance(a, torch.Tensor):
            if not torch.equal(a, b):
                return False
        elif str(a) != str(b):
            return False
    return True
