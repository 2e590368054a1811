"""Records that a data set mixes while it hands out one of them.

A few items are fetched again from copies of the data set in which other rows of what it holds stand for some
of them. What has a row for each item, and moves each by its own row, holds the records: an item may change
with no other.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.random import bit_generator

from dpaudit.check import BoolArray, IntArray
from dpaudit.evidence import Finding, Note
from dpaudit.targets.held import (
    FEWEST_ROWS,
    Copies,
    Held,
    count,
    items,
    of_numbers,
    of_records,
    replaced,
    size_in_bytes,
    taken,
)
from dpaudit.targets.places import definition
from dpaudit.targets.randomness import ReplayRandomness
from dpaudit.targets.sources import Hashes, hashes, leaves
from dpaudit.targets.unwritten import in_a_child

_CHECK = "one record, one item"
_LOOKS = 2
_ITEMS, _MORE_ITEMS = 64, 1024
_FEWEST_ITEMS = 6
_OWN, _ALIGNED = 4.0, 0.8
"""How much more the own row has to move an item than another does, and in which share of the items."""
_COMPANIONS = 3
_SECONDS, _PATIENCE = 0.5, 4.0
_MOST_BYTES = 1 << 28


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """How many of the items that were asked for change with several rows of something.

    Attributes:
        where: the method that hands them out.
        name: of the thing.
        items: that change.
        asked: of so many.
        moved: how far an item goes with its own row, at the median.
        mostly: name of what moves the items of this data set most.
    """

    where: str
    name: str
    items: int
    asked: int
    moved: float
    mostly: str


class Items:
    """What was seen of the data sets of one run."""

    def __init__(self) -> None:
        self._looked: list[Any] = []
        self._mixed: list[Mixed] = []
        self._untold: list[str] = []

    def look(self, dataset: Any) -> None:
        """Fetch items of a data set that was not looked at before; takes a few seconds at most."""
        if dataset is None or any(dataset is known for known in self._looked):
            return
        self._looked.append(dataset)
        own = [leaf for leaf, _ in leaves(dataset) if not _of_torch(leaf)]
        if own:
            # Fetching changes what code of the user's counts, keeps and draws outside of the data set, too.
            answer = in_a_child(lambda: [asdict(found) for found in mixed(dataset)], seconds=_PATIENCE)
            self._mixed += [Mixed(**found) for found in answer or ()]
            told = {found["where"] for found in answer or ()}
            self._untold += sorted({_place(leaf) for leaf in own} - told)

    def findings(self) -> Iterator[Finding]:
        """What was seen at two items of a data set."""
        for found in self._several():
            if found.name == found.mostly:
                yield Finding(
                    check=_CHECK,
                    where=found.where,
                    expected="items of the data set that are each made of one record",
                    measured=f"{found.items} of {found.asked} items change with other rows of "
                    f"`{found.name}` than their own",
                    epsilon=None,
                    remedy="Make each item of its own record alone: mix and normalise by public data, or "
                    "account for every item that a record enters.",
                )
                return

    def notes(self) -> Iterator[Note]:
        """What may be public, for something else moves the items more, and what nothing is known of."""
        for found in self._several():
            if found.name != found.mostly:
                yield Note(
                    check=_CHECK,
                    where=found.where,
                    measured=f"{found.items} of {found.asked} items change with other rows of "
                    f"`{found.name}` than their own",
                    meaning=f"If `{found.name}` is as private as `{found.mostly}`, a record enters several "
                    "items, and epsilon holds for none of them.",
                )
        for where in self._untold:
            yield Note(
                check=_CHECK,
                where=where,
                measured="not tested: the records of its items could not be told from what it holds",
                meaning="Records that its items mix would not have been seen.",
            )

    def _several(self) -> Iterator[Mixed]:
        return (found for found in self._mixed if found.items >= _LOOKS)


def mixed(dataset: Any) -> Iterator[Mixed]:
    """For each thing that holds the records: how many items change with other rows of it, too."""
    for leaf in {id(leaf): leaf for leaf, _ in leaves(dataset)}.values():
        if not _of_torch(leaf) and items(leaf) >= FEWEST_ROWS:
            copies = Copies(leaf)
            # Copies of what is large could take the memory that training needs.
            if sum(size_in_bytes(held.rows) for held in copies.held) > _MOST_BYTES:
                continue
            seen = list(_Look(leaf, copies).all())
            mostly = max(seen, key=lambda each: each.moved, default=None)
            yield from (replace(each, mostly=mostly.name) for each in seen if mostly)


class _Look:
    """At the items of one data set."""

    def __init__(self, dataset: Any, copies: Copies) -> None:
        self._size, self._where = items(dataset), _place(dataset)
        self._copies = copies
        self._rng = np.random.default_rng(self._size)
        self._asked = [int(number) for number in self._rng.permutation(self._size)[:_MORE_ITEMS]]
        # Whoever changes a row in place is not to change it for the next.
        self._usual = {id(held.rows): _copied(held.rows) for held in self._copies.held}
        self._whole = hasattr(type(dataset), "__getitems__")

    def all(self) -> Iterator[Mixed]:
        """Of each thing that may hold the records and does."""
        own = (each for each in self._copies.held if count(each.rows) == self._size)
        candidates = [held for held in own if of_records(held.rows)]
        for held in candidates:
            found = self._of(held, min(_SECONDS, _PATIENCE / (1 + len(candidates))))
            if found is not None:
                yield found

    def _of(self, held: Held, seconds: float) -> Mixed | None:
        """None where its rows are not those of the items, or items differ without them."""
        deadline = time.perf_counter() + seconds
        half = self._rng.permutation(self._size) % 2 == 0
        changed = [with_others(self._copies.held, held, h, self._rng) for h in (half, ~half)]
        tried = own = several = 0
        moved: list[float] = []
        for i in self._asked:
            if time.perf_counter() > deadline and tried >= _FEWEST_ITEMS:
                break
            tried += 1
            alone, others = self._item(i), self._usual | changed[int(half[i])]
            if tried <= _ITEMS:
                by_own, by_another = self._by_one(held, i)
                if any(_distance(alone, self._item(i)) for _ in range(2)):
                    return None  # It draws what no seed holds still.
                moved.append(_distance(alone, by_own))
                own += moved[-1] > _OWN * _distance(alone, by_another)
            with_those = self._item(i, others)
            if _distance(alone, with_those) > 0:
                again = [_distance(with_those, self._item(i, others)) for _ in range(2)]
                several += not any(again) and not _distance(alone, self._item(i))
        if own < _ALIGNED * len(moved):
            return None
        return Mixed(
            where=self._where,
            name=held.name,
            items=several,
            asked=tried,
            moved=float(np.median(moved)),
            mostly=held.name,
        )

    def _by_one(self, held: Held, i: int) -> tuple[Any, Any]:
        """The item where its own row is another one, and where that of another is."""
        other = (i + 1 + int(self._rng.integers(self._size - 1))) % self._size
        made = []
        for number in (i, other):
            with replaced(self._usual[id(held.rows)], number) as rows:
                made.append(self._item(i, self._usual | {id(held.rows): rows}))
        return made[0], made[1]

    def _item(self, index: int, instead: Mapping[int, Any] | None = None) -> Any:
        """One item of a copy that holds these things instead, under a random state of its own."""
        # Generators that are made without a seed take theirs from here.
        unseeded = patch.object(bit_generator, "randbits", random.Random(index).getrandbits)
        copies = self._copies.instead(self._usual if instead is None else instead)
        with ReplayRandomness(seed=index).fresh(), unseeded, copies as dataset:
            # The item may be a view of what it was made of.
            return copy.deepcopy(self._fetched(dataset, index))

    def _fetched(self, dataset: Any, index: int) -> Any:
        if not self._whole:
            return dataset[index]
        beside = [(index + k) % self._size for k in range(1, 1 + _COMPANIONS)]
        return dataset.__getitems__([index, *beside])[0]


def with_others(
    everything: Sequence[Held], held: Held, chosen: BoolArray, rng: np.random.Generator
) -> dict[int, Any]:
    """By identity: rows that are chosen replaced by others of them, and so wherever else these are held."""
    index = np.arange(len(chosen))
    index[chosen] = rng.choice(index[chosen], int(chosen.sum()))
    changed = {id(held.rows): taken(held.rows, index)}
    known = _prints(held.rows)
    for other in everything:
        met = _prints(other.rows) if other.rows is not held.rows else None
        if (
            known is None
            or met is None
            or isinstance(other.rows, Sequence) != isinstance(held.rows, Sequence)
        ):
            continue
        there = np.isin(met, known[chosen]) & ~np.isin(met, known[~chosen])
        order = np.argsort(known)
        rows = index[order[np.searchsorted(known, met[there], sorter=order)]]
        if rows.size:
            changed[id(other.rows)] = _written(other.rows, np.flatnonzero(there), taken(held.rows, rows))
    return changed


def _prints(rows: Any) -> Hashes | None:
    """One number for each row; of a sequence, its identity."""
    if isinstance(rows, Sequence):
        return np.array([id(row) for row in rows], dtype=np.uint64)
    return hashes(torch.as_tensor(rows)) if of_numbers(rows) else None


def _written(rows: Any, at: IntArray, values: Any) -> Any:
    """A copy of rows with other values in some of them."""
    if isinstance(rows, Sequence):
        others = dict(zip(at.tolist(), values, strict=True))
        listed = [others.get(i, row) for i, row in enumerate(rows)]
        return tuple(listed) if isinstance(rows, tuple) else listed
    made = copy.deepcopy(rows)
    if isinstance(made, torch.Tensor):
        made[torch.as_tensor(at)] = torch.as_tensor(values).reshape(len(at), *made.shape[1:]).to(made)
    else:
        made[at] = np.asarray(values).reshape(len(at), *made.shape[1:])
    return made


def _copied(rows: Any) -> Any:
    """A copy; the thing itself where there is none."""
    try:
        return copy.deepcopy(rows)
    except (RuntimeError, TypeError):
        return rows


def _of_torch(owner: Any) -> bool:
    """Whether it is one of torch's data sets, which hand out rows as they are."""
    return type(owner).__module__.startswith("torch.utils.data")


def _place(dataset: Any) -> str:
    line, name = definition(getattr(type(dataset), "__getitem__", None)), type(dataset).__name__
    return f"{name}.__getitem__{f' ({line})' if line else ''}"


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
