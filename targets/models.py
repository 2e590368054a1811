"""Small networks for the built-in targets and for the controls."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from opacus.layers import DPLSTM
from torch import nn


def mlp(n_features: int, hidden: Sequence[int], n_classes: int) -> nn.Sequential:
    """A fully connected network with ReLU between its layers; input (b, ...), output (b, n_classes)."""
    widths = [n_features, *hidden, n_classes]
    layers: list[nn.Module] = [nn.Flatten()]
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def half_frozen(n_features: int, n_classes: int) -> nn.Module:
    """A network whose first layer is not trained."""
    model = mlp(n_features, (16,), n_classes)
    for parameter in model[1].parameters():
        parameter.requires_grad = False
    return model


def convolution(n_features: int, n_classes: int) -> nn.Module:
    """A convolution with group normalisation."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Unflatten(1, (1, n_features)),
        nn.Conv1d(1, 4, 3),
        nn.GroupNorm(2, 4),
        nn.Flatten(),
        nn.Linear(4 * (n_features - 2), n_classes),
    )


def per_token(n_features: int, n_classes: int) -> nn.Module:
    """A linear layer over tokens of 4 features: inputs (batch, tokens, features)."""
    tokens = n_features // 4
    layers = [nn.Flatten(), nn.Unflatten(1, (tokens, 4)), nn.Linear(4, 8), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(8 * tokens, n_classes))


class Tokens(nn.Module):
    """Embedding, layer normalisation and a linear layer over integer codes of the features."""

    def __init__(self, n_features: int, n_classes: int):
        super().__init__()
        self.embedding, self.norm = nn.Embedding(10, 8), nn.LayerNorm(8)
        self.head = nn.Linear(8, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, ...) to (b, n_classes)."""
        codes = (x.flatten(1).abs() * 3).long().clamp(max=9)
        logits: torch.Tensor = self.head(self.norm(self.embedding(codes)).mean(1))
        return logits


class Recurrent(nn.Module):
    """Opacus's LSTM over tokens of 4 features."""

    def __init__(self, n_features: int, n_classes: int):
        super().__init__()
        self.lstm, self.head = DPLSTM(4, 8, batch_first=True), nn.Linear(8, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, ...) to (b, n_classes)."""
        logits: torch.Tensor = self.head(self.lstm(x.flatten(1).reshape(len(x), -1, 4))[0][:, -1])
        return logits
