"""Whether a record's gradient depends on the other records of its batch, by differentiating it once more.

Of a loss that is a sum over records, the gradient at one record's features does not change with another's:
the second derivative is zero there, exactly, whatever the loss is made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

_TESTED = 2


def swayed(
    losses: Sequence[torch.Tensor], weights: Sequence[Any] | None, features: Sequence[torch.Tensor]
) -> list[float | None]:
    """How much the gradient of a record moves with the features of others, over how much with its own.

    Costs a backward pass that can be differentiated and, for each of `features`, two through it. No random
    number is drawn, and no `.grad` is written.

    Args:
        losses: what is about to be differentiated; its graph is kept.
        weights: of these, where they are no scalars.
        features: (b, ...) each, of the passes of one model through one of its layers.

    Returns:
        For each of `features`; None where the loss does not depend on it.

    Raises:
        RuntimeError: something between features and loss has no second derivative.
    """
    first = torch.autograd.grad(
        list(losses), list(features), grad_outputs=weights, create_graph=True, allow_unused=True
    )
    return [None if gradient is None else _of_one(i, gradient, features) for i, gradient in enumerate(first)]


def _of_one(i: int, gradient: torch.Tensor, features: Sequence[torch.Tensor]) -> float:
    if not gradient.requires_grad:
        return 0.0
    norms = gradient.detach().flatten(1).norm(dim=1).nan_to_num()
    worst = 0.0
    for k in norms.topk(min(_TESTED, len(norms))).indices.tolist():
        row = gradient[k]
        # Any direction but one that the loss may be blind to; not drawn, so that no random state changes.
        along = torch.arange(row.numel(), device=row.device, dtype=row.dtype).add(0.5).cos().view_as(row)
        second = torch.autograd.grad(
            (row * along).sum(), list(features), retain_graph=True, allow_unused=True
        )
        own = features[i].detach()[k]
        size = float(along.norm() * norms[k] / own.norm().clamp(min=torch.finfo(own.dtype).tiny))
        worst = max(worst, _by_others(second, i, k, size))
    return worst


def _by_others(second: Sequence[torch.Tensor | None], i: int, k: int, size: float) -> float:
    """The part that rows of other records have in it."""
    found = 0.0
    for j, derivative in enumerate(second):
        if derivative is None:
            continue
        rows = derivative.detach().flatten(1).double().norm(dim=1)
        if not bool(torch.isfinite(rows).all()):
            return 0.0
        # In another pass the same record may be another row: one of them is its own.
        mine = k if j == i else int(rows.argmax())
        own = float(rows[mine])
        rows[mine] = 0.0
        scale = max(own, size)
        found = max(found, float(rows.norm()) / scale if scale > 0 else 0.0)
    return found
