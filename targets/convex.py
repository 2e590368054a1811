"""Multinomial logistic regression, trained to its optimum: a convex model, without privacy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from dpaudit.targets.models import mlp


def fit_convex(
    x: np.ndarray[Any, Any],
    y: np.ndarray[Any, Any],
    *,
    seed: int,
    device: str,
    weight_decay: float = 0.01,
    iterations: int = 500,
) -> nn.Module:
    """Minimise mean cross-entropy plus weight_decay / 2 times the squared norm of all weights, by L-BFGS.

    In double precision, because what is left of the gradient at the end is what hides a record. The released
    weights are rounded to single precision. The optimum is one whatever the seed.
    """
    features = torch.as_tensor(x, dtype=torch.float64, device=device)
    labels = torch.as_tensor(y, dtype=torch.int64, device=device)
    torch.manual_seed(seed)
    model = mlp(x[0].size, (), int(y.max()) + 1).double().to(device)
    search = torch.optim.LBFGS(
        model.parameters(),
        max_iter=iterations,
        tolerance_grad=1e-10,
        tolerance_change=1e-15,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        search.zero_grad()
        squares = torch.stack([p.square().sum() for p in model.parameters()]).sum()
        loss = cross_entropy(model(features), labels) + weight_decay / 2 * squares
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    search.step(closure)  # type: ignore[no-untyped-call]
    return model.float()
