"""Batches whose records the training loop mixed before the model saw them.

Told from what the data loader handed out, where no function of single records could have made the model's
input: a blend of two records of the batch, or the batch less its own mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dpaudit.check import FloatArray
from dpaudit.evidence import Finding

_ROWS = 8
_COORDINATES = 8
_FIT = 1e-8
_ROUNDING = 1e-5
_DIFFERENT = 1e-2
_LOOKS = 2
_MOST = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Blend:
    """What was seen of one batch.

    Attributes:
        pairs: rows that were each a blend of two records, of those that were looked at.
        mean: that was subtracted, in units of the deviation; None where none was.
    """

    pairs: int = 0
    mean: FloatArray | None = None


class Blends:
    """What was seen of the batches of one run."""

    def __init__(self) -> None:
        self._pairs: list[Blend] = []
        self._centred: list[Blend] = []

    def look(self, inputs: Sequence[torch.Tensor], handed: Sequence[torch.Tensor]) -> None:
        """Compare what the model is given with what the loader handed out."""
        for given in inputs:
            if not given.is_floating_point() or given.dim() < 2 or given.numel() > _MOST:
                continue
            for source in handed:
                if (
                    source.is_floating_point()
                    and source.numel() == given.numel()
                    and len(source) == len(given)
                ):
                    self._compare(_rows(given), _rows(source))

    def _compare(self, given: torch.Tensor, source: torch.Tensor) -> None:
        if len(given) < _ROWS or given.shape[1] < 2 or not bool(torch.isfinite(given).all()):
            return
        pairs = _pairs(given, source)
        if pairs >= _ROWS - 1:
            self._pairs.append(Blend(pairs=pairs))
        mean = _centred(given, source)
        if mean is not None:
            self._centred.append(Blend(mean=mean))

    def findings(self) -> Iterator[Finding]:
        """What was seen at two batches, and of means at two that had different ones."""
        if len(self._pairs) >= _LOOKS:
            yield _finding(
                f"inputs that are blends of two records of the batch, {self._pairs[0].pairs} of {_ROWS} rows"
            )
        means = [blend.mean for blend in self._centred if blend.mean is not None]
        if any((abs(one - means[0]) > _DIFFERENT).any() for one in means[1:] if one.shape == means[0].shape):
            yield _finding(f"inputs less the mean of their own batch, in {len(means)} batches")


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().flatten(1).cpu().double()


def _pairs(given: torch.Tensor, source: torch.Tensor) -> int:
    """How many of the first rows are `x_i + t (x_j - x_i)`, 0 < t < 1, and no affine function of `x_i`."""
    if given.shape[1] < _COORDINATES:
        return 0
    found = 0
    for i in range(_ROWS):
        own, step = source[i], given[i] - source[i]
        size = float(step.norm())
        if size <= _ROUNDING * float(own.norm()) or _affine(given[i], own):
            continue
        towards = source - own
        along = (towards @ step) / towards.square().sum(dim=1).clamp(min=1e-300)
        residual = (step - along[:, None] * towards).square().sum(dim=1) / size**2
        fits = (residual < _FIT) & (along > _ROUNDING) & (along < 1 - _ROUNDING)
        # Of records that take few values, such as codes, a random change of one may look like another one.
        values = (len(set(towards[j].tolist())) for j in fits.nonzero().flatten().tolist())
        found += any(count >= _COORDINATES for count in values)
    return found


def _affine(row: torch.Tensor, own: torch.Tensor) -> bool:
    """Whether a row is a multiple of another plus a constant, as of brightness and contrast."""
    a, b = row - row.mean(), own - own.mean()
    size = float(a.norm() * b.norm())
    return size == 0 or 1 - (float(a @ b) / size) ** 2 < 1e-4


def _centred(given: torch.Tensor, source: torch.Tensor) -> FloatArray | None:
    """The mean that was subtracted, if columns are the source's less their mean, times a factor each."""
    mean, deviation = source.mean(dim=0), source.std(dim=0)
    used = deviation > 0
    if int(used.sum()) < 2:
        return None
    given, source, mean, deviation = given[:, used], source[:, used], mean[used], deviation[used]
    spread = given.std(dim=0)
    if not bool((spread > 0).all()) or bool((given.mean(dim=0).abs() > _ROUNDING * spread).any()):
        return None
    centred = source - mean
    factor = (given * centred).sum(dim=0) / centred.square().sum(dim=0)
    residual = (given - factor * centred).norm() / given.norm()
    found: FloatArray = np.full(used.numel(), np.nan)  # A column may be constant in this batch alone.
    found[used.numpy()] = (mean / deviation).numpy()
    return found if float(residual) < _ROUNDING * 10 else None


def _finding(measured: str) -> Finding:
    return Finding(
        check="one record, one gradient",
        where="inputs of the model",
        expected="inputs that are each made of one record that the data loader handed out",
        measured=measured,
        epsilon=None,
        remedy="Do not mix records, or mix them with public ones; subtract a mean that is no batch's.",
    )
