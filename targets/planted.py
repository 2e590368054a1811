"""Records of the audit's own that ride through the user's forward and backward pass.

They are appended to what the private loader hands out, so that the user's own preprocessing, model and loss
form their per-record gradients as of any record; before the step these are taken out again. A step canary
puts one of them back. In ghost mode, where no such gradients are formed, their losses are left out of the
backward passes, and what each would add to the sum is measured (`dpaudit.targets.ghost`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from dpaudit.check import BoolArray
from dpaudit.protocols import RowArray
from dpaudit.targets import rows as rows_of
from dpaudit.targets.batches import mapped, tensors

_MEMORY = 4096


class Planted:
    """A bank of mislabelled records, made of the first records that come by.

    Attributes:
        wanted: size of the bank; 0 plants nothing.
        lost: why nothing is planted any more; else empty.
    """

    def __init__(self, wanted: int, rng: np.random.Generator):
        self.wanted = wanted
        self.lost = ""
        self._rng = rng
        self._bank: list[torch.Tensor] = []
        self._riding: deque[tuple[int, int]] = deque(maxlen=_MEMORY)
        self._last: list[tuple[int, int]] = []
        self._formed: dict[int, RowArray] = {}

    def passing(self, batch: Any, size: int) -> Any:
        """The batch of `size` records with the bank behind it, once there is one."""
        columns = tensors(batch, size) if size and self.wanted and not self.lost else []
        if not columns:
            self._riding.append((size, 0))
            return batch
        if not self._complete():
            self._collect(columns)
        fits = len(columns) == len(self._bank) and all(
            column.shape[1:] == row.shape[1:] for column, row in zip(columns, self._bank, strict=True)
        )
        if not fits or not self._complete():
            # A batch that is padded to another length, or one of the first.
            self._riding.append((size, 0))
            return batch
        self._riding.append((size, self.wanted))
        rest = iter(self._bank)
        return mapped(batch, size, lambda column: torch.cat([column, next(rest).to(column.device)]))

    def strip(self, parameters: Sequence[torch.nn.Parameter]) -> RowArray:
        """Take the bank's rows out of every `grad_sample` and return those of the last batch, (k, d).

        Empty where none rode along. Where rows and records do not agree, nothing is planted from then on.
        """
        none: RowArray = np.zeros((0, sum(p.numel() for p in parameters)), dtype=np.float32)
        formed = self._formed.pop(id(parameters[0]), None) if parameters else None
        fresh = bool(self._riding)
        # A second optimizer steps on the batch of the first.
        riding = list(self._riding) or self._last
        self._riding.clear()
        if not any(extra for _, extra in riding):
            return none
        if formed is not None:
            return formed if len(formed) else none
        if not all(rows_of.has_samples(p) for p in parameters):
            self.lost = "no per-record gradients are formed, so that nothing can be taken out again"
            return none
        rows = len(rows_of.samples(parameters[0]))
        self._last, fits = _used(riding, rows)
        if not fits:
            if fresh:
                self.lost = f"found {rows} gradient rows after the batches {self._words(self._last)}"
            return none
        own, extra = _own(self._last), self._last[-1][1]
        found = rows_of.read(parameters)[rows - extra :] if extra else none
        for parameter in parameters:
            _keep(parameter, torch.as_tensor(own))
        return found

    def apart(self, rows: int) -> BoolArray | None:
        """Which of the rows that are about to be differentiated together are the user's own; None for all."""
        riding = list(self._riding) or self._last
        if self.lost or not any(extra for _, extra in riding):
            return None
        self._last, fits = _used(riding, rows)
        if not fits:
            self.lost = f"found losses of {rows} records after the batches {self._words(self._last)}"
        return _own(self._last) if fits else None

    def left_out(self, parameter: torch.nn.Parameter) -> BoolArray | None:
        """Rows of the last backward pass whose losses were left out of it; None where no records ride so."""
        return ~_own(self._last) if id(parameter) in self._formed else None

    def formed(self, parameter: torch.nn.Parameter, found: RowArray) -> None:
        """Keep what each planted record would add to the sum, (k, d), of the optimizer of this parameter."""
        self._formed[id(parameter)] = found

    def _complete(self) -> bool:
        return bool(self._bank) and len(self._bank[0]) == self.wanted

    def _collect(self, columns: Sequence[torch.Tensor]) -> None:
        """Keep copies of records until there are enough, and then give each the label of another one."""
        if len(columns) != len(self._bank):
            self._bank = [column[:0].clone() for column in columns]
        if any(c.shape[1:] != b.shape[1:] for c, b in zip(columns, self._bank, strict=True)):
            return
        missing = self.wanted - len(self._bank[0])
        self._bank = [torch.cat([b, c[:missing]]) for b, c in zip(self._bank, columns, strict=True)]
        if self._complete():
            self._bank = [self._mislabelled(column) for column in self._bank]

    def _mislabelled(self, column: torch.Tensor) -> torch.Tensor:
        """A column with one number a record is taken for its label, which goes to another record."""
        if column[0].numel() != 1 or len(self._bank) < 2:
            return column
        return column[torch.as_tensor(self._rng.permutation(len(column)), device=column.device)]

    @staticmethod
    def _words(riding: Sequence[tuple[int, int]]) -> str:
        return ", ".join(f"{size} + {extra}" for size, extra in riding) or "that were handed out"


def _used(riding: Sequence[tuple[int, int]], rows: int) -> tuple[list[tuple[int, int]], bool]:
    """The last batches that so many rows can be of, without those that were handed out and not used."""
    used = list(riding)
    while used and sum(map(sum, used)) > rows:
        used = used[1:]
    return used, bool(used) and sum(map(sum, used)) == rows


def _own(used: Sequence[tuple[int, int]]) -> BoolArray:
    return np.concatenate([np.repeat([True, False], pair) for pair in used])


def _keep(parameter: torch.nn.Parameter, own: torch.Tensor) -> None:
    """Leave only the rows of `own` in a `grad_sample`, which may be a list of backward passes."""
    sample = parameter.grad_sample  # type: ignore[attr-defined]
    parts = sample if isinstance(sample, list) else [sample]
    bounds = np.cumsum([0, *(len(part) for part in parts)]).tolist()
    kept = [part[own[a:b].to(part.device)] for part, (a, b) in zip(parts, pairwise(bounds), strict=True)]
    parameter.grad_sample = kept if isinstance(sample, list) else kept[0]  # type: ignore[attr-defined]
