"""Small networks for the built-in targets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(n_features: int, hidden: Sequence[int], n_classes: int) -> nn.Sequential:
    """A fully connected network with ReLU between its layers; input (b, ...), output (b, n_classes)."""
    widths = [n_features, *hidden, n_classes]
    layers: list[nn.Module] = [nn.Flatten()]
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
