"""Records that a `collate_fn` mixes while it makes a batch of them.

It is called again on the records of a batch, as they left the data set, with all but one replaced by copies
of another one: every row that it then makes has to be one that the batch had.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import default_collate

from dpaudit.evidence import Finding
from dpaudit.targets.randomness import ReplayRandomness

_LOOKS = 2
_ROUNDING = 1e-4
_MOST_RECORDS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """One batch as a loader of this process made it.

    Attributes:
        collate: made a batch of records.
        records: as they left the data set.
    """

    collate: Callable[[Any], Any]
    records: Sequence[Any]


class Collation:
    """What was seen of the batches of one run."""

    def __init__(self) -> None:
        self._found: list[tuple[str, float]] = []

    def look(self, fetched: Fetched | None) -> None:
        """Make the batch of the step that is about to be made again; costs up to one call for each record."""
        if fetched is None or not 2 < len(fetched.records) <= _MOST_RECORDS:
            return
        if _stacks(fetched.collate):
            return
        try:
            moved = _moved(fetched)
        except Exception:
            # A function that cannot be called again shows nothing, and training goes on.
            return
        if moved > _ROUNDING:
            name = getattr(fetched.collate, "__name__", type(fetched.collate).__name__)
            self._found.append((name, moved))

    def findings(self) -> Iterator[Finding]:
        """What was seen at two batches."""
        if len(self._found) >= _LOOKS:
            name, moved = self._found[0]
            yield Finding(
                check="one record, one gradient",
                where=f"collate_fn {name}",
                expected="rows of a batch that are each made of one record",
                measured=f"rows that move by {moved:.2g} of their norm when other records change",
                epsilon=None,
                remedy="Take statistics from public data or with a budget; pad, and mix nothing.",
            )


def _stacks(collate: Callable[[Any], Any]) -> bool:
    """Whether it is torch's own, which puts records side by side and does nothing else to them."""
    # Opacus wraps it, before 1.6 in a function that does not tell what it calls.
    while type(collate).__module__ == "opacus.data_loader" and hasattr(collate, "wrapped_collator_fn"):
        collate = collate.wrapped_collator_fn
    return collate is default_collate


def _moved(fetched: Fetched) -> float:
    """How far a row of the changed batch is from all that the batch had, over its norm; 0 if unknown."""
    size = len(fetched.records)
    before, ended = _made(fetched, list(range(size)))
    again, _ = _made(fetched, list(range(size)))
    same = all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(before, again, strict=True))
    if not same or not before or any(len(tensor) != size for tensor in before):
        return 0.0
    for copied in (size // 2, *range(1, size)):
        index = [copied] * size
        index[0] = 0
        after, otherwise = _made(fetched, index)
        if ended != otherwise:
            return 0.0  # It draws other random numbers for other records.
        # Padded to the longest: only batches of one length can be compared.
        if all(a.shape == b.shape for a, b in zip(before, after, strict=True)):
            return max(_farthest(a, b) for a, b in zip(before, after, strict=True))
    return 0.0


def _farthest(before: torch.Tensor, after: torch.Tensor) -> float:
    """As `_moved`; 0 if any row survives, since what is drawn by place differs in a copy."""
    one, two = before.flatten(1).double(), after.flatten(1).double()
    norms = two.norm(dim=1)
    if not bool(torch.isfinite(one).all() and torch.isfinite(two).all()) or not bool((norms > 0).all()):
        return 0.0
    nearest = torch.cdist(two, one).min(dim=1).values / norms
    return float(nearest.max()) if bool((nearest > _ROUNDING).all()) else 0.0


def _made(fetched: Fetched, index: Sequence[int]) -> tuple[list[torch.Tensor], str]:
    """Tensors of a batch of these records, and the random state afterwards."""
    random = ReplayRandomness()
    with random.frozen():
        batch = fetched.collate([copy.deepcopy(fetched.records[i]) for i in index])
        state = random.state()
    return [t for t in _tensors(batch) if t.dim()], str([str(part) for part in state])


def _tensors(batch: Any) -> list[torch.Tensor]:
    if isinstance(batch, torch.Tensor):
        return [batch[:, None] if batch.dim() == 1 else batch]
    parts = batch.values() if isinstance(batch, Mapping) else batch
    return [t for part in parts for t in _tensors(part)] if isinstance(batch, (list, tuple, Mapping)) else []
