"""What data loaders hand out, and which of it each noisy step was made of.

The numbers of the records are taken where the loader that training iterates asks its sampler for them, so
that what is recorded is what was drawn, whoever made the sampler.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from itertools import count
from typing import Any

import numpy as np
import torch
from opacus.utils.uniform_sampler import (
    DistributedUniformWithReplacementSampler,
    UniformWithReplacementSampler,
)
from torch.utils.data import BatchSampler
from torch.utils.data._utils.fetch import _MapDatasetFetcher
from torch.utils.data.dataloader import _BaseDataLoaderIter

from dpaudit.check import IntArray
from dpaudit.claim import Sampler
from dpaudit.targets.collation import Fetched
from dpaudit.targets.taken import Assembly, Handed, Rule, Taken, classes, sizes

_POISSON = (UniformWithReplacementSampler, DistributedUniformWithReplacementSampler)
_MEMORY = 4096
_TYPED = 2**32
_DEFAULT_SEED = torch.Generator().initial_seed()
_NESTED = (list, tuple, Mapping)
_NO_RECORDS: IntArray = np.zeros(0, dtype=np.int64)


@dataclass(slots=True, kw_only=True)
class _Pass:
    """One pass of an iterator over its data: what it has drawn and not yet handed out."""

    number: int
    yielded: bool = False
    waiting: deque[Handed] = field(default_factory=deque)


class Loaders:
    """What was handed out since the last step.

    Attributes:
        latest: the data set that the last batch came from.
        last_size: number of rows in it, planted ones included; None before the first.
        last_tensors: what it holds.
        ended: numbers of the passes that were gone through to the end.
        training: called when a batch is handed out: whether it is for training.
        passing: called with the sampler, the records and the batch before it is handed out; what it
            returns is.
        handed: called with the sampler afterwards.
        last_fetched: its sampler, and what it was made of where that was made in this process.
    """

    def __init__(self, seeds: Sequence[int] = ()):
        self._secret = frozenset(seeds)
        self._since: deque[Handed] = deque(maxlen=_MEMORY)
        self._last: Taken | None = None
        self._ahead: Sequence[Handed] = ()
        self._assembly = Assembly()
        self._passes = count()
        self.latest: Any = None
        self.last_size: int | None = None
        self.last_tensors: tuple[torch.Tensor, ...] = ()
        self.ended: set[int] = set()
        self.training: Callable[[], bool] = lambda: True
        self.passing: Callable[[Any, IntArray, Any], tuple[IntArray, Any]] | None = None
        self.handed: Callable[[Any], None] | None = None
        self._fetched: Fetched | None = None
        self.last_fetched: tuple[Any, Fetched | None] = None, None

    def taken(self, rows: int | None, returned: Sequence[Any] = ()) -> Taken | None:
        """The batch of the step that is about to be made.

        Args:
            rows: per-record gradients of the step, where they are formed.
            returned: samplers of the loaders that Opacus returned, preferred where several would fit.

        Returns:
            The last batch again where none was handed out since; None where no loader is known.
        """
        ahead, since, groups = bool(self._ahead), list(self._ahead), dict[int, list[Handed]]()
        while self._since:  # Another thread may be adding to it.
            since.append(self._since.popleft())
        for handed in since:
            groups.setdefault(id(handed.root), []).append(handed)
        if not groups:
            return self._last
        ordered = sorted(groups.values(), key=lambda group: any(group[0].root is root for root in returned))
        fitting = [group for group in ordered if sizes(group) == rows]
        group = (fitting or ordered)[-1]
        others = [handed for handed in since if handed.root is not group[0].root]
        self._last, self._ahead = self._assembly.taken(group, rows, others, ahead=ahead)
        return self._last

    @property
    def since(self) -> tuple[Handed, ...]:
        """The batches since the last step."""
        return tuple(self._since)

    @property
    def waiting(self) -> bool:
        """Whether a batch was handed out since the last step."""
        return bool(self._since)

    def rule(self, root: Any, dataset: Any) -> Rule:
        """How a sampler says that it draws from a data set."""
        return rule_of(root, dataset, self._secret)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Record what every `DataLoader` hands out, in the order in which its user gets it."""
        kind: Any = _BaseDataLoaderIter
        fetcher: Any = _MapDatasetFetcher
        next_index, following, fetch = kind._next_index, kind.__next__, fetcher.fetch

        @wraps(fetch)
        def recorded_fetch(fetcher: Any, index: Any) -> Any:
            collate = fetcher.collate_fn

            def keeping(records: Any) -> Any:
                if isinstance(records, list):
                    self._fetched = Fetched(collate=collate, records=tuple(records))
                return collate(records)

            fetcher.collate_fn = keeping
            try:
                return fetch(fetcher, index)
            finally:
                fetcher.collate_fn = collate

        @wraps(next_index)
        def recorded_index(iterator: Any) -> Any:
            index = next_index(iterator)
            self._drawn(iterator, index)
            return index

        @wraps(following)
        def recorded_next(iterator: Any) -> Any:
            self._fetched = None
            current = self._pass(iterator)
            try:
                batch = following(iterator)
            except StopIteration:
                self.ended.add(current.number)
                raise
            current.yielded = True
            if current.waiting:
                # Workers draw ahead: a batch counts when training gets it.
                handed = current.waiting.popleft()
                before = _tensors(batch)
                if self.passing is not None:
                    records, batch = self.passing(handed.root, handed.records, batch)
                    handed = replace(handed, records=records)
                labels = classes(before, handed.records.size)
                self._since.append(replace(handed, trained=self.training(), labels=labels))
                self.last_fetched = handed.root, self._fetched
                self.latest = iterator._dataset
                self.last_tensors = _tensors(batch)
                self.last_size = handed.records.size + _longer(before, self.last_tensors)
                if self.handed is not None:
                    self.handed(handed.root)
            return batch

        kind._next_index, kind.__next__, fetcher.fetch = recorded_index, recorded_next, recorded_fetch
        try:
            yield
        finally:
            kind._next_index, kind.__next__, fetcher.fetch = next_index, following, fetch

    def _drawn(self, iterator: Any, index: Any) -> None:
        sampler, current = iterator._index_sampler, self._pass(iterator)
        if current.yielded and iterator._num_yielded == 0:
            # Persistent workers start the next pass with the same iterator.
            current.waiting.clear()
            current.number, current.yielded = next(self._passes), False
        root, records = root_of(sampler), _numbers(index)
        current.waiting.append(
            Handed(
                records=records,
                counted=bool(records.size) or not _length(index),
                root=root,
                rule=self.rule(root, iterator._dataset),
                number=current.number,
                dataset=iterator._dataset,
            )
        )

    def _pass(self, iterator: Any) -> _Pass:
        known: _Pass | None = getattr(iterator, "_dpaudit_pass", None)
        if known is None:
            known = _Pass(number=next(self._passes))
            iterator._dpaudit_pass = known
        return known


