"""What runs between loader and step, taken down operation by operation and executed again.

The loop's own code is no function that could be called a second time; the operations that it led to can be.
Whatever leads from a batch to the gradients of its records is thus looked at: labels, weights and detached
values, as well as features. What the code decided by values that it read stays as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map

_MOST_BYTES = 1 << 29
_Key = tuple[int, int, tuple[int, ...], tuple[int, ...], torch.dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operation:
    """One operation: what ran, and what it made; of a random one, a copy of that."""

    function: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    made: Any
    drawn: Any = None


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Takes down every operation while it is entered and not paused.

    Attributes:
        paused: whether what runs is not to be taken down.
        overflowed: whether it was too much to keep; then nothing is.
        coarsest: machine epsilon of the coarsest numbers that were made.
        read: whether code read a value out of a tensor: what it did with it stays as it was.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.paused = False
        self.overflowed = self.read = False
        self._bytes = 0
        self.coarsest = 0.0
        self._operations: list[_Operation] = []

    def clear(self) -> None:
        """Start anew."""
        self._operations.clear()
        self._bytes, self.overflowed, self.read, self.coarsest = 0, False, False, 0.0

    def drew(self, rows: int) -> bool:
        """Whether as many random values were drawn as there are rows, other than to put these in an order."""
        drawn = (o for o in self._operations if o.drawn is not None and "randperm" not in str(o.function))
        return any(t.numel() >= rows for operation in drawn for t in _tensors(operation.drawn))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See `TorchDispatchMode`; the operation itself runs unchanged."""
        keywords = kwargs or {}
        made = func(*args, **keywords)
        if self.paused or self.overflowed:
            return made
        self.read = self.read or func is torch.ops.aten._local_scalar_dense.default
        random = torch.Tag.nondeterministic_seeded in func.tags
        for tensor in _tensors(made):
            self._bytes += tensor.numel() * tensor.element_size()
            if tensor.is_floating_point():
                self.coarsest = max(self.coarsest, float(torch.finfo(tensor.dtype).eps))
        if self._bytes > _MOST_BYTES:
            self._operations.clear()
            self.overflowed = True
            return made
        with _disable_current_modes():
            drawn = tree_map(_cloned, made) if random else None
        self._operations.append(
            _Operation(function=func, arguments=args, keywords=keywords, made=made, drawn=drawn)
        )
        return made

    def played(
        self, changed: Sequence[tuple[torch.Tensor, torch.Tensor]], wanted: Sequence[torch.Tensor]
    ) -> list[torch.Tensor] | None:
        """What the tensors `wanted` would have been; None if one of them was not made while this was entered.

        Costs what the operations cost. Random draws are those that were made; nothing outside is written to.

        Args:
            changed: tensors that were there before, and what stands in their place.
            wanted: made by the operations.

        Raises:
            Exception: whatever an operation raises on other values.
        """
        found = {_key(before): after for before, after in changed}
        with torch.no_grad(), _disable_current_modes():
            for operation in self._operations:
                _play(operation, found)
        keys = [_key(tensor) for tensor in wanted]
        return [found[key] for key in keys] if all(key in found for key in keys) else None


def _play(operation: _Operation, found: dict[_Key, torch.Tensor]) -> None:
    """Execute an operation on what was found so far, and add what it makes."""

    def current(value: Any) -> Any:
        return found.get(_key(value), value) if isinstance(value, torch.Tensor) else value

    for tensor in _written(operation):
        if _key(tensor) not in found:
            found[_key(tensor)] = tensor.detach().clone()
    if operation.drawn is not None:
        made = _as_drawn(operation, current)
    else:
        made = operation.function(
            *tree_map(current, operation.arguments), **tree_map(current, operation.keywords)
        )
    before, after = _tensors(operation.made), _tensors(made)
    if len(before) != len(after):
        raise ValueError("an operation made another number of tensors")
    found.update((_key(one), other) for one, other in zip(before, after, strict=True))


def _as_drawn(operation: _Operation, current: Any) -> Any:
    """The same draws again; dropout applies its mask to what it is given now."""
    if operation.function is torch.ops.aten.native_dropout.default:
        given, p = current(operation.arguments[0]), float(operation.arguments[1])
        mask = operation.drawn[1]
        return given * mask / max(1.0 - p, 1e-12), mask
    written = _written(operation)
    if not written:
        return tree_map(_cloned, operation.drawn)
    for tensor, drawn in zip(written, _tensors(operation.drawn), strict=False):
        current(tensor).copy_(drawn)
    return tree_map(current, operation.made)


def _written(operation: _Operation) -> list[torch.Tensor]:
    """The arguments that the operation writes to."""
    if not operation.function._schema.is_mutable:
        return []
    named = operation.function._schema.arguments
    found: list[torch.Tensor] = []
    for i, argument in enumerate(named):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = operation.arguments[i : i + 1] or (operation.keywords.get(argument.name),)
            found += _tensors(given)
    return found


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, torch.Tensor)]


def _cloned(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _key(tensor: torch.Tensor) -> _Key:
    """Where a tensor lies: wrappers make new objects of one and the same."""
    return (
        tensor.untyped_storage().data_ptr(),
        int(tensor.storage_offset()),
        tuple(tensor.shape),
        tuple(tensor.stride()),
        tensor.dtype,
    )
