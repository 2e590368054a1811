"""Dropout with masks of each model's own, the same in whatever stack the model is trained."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

_WORD = 0xFFFFFFFF


@dataclass(slots=True, kw_only=True)
class Masks:
    """One dropout layer.

    A mask is a hash of seed, layer, step, record and unit instead of a draw from a generator: a generator
    for each model would have to be asked model by model, and padding would shift what it gives.

    Attributes:
        rate: probability with which a unit is dropped.
        seeds: (M,) of the models.
        layer: its number.
        step: how many masks there were.
    """

    rate: float
    seeds: torch.Tensor
    layer: int
    step: int = field(default=0)

    def __call__(self, h: torch.Tensor) -> torch.Tensor:
        """Drop units of h (M, B, ...) and scale the rest."""
        self.step += 1
        device = h.device
        key = _mixed(self.seeds.to(device) + 0x9E3779B9 * self.layer & _WORD)
        key = _mixed(key + 0x85EBCA6B * self.step & _WORD)
        records = torch.arange(h.shape[1], device=device)
        units = torch.arange(h[0, 0].numel(), device=device)
        rows = _mixed(key[:, None] + 0xC2B2AE35 * records & _WORD)
        uniform = _mixed(_mixed(rows[..., None] + 0x27D4EB2F * units & _WORD))
        keep = (uniform >= int(self.rate * 2**32)).view_as(h)
        return h * keep / (1.0 - self.rate) if self.rate < 1 else torch.zeros_like(h)


def _mixed(x: torch.Tensor) -> torch.Tensor:
    """A permutation of 32-bit words whose every bit depends on every other, in int64 (Wellons 2018)."""
    x = (x ^ (x >> 16)) * 0x7FEB352D & _WORD
    x = (x ^ (x >> 15)) * 0x846CA68B & _WORD
    return x ^ (x >> 16)
