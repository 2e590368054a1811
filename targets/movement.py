"""Gradients of the records of one batch, before and after others were changed: what became of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

_COORDINATES = 2048
SMALL = 1e-2
_COMMON = 1e-2
ZERO = 1e-6
_FEW = 4


def formed(parameter: torch.nn.Parameter) -> torch.Tensor | None:
    """What Opacus formed of single records: gradients, or their norms in ghost mode."""
    found = getattr(parameter, "grad_sample", None)
    found = found[-1] if isinstance(found, list) and found else found
    found = getattr(parameter, "_norm_sample", None) if found is None else found
    return found if isinstance(found, torch.Tensor) else None


def fingerprint(formed: Sequence[torch.Tensor]) -> torch.Tensor:
    """(b, k) of each record's gradient; some coordinates of each parameter."""
    return torch.cat([t.detach().flatten(1)[:, :_COORDINATES].double().cpu() if t.dim() > 1
                      else t.detach()[:, None].double().cpu() for t in formed], dim=1)  # fmt: skip


def pairs(before: torch.Tensor) -> list[tuple[int, int]]:
    """One record that stays and one that is copied: of the smallest and of the largest gradient first.

    What a rank decides is most likely to be decided otherwise for these. A threshold that the batch sets is
    below one in the middle among copies of a smaller gradient, and not among copies of a larger one. The ends
    of the batch are where code that sorts would put the one that stays.
    """
    norms = before.norm(dim=1)
    eligible = norms > SMALL * norms.max()
    eligible[[0, -1]] &= len(norms) < _FEW
    order = norms.where(eligible, torch.inf).argsort()
    smallest, middle = int(order[0]), int(order[int(eligible.sum()) // 2])
    pairs = [(smallest, int(norms.argmax())), (middle, int(norms.argmax())), (middle, smallest)]
    return [(kept, copied) for kept, copied in dict.fromkeys(pairs) if kept != copied] or pairs[:1]


def moved(before: torch.Tensor, after: torch.Tensor) -> float:
    """How far a gradient is from all that the batch had, over its norm; 0 where each is one of these.

    All records are of the batch, whatever the order in which code puts them.
    """
    norms = after.norm(dim=1)
    used = norms > ZERO * before.norm(dim=1).max()
    nearest = torch.cdist(after[used], before).min(dim=1).values
    return float((nearest / norms[used]).max()) if bool(used.any()) else 0.0


def vanished(before: torch.Tensor, after: torch.Tensor, kept: int) -> bool:
    """Whether the record that stayed has no gradient any more, though the copies beside it have one each."""
    norms, largest = after.norm(dim=1), before.norm(dim=1).max()
    others = torch.arange(len(after)) != kept
    own_place = 0 < kept < len(after) - 1 and bool((norms[others] > SMALL * largest).all())
    return own_place and float(norms[kept]) <= ZERO * largest < float(before[kept].norm())


def gone(before: torch.Tensor, after: torch.Tensor, kept: int) -> bool:
    """Whether no record has a gradient any more, though the one that stayed had one."""
    largest = float(before.norm(dim=1).max())
    return float(before[kept].norm()) > SMALL * largest and float(after.norm(dim=1).max()) <= ZERO * largest


def copies_differ(after: torch.Tensor, tolerance: float) -> bool:
    """Whether copies of one record have different gradients, where at most one row is of another record."""
    largest = after.norm(dim=1).max()
    alike = (torch.cdist(after[:_FEW], after) <= tolerance * largest).sum(dim=1)
    return int(alike.max()) < len(after) - 1


def survives(before: torch.Tensor, after: torch.Tensor, tolerance: float) -> bool:
    """Whether any record's gradient is still there: what is drawn by place differs for a row that moved."""
    norms = before.norm(dim=1)
    nearest = torch.cdist(before, after).min(dim=1).values
    return bool((nearest <= tolerance * norms)[norms > 0].any())


def common_factor(before: torch.Tensor, after: torch.Tensor, kept: int, tolerance: float) -> float | None:
    """By what the gradients of the records that stayed were multiplied, if by one factor all of them."""
    one, two = before[:kept], after[:kept]
    norms = one.norm(dim=1)
    used = norms > SMALL * norms.max()
    woken = two[~used].norm(dim=1)
    one, two, norms = one[used], two[used], norms[used]
    factors = (one * two).sum(dim=1) / norms**2
    residual = (two - factors[:, None] * one).norm(dim=1) / norms
    alike = float((factors.max() - factors.min()) / factors.mean().abs())
    if bool((woken > 2 * SMALL * norms.max() * factors.mean().abs()).any()):
        return None
    if bool((residual > tolerance).any()) or alike > max(_COMMON, tolerance) or float(factors.mean()) <= 0:
        return None
    return float(factors.mean())
