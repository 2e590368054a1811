"""A training recipe as data: one model by the real loop, or many at once as a stack (`targets.ensemble`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from dpaudit.check import in_range, one_of
from dpaudit.errors import UsageError
from dpaudit.targets.broken.loop import Loop
from dpaudit.targets.plain_probe import PlainProbe

OPTIMIZERS: Mapping[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
SCHEDULES = ("constant", "cosine", "step")
SAMPLINGS = ("poisson", "shuffle")
Scheduler = torch.optim.lr_scheduler.LRScheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a classifier is trained by cross-entropy; an instance is a training function for a plan.

    Attributes:
        model: makes a fresh model from raw features (b, ...) to logits (b, classes).
        optimizer: "sgd", "adam" or "adamw" of torch, or a factory called as `optimizer(parameters, lr=...)`.
        learning_rate: at the start.
        optimizer_options: more arguments of a named optimizer, such as {"momentum": 0.9}.
        schedule: of the learning rate, one move a step: "constant", "cosine" (to 0 at the last step), "step"
            (a tenth after each third of the steps), or a factory called with the optimizer.
        epochs: passes over the members.
        batch_size: records of a shuffled batch; a Poisson batch has its expected size from it as in Opacus.
        sampling: "poisson" or "shuffle"; empty for Poisson with noise and shuffled batches without.
        noise_multiplier: noise over clipping norm in DP-SGD; None trains without privacy.
        max_grad_norm: clipping norm of DP-SGD.
        accountant: of Opacus, asked where the recipe is audited.
    """

    model: Callable[[], nn.Module]
    optimizer: str | Callable[..., torch.optim.Optimizer] = "sgd"
    learning_rate: float = 0.1
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    schedule: str | Callable[[torch.optim.Optimizer], Scheduler] = "constant"
    epochs: int = 10
    batch_size: int = 64
    sampling: str = ""
    noise_multiplier: float | None = None
    max_grad_norm: float = 1.0
    accountant: str = "prv"

    def __post_init__(self) -> None:
        """Refuse what no run can have."""
        for name, value, known in (
            ("optimizer", self.optimizer, tuple(OPTIMIZERS)),
            ("schedule", self.schedule, SCHEDULES),
            ("sampling", self.sampling or "shuffle", SAMPLINGS),
        ):
            if not callable(value):
                one_of(name, value, known)
        if callable(self.optimizer) and self.optimizer_options:
            raise UsageError(
                "Expected optimizer_options beside a named optimizer, found them beside a factory. "
                "Give them to the factory, such as functools.partial(torch.optim.SGD, momentum=0.9)."
            )
        in_range("epochs", self.epochs, 1, math.inf)
        in_range("batch_size", self.batch_size, 1, math.inf)
        in_range("max_grad_norm", self.max_grad_norm, 0.0, math.inf, open_low=True)
        if self.noise_multiplier is not None:
            in_range("noise_multiplier", self.noise_multiplier, 0.0, math.inf)

    def __call__(
        self, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], *, seed: int, device: str
    ) -> nn.Module:
        """Train one model by the real loop, PyTorch's or Opacus's, on exactly these records.

        Draws from torch's global generators, which an audit seeds: the loop sets no seed of its own, since
        training code that does can be replayed by anybody who knows it.
        """
        features, labels = tensors(x, y)
        if self.noise_multiplier is None:
            return self._plain(features, labels, device)
        loop = Loop(
            x=features,
            y=labels,
            device=device,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            noise_multiplier=self.noise_multiplier,
            max_grad_norm=self.max_grad_norm,
            accountant=self.accountant,
            network=lambda features, classes: self.model(),
            inner=lambda parameters, lr: self.new_optimizer(parameters),
            schedule=partial(self.new_scheduler, steps=self.epochs * self.steps(len(labels))),
            private={"poisson_sampling": self.poisson},
        )
        return loop.fit()

    @property
    def poisson(self) -> bool:
        """Whether every record has its own coin in every step."""
        return (self.sampling or ("poisson" if self.private else "shuffle")) == "poisson"

    @property
    def private(self) -> bool:
        """Whether it is DP-SGD."""
        return self.noise_multiplier is not None

    def steps(self, n_records: int) -> int:
        """Steps of one epoch."""
        return max(1, math.ceil(n_records / self.batch_size))

    def new_optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        """Over these parameters, of one model or stacked."""
        if callable(self.optimizer):
            return self.optimizer(parameters, lr=self.learning_rate)
        kind: Callable[..., torch.optim.Optimizer] = OPTIMIZERS[self.optimizer]
        return kind(parameters, lr=self.learning_rate, **self.optimizer_options)

    def new_scheduler(self, optimizer: torch.optim.Optimizer, *, steps: int) -> Scheduler:
        """Over so many steps in all."""
        if callable(self.schedule):
            return self.schedule(optimizer)
        kinds = torch.optim.lr_scheduler
        if self.schedule == "cosine":
            return kinds.CosineAnnealingLR(optimizer, T_max=steps)
        if self.schedule == "step":
            return kinds.StepLR(optimizer, step_size=max(1, math.ceil(steps / 3)), gamma=0.1)
        return kinds.ConstantLR(optimizer, factor=1.0)

    def _plain(self, features: torch.Tensor, labels: torch.Tensor, device: str) -> nn.Module:
        """The loop without privacy."""
        model = self.model().to(device).train()
        optimizer = self.new_optimizer([p for p in model.parameters() if p.requires_grad])
        loader = self._loader(TensorDataset(features, labels))
        batch: tuple[torch.Tensor, torch.Tensor] = (torch.empty(0), torch.empty(0))
        PlainProbe(optimizer, lambda: per_record_gradients(model, *batch), lambda: (model, batch[0]))
        scheduler = self.new_scheduler(optimizer, steps=self.epochs * len(loader))
        for _ in range(self.epochs):
            for loaded in loader:
                batch = (loaded[0].to(device), loaded[1].to(device))
                optimizer.zero_grad()
                # The mean of the batch; of a Poisson batch that came out empty, nothing.
                total = cross_entropy(model(batch[0]), batch[1], reduction="sum")
                (total / max(len(batch[1]), 1)).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                scheduler.step()
        return model

    def _loader(self, data: TensorDataset) -> DataLoader[Any]:
        if not self.poisson:
            return DataLoader(data, batch_size=self.batch_size, shuffle=True)
        steps = self.steps(len(data))
        sampler = UniformWithReplacementSampler(
            num_samples=len(data), sample_rate=1 / steps, generator=None, steps=steps
        )

        def collate(records: list[Any]) -> list[torch.Tensor]:
            if records:
                return [torch.stack(column) for column in zip(*records, strict=True)]
            return [tensor[:0] for tensor in data.tensors]

        return DataLoader(data, batch_sampler=sampler, collate_fn=collate)


def tensors(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (n, ...) as float32, or int64 where they are integers such as tokens; labels (n,) as int64."""
    whole = np.issubdtype(np.asarray(x).dtype, np.integer)
    return torch.as_tensor(x, dtype=torch.int64 if whole else torch.float32), torch.as_tensor(y).long()


def per_record_gradients(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cross-entropy gradient of each record, (b, d), by vectorised differentiation."""
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def loss(values: dict[str, torch.Tensor], features: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return cross_entropy(functional_call(model, values, (features[None],)), label[None])

    gradients = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")(parameters, x, y)
    return torch.cat([gradients[name].reshape(len(x), -1) for name in parameters], dim=1)
