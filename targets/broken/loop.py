"""DP-SGD with Opacus as its manual says, in pieces, so that a fault can replace one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from opacus import PrivacyEngine
from opacus.optimizers import DPOptimizer
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from dpaudit.targets.models import mlp


@dataclass(slots=True, kw_only=True)
class Loop:
    """One training run; `fit` goes through the methods in order.

    Attributes:
        x: (n, ...) features.
        y: (n,) labels.
        device: where to train.
        hidden: widths of the layers between.
        epochs: passes over the data.
        batch_size: expected size of a batch.
        learning_rate: of the underlying optimizer.
        noise_multiplier: noise over clipping norm.
        max_grad_norm: clipping norm, or one for each parameter.
        accountant: of Opacus.
        grad_sample_mode: how Opacus forms per-record gradients.
        network: makes the model from (features, classes); a fully connected one by default.
        inner: makes the underlying optimizer from parameters and learning rate.
        schedule: makes a scheduler from the private optimizer.
        micro_batch: largest physical batch; None for no virtual batches.
        autocast: whether to compute the forward pass in bfloat16.
        private: more arguments of `make_private`.
        mixin: a fault of the optimizer.
    """

    x: torch.Tensor
    y: torch.Tensor
    device: str = "cpu"
    hidden: Sequence[int] = (32,)
    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 0.5
    noise_multiplier: float = 1.5
    max_grad_norm: Any = 1.0
    accountant: str = "prv"
    grad_sample_mode: str = "hooks"
    network: Callable[[int, int], nn.Module] | None = None
    inner: Callable[..., torch.optim.Optimizer] = torch.optim.SGD
    schedule: Callable[[Any], Any] | None = None
    micro_batch: int | None = None
    autocast: bool = False
    private: Mapping[str, Any] = field(default_factory=dict)
    mixin: type[DPOptimizer] | None = None
    model: nn.Module = field(init=False)
    wrapped: Any = field(init=False)
    optimizer: Any = field(init=False)
    loader: Any = field(init=False)
    criterion: Any = field(init=False, default=cross_entropy)
    engine: PrivacyEngine = field(init=False)
    scheduler: Any = field(init=False, default=None)

    def fit(self) -> nn.Module:
        """Prepare, make private, train, and hand over the model."""
        self.prepare()
        self.build()
        self.make_private()
        for epoch in range(self.epochs):
            with self.batches() as batches:
                for features, labels in batches:
                    self.on_batch(features.to(self.device), labels.to(self.device))
            if self.finished(epoch):
                break
        return self.result()

    def prepare(self) -> None:
        """Turn raw features into the model's; nothing, unless it needs no data."""

    def dataset(self) -> Any:
        """The records."""
        return TensorDataset(self.x, self.y)

    def new_loader(self) -> DataLoader[Any]:
        """The loader that Opacus is given."""
        return DataLoader(self.dataset(), batch_size=self.batch_size, shuffle=True)

    def build(self) -> None:
        """Model, underlying optimizer and loader, before any privacy."""
        features, classes = self.x[0].numel(), int(self.y.max()) + 1
        network = self.network(features, classes) if self.network else mlp(features, self.hidden, classes)
        self.model = network.to(self.device)
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = self.inner(trainable, lr=self.learning_rate)
        self.loader = self.new_loader()

    def make_private(self) -> None:
        """Hand all of it to Opacus, and plant the optimizer's fault."""
        options = dict(self.private)
        if "ghost" in self.grad_sample_mode:
            options["criterion"] = nn.CrossEntropyLoss()
        self.engine = PrivacyEngine(accountant=self.accountant)
        made = self.engine.make_private(
            module=self.model,
            optimizer=self.optimizer,
            data_loader=self.loader,
            noise_multiplier=self.noise_multiplier,
            max_grad_norm=self.max_grad_norm,
            grad_sample_mode=self.grad_sample_mode,
            **options,
        )
        self.wrapped, self.optimizer, self.loader = made[0], made[1], made[-1]
        reduction = options.get("loss_reduction", "mean")
        self.criterion = made[2] if len(made) == 4 else partial(cross_entropy, reduction=reduction)
        if self.mixin is not None:
            self.optimizer.__class__ = mixed(self.mixin, type(self.optimizer))
        self.scheduler = self.schedule(self.optimizer) if self.schedule else None

    @contextmanager
    def batches(self) -> Iterator[Iterable[Any]]:
        """The batches of one epoch."""
        if self.micro_batch is None:
            yield self.loader
            return
        with BatchMemoryManager(
            data_loader=self.loader, max_physical_batch_size=self.micro_batch, optimizer=self.optimizer
        ) as small:
            yield small

    def loss(self, features: torch.Tensor, labels: torch.Tensor) -> Any:
        """The loss of one batch."""
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.autocast):
            return self.criterion(self.wrapped(features), labels)

    def on_batch(self, features: torch.Tensor, labels: torch.Tensor) -> None:
        """One step."""
        self.optimizer.zero_grad()
        self.loss(features, labels).backward()
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()

    def finished(self, epoch: int) -> bool:
        """Whether to stop after this epoch."""
        return False

    def result(self) -> nn.Module:
        """What is released."""
        return self.model


def mixed(mixin: type[DPOptimizer], optimizer: type[DPOptimizer]) -> type[DPOptimizer]:
    """An optimizer class with the fault in front of the real one, so that all else stays the real thing."""
    return type(mixin.__name__.strip("_"), (mixin, optimizer), {})
