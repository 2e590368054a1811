"""Clips that leave one record more influence than the clipping norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from opacus.optimizers import DPOptimizer
from torch import nn
from torch.nn.functional import cross_entropy

from dpaudit.targets.broken.loop import Loop


class OtherClip(DPOptimizer):  # type: ignore[misc]
    """Per-record factors computed in another way; the loop is Opacus's."""

    def factors(self, samples: Sequence[torch.Tensor]) -> torch.Tensor:
        """(b,) factors from per-record gradients (b, size) of each parameter."""
        norms = torch.stack([s.norm(dim=1) for s in samples], dim=1).norm(dim=1)
        return self.limited(norms)

    def limited(self, norms: torch.Tensor) -> torch.Tensor:
        """min(1, C / norm)."""
        factors: torch.Tensor = (self.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)
        return factors

    def clip_and_accumulate(self) -> None:
        """Opacus's loop, with these factors."""
        samples = [self._get_flat_grad_sample(p) for p in self.params]
        factors = self.factors([s.flatten(1) if len(s) else s.reshape(0, 1) for s in samples])
        for p, sample in zip(self.params, samples, strict=True):
            summed = torch.einsum("i,i...", factors, sample)
            p.summed_grad = summed if p.summed_grad is None else p.summed_grad + summed


class Batch(DPOptimizer):  # type: ignore[misc]
    """The sum over the batch is clipped, not each record."""

    def clip_and_accumulate(self) -> None:
        """Sum first."""
        sums = [self._get_flat_grad_sample(p).sum(dim=0) for p in self.params]
        norm = torch.stack([g.norm() for g in sums]).norm()
        factor = (self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        for p, g in zip(self.params, sums, strict=True):
            p.summed_grad = g * factor if p.summed_grad is None else p.summed_grad + g * factor


class BatchGradient(DPOptimizer):  # type: ignore[misc]
    """`clip_grad_norm_` on the mean gradient, with noise of deviation sigma * C: DP-SGD by hand."""

    divides_noise = False

    def pre_step(self, closure: object = None) -> bool:
        """Clip what autograd left in `p.grad`."""
        torch.nn.utils.clip_grad_norm_(self.params, self.max_grad_norm)
        deviation = self.noise_multiplier * self.max_grad_norm
        if self.divides_noise:
            deviation /= self.expected_batch_size
        for p in self.params:
            p.grad = p.grad + torch.normal(0.0, deviation, p.shape, generator=self.generator)
        if self.step_hook:
            self.step_hook(self)
        return True


class BatchGradientDivided(BatchGradient):
    """The same, with the noise divided by the batch as if the records had been clipped."""

    divides_noise = True


class EachLayerInFull(DPOptimizer):  # type: ignore[misc]
    """Every parameter's gradient is clipped to C by itself, so the whole has norm up to sqrt(L)*C."""

    def clip_and_accumulate(self) -> None:
        """One factor for each parameter."""
        for p in self.params:
            sample = self._get_flat_grad_sample(p)
            norms = sample.flatten(1).norm(dim=1) if len(sample) else sample.new_zeros(0)
            factor = (self.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)
            summed = torch.einsum("i,i...", factor, sample)
            p.summed_grad = summed if p.summed_grad is None else p.summed_grad + summed


class MicroBatchMeans(DPOptimizer):  # type: ignore[misc]
    """Means over pairs of records are clipped, and counted as if each were a record."""

    def clip_and_accumulate(self) -> None:
        """Average pairs before the clip, and multiply by their size after it."""
        for p in self.params:
            sample = self._get_flat_grad_sample(p)
            if len(sample):
                p.grad_sample = torch.stack([part.mean(dim=0) for part in sample.split(2)])
        super().clip_and_accumulate()


class LargestCoordinate(OtherClip):
    """The norm is the largest coordinate."""

    def factors(self, samples: Sequence[torch.Tensor]) -> torch.Tensor:
        """The L-infinity norm."""
        if not len(samples[0]):
            return super().factors(samples)
        return self.limited(torch.stack([s.abs().amax(dim=1) for s in samples], dim=1).amax(dim=1))


class ForgetsAParameter(OtherClip):
    """The first parameter, such as an embedding, is not part of the norm."""

    def factors(self, samples: Sequence[torch.Tensor]) -> torch.Tensor:
        """The norm over the others."""
        return super().factors(samples[1:])


class StaleNorms(OtherClip):
    """Factors of the previous batch are used where the sizes agree, and of its first records otherwise."""

    _before: torch.Tensor | None = None

    def factors(self, samples: Sequence[torch.Tensor]) -> torch.Tensor:
        """The factors of one step ago."""
        now = super().factors(samples)
        before, self._before = self._before, now
        if before is None:
            return now
        return torch.cat([before[: len(now)], now[len(before) :]])


class AugmentationsAsRecords(Loop):
    """Four augmentations of each record are stacked, and each is clipped as if it were a record."""

    def on_batch(self, features: torch.Tensor, labels: torch.Tensor) -> None:
        """Four times the batch."""
        noisy = [features + 0.01 * torch.randn_like(features) for _ in range(4)]
        super().on_batch(torch.cat(noisy), labels.repeat(4))


class _Standardised(nn.Module):
    """Features standardised by the mean and deviation of the batch: batch normalisation without buffers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, width) to (b, width)."""
        if len(x) < 2:
            return x
        return (x - x.mean(0)) / (x.std(0) + 1e-3)


class StandardisesByTheBatch(Loop):
    """Activations are normalised over the batch, so that each record moves the gradients of all."""

    def build(self) -> None:
        """The same network with the layer in its middle."""
        super().build()
        first, *rest = list(self.model.children())
        self.model = nn.Sequential(first, rest[0], _Standardised(), *rest[1:]).to(self.device)
        self.optimizer = self.inner(self.model.parameters(), lr=self.learning_rate)


class WeighsByTheBatch(Loop):
    """The loss weighs classes by how often they are in the batch."""

    def loss(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy with inverse frequencies of the batch."""
        outputs = self.wrapped(features)
        counts = torch.bincount(labels, minlength=outputs.shape[1]).clamp(min=1)
        return cross_entropy(outputs, labels, weight=len(labels) / counts.to(outputs.dtype))


class _Tied(nn.Module):
    """One square layer that is used twice."""

    def __init__(self, n_features: int, n_classes: int, width: int = 16):
        super().__init__()
        self.first, self.middle = nn.Linear(n_features, width), nn.Linear(width, width)
        self.head = nn.Linear(width, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, ...) to (b, n_classes)."""
        hidden = torch.relu(self.first(x.flatten(1)))
        logits: torch.Tensor = self.head(torch.relu(self.middle(torch.relu(self.middle(hidden)))))
        return logits


class GhostForgetsTies(Loop):
    """Ghost clipping of a layer that is used twice takes the norm of one use only."""

    def build(self) -> None:
        """A tied network, in ghost mode."""
        self.network, self.grad_sample_mode = _Tied, "ghost"
        super().build()

    def make_private(self) -> None:
        """Silence the refusal that Opacus would give."""
        super().make_private()

        def once(module: nn.Module, _: object) -> None:
            for p in module.parameters():
                p._forward_counter = 0  # type: ignore[attr-defined]

        middle: Any = self.model.middle
        middle.register_forward_pre_hook(once)
