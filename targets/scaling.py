"""How far one record moves the clipped sum where the loss is divided by what the batch decides.

A mean over class weights or tokens scales the gradients of all records alike, before they are clipped. Those
below the clipping norm move with every record that enters: the sum then moves by more than one clipping norm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement

import numpy as np
import torch
from opacus.optimizers import DPOptimizer

from dpaudit.evidence import Finding

_CANDIDATES = 4

Rows = Sequence[torch.Tensor]
"""Per-record gradients, (b, ...) of each parameter."""


def clip_norm(optimizers: Sequence[DPOptimizer], parameters: Sequence[torch.nn.Parameter]) -> float | None:
    """The norm to which an optimizer over these parameters clips each record's whole gradient, if it does.

    None where it clips otherwise: by layer, adaptively, in ghost mode, or by code of the user's own.
    """
    own = {id(p) for p in parameters}
    for optimizer in optimizers:
        known = type(optimizer).clip_and_accumulate is DPOptimizer.clip_and_accumulate
        replaced = "clip_and_accumulate" in vars(optimizer) or not isinstance(
            optimizer.max_grad_norm, (int, float)
        )
        if known and not replaced and {id(p) for p in optimizer.params} == own:
            return float(optimizer.max_grad_norm)
    return None


def candidates(norms: torch.Tensor, labels: torch.Tensor | None, clip: float) -> list[int]:
    """A few records of a batch whose weights are likely to differ: of several labels, else of several norms.

    Args:
        norms: (b,) of their gradients.
        labels: (b,) if known.
        clip: what is below it moves with the divisor; the largest of these does most.
    """
    below = norms.where(norms <= clip, -norms)
    if labels is None:
        order = norms.argsort()
        places = torch.linspace(0, len(norms) - 1, min(_CANDIDATES, len(norms))).long()
        return sorted({int(below.argmax()), *order[places].tolist()})[:_CANDIDATES]
    kinds = torch.as_tensor(np.unique(labels.numpy()))
    kinds = kinds[torch.linspace(0, len(kinds) - 1, min(_CANDIDATES, len(kinds))).long()]
    found = [
        int(figure.where(labels == kind, -torch.inf).argmax())
        for figure in (below, norms)
        for kind in kinds.tolist()
    ]
    return list(dict.fromkeys(found))[:_CANDIDATES]


def movement(
    played: Callable[[torch.Tensor], Rows], of: Sequence[int], rows: int, clip: float
) -> float | None:
    """The farthest that replacing one record moves the clipped sum, in clipping norms, of a few neighbours.

    All batches are copies of one record, or half of one and half of another, but for one record: any two with
    the same copies are neighbours. Costs the operations of a step, executed again up to 40 times.

    Args:
        played: gradients of a batch of these records, by their places in the real batch.
        of: places of the records to try.
        rows: of a batch.
        clip: norm.
    """
    farthest = 0.0
    for most, others in combinations_with_replacement(of, 2):
        sums = []
        for one in of:
            index = torch.full((rows,), most)
            index[rows // 2 :] = others
            index[rows // 2] = one
            sums.append(_clipped_sum(played(index), clip))
        stacked = torch.stack(sums)
        if not bool(torch.isfinite(stacked).all()):
            return None
        farthest = max(farthest, float(torch.cdist(stacked, stacked).max()) / clip)
    return farthest


def _clipped_sum(formed: Rows, clip: float) -> torch.Tensor:
    """(d,) as Opacus makes it."""
    norms = torch.stack([part.detach().flatten(1).double().norm(dim=1) for part in formed], dim=1).norm(dim=1)
    factors = (clip / (norms + 1e-6)).clamp(max=1.0)
    return torch.cat([factors @ part.detach().flatten(1).double() for part in formed]).cpu()


def finding(moved: float, rows: int) -> Finding:
    """One record moved the sum by more than two clipping norms when it was replaced: than one in or out."""
    return Finding(
        check="sensitivity",
        where="loss divided by the batch",
        expected="one record to move the clipped sum by at most 1 clipping norm, by 2 when it is replaced",
        measured=f"{moved:.4g} clipping norms when one of {rows} records, copies of the batch's, is replaced",
        epsilon=None,
        remedy="Sum the weighted losses and divide by a constant: a mean over weights or tokens scales the "
        "gradients of all records by what one record has.",
    )
