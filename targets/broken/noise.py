"""Noise that is too small, partly missing, drawn twice, or of another law."""

from __future__ import annotations

import math

import torch
from opacus.optimizers import DPOptimizer

from dpaudit.targets.broken.loop import Loop


class OtherNoise(DPOptimizer):  # type: ignore[misc]
    """Noise of another standard deviation than sigma * C; here, none at all."""

    def deviation(self) -> float:
        """The wrong standard deviation."""
        return 0.0

    def draw(self, p: torch.nn.Parameter, deviation: float) -> torch.Tensor:
        """Noise for one parameter."""
        return torch.normal(0.0, deviation, p.shape, device=p.device, generator=self.generator)

    def add_noise(self) -> None:
        """Opacus's loop, with the two methods above."""
        for p in self.params:
            p.grad = (p.summed_grad + self.draw(p, self.deviation())).view_as(p)


class DividedByBatch(OtherNoise):
    """Noise is divided by the batch twice: its deviation in the mean is sigma*C/B^2, not sigma*C/B."""

    def deviation(self) -> float:
        return float(self.noise_multiplier * self.max_grad_norm / self.expected_batch_size)


class WithoutClip(OtherNoise):
    """The deviation of the noise is sigma, whatever the clipping norm."""

    def deviation(self) -> float:
        return float(self.noise_multiplier)


class Variance(OtherNoise):
    """The variance is passed where the deviation belongs."""

    def deviation(self) -> float:
        return float((self.noise_multiplier * self.max_grad_norm) ** 2)


class Scaled(OtherNoise):
    """Noise of a constant factor too little."""

    factor = 1.0

    def deviation(self) -> float:
        return float(self.factor * self.noise_multiplier * self.max_grad_norm)


class Half(Scaled):
    """A factor 2 lost between sensitivity conventions."""

    factor = 0.5


class RootTwo(Scaled):
    """A factor sqrt(2) lost, as when noise is shared between two halves of a batch."""

    factor = 1 / math.sqrt(2)


class TenPercentLow(Scaled):
    """Noise 10 % too small."""

    factor = 0.9


class FivePercentLow(Scaled):
    """Noise 5 % too small."""

    factor = 0.95


class TwoPercentLow(Scaled):
    """Noise 2 % too small."""

    factor = 0.98


class LastParameterWithout(DPOptimizer):  # type: ignore[misc]
    """The loop that adds noise ends one parameter early."""

    def add_noise(self) -> None:
        """Noise, and its removal from the last parameter."""
        super().add_noise()
        last = self.params[-1]
        last.grad = last.summed_grad.view_as(last).clone()


class BiasesWithout(DPOptimizer):  # type: ignore[misc]
    """Only matrices get noise."""

    def add_noise(self) -> None:
        """Noise, and its removal from vectors."""
        super().add_noise()
        for p in self.params:
            if p.dim() == 1:
                p.grad = p.summed_grad.view_as(p).clone()


class SameEachStep(DPOptimizer):  # type: ignore[misc]
    """The generator is seeded anew in every step."""

    def add_noise(self) -> None:
        """Noise from a generator that starts over."""
        torch.manual_seed(0)
        super().add_noise()


class Uniform(OtherNoise):
    """Uniform noise of the right deviation."""

    def draw(self, p: torch.nn.Parameter, deviation: float) -> torch.Tensor:
        return (torch.rand(p.shape, generator=self.generator) - 0.5) * (math.sqrt(12.0) * deviation)

    def deviation(self) -> float:
        return float(self.noise_multiplier * self.max_grad_norm)


class Laplace(Uniform):
    """Laplace noise of the right deviation."""

    def draw(self, p: torch.nn.Parameter, deviation: float) -> torch.Tensor:
        u = torch.rand(p.shape, generator=self.generator) - 0.5
        return -u.sign() * torch.log1p(-2 * u.abs().clamp(max=0.4999999)) * (deviation / math.sqrt(2.0))


class Truncated(Uniform):
    """Normal noise cut off at three deviations."""

    def draw(self, p: torch.nn.Parameter, deviation: float) -> torch.Tensor:
        noise = torch.normal(0.0, deviation, p.shape, generator=self.generator)
        return noise.clamp(-3 * deviation, 3 * deviation)


class SeedInTheCode(Loop):
    """The training function seeds everything with a constant, so that anybody can draw its noise again."""

    def prepare(self) -> None:
        """Seed for the sake of reproducible figures."""
        torch.manual_seed(0)
