"""What a final model takes for each of its classes, found by its gradients; and weights of linear models."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from dpaudit.asking import RepresentativesAsked
from dpaudit.check import FloatArray
from dpaudit.likeness import picture

Predict = Callable[[torch.Tensor], torch.Tensor]
_STREAM = 20_151_012
_RATE, _SPREAD = 0.03, 0.1
"""Length of the first steps and spread of the starting points, as shares of the range of values."""
_EXACT = 1e-4


def representatives(
    model: Predict, x: FloatArray, classes: int, asked: RepresentativesAsked, device: str
) -> FloatArray:
    """Of each class a picture that the model takes for it most surely (Fredrikson et al. 2015,
    doi:10.1145/2810103.2813677).

    Climbs log-probability less total variation by Adam (Kingma and Ba 2015, arXiv:1412.6980) within the
    range of values of the records, from grey with a little noise. Of the restarts of a class the best is
    kept, by what is climbed. All classes and restarts are searched at once: the price is `iterations`
    forward and backward passes of classes * restarts records.

    Args:
        model: from raw features (b, ...) to logits (b, classes).
        x: records (n, ...), of which the shape and the range of values are used.
        classes: how many.
        asked: the search.
        device: cpu or cuda.

    Returns:
        (classes, ...); (0,) where records are no pictures or the model cannot be differentiated.
    """
    shape = x.shape[1:]
    size = picture(shape, asked.height, asked.width)
    if size is None:
        return np.zeros(0)
    low, span = float(x.min()), max(float(np.ptp(x)), 1e-12)
    label = torch.arange(classes, device=device).repeat_interleave(asked.restarts)
    rng = np.random.default_rng(_STREAM)
    start = 0.5 + _SPREAD * rng.standard_normal((len(label), *shape))
    unit = torch.as_tensor(start, dtype=torch.float32, device=device).clamp(0, 1).requires_grad_()
    adam = torch.optim.Adam([unit], lr=_RATE)

    def said() -> torch.Tensor:
        logits = model(low + span * unit)
        return torch.log_softmax(logits, dim=-1)[torch.arange(len(label)), label]

    def worth() -> torch.Tensor:
        return said() - asked.smoothness * _variation(unit.reshape(len(label), -1, *size))

    try:
        with torch.enable_grad():
            torch.autograd.grad(said().sum(), unit)  # Raises where nothing leads back to the inputs.
            for _ in range(asked.iterations):
                (slope,) = torch.autograd.grad(worth().sum(), unit)
                unit.grad = -slope
                adam.step()
                unit.data.clamp_(0, 1)
    except (RuntimeError, NotImplementedError):
        return np.zeros(0)
    with torch.no_grad():
        reached = worth().reshape(classes, asked.restarts)
    best = reached.argmax(dim=1) + asked.restarts * torch.arange(classes, device=device)
    found: FloatArray = (low + span * unit.detach()[best]).double().cpu().numpy()
    return found


def _variation(pictures: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference (b,) of neighbouring pixels of (b, channels, h, w)."""
    down = pictures.diff(dim=2).abs().flatten(1).mean(dim=1)
    right = pictures.diff(dim=3).abs().flatten(1).mean(dim=1)
    return down + right


def linear(model: Predict, x: FloatArray, scores: FloatArray) -> FloatArray:
    """(classes, features + 1) weights and then bias of a model that is one dense layer, else (0, 0).

    That nothing is done to records before the layer is not assumed: its own log-probabilities of the records
    have to be those of the model.

    Args:
        model: of which the weights are read.
        x: records (n, ...).
        scores: log-probabilities (n, classes) of the model.
    """
    modules = model.modules() if isinstance(model, nn.Module) else ()
    parts = [part for part in modules if isinstance(part, nn.Linear)]
    if len(parts) != 1 or parts[0].in_features != x[0].size or parts[0].out_features != scores.shape[1]:
        return np.zeros((0, 0))
    weight = parts[0].weight.detach().double().cpu().numpy()
    bias = np.zeros(len(weight)) if parts[0].bias is None else parts[0].bias.detach().double().cpu().numpy()
    logits = x.reshape(len(x), -1) @ weight.T + bias
    own = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    found = np.concatenate([weight, bias[:, None]], axis=1)
    return found if np.allclose(own, scores, rtol=_EXACT, atol=_EXACT) else np.zeros((0, 0))
