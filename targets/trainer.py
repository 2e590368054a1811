"""The built-in training loop: one loop, Opacus on or off.

Both are ordinary training functions `fit(x, y, *, seed, device, ...)` and know nothing of the audit,
but for the plain one's single line that lets itself be watched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from dpaudit.check import one_of
from dpaudit.targets.broken import FAULTS, Loop
from dpaudit.targets.models import mlp
from dpaudit.targets.plain_probe import PlainProbe


def fit_plain(
    x: np.ndarray[Any, Any],
    y: np.ndarray[Any, Any],
    *,
    seed: int,
    device: str,
    hidden: Sequence[int] = (32,),
    epochs: int = 40,
    batch_size: int = 64,
    learning_rate: float = 0.5,
) -> nn.Module:
    """Train a fully connected network by SGD on shuffled batches, without privacy."""
    model, optimizer, loader = _parts(x, y, device, hidden, batch_size, learning_rate)
    batch: tuple[torch.Tensor, torch.Tensor] = (torch.empty(0), torch.empty(0))
    PlainProbe(optimizer, lambda: per_record_gradients(model, *batch))
    for _ in range(epochs):
        for loaded in loader:
            batch = (loaded[0].to(device), loaded[1].to(device))
            optimizer.zero_grad()
            cross_entropy(model(batch[0]), batch[1]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model


def fit_opacus(
    x: np.ndarray[Any, Any],
    y: np.ndarray[Any, Any],
    *,
    seed: int,
    device: str,
    hidden: Sequence[int] = (32,),
    epochs: int = 40,
    batch_size: int = 64,
    learning_rate: float = 0.5,
    noise_multiplier: float = 1.5,
    max_grad_norm: float = 1.0,
    accountant: str = "prv",
    grad_sample_mode: str = "hooks",
    fault: str | None = None,
) -> nn.Module:
    """Train the same network by DP-SGD with Opacus, optionally with one planted fault.

    Raises:
        UsageError: unknown fault, with the nearest right name.
    """
    planted = FAULTS[one_of("fault", fault, FAULTS)] if fault is not None else None
    options: dict[str, Any] = {
        "hidden": hidden,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "noise_multiplier": noise_multiplier,
        "max_grad_norm": max_grad_norm,
        "accountant": accountant,
        "grad_sample_mode": grad_sample_mode,
        "device": device,
    }
    features, labels = torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y, dtype=torch.int64)
    if planted is None:
        return Loop(x=features, y=labels, **options).fit()
    options |= {**planted.options, "mixin": planted.mixin}
    return planted.loop(x=features, y=labels, **options).fit()


def per_record_gradients(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cross-entropy gradient of each record, (b, d), by vectorised differentiation."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(values: dict[str, torch.Tensor], features: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return cross_entropy(functional_call(model, values, (features[None],)), label[None])

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
    return torch.cat([gradients[name].reshape(len(x), -1) for name in parameters], dim=1)


def _parts(
    x: np.ndarray[Any, Any],
    y: np.ndarray[Any, Any],
    device: str,
    hidden: Sequence[int],
    batch_size: int,
    learning_rate: float,
) -> tuple[nn.Module, torch.optim.Optimizer, DataLoader[Any]]:
    """Model, optimizer and loader before any privacy."""
    features = torch.as_tensor(x, dtype=torch.float32)
    labels = torch.as_tensor(y, dtype=torch.int64)
    model = mlp(features[0].numel(), hidden, int(labels.max()) + 1).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    loader = DataLoader(TensorDataset(features, labels), batch_size=batch_size, shuffle=True)
    return model, optimizer, loader
