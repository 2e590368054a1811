"""Records that a data set mixes while it hands out one of them.

A few items are fetched again from copies of the data set in which other rows of what it holds stand for some
of them. What has a row for each item, and moves each by its own row, holds the records: an item may change
with no other.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from dpaudit.check import IntArray
from dpaudit.evidence import Finding
from dpaudit.targets.places import definition
from dpaudit.targets.randomness import ReplayRandomness
from dpaudit.targets.sources import leaves
from dpaudit.targets.unwritten import in_a_child

_LOOKS = 2
_ITEMS = 64
_FEWEST_ITEMS = 6
_FEWEST_ROWS = 8
_OWN, _ALIGNED = 4.0, 0.8
"""How much more the own row has to move an item than another does, and in which share of the items."""
_DEPTH = 4
_MOST_PARTS = 32
_SECONDS, _PATIENCE = 0.5, 4.0
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
class Mixed:
    """How many of the items that were asked for change with several rows of something.

    Attributes:
        where: the method that hands them out.
        name: of the thing.
        items: that change.
        asked: of so many.
    """

    where: str
    name: str
    items: int
    asked: int


class Items:
    """What was seen of the data sets of one run."""

    def __init__(self) -> None:
        self._looked: list[Any] = []
        self._mixed: list[Mixed] = []

    def look(self, dataset: Any) -> None:
        """Fetch items of a data set that was not looked at before; takes a few seconds at most."""
        if dataset is None or any(dataset is known for known in self._looked):
            return
        self._looked.append(dataset)
        if any(not _of_torch(leaf) for leaf, _ in leaves(dataset)):
            # Fetching changes what code of the user's counts, keeps and draws outside of the data set, too.
            answer = in_a_child(lambda: [asdict(found) for found in mixed(dataset)], seconds=_PATIENCE)
            self._mixed += [Mixed(**found) for found in answer or ()]

    def findings(self) -> Iterator[Finding]:
        """What was seen at two items of a data set."""
        for found in self._mixed:
            if found.items >= _LOOKS:
                yield Finding(
                    check="one record, one item",
                    where=found.where,
                    expected="items of the data set that are each made of one record",
                    measured=f"{found.items} of {found.asked} items change with other rows of "
                    f"`{found.name}` than their own",
                    epsilon=None,
                    remedy="Make each item of its own record alone: mix and normalise by public data, or "
                    "account for every item that a record enters.",
                )
                return


def mixed(dataset: Any) -> Iterator[Mixed]:
    """For each thing that holds the records: how many items change with other rows of it, too."""
    for leaf in {id(leaf): leaf for leaf, _ in leaves(dataset)}.values():
        size = 0 if _of_torch(leaf) else _items(leaf)
        found = held_by(leaf)
        if size < _FEWEST_ROWS or sum(_bytes(held.rows) for held in found) > _MOST_BYTES:
            continue
        rng = np.random.default_rng(size)
        # Whoever changes a row in place is not to change the user's.
        usual = {id(held.rows): copy.deepcopy(held.rows) for held in found}
        asked = [int(number) for number in rng.permutation(size)[:_ITEMS]]
        for held in found:
            if len(held.rows) == size and _of_records(held.rows):
                yield from _of(leaf, held, usual, asked, rng)


def _of(
    leaf: Any, held: Held, usual: dict[int, Any], asked: list[int], rng: np.random.Generator
) -> Iterator[Mixed]:
    deadline = time.perf_counter() + _SECONDS
    half = rng.permutation(len(held.rows)) % 2 == 0
    changed = [_with_others(held.rows, np.flatnonzero(h), rng) for h in (half, ~half)]
    tried = own = several = 0
    for i in asked:
        if time.perf_counter() > deadline and tried >= _FEWEST_ITEMS:
            break
        tried += 1
        others = usual | {id(held.rows): changed[int(half[i])]}
        with _replaced(usual[id(held.rows)], i):
            by_own = _item(leaf, i, usual)
        with _replaced(usual[id(held.rows)], (i + 1 + int(rng.integers(len(half) - 1))) % len(half)):
            by_another = _item(leaf, i, usual)
        alone, with_others = ([_item(leaf, i, instead) for _ in range(3)] for instead in (usual, others))
        if any(_distance(alone[0], item) for item in alone):
            return  # It draws what no seed holds still.
        own += _distance(alone[0], by_own) > _OWN * _distance(alone[0], by_another)
        steady = not any(_distance(with_others[0], item) for item in with_others)
        several += steady and _distance(alone[0], with_others[0]) > 0
    if own >= _ALIGNED * tried:
        line, name = definition(getattr(type(leaf), "__getitem__", None)), type(leaf).__name__
        where = f"{name}.__getitem__{f' ({line})' if line else ''}"
        yield Mixed(where=where, name=held.name, items=several, asked=tried)


@contextmanager
def _replaced(rows: Any, i: int) -> Iterator[None]:
    """Let another row stand for one."""
    j = (i + len(rows) // 2) % len(rows)
    before = copy.deepcopy(rows[i])
    rows[i] = copy.deepcopy(rows[j])
    try:
        yield
    finally:
        rows[i] = before


def _of_records(rows: Any) -> bool:
    """Whether rows can be records, and not the numbers, lengths or places of such."""
    if isinstance(rows, list):
        return not isinstance(rows[0], (int, float, bool))
    return bool(rows.ndim > 1 or (isinstance(rows, np.ndarray) and rows.dtype.kind == "O"))


def held_by(dataset: Any) -> tuple[Held, ...]:
    """The arrays and long lists that a data set, and those that it is made of, hold."""
    return tuple(_held(dataset, _DEPTH, set()))


def _held(value: Any, depth: int, seen: set[int]) -> Iterator[Held]:
    if id(value) in seen or depth < 0 or _is_rows(value) or isinstance(value, _PLAIN):
        return
    seen.add(id(value))
    size = _items(value)
    for name, part in getattr(value, "__dict__", {}).items():
        for each in _parts(part):
            if _is_rows(each) or (isinstance(each, list) and len(each) > _MOST_PARTS):
                yield Held(owner=value, name=name, rows=each, of_items=_FEWEST_ROWS <= size == len(each))
            else:
                yield from _held(each, depth - 1, seen)


def _parts(value: Any) -> list[Any]:
    """What a short container holds; anything else is one part."""
    if isinstance(value, (tuple, list, Mapping)) and len(value) <= _MOST_PARTS:
        return [value, *(value.values() if isinstance(value, Mapping) else value)]
    return [value]


def _is_rows(value: Any) -> bool:
    """Whether it is an array."""
    return isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim > 0


def _items(value: Any) -> int:
    """How many items a data set has; 0 of anything else."""
    kind = type(value)
    return len(value) if hasattr(kind, "__getitem__") and hasattr(kind, "__len__") else 0


def _of_torch(owner: Any) -> bool:
    """Whether it is one of torch's data sets, which hand out rows as they are."""
    return type(owner).__module__.startswith("torch.utils.data")


