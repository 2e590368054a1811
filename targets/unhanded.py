"""Records of the private data that reach a step although no loader has handed them out.

The operations between loader and step take tensors that they did not make. Where rows of these are rows of
the private data, the operations are executed again with other rows in their place: no gradient may change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

from dpaudit.evidence import Finding
from dpaudit.targets.held import count, held_by, items, of_numbers
from dpaudit.targets.sources import Hashes, hashes, leaves
from dpaudit.targets.tape import Playing, Tape

_LOOKS = 2
_BATCHES = 64
_ROUNDING = 1e-3
_DISTINCT = 0.99
_SHARE = 0.5
_CHANCE = 1e-4


@dataclass(frozen=True, slots=True)
class _Rows:
    """Numbers of rows, and the least share that they are of those that they were taken from."""

    hashes: Hashes
    share: float


class Unhanded:
    """What was seen of the first batches of one run."""

    def __init__(self) -> None:
        self._batches = 0
        self._handed: list[Hashes] = []
        self._widths: list[dict[int, list[Hashes]]] = []
        self._private: dict[int, tuple[Any, dict[int, _Rows]]] = {}
        self._reached: list[int] = []

    def handed(self, tensors: Sequence[torch.Tensor]) -> None:
        """A private loader hands out a batch; what it handed out before may have been kept for this step."""
        self._batches += 1
        if self._batches <= _BATCHES:
            widths: dict[int, list[Hashes]] = {}
            for tensor in tensors:
                if len(tensor) and (found := hashes(tensor)) is not None:
                    widths.setdefault(tensor[0].numel(), []).append(found)
                    self._handed.append(found)
            self._widths.append(widths)

    def look(self, tape: Tape, parameters: Sequence[torch.nn.Parameter], dataset: Any) -> None:
        """Look at what led to a step that is about to be made on a batch of this data set.

        Costs the size of the data set at first, and a step where rows of it were read.
        """
        if self._batches > _BATCHES or tape.overflowed or dataset is None:
            return
        try:
            found = list(self._found(tape, self._rows(dataset)))
            wanted = [tensor for p in parameters for tensor in _gradients(p)]
            if found and wanted and _moves(tape, wanted, [(tensor, others) for tensor, others, _ in found]):
                self._reached.append(max(rows for _, _, rows in found))
        except Exception:
            return  # What cannot be executed again shows nothing, and training goes on.

    def _rows(self, dataset: Any) -> dict[int, _Rows]:
        """Of the rows of a data set, by their length; none where many of them are alike."""
        if id(dataset) not in self._private:
            rows: dict[int, _Rows] = {}
            for tensor, share in _tensors(dataset):
                found = hashes(tensor)
                if found is not None and np.unique(found).size >= _DISTINCT * found.size:
                    before = rows.get(tensor[0].numel(), _Rows(found[:0], 1.0))
                    rows[tensor[0].numel()] = _Rows(
                        np.union1d(before.hashes, found), min(before.share, share)
                    )
            self._private[id(dataset)] = dataset, rows
        return self._private[id(dataset)][1]

    def _found(self, tape: Tape, rows: dict[int, _Rows]) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
        """Tensors with rows that were not handed out, the same with others there, and how many there are."""
        handed = np.concatenate([*self._handed, np.zeros(0, dtype=np.uint64)])
        # Rows that are changed on their way are not known when they are met again.
        private = {width: held.hashes for width, held in rows.items() if self._as_held(width, held)}
        for tensor in tape.outside() if private else ():
            known = private.get(tensor[0].numel()) if tensor.dim() > 1 and len(tensor) else None
            found = hashes(tensor) if known is not None else None
            if known is None or found is None:
                continue
            strange = np.isin(found, known) & ~np.isin(found, handed)
            # A few rows may be equal by chance.
            if strange.any() and np.isin(found, known).mean() >= _SHARE:
                others = tensor.detach().clone()
                mean = tensor.detach().double().mean(0).to(tensor.dtype)
                others[torch.as_tensor(strange, device=tensor.device)] = mean
                yield tensor, others, int(strange.sum())

    def _as_held(self, width: int, held: _Rows) -> bool:
        """Whether every batch had a tensor of rows as the data set holds them, and of those it may read."""
        batches = [widths.get(width, []) for widths in self._widths if widths]
        handed = sum(max(map(len, batch), default=0) for batch in batches)
        # Had code of the user's read others, one of these would have shown it.
        told = held.share == 1.0 or held.share**handed < _CHANCE
        return (
            bool(batches)
            and told
            and all(any(np.isin(tensor, held.hashes).all() for tensor in batch) for batch in batches)
        )

    def findings(self) -> Iterator[Finding]:
        """What was seen at two steps."""
        if len(self._reached) >= _LOOKS:
            yield Finding(
                check="no record outside of its batch",
                where="what a step reads beside its batch",
                expected="gradients that only records reach which the loader drew",
                measured=f"gradients that change with {max(self._reached)} records of the private data that "
                "no loader had handed out",
                epsilon=None,
                remedy="Draw every private record by the loader that make_private returned; take what is the "
                "same at every step from public data.",
            )


def _tensors(dataset: Any) -> Iterator[tuple[torch.Tensor, float]]:
    """What it holds of the records that it has.

    And the share of rows that it has of those that code of the user's hands out: which it reads for a
    number, only that code knows.
    """
    for leaf, rows in leaves(dataset):
        if isinstance(leaf, TensorDataset):
            yield from (
                (tensor if rows is None else tensor[torch.as_tensor(rows)], 1.0) for tensor in leaf.tensors
            )
            continue
        for held in held_by(leaf):
            if not held.of_items or not of_numbers(held.rows):
                continue
            if rows is None:
                yield torch.as_tensor(held.rows), 1.0
            elif count(held.rows) == items(leaf):
                some = torch.as_tensor(held.rows)[torch.as_tensor(rows)]
                yield some, np.unique(rows).size / count(held.rows)


def _gradients(parameter: torch.nn.Parameter) -> list[torch.Tensor]:
    """Of single records where these are formed, or else of their sum."""
    formed = getattr(parameter, "grad_sample", None)
    if formed is None:
        return [] if parameter.grad is None else [parameter.grad]
    return list(formed) if isinstance(formed, list) else [formed]


def _moves(
    tape: Tape, wanted: Sequence[torch.Tensor], changed: Sequence[tuple[torch.Tensor, torch.Tensor]]
) -> bool:
    """Whether a gradient is another one with these tensors in the place of those."""
    plays = [Playing([], [tape.before]), Playing(changed, [tape.before])]
    for playing in plays:
        tape.play(playing)
    made = [tensor for tensor in wanted if plays[0].made(tensor)]
    size = max((float(tensor.norm()) for tensor in made), default=0.0)
    tolerance = max(_ROUNDING, 16 * tape.coarsest) * size

    def apart(one: torch.Tensor, other: torch.Tensor) -> bool:
        return one.shape != other.shape or float((one - other).norm()) > tolerance

    same, others = ([playing.of(tensor) for tensor in made] for playing in plays)
    if any(apart(*pair) for pair in zip(made, same, strict=True)):
        return False
    return any(apart(*pair) for pair in zip(same, others, strict=True))
