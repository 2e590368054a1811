"""Records that a data set mixes while it hands out one of them.

A few items are fetched again from copies of the data set in which the rows of one thing that it holds are
replaced by others of them: first all rows of one half, then all of the other half. An item that is made of
one record changes at most once.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dpaudit.check import IntArray
from dpaudit.evidence import Finding
from dpaudit.targets.places import definition
from dpaudit.targets.randomness import ReplayRandomness

_LOOKS = 2
_ITEMS = 64
_FEWEST_ROWS = 8
_DEPTH = 4
_MOST_PARTS = 32
_SECONDS = 0.5
_MOST_BYTES = 1 << 28
_PLAIN = (str, bytes, int, float, bool, complex, type(None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Something that has rows.

    Attributes:
        owner: what it is an attribute of.
        name: of the attribute.
        rows: the thing itself.
        of_items: whether it has one for each item of its owner.
    """

    owner: Any
    name: str
    rows: Any
    of_items: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mixed:
    """How many of the items that were asked for change with several rows of something.

    Attributes:
        kind: of the data set.
        held: the thing.
        items: that change.
        asked: of so many.
    """

    kind: type
    held: Held
    items: int
    asked: int


class Items:
    """What was seen of the data sets of one run."""

    def __init__(self) -> None:
        self._looked: list[Any] = []
        self._mixed: list[_Mixed] = []

    def look(self, dataset: Any) -> None:
        """Fetch items of a data set that was not looked at before; takes half a second or so at most."""
        if dataset is None or any(dataset is known for known in self._looked):
            return
        self._looked.append(dataset)
        try:
            self._mixed += _mixed(dataset)
        except Exception:
            return  # What cannot be copied or asked again shows nothing, and training goes on.

    def findings(self) -> Iterator[Finding]:
        """What was seen at two items of a data set."""
        for found in self._mixed:
            if found.items >= _LOOKS:
                line = definition(getattr(found.kind, "__getitem__", None))
                yield Finding(
                    check="one record, one item",
                    where=f"{found.kind.__name__}.__getitem__{f' ({line})' if line else ''}",
                    expected="items of the data set that are each made of one record",
                    measured=f"{found.items} of {found.asked} items change with several rows of "
                    f"`{found.held.name}`",
                    epsilon=None,
                    remedy="Make each item of its own record alone: mix and normalise by public data, or "
                    "account for every item that a record enters.",
                )
                return


def _mixed(dataset: Any) -> Iterator[_Mixed]:
    """For each thing that has a row for each item: how many items change with two rows of it at least."""
    found = held_by(dataset)
    own = next((type(each) for each in _chain(dataset) if not _of_torch(each)), None)
    if own is None or sum(_bytes(held.rows) for held in found) > _MOST_BYTES:
        return
    deadline = time.perf_counter() + _SECONDS
    rng = np.random.default_rng(len(dataset))
    # Whoever changes a row in place is not to change the user's.
    usual = {id(held.rows): copy.deepcopy(held.rows) for held in found}
    alone: dict[int, Any] = {}
    for i in (int(number) for number in rng.permutation(len(dataset))[:_ITEMS]):
        if time.perf_counter() < deadline or len(alone) < _LOOKS:
            alone[i] = _item(dataset, i, usual)
    for held in (each for each in found if each.of_items):
        half = rng.permutation(len(held.rows)) % 2 == 0
        changed = [_with_others(held.rows, np.flatnonzero(h), rng) for h in (half, ~half)]
        asked = mixed = 0
        for i, item in alone.items():
            if time.perf_counter() < deadline or asked < _LOOKS:
                others = [_item(dataset, i, usual | {id(held.rows): rows}) for rows in changed]
                moved = not any(_alike(item, other) for other in others)
                # What differs each time shows nothing.
                mixed += moved and _alike(item, _item(dataset, i, usual))
                asked += 1
        yield _Mixed(kind=own, held=held, items=mixed, asked=asked)


def held_by(dataset: Any) -> tuple[Held, ...]:
    """The arrays, tables and lists of items that a data set, and those that it is made of, hold."""
    return tuple(_held(dataset, _DEPTH, set()))


def _chain(dataset: Any) -> Iterator[Any]:
    """A data set, and those that torch's own were made of."""
    yield dataset
    inner = getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]
    for each in inner if _of_torch(dataset) else ():
        if each is not None:
            yield from _chain(each)


def _held(value: Any, depth: int, seen: set[int]) -> Iterator[Held]:
    if id(value) in seen or depth < 0 or _is_rows(value) or isinstance(value, _PLAIN):
        return
    seen.add(id(value))
    size = _items(value)
    for name, part in getattr(value, "__dict__", {}).items():
        for each in _parts(part):
            if _is_rows(each) or (isinstance(each, list) and len(each) == size):
                yield Held(owner=value, name=name, rows=each, of_items=_FEWEST_ROWS <= size == len(each))
            else:
                yield from _held(each, depth - 1, seen)


def _parts(value: Any) -> list[Any]:
    """What a short container holds; anything else is one part."""
    if isinstance(value, (tuple, list, Mapping)) and len(value) <= _MOST_PARTS:
        return [value, *(value.values() if isinstance(value, Mapping) else value)]
    return [value]


def _is_rows(value: Any) -> bool:
    """Whether it is an array or a table of rows."""
    return hasattr(value, "iloc") or (isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim > 0)


def _items(value: Any) -> int:
    """How many items a data set has; 0 of anything else."""
    kind = type(value)
    return len(value) if hasattr(kind, "__getitem__") and hasattr(kind, "__len__") else 0


def _of_torch(owner: Any) -> bool:
    """Whether it is one of torch's data sets, which hand out rows as they are."""
    return type(owner).__module__.startswith("torch.utils.data")


def _bytes(rows: Any) -> int:
    """Size of an array; of a list or a table, as if its rows were of a kilobyte each."""
    return int(getattr(rows, "nbytes", len(rows) << 10))


def _with_others(rows: Any, chosen: IntArray, rng: np.random.Generator) -> Any:
    """The rows, with those that are chosen replaced by others of them."""
    index = np.arange(len(rows))
    index[chosen] = rng.choice(chosen, len(chosen))
    if isinstance(rows, list):
        return [copy.deepcopy(rows[i]) for i in index]
    if hasattr(rows, "iloc"):
        return rows.iloc[index].set_axis(rows.index)
    return rows[torch.as_tensor(index, device=rows.device)] if isinstance(rows, torch.Tensor) else rows[index]


def _item(dataset: Any, index: int, instead: Mapping[int, Any]) -> Any:
    """One item of a copy of the data set that holds these things instead, under a random state of its own."""
    random = ReplayRandomness(seed=index)
    with random.fresh():
        # A copy, because a data set may count, keep or draw what it hands out.
        return copy.deepcopy(dataset, dict(instead))[index]


def _alike(one: Any, other: Any) -> bool:
    """Whether two items are equal, number by number."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_alike, one, other))
    return bool(np.array_equal(np.asarray(one), np.asarray(other)))
