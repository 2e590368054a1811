"""What is applied of a release: the gradients that the underlying optimizer steps with after `pre_step`.

Whatever is made of a release, of weights and of public data is post-processing and costs nothing. Which data
a gradient was made of cannot be read off it; that it is the release, or a gradient that led to it, can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from opacus.optimizers import DPOptimizer

_ROUNDING = 1e-5
_COORDINATES = 16
_SPREAD = 4.0
_Vector = Sequence[torch.Tensor | None]


class Origin(Enum):
    """Of what a gradient is made, as far as its numbers tell."""

    RELEASE = "of the release and the weights"
    RAW = "of what was not clipped and noised, too"
    UNKNOWN = "of something else, too"


@dataclass(slots=True, kw_only=True)
class Release:
    """What a private optimizer left in the gradients of its parameters.

    Attributes:
        optimizer: that made it.
        released: gradients of its parameters afterwards.
        raw: gradients before, and the clipped sums without noise: a combination of these is no release.
        applied: called when a step was made with it.
        fresh: whether none was made yet.
    """

    optimizer: DPOptimizer
    released: _Vector
    raw: Sequence[_Vector]
    applied: Callable[[], None]
    fresh: bool = True

    def origin(self) -> Origin:
        """Of what the gradients are made that the parameters hold now. Costs a few products of length d."""
        parameters = self.optimizer.params
        now = [p.grad for p in parameters]
        if all(a is b or _equal(a, b) for a, b in zip(now, self.released, strict=True)):
            return Origin.RELEASE
        return by_parameter(now, self.released, parameters, self.raw)


def release_of(optimizer: DPOptimizer, raw: _Vector, applied: Callable[[], None]) -> Release:
    """The release that an optimizer has just made, of raw gradients."""
    sums = copies_of([getattr(p, "summed_grad", None) for p in optimizer.params])
    released = copies_of([p.grad for p in optimizer.params])
    return Release(optimizer=optimizer, released=released, raw=(raw, sums), applied=applied)


def copies_of(tensors: _Vector) -> list[torch.Tensor | None]:
    """Of each its own."""
    return [None if tensor is None else tensor.detach().clone() for tensor in tensors]


def origin(now: _Vector, released: _Vector, weights: _Vector, raw: Sequence[_Vector]) -> Origin:
    """Of what gradients are made, by what they are a linear combination of.

    Args:
        now: the gradients, one of each parameter.
        released: what was released.
        weights: which earlier releases determine.
        raw: vectors that were never released.
    """
    # What is set to zero tells nothing; it is as if these parameters were frozen.
    kept = [i for i, g in enumerate(now) if g is not None and bool(g.any())]
    tolerance = max([_ROUNDING, *(4 * torch.finfo(g.dtype).eps for g in now if g is not None)])
    part = [_wide(vector, kept, now) for vector in (now, released, weights, *raw)]
    if not kept or all(torch.equal(a, b) for a, b in zip(part[0], part[1], strict=True)):
        return Origin.RELEASE
    if sum(each.numel() for each in part[0]) < _COORDINATES:
        return Origin.UNKNOWN
    if _residual(part[0], part[1:3]) <= tolerance or _clamped(part[0], part[1], tolerance):
        return Origin.RELEASE
    used = [vector for vector in part[3:] if _spread(vector) >= _SPREAD]
    if used and _residual(part[0], [*part[1:3], *used]) <= tolerance:
        return Origin.RAW
    return Origin.UNKNOWN


def by_parameter(now: _Vector, released: _Vector, weights: _Vector, raw: Sequence[_Vector]) -> Origin:
    """As `origin`, of all gradients together, else of each by itself: layers may be scaled apart."""
    found = origin(now, released, weights, raw)
    if found is not Origin.UNKNOWN:
        return found
    apart = []
    for i, gradient in enumerate(now):
        one = origin([gradient], [released[i]], [weights[i]], [[v[i]] for v in raw if len(v) == len(now)])
        if one is Origin.UNKNOWN and gradient is not None and gradient.numel() > 1:
            # A direction that was released; of so few coordinates nothing else can be told.
            part = [_wide([vector[i]], [0], [gradient]) for vector in (now, released)]
            one = Origin.RELEASE if _residual(part[0], part[1:]) <= _ROUNDING else one
        apart.append(one)
    return next((kind for kind in (Origin.RAW, Origin.UNKNOWN) if kind in apart), Origin.RELEASE)


def _equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is not None and other is not None and one.shape == other.shape and torch.equal(one, other)


def _wide(vector: _Vector, kept: Sequence[int], like: _Vector) -> list[torch.Tensor]:
    """Flat parts in double precision; zeros where there is none."""
    flat: list[torch.Tensor] = []
    for i in kept:
        found, shape = vector[i], like[i]
        found = torch.zeros_like(shape) if found is None and shape is not None else found
        if found is not None:
            flat.append(found.detach().reshape(-1).cpu().double())
    return flat


def _spread(vector: Sequence[torch.Tensor]) -> float:
    """Over how many coordinates it is spread: in few, all vectors are combinations of each other."""
    squares = float(sum(part.square().sum() for part in vector))
    fourths = float(sum(part.pow(4).sum() for part in vector))
    return squares**2 / fourths if fourths > 0 else 0.0


def _residual(target: Sequence[torch.Tensor], basis: Sequence[Sequence[torch.Tensor]]) -> float:
    """What no combination of the basis gives, over the norm of the target."""
    norms = [max(float(sum(part.square().sum() for part in vector)) ** 0.5, 1e-300) for vector in basis]
    gram = torch.zeros(len(basis), len(basis), dtype=torch.float64)
    right = torch.zeros(len(basis), dtype=torch.float64)

    def rows(i: int) -> torch.Tensor:
        return torch.stack([v[i] / n for v, n in zip(basis, norms, strict=True)])

    for i, part in enumerate(target):
        gram += rows(i) @ rows(i).T
        right += rows(i) @ part
    weights = torch.linalg.pinv(gram, rtol=1e-12, hermitian=True) @ right
    left = sum(float((part - weights @ rows(i)).square().sum()) for i, part in enumerate(target))
    total = sum(float(part.square().sum()) for part in target)
    return float((left / total) ** 0.5)


def _clamped(now: Sequence[torch.Tensor], released: Sequence[torch.Tensor], tolerance: float) -> bool:
    """Whether it is the release with every value cut off at one size."""
    values, before = torch.cat(list(now)), torch.cat(list(released))
    size = float(values.abs().max())
    return bool(torch.allclose(values, before.clamp(-size, size), rtol=tolerance, atol=tolerance * size))
