"""What is kept of each noisy step, and its gradient rows against the records of its batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dpaudit.claim import Sampler
from dpaudit.evidence import Access, Finding, Note
from dpaudit.targets.taken import Rule, Taken

_FEW = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One noisy step, as far as its batch is known.

    Attributes:
        size: records in the batch; None where unknown.
        rows: gradient rows of the step; None where none are formed.
        copies: rows per record, where that is a whole number.
        beside: rows of other data that a loader handed out.
        double: whether a record is in the batch twice.
        loader: in words.
        poisson: whether the loader draws by Poisson sampling, as far as it says.
        elsewhere: whether the batch is of another loader than the Poisson one that Opacus returned.
        passed_over: sizes of batches of the same pass that were handed out and not used.
    """

    size: int | None
    rows: int | None
    copies: int = 1
    beside: int = 0
    double: bool = False
    loader: str = ""
    poisson: bool = False
    elsewhere: bool = False
    passed_over: tuple[int, ...] = ()

    @property
    def more(self) -> int:
        """Rows of no record of any loader."""
        return self.rows - self.size - self.beside if self.rows and self.size is not None else 0


def step_of(taken: Taken | None, rows: int | None, root: object, stated: Rule | None) -> Step:
    """Keep of a batch what is needed later.

    Args:
        taken: the batch; None where no loader handed one out.
        rows: per-record gradients of the step.
        root: sampler of the loader that Opacus returned for this optimizer.
        stated: how that one draws.
    """
    if taken is None:
        return Step(size=None, rows=rows)
    poisson = taken.rule.sampler is Sampler.POISSON
    promised = stated is not None and stated.sampler is Sampler.POISSON
    return Step(
        size=int(taken.records.size) if taken.counted else None,
        rows=rows,
        copies=taken.copies,
        beside=taken.beside,
        double=bool(np.unique(taken.records).size < taken.records.size),
        loader=taken.rule.where,
        poisson=poisson,
        elsewhere=promised and not poisson and taken.root is not root,
        passed_over=taken.passed_over,
    )


def beyond_records(steps: Sequence[Step]) -> Iterator[Finding]:
    """More gradient rows than records, by another number in each batch: who is in it seems to decide that.

    As many in every step may be of public data; they are only noted.
    """
    more = [step.more for step in _known(steps)]
    several = [number for number in more if number > 0]
    if not _varies(more):
        return
    yield Finding(
        check="one gradient for each record",
        where="per-record gradients",
        expected="as many rows as the batch has records, or the same number more in every step",
        measured=f"{min(several)} to {max(several)} rows more in {len(several)} of {len(more)} steps",
        epsilon=None,
        remedy="Repeat no record in a batch, and let no record decide how many made-up ones are beside it.",
        source="ledger",
        access=Access.LEDGER,
    )


def beside_records(steps: Sequence[Step]) -> Iterator[Note]:
    """Gradient rows of other loaders' data, and as many in every step that no loader handed out."""
    known = _known(steps)
    other, more = sum(step.beside for step in known), _usual([step.more for step in known])
    if len({step.size for step in known}) > 1 and not _varies([step.more for step in known]):
        other += more * sum(step.more == more for step in known)
    if other <= 0:
        return
    yield Note(
        check="gradients of other data",
        where="per-record gradients",
        measured=f"{other} of {sum(step.rows or 0 for step in known)} are of no record of a step's batch",
        meaning="They are clipped and noised beside those of the batch. That costs nothing if their "
        "data is public; of other private data nothing is accounted.",
        source="ledger",
        access=Access.LEDGER,
    )


def _known(steps: Sequence[Step]) -> list[Step]:
    return [step for step in steps if step.rows is not None and step.size is not None]


def _varies(numbers: Sequence[int]) -> bool:
    usual = _usual(numbers)
    return sum(number > 0 and number != usual for number in numbers) >= _FEW


def _usual(numbers: Sequence[int]) -> int:
    """The most frequent one; 0 of none."""
    return Counter(numbers).most_common(1)[0][0] if numbers else 0