def _bytes(rows: Any) -> int:
    """Size of an array; of a list, as if its rows were of a kilobyte each."""
    return int(getattr(rows, "nbytes", len(rows) << 10))


def _with_others(rows: Any, chosen: IntArray, rng: np.random.Generator) -> Any:
    """The rows, with those that are chosen replaced by others of them."""
    index = np.arange(len(rows))
    index[chosen] = rng.choice(chosen, len(chosen))
    if isinstance(rows, list):
        return [copy.deepcopy(rows[i]) for i in index]
    return rows[torch.as_tensor(index, device=rows.device)] if isinstance(rows, torch.Tensor) else rows[index]


def _item(dataset: Any, index: int, instead: Mapping[int, Any]) -> Any:
    """One item of a copy of the data set that holds these things instead, under a random state of its own."""
    random = ReplayRandomness(seed=index)
    with random.fresh():
        # A copy, because a data set may count, keep or draw what it hands out.
        # The item may be a view of what it was made of.
        return copy.deepcopy(copy.deepcopy(dataset, dict(instead))[index])


def _distance(one: Any, other: Any) -> float:
    """How far two items are apart, number by number; 1 for each part that is no number and differs."""
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        return sum(_distance(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        return sum(map(_distance, one, other))
    kept = (item.detach().cpu() if isinstance(item, torch.Tensor) else item for item in (one, other))
    first, second = map(np.asarray, kept)
    if first.shape != second.shape or not all(part.dtype.kind in "fiub" for part in (first, second)):
        return 0.0 if np.array_equal(first, second) else 1.0
    apart = np.nan_to_num(first.astype(np.float64)) - np.nan_to_num(second.astype(np.float64))
    return float(np.linalg.norm(apart))
