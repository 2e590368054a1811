"""Where records come from: which rows of which data a data set hands out, and whether two share any."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from dpaudit.check import IntArray

_LOOKED_AT = 256
_MOST = 256
_FEWEST_NUMBERS = 4
_MOST_NUMBERS = 1 << 27
_AT_ONCE = 1 << 22
Hashes = np.ndarray[Any, np.dtype[np.uint64]]


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Rows of something that holds records.

    Attributes:
        holders: names of it: the object itself, the memory that it reads, and what stands there.
        size: number of its rows; 0 where that is not known.
        rows: numbers of those that are read; None for all.
    """

    holders: frozenset[object]
    size: int
    rows: IntArray | None = None

    def shares(self, other: Source) -> bool:
        """Whether a row may be in both. Costs the number of rows."""
        if not self.holders & other.holders:
            return False
        if self.rows is None or other.rows is None:
            some, whole = (self, other) if other.rows is None else (other, self)
            return some.rows is None or not whole.size or bool((some.rows < whole.size).any())
        return bool(np.intersect1d(self.rows, other.rows).size)


class Reader:
    """Reads each data set once, and keeps it: its identity is only worth something while it lives."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Any, tuple[Source, ...]]] = {}
        self._shared: dict[tuple[int, int], bool] = {}

    def of(self, dataset: Any) -> tuple[Source, ...]:
        """What it reads; nothing where there is none, it cannot be told, or were too many before."""
        key = id(dataset)
        if key not in self._kept:
            if dataset is None or len(self._kept) >= _MOST:
                return ()
            self._kept[key] = dataset, _told(dataset)
        return self._kept[key][1]

    def share(self, one: Any, other: Any) -> bool:
        """Whether a record may come from both data sets; worked out once, for it is asked at each step."""
        found, others = self.of(one), self.of(other)
        if not found or not others:
            return False
        key = id(one), id(other)
        if key not in self._shared:
            self._shared[key] = share(found, others)
        return self._shared[key]


def _told(dataset: Any) -> tuple[Source, ...]:
    """Data sets may hold what cannot be looked into; training goes on."""
    try:
        return sources(dataset)
    except (TypeError, ValueError, IndexError, RuntimeError, NotImplementedError):
        return ()


def sources(dataset: Any) -> tuple[Source, ...]:
    """What a data set reads, through the subsets and the chains that it is made of."""
    return () if dataset is None else tuple(_read(dataset, None))


def share(some: Iterable[Source], others: Iterable[Source]) -> bool:
    """Whether a record may come from both."""
    known = tuple(others)
    return any(one.shares(other) for one in some for other in known)


def leaves(dataset: Any, rows: IntArray | None = None) -> Iterator[tuple[Any, IntArray | None]]:
    """What subsets and chains are made of in the end, and which rows of it; None for all."""
    if isinstance(dataset, Subset):
        numbers = np.asarray(list(dataset.indices), dtype=np.int64)
        yield from leaves(dataset.dataset, numbers if rows is None else numbers[rows])
    elif isinstance(dataset, ConcatDataset):
        for part, inside in _parts(dataset, rows):
            yield from leaves(part, inside)
    else:
        yield dataset, rows


def _parts(dataset: ConcatDataset[Any], rows: IntArray | None) -> Iterator[tuple[Any, IntArray | None]]:
    """Data sets of a chain, and rows of each."""
    start = 0
    for part, end in zip(dataset.datasets, dataset.cumulative_sizes, strict=True):
        inside = None if rows is None else rows[(rows >= start) & (rows < end)] - start
        if inside is None or inside.size:
            yield part, inside
        start = end


def _read(dataset: Any, rows: IntArray | None) -> Iterable[Source]:
    """Sources of these rows of a data set."""
    # Whoever is given the same object a second time is given the same records.
    yield Source(frozenset({id(dataset)}), _length(dataset), rows)
    if isinstance(dataset, Subset):
        numbers = np.asarray(list(dataset.indices), dtype=np.int64)
        yield from _read(dataset.dataset, numbers if rows is None else numbers[rows])
    elif isinstance(dataset, ConcatDataset):
        for part, inside in _parts(dataset, rows):
            yield from _read(part, inside)
    elif isinstance(dataset, TensorDataset):
        tensors = [tensor for tensor in dataset.tensors if tensor.numel()]
        # To read memory of one number a record, such as labels that many share, says nothing.
        held = {("at", tensor.data_ptr()) for tensor in tensors if tensor.dim() > 1}
        yield Source(frozenset(held | {("of", _content(tuple(tensors)))}), len(dataset), rows)


def _length(dataset: Any) -> int:
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        return 0


@lru_cache(maxsize=64)
def _content(tensors: tuple[torch.Tensor, ...]) -> str:
    """Digest of shapes and of some rows: the same data, read from a file twice, are the same records."""
    digest = hashlib.sha256()
    for tensor in tensors:
        some = tensor.detach()[:: max(1, len(tensor) // _LOOKED_AT)].cpu().contiguous()
        digest.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(some.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def hashes(tensor: torch.Tensor) -> Hashes | None:
    """(rows,) one number for each row; None where rows are short, or there is too much of them.

    Equal rows have equal numbers; others of their kind, floats or whole numbers, do not, but for 2^-64.
    """
    if tensor.is_complex() or tensor.dim() < 2 or not 0 < tensor.numel() <= _MOST_NUMBERS:
        return None
    flat, floats = tensor.detach().flatten(1), tensor.is_floating_point()
    if flat.shape[1] < _FEWEST_NUMBERS:
        return None
    random = np.random.default_rng(int(not floats))
    factors = random.integers(1, 1 << 63, flat.shape[1], dtype=np.uint64) | np.uint64(1)
    # Sums and products wrap around: nothing depends on the order.
    return np.concatenate(
        [
            part.to("cpu", torch.float32 if floats else torch.int64)
            .contiguous()
            .numpy()
            .view(np.uint32 if floats else np.uint64)
            .astype(np.uint64)
            @ factors
            for part in torch.tensor_split(flat, 1 + flat.numel() // _AT_ONCE)
        ]
    )
