"""What runs between loader and step, taken down operation by operation and executed again.

The loop's own code is no function that could be called a second time; the operations that it led to can be.
Whatever leads from a batch to the gradients of its records is thus looked at: labels, weights and detached
values, as well as features. What the code decided by values that it read stays as it was.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map

_MOST_BYTES = 1 << 29
_ADDING = {"add", "sub", "rsub", "lerp", "addcmul", "addcdiv", "_foreach_add", "_foreach_sub"}
_CHOOSING = ("randperm", "randint", "bernoulli", "multinomial", "dropout")
_Key = tuple[int, int, tuple[int, ...], tuple[int, ...], torch.dtype]
Contents = Mapping[int, torch.UntypedStorage]
"""Of storages, by their addresses."""


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
        before: what was written to and is not of its own making, as it was before that.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.paused = False
        self.overflowed = self.read = False
        self._bytes = 0
        self.coarsest = 0.0
        self.before: dict[int, torch.UntypedStorage] = {}
        self._made: set[int] = set()
        self._operations: list[_Operation] = []
        self._told: tuple[int, list[torch.Tensor]] = 0, []

    def clear(self) -> None:
        """Start anew."""
        self._forget()
        self._bytes, self.overflowed, self.read, self.coarsest = 0, False, False, 0.0

    def _forget(self) -> None:
        for kept in (self._operations, self.before, self._made):
            kept.clear()
        self._told = 0, []

    def drew(self, rows: int) -> bool:
        """Whether as many random values were drawn as there are rows, other than to put these in an order."""
        drawn = (o for o in self._operations if o.drawn is not None and "randperm" not in str(o.function))
        return any(t.numel() >= rows for operation in drawn for t in _tensors(operation.drawn))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See `TorchDispatchMode`; the operation itself runs unchanged."""
        keywords = kwargs or {}
        if self.paused or self.overflowed:
            return func(*args, **keywords)
        self._keep(_written(func, args, keywords))
        made = func(*args, **keywords)
        self.read = self.read or func is torch.ops.aten._local_scalar_dense.default
        random = torch.Tag.nondeterministic_seeded in func.tags
        for tensor in _tensors(made):
            self._bytes += tensor.numel() * tensor.element_size()
            if tensor.is_floating_point():
                self.coarsest = max(self.coarsest, float(torch.finfo(tensor.dtype).eps))
        if self._bytes > _MOST_BYTES:
            self._forget()
            self.overflowed = True
            return made
        self._made |= {at for tensor in _tensors(made) if (at := place(tensor))} - (
            {place(tensor) for tensor in _tensors((args, keywords))} - self._made
        )
        with _disable_current_modes():
            drawn = tree_map(_cloned, made) if random else None
        self._operations.append(
            _Operation(function=func, arguments=args, keywords=keywords, made=made, drawn=drawn)
        )
        return made

    def _keep(self, written: Sequence[torch.Tensor]) -> None:
        """Copy what is about to be written to, if it was there before."""
        for tensor in written:
            at = place(tensor)
            if not at or at in self._made or at in self.before:
                continue
            self._bytes += tensor.untyped_storage().nbytes()
            if self._bytes <= _MOST_BYTES:
                with _disable_current_modes():
                    self.before[at] = tensor.untyped_storage().clone()  # type: ignore[no-untyped-call]

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
        playing = Playing(changed, [self.before])
        self.play(playing)
        return [playing.of(tensor) for tensor in wanted] if all(map(playing.made, wanted)) else None

    def play(self, playing: Playing) -> None:
        """Execute the operations on what was found so far; see `played`."""
        with torch.no_grad(), _disable_current_modes():
            for operation in self._operations:
                _play(operation, playing)

    def outside(self) -> list[torch.Tensor]:
        """What the operations take that they did not make; told once, until there are more."""
        number = len(self._operations)
        if number != self._told[0]:
            every = (t for o in self._operations for t in _tensors((o.arguments, o.keywords)))
            found = {_key(t): t for t in every if place(t) and place(t) not in self._made}
            self._told = number, list(found.values())
        return self._told[1]

    def reached(self, places: Collection[int], noisy: Collection[int] = ()) -> set[int]:
        """Where values lie that those at `places` lead to, before noise is added to them; with these.

        Noise is what is drawn, and what lies at `noisy`.
        """
        found, noise = set(places), set(noisy) - set(places)
        for o in self._operations:
            taken = {place(t) for t in _tensors((o.arguments, o.keywords))}
            left = {place(t) for t in (*_tensors(o.made), *_written(o.function, o.arguments, o.keywords))}
            name = str(o.function._schema.name).rpartition("::")[2].rstrip("_")
            if o.drawn is not None and not any(word in name for word in _CHOOSING):
                found, noise = found - left, noise | left
            elif not found.isdisjoint(taken) and not noise.isdisjoint(taken) and name in _ADDING:
                found, noise = found - left, noise - left
            elif not found.isdisjoint(taken):
                found |= left
            elif not noise.isdisjoint(taken):
                noise |= left
        return found - {0}


