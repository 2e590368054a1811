"""Faults that real DP-SGD code has had, planted in an otherwise correct Opacus optimizer.

Each fault is a mixin over whatever optimizer class Opacus chose, so that everything but the fault
stays the real thing. They are negative controls: the audit has to refute them without knowing them.
"""

from __future__ import annotations

import torch
from opacus.optimizers import DPOptimizer

from dpaudit.check import one_of


class _OtherNoise(DPOptimizer):  # type: ignore[misc]
    """Noise of another standard deviation than sigma * C."""

    def std(self) -> float:
        """The wrong standard deviation; here, no noise at all."""
        return 0.0

    def add_noise(self) -> None:
        for p in self.params:
            noise = torch.normal(0.0, self.std(), p.shape, device=p.device, generator=self.generator)
            p.grad = (p.summed_grad + noise).view_as(p)


class _NoiseDividedByBatch(_OtherNoise):
    """Noise is divided by the batch twice: its std in the mean is sigma*C/B^2, not sigma*C/B."""

    def std(self) -> float:
        return float(self.noise_multiplier * self.max_grad_norm / self.expected_batch_size)


class _HalfNoise(_OtherNoise):
    """Noise of half the scale: a factor 2 lost between sensitivity conventions."""

    def std(self) -> float:
        return float(self.noise_multiplier * self.max_grad_norm / 2)


class _NoiseWithoutClip(_OtherNoise):
    """The std of the noise is sigma, whatever the clipping norm."""

    def std(self) -> float:
        return float(self.noise_multiplier)


class _LastParameterWithoutNoise(DPOptimizer):  # type: ignore[misc]
    """The loop that adds noise ends one parameter early."""

    def add_noise(self) -> None:
        super().add_noise()
        last = self.params[-1]
        last.grad = last.summed_grad.view_as(last).clone()


class _SameNoiseEachStep(DPOptimizer):  # type: ignore[misc]
    """The generator is seeded anew in every step."""

    def add_noise(self) -> None:
        torch.manual_seed(0)
        super().add_noise()


class _ClipsTheBatch(DPOptimizer):  # type: ignore[misc]
    """The gradient of the batch is clipped, not that of each record."""

    def clip_and_accumulate(self) -> None:
        sums = [self._get_flat_grad_sample(p).sum(dim=0) for p in self.params]
        norm = torch.stack([g.norm() for g in sums]).norm()
        factor = (self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        for p, g in zip(self.params, sums, strict=True):
            p.summed_grad = g * factor if p.summed_grad is None else p.summed_grad + g * factor


class _ClipsEachLayerInFull(DPOptimizer):  # type: ignore[misc]
    """Every parameter's gradient is clipped to C by itself, so the whole has norm up to sqrt(L)*C."""

    def clip_and_accumulate(self) -> None:
        for p in self.params:
            sample = self._get_flat_grad_sample(p)
            norms = sample.reshape(len(sample), -1).norm(dim=1)
            factor = (self.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)
            summed = torch.einsum("i,i...", factor, sample)
            p.summed_grad = summed if p.summed_grad is None else p.summed_grad + summed


FAULTS: dict[str, type[DPOptimizer]] = {
    "noise-divided-by-batch": _NoiseDividedByBatch,
    "half-noise": _HalfNoise,
    "no-noise": _OtherNoise,
    "noise-without-clip": _NoiseWithoutClip,
    "last-parameter-without-noise": _LastParameterWithoutNoise,
    "same-noise-each-step": _SameNoiseEachStep,
    "clips-the-batch": _ClipsTheBatch,
    "clips-each-layer-in-full": _ClipsEachLayerInFull,
}
"""Every fault by name."""


def plant(optimizer: DPOptimizer, fault: str) -> None:
    """Give `optimizer` the named fault, in place.

    Raises:
        UsageError: unknown fault, with the nearest right name.
    """
    one_of("fault", fault, FAULTS)
    mixin = FAULTS[fault]
    optimizer.__class__ = type(mixin.__name__.strip("_"), (mixin, type(optimizer)), {})
