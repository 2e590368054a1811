"""The built-in training functions: one recipe, Opacus on or off.

Both are ordinary training functions `fit(x, y, *, seed, device, ...)` and know nothing of the audit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from dpaudit.check import one_of
from dpaudit.targets.broken import FAULTS, Loop
from dpaudit.targets.models import mlp
from dpaudit.targets.recipe import Recipe


def plain_recipe(
    n_features: int,
    n_classes: int,
    *,
    hidden: Sequence[int] = (32,),
    epochs: int = 40,
    batch_size: int = 64,
    learning_rate: float = 0.5,
) -> Recipe:
    """SGD on shuffled batches, without privacy."""
    return Recipe(
        model=partial(mlp, n_features, tuple(hidden), n_classes),
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=batch_size,
    )


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
    recipe = plain_recipe(
        x[0].size,
        int(y.max()) + 1,
        hidden=hidden,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
    )
    return recipe(x.astype(np.float32), y, seed=seed, device=device)


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