class Playing:
    """What tensors are while operations are executed again, by where they lay.

    Args:
        changed: tensors, and what stands in their place.
        before: contents of what has been written to since then, the earliest first.
        storages: that stand in the place of others.
    """

    def __init__(
        self,
        changed: Iterable[tuple[torch.Tensor, torch.Tensor]],
        before: Sequence[Contents],
        storages: Contents | None = None,
    ):
        self.before = before
        self.storages = dict(storages or {})
        self._found = {_key(one): other for one, other in changed}

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """What it is now."""
        if (key := _key(tensor)) in self._found:
            return self._found[key]
        at = key[0]
        if at not in self.storages:
            kept = next((contents[at] for contents in self.before if at in contents), None)
            if kept is None:
                return tensor
            self.storages[at] = kept.clone()  # type: ignore[no-untyped-call]
        return seen(tensor, self.storages[at])

    def made(self, tensor: torch.Tensor) -> bool:
        """Whether anything was found for it."""
        return _key(tensor) in self._found

    def put(self, tensor: torch.Tensor, now: torch.Tensor) -> None:
        """Enter what it is now."""
        self._found[_key(tensor)] = now
        if (at := place(tensor)) and now.untyped_storage().nbytes() == tensor.untyped_storage().nbytes():
            self.storages[at] = now.untyped_storage()

    def forget(self, places: Collection[int]) -> None:
        """What lies there is as it really is."""
        self._found = {key: now for key, now in self._found.items() if key[0] not in places}
        self.storages = {at: now for at, now in self.storages.items() if at not in places}


def seen(tensor: torch.Tensor, storage: torch.UntypedStorage) -> torch.Tensor:
    """Of another storage, what the tensor is of its own."""
    empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return empty.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())


def place(tensor: torch.Tensor) -> int:
    """The address of a tensor's storage; 0 if it has none."""
    try:
        return int(tensor.untyped_storage().data_ptr())
    except (RuntimeError, NotImplementedError):
        return 0


def _play(operation: _Operation, playing: Playing) -> None:
    """Execute an operation on what was found so far, and add what it makes."""

    def current(value: Any) -> Any:
        return playing.of(value) if isinstance(value, torch.Tensor) else value

    for tensor in _written(operation.function, operation.arguments, operation.keywords):
        if playing.of(tensor) is tensor:
            playing.put(tensor, tensor.detach().clone())
    if operation.drawn is not None:
        made = _as_drawn(operation, current)
    else:
        made = operation.function(
            *tree_map(current, operation.arguments), **tree_map(current, operation.keywords)
        )
    before, after = _tensors(operation.made), _tensors(made)
    if len(before) != len(after):
        raise ValueError("an operation made another number of tensors")
    for one, other in zip(before, after, strict=True):
        playing.put(one, other)


def _as_drawn(operation: _Operation, current: Any) -> Any:
    """The same draws again; dropout applies its mask to what it is given now."""
    if operation.function is torch.ops.aten.native_dropout.default:
        given, p = current(operation.arguments[0]), float(operation.arguments[1])
        mask = operation.drawn[1]
        return given * mask / max(1.0 - p, 1e-12), mask
    written = _written(operation.function, operation.arguments, operation.keywords)
    if not written:
        return tree_map(_cloned, operation.drawn)
    for tensor, drawn in zip(written, _tensors(operation.drawn), strict=False):
        current(tensor).copy_(drawn)
    return tree_map(current, operation.made)


def _written(function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> list[torch.Tensor]:
    """The arguments that the operation writes to."""
    if not function._schema.is_mutable:
        return []
    found: list[torch.Tensor] = []
    for i, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found += _tensors(arguments[i : i + 1] or (keywords.get(argument.name),))
    return found


def _tensors(value: Any) -> list[torch.Tensor]:
    """Of what operations take and make, in lists and tuples at most: `tree_flatten` takes far longer."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return []
    return [tensor for part in value for tensor in _tensors(part)]


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
