"""Which of the batches that loaders handed out a noisy step was made of, as its gradient rows tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import get_ident
from typing import Any

import numpy as np
import torch

from dpaudit.check import IntArray
from dpaudit.claim import Sampler
from dpaudit.evidence import Batch
from dpaudit.targets.sources import Reader

_CLASSES = 64
_NO_RECORDS: IntArray = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a loader says that it draws.

    Attributes:
        sampler: the kind.
        sample_rate: with which a record enters a batch.
        n_records: how many there are.
        period: batches in one pass.
        where: in words.
        public: why its draws are known to anybody, else empty.
    """

    sampler: Sampler
    sample_rate: float
    n_records: int
    period: int
    where: str
    public: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """One batch that a loader handed out.

    Attributes:
        records: their numbers; empty where these are not known.
        counted: whether they are known.
        root: the loader's own sampler.
        rule: of the loader.
        number: of the pass.
        dataset: that the numbers refer to.
        trained: whether a private model was in training mode then, with gradients.
        labels: how many records of each class it has, where it has a few classes.
        thread: that drew it.
    """

    records: IntArray
    counted: bool
    root: Any
    rule: Rule
    number: int
    dataset: Any
    trained: bool = True
    labels: IntArray = field(default_factory=lambda: _NO_RECORDS)
    thread: int = field(default_factory=get_ident)

    @property
    def content(self) -> IntArray:
        """Its size and its classes."""
        return np.concatenate([[self.records.size], self.labels])


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The batch of one step.

    Attributes:
        records: their numbers; empty where the batch cannot be told.
        counted: whether it can.
        rule: of the loader.
        root: the loader's own sampler.
        copies: gradient rows per record, where that is a whole number.
        beside: rows of batches that loaders over other data handed out.
        private_beside: whether loaders over the same data did, and there are more rows than records.
        passed_over: sizes of batches of the same pass that were handed out before and not used.
        used: the batches that it was put together of.
        left: those before them since the last step.
    """

    records: IntArray
    rule: Rule
    root: Any
    counted: bool = True
    copies: int = 1
    beside: int = 0
    private_beside: bool = False
    passed_over: tuple[int, ...] = ()
    used: tuple[Handed, ...] = ()
    left: tuple[Handed, ...] = ()


class Assembly:
    """Tells the batches of a step from those before it that no step was made on."""

    def __init__(self) -> None:
        self._more: set[int] = set()
        self._reader = Reader()

    def taken(
        self, group: list[Handed], rows: int | None, others: Sequence[Handed] = (), *, ahead: bool = False
    ) -> tuple[Taken, Sequence[Handed]]:
        """Of the batches of one loader, those that the step's gradients are of: the last so many.

        Args:
            group: handed out since the last step.
            rows: of gradients; None where none are formed.
            others: batches of other loaders since then.
            ahead: whether the first of them were fetched ahead, before the last step was made.

        Returns:
            The batches, and those that were fetched ahead: the first ones were the step's, these come later.
        """
        own = group[-1].dataset
        apart = [handed for handed in others if not self._reader.share(handed.dataset, own)]
        private = sizes(others) > sizes(apart)
        # Another thread may have fetched any number of batches since.
        ahead = ahead or any(handed.thread != get_ident() for handed in group)
        first, end = self._oldest(group, rows, ahead=ahead)
        later = group[end:] if end else []
        group = group[first:end] if end else group
        used, beside = self._used(group, rows, sizes(apart))
        total, before = sizes(used), group[: len(group) - len(used)]
        same_pass = [handed for handed in before if handed.number == used[-1].number]
        taken = Taken(
            records=np.concatenate([handed.records for handed in used]) if used else _NO_RECORDS,
            counted=all(handed.counted for handed in used),
            rule=used[0].rule,
            root=used[-1].root,
            copies=rows // total if rows and total and rows % total == 0 else 1,
            beside=beside,
            private_beside=private and rows is not None and rows > total + beside,
            passed_over=tuple(handed.records.size for handed in same_pass),
            used=tuple(used),
            left=tuple(before),
        )
        return taken, later

    def _oldest(self, group: list[Handed], rows: int | None, *, ahead: bool) -> tuple[int, int]:
        """Where the batches begin and end that the rows are of, where a loop fetches ahead; 0, 0 elsewhere.

        They begin with the first one, or with that of a pass: the rest of the one before was not used.
        """
        numbers = [handed.number for handed in group]
        passes = [i for i in range(1, len(group)) if numbers[i] != numbers[i - 1]] if ahead else []
        more = {(rows or 0) - group[i].records.size: i for i in (0, *passes)}
        if ahead and self._more & set(more):
            begin = self._same_more(more) or 0
            return begin, begin + 1
        for start in (0, *passes):
            totals = np.cumsum([handed.records.size for handed in group[start:]]).tolist()
            if rows is None or not rows or rows not in totals[: None if ahead else -1]:
                continue
            last = any(rows == totals[-1] - before for before in (0, *totals[:-1]))
            if ahead or not last:
                return start, start + totals.index(rows) + 1
        if not ahead or rows is None:
            return 0, 0
        # Rows of no batch beside those of one.
        begin = self._same_more(more) or 0
        return begin, begin + 1

    def _same_more(self, more: dict[int, int]) -> int | None:
        """Where there are as many more rows as in the steps before, if anywhere."""
        more = {rows: start for rows, start in more.items() if rows >= 0}
        again = self._more & set(more)
        self._more = again or self._more or set(more)
        return more[min(again)] if again else None

    def _used(self, group: list[Handed], rows: int | None, beside: int) -> tuple[list[Handed], int]:
        """These, and how many of the rows are of batches of other data."""
        if rows is None:
            return group, 0
        # The fewest that will do: an empty batch before them is one that no step was made on.
        totals = np.cumsum([handed.records.size for handed in reversed(group)])[::-1].tolist()
        starts = {total: start for start, total in enumerate(totals)}
        for other in (0, beside):
            if rows - other in starts:
                return group[starts[rows - other] :], other
        if totals[0] and rows % totals[0] == 0:
            return group, 0
        # Rows of no batch at all.
        start = self._same_more({rows - total: start for total, start in starts.items()})
        return (group if start is None else group[start:]), 0


def classes(tensors: Sequence[torch.Tensor], rows: int) -> IntArray:
    """How many records of each class a batch has: by its first vector of small whole numbers."""
    for tensor in tensors:
        if tensor.dim() == 1 and len(tensor) == rows and not tensor.is_floating_point() and rows:
            labels = tensor.detach().cpu().numpy().astype(np.int64)
            return np.bincount(labels) if labels.min() >= 0 and labels.max() < _CLASSES else _NO_RECORDS
    return _NO_RECORDS


def sizes(group: Sequence[Handed]) -> int:
    """Records in these batches."""
    return sum(handed.records.size for handed in group)


def batch_of(rule: Rule | None, taken: Taken | None, rows: int | None) -> Batch | None:
    """The records of a step, as a loader handed them out, or how many there seem to be; None if unknown.

    Rows of no record of the batch are no part of it. Where records of it have none, or other private ones
    have some, the rows are what the step is made of.
    """
    known = taken is not None and taken.counted and not taken.private_beside
    known = known and (rows is None or taken is None or rows >= taken.records.size)
    records = taken.records if taken is not None and known else _NO_RECORDS
    size = records.size if known else rows
    if rule is None or size is None:
        return None
    return Batch(
        records=records,
        size=size,
        n_records=rule.n_records,
        sample_rate=rule.sample_rate,
        period=rule.period,
        where=rule.where,
        public=rule.public,
    )


def rule_used(taken: Taken | None, stated: Rule | None) -> Rule | None:
    """How the step's batch was drawn: as the loader says that was iterated, else nobody knows how."""
    if taken is not None:
        return taken.rule
    if stated is None or stated.sampler is Sampler.FULL_BATCH:
        return stated
    return replace(stated, sampler=Sampler.UNKNOWN, where="batches of no DataLoader", public="")
