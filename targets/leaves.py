"""Which records stand under which numbers of a data set that joins others, or chooses from them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from dpaudit.check import IntArray
from dpaudit.evidence import Access, Finding


class Units:
    """Data sets of private loaders in which one record stands under several numbers."""

    def __init__(self) -> None:
        self._known: list[Any] = []
        self._repeated: list[tuple[Any, IntArray]] = []

    def look(self, dataset: Any) -> None:
        """Resolve a data set that a private loader reads, once."""
        if any(dataset is known for known in self._known):
            return
        self._known.append(dataset)
        times = multiplicities(dataset)
        if times.size and times.max() > 1:
            self._repeated.append((dataset, times))

    def findings(self) -> Iterator[Finding]:
        """Every number is drawn and clipped by itself, so that such a record counts several times."""
        for dataset, times in self._repeated:
            yield Finding(
                check="unit of privacy",
                where=f"{type(dataset).__name__} that the loader was given",
                expected="one record of the data to be one record of the loader",
                measured=f"{int((times > 1).sum())} of {times.size} records under up to {int(times.max())} "
                "numbers each",
                epsilon=None,
                remedy="Give each record one number; weigh its loss where it is to count for more.",
                source="ledger",
                access=Access.LEDGER,
            )


def multiplicities(dataset: Any) -> IntArray:
    """(records,) Under how many numbers of a data set each record of its parts stands; (0,) if unknown.

    Parts that read the same tensors are one. What another data set gives for a number, only its code knows.
    """
    if not isinstance(dataset, Subset | ConcatDataset):
        return np.zeros(0, dtype=np.int64)
    try:
        parts, places = _resolved(dataset, {})
    except (TypeError, ValueError, IndexError, RuntimeError, NotImplementedError):
        return np.zeros(0, dtype=np.int64)
    order = np.lexsort((places, parts))
    parts, places = parts[order], places[order]
    first = np.ones(order.size, dtype=bool)
    first[1:] = (np.diff(parts) != 0) | (np.diff(places) != 0)
    times: IntArray = np.diff(np.append(np.flatnonzero(first), order.size))
    return times


def _resolved(dataset: Any, known: dict[Hashable, int]) -> tuple[IntArray, IntArray]:
    """For each number of a data set the part that it is of, and its place there."""
    if isinstance(dataset, Subset):
        parts, places = _resolved(dataset.dataset, known)
        chosen = np.asarray(dataset.indices, dtype=np.int64)
        return parts[chosen], places[chosen]
    if isinstance(dataset, ConcatDataset):
        found = [_resolved(part, known) for part in dataset.datasets]
        return np.concatenate([parts for parts, _ in found]), np.concatenate([places for _, places in found])
    part, places = _leaf(dataset)
    return np.full(places.size, known.setdefault(part, len(known))), places


def _leaf(dataset: Any) -> tuple[Hashable, IntArray]:
    """What a data set reads, and where each of its records is in that."""
    numbers = np.arange(len(dataset))
    if not isinstance(dataset, TensorDataset) or type(dataset).__getitem__ is not TensorDataset.__getitem__:
        return id(dataset), numbers
    rows = [t for t in dataset.tensors if t.numel() and t.stride(0) > 0]
    if not rows:
        return id(dataset), numbers
    storages = tuple(tensor.untyped_storage().data_ptr() for tensor in dataset.tensors)
    return storages, rows[0].data_ptr() + numbers * rows[0].stride(0) * rows[0].element_size()
