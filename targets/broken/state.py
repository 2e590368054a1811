"""State that goes from one step to the next, or out of the run, beside the noisy gradient."""

from __future__ import annotations

from typing import Any

import torch
from opacus.optimizers import DPOptimizer
from torch import nn
from torch.nn.functional import cross_entropy

from dpaudit.targets.broken.loop import Loop


class KeepsSums(DPOptimizer):  # type: ignore[misc]
    """`zero_grad` leaves the summed gradients, which are released again in every later step."""

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Clear all but the sums."""
        kept = [p.summed_grad for p in self.params]
        super().zero_grad(set_to_none)
        for p, summed in zip(self.params, kept, strict=True):
            p.summed_grad = None if summed is None else summed.detach().clone()


class AdaptsClipWithoutNoise(DPOptimizer):  # type: ignore[misc]
    """The clipping norm is the exact median of the batch's gradient norms, and the noise follows it."""

    def clip_and_accumulate(self) -> None:
        """Set the norm, then clip."""
        samples = [s.flatten(1) if len(s) else s.reshape(0, 1) for s in self.grad_samples]
        if len(samples[0]):
            norms = torch.stack([s.norm(dim=1) for s in samples], dim=1).norm(dim=1)
            self.max_grad_norm = float(norms.median())
        super().clip_and_accumulate()


class RawMomentum(DPOptimizer):  # type: ignore[misc]
    """The step adds a little of the raw gradient to the weights, as a momentum that nobody noises."""

    def step(self, closure: Any = None) -> Any:
        """The private step and something beside it."""
        raw = [None if p.grad is None else p.grad.detach().clone() for p in self.params]
        result = super().step(closure)
        with torch.no_grad():
            for p, g in zip(self.params, raw, strict=True):
                if g is not None:
                    p.sub_(0.01 * g)
        return result


class RawPreconditioner(DPOptimizer):  # type: ignore[misc]
    """The noisy gradient is divided by a moving average of the raw one, as RMSprop would."""

    def scale_grad(self) -> None:
        """Scale, then precondition."""
        raw = [self._get_flat_grad_sample(p).mean(dim=0) for p in self.params]
        super().scale_grad()
        for p, g in zip(self.params, raw, strict=True):
            p.grad = p.grad / (1.0 + g.view_as(p).nan_to_num().abs().mean().sqrt())


class ScalerFittedOnTheData(Loop):
    """Features are standardised by the mean and deviation of the private records."""

    def prepare(self) -> None:
        """Fit and apply the scaler."""
        self.mean, self.std = self.x.mean(0), self.x.std(0) + 1e-6
        self.x = (self.x - self.mean) / self.std

    def result(self) -> nn.Module:
        """The model with its scaler, which is released, too."""
        return _Scaled(self.model, self.mean, self.std)

    mean: torch.Tensor
    std: torch.Tensor


class _Scaled(nn.Module):
    def __init__(self, model: nn.Module, mean: torch.Tensor, std: torch.Tensor):
        super().__init__()
        self.model = model
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Raw features to logits."""
        logits: torch.Tensor = self.model((x - self.mean) / self.std)
        return logits


class BestCheckpoint(Loop):
    """The checkpoint with the least loss on the training records is released."""

    def finished(self, epoch: int) -> bool:
        """Keep the weights if they are the best so far."""
        loss = self.train_loss()
        if loss < self.best[0]:
            self.best = loss, {name: value.clone() for name, value in self.model.state_dict().items()}
        return False

    def train_loss(self) -> float:
        """Of the private records."""
        with torch.no_grad():
            return float(cross_entropy(self.model(self.x.to(self.device)), self.y.to(self.device)))

    def prepare(self) -> None:
        """No checkpoint yet."""
        self.best = float("inf"), {}

    def result(self) -> nn.Module:
        """The best."""
        self.model.load_state_dict(self.best[1])
        return self.model

    best: tuple[float, dict[str, torch.Tensor]]


class EarlyStopping(BestCheckpoint):
    """Training ends when the loss on the training records has not fallen for two epochs."""

    def finished(self, epoch: int) -> bool:
        """Patience of two."""
        loss = self.train_loss()
        self.waited = 0 if loss < self.best[0] else self.waited + 1
        self.best = min(loss, self.best[0]), {}
        return self.waited >= 2

    def result(self) -> nn.Module:
        """The last."""
        return self.model

    waited: int = 0


class SkipsEmptyBatches(Loop):
    """An empty batch is passed over: no noise, no accounting."""

    def on_batch(self, features: torch.Tensor, labels: torch.Tensor) -> None:
        """Only what is there."""
        if len(features):
            super().on_batch(features, labels)


class DropsLargeBatches(Loop):
    """A batch that would not fit into memory is passed over."""

    def on_batch(self, features: torch.Tensor, labels: torch.Tensor) -> None:
        """Only what fits."""
        if len(features) <= 1.2 * self.batch_size:
            super().on_batch(features, labels)


class WarmUpWithoutPrivacy(Loop):
    """The first epoch trains without privacy, to get off the ground."""

    def make_private(self) -> None:
        """A few plain steps first."""
        for features, labels in self.loader:
            self.optimizer.zero_grad()
            loss: Any = cross_entropy(self.model(features.to(self.device)), labels.to(self.device))
            loss.backward()
            self.optimizer.step()
        super().make_private()