def root_of(sampler: Any) -> Any:
    """The sampler that draws, beneath those that only split its batches."""
    while not isinstance(sampler, BatchSampler) and hasattr(sampler, "max_batch_size"):
        sampler = sampler.sampler
    return sampler


def rule_of(root: Any, dataset: Any, secret: frozenset[int] = frozenset()) -> Rule:
    """How a sampler says that it draws from a data set.

    Args:
        root: as from `root_of`.
        dataset: what its numbers refer to.
        secret: seeds of generators that are not known to anybody, such as those that the audit chose.
    """
    n, length = _length(dataset), _length(root)
    inner = root.sampler if isinstance(root, BatchSampler) else root
    where = f"{type(root).__name__} over {type(inner).__name__}" if inner is not root else type(root).__name__
    if isinstance(root, _POISSON):
        kind, rate = Sampler.POISSON, effective_rate(float(root.sample_rate))
    elif getattr(inner, "replacement", False):
        kind, rate = Sampler.UNKNOWN, min(1.0, (getattr(root, "batch_size", None) or 1) / max(n, 1))
    else:
        kind = Sampler.SHUFFLE if isinstance(root, BatchSampler) else Sampler.UNKNOWN
        rate = 1.0 / max(length, 1)
    if rate >= 1.0:
        kind = Sampler.FULL_BATCH
    return Rule(
        sampler=kind,
        sample_rate=rate,
        n_records=n,
        period=length,
        where=where,
        public=_public(getattr(inner, "generator", None), secret),
    )


def effective_rate(rate: float) -> float:
    """Probability of `torch.rand() < rate`, which has 24 bits; the rate itself where that is within 0.1 %."""
    really = math.ceil(rate * 2**24) / 2**24
    return really if really > rate * 1.001 else rate


def typed_seed(generator: Any) -> int | None:
    """The seed of a generator that somebody wrote down; None if it was drawn, or there is none.

    A fresh `torch.Generator` has the same seed everywhere; `Generator.seed()` draws 53 random bits.
    """
    try:
        seed = int(generator.initial_seed())
    except (AttributeError, RuntimeError, NotImplementedError):
        return None
    return seed if seed < _TYPED or seed == _DEFAULT_SEED else None


def _public(generator: Any, secret: frozenset[int]) -> str:
    seed = typed_seed(generator) if generator is not None else None
    if seed is None or seed in secret:
        return ""
    words = "that was never seeded" if seed == _DEFAULT_SEED else f"seeded with {seed}"
    return f"a generator {words}: every run draws the same batches"


def _tensors(batch: Any) -> tuple[torch.Tensor, ...]:
    """What a batch is made of, whatever it is wrapped in."""
    if isinstance(batch, torch.Tensor):
        return (batch,)
    parts = batch.values() if isinstance(batch, Mapping) else batch
    return tuple(t for part in parts for t in _tensors(part)) if isinstance(batch, _NESTED) else ()


def _longer(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> int:
    """How many rows a batch gained."""
    pairs = zip(before, after, strict=False)
    return max((len(b) - len(a) for a, b in pairs if a.dim() and b.dim()), default=0)


def _numbers(index: Any) -> IntArray:
    """Record numbers of what a sampler yielded; none where those are not numbers."""
    if isinstance(index, torch.Tensor):
        index = index.tolist()
    try:
        array = np.atleast_1d(np.asarray(index))
    except ValueError:
        return _NO_RECORDS
    return array.astype(np.int64) if array.dtype.kind in "iu" else _NO_RECORDS


def _length(thing: Any) -> int:
    try:
        return len(thing)
    except (TypeError, NotImplementedError):
        return 0
