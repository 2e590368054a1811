"""A small causal transformer over token ids, of layers that Opacus has per-record gradients for."""

from __future__ import annotations

import torch
from torch import nn


class Block(nn.Module):
    """Causal self-attention and a two-layer network, each behind a layer normalisation."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, t, width) to the same."""
        b, t, width = x.shape
        parts = self.project(self.before(x)).reshape(b, t, 3, self.heads, width // self.heads)
        query, keys, values = parts.permute(2, 0, 3, 1, 4)
        weight = query @ keys.transpose(-1, -2) / (width // self.heads) ** 0.5
        future = torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1)
        seen = torch.softmax(weight.masked_fill(future, float("-inf")), dim=-1) @ values
        x = x + self.merge(seen.transpose(1, 2).reshape(b, t, width))
        narrowed: torch.Tensor = self.narrow(torch.relu(self.widen(self.between(x))))
        return x + narrowed


class CausalModel(nn.Module):
    """Logits of the next token at every place.

    Attributes:
        vocabulary: number of tokens; ids beyond it are read as the last one.
        longest: tokens of the longest sequence.
    """

    def __init__(self, vocabulary: int, longest: int, width: int = 64, layers: int = 2, heads: int = 4):
        super().__init__()
        self.vocabulary, self.longest = vocabulary, longest
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(longest, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Ids (b, t) of any number type, -1 padding, to logits (b, t, vocabulary); t up to `longest`."""
        ids = x.long().clamp(0, self.vocabulary - 1)
        # One row of places a record, because Opacus counts records along the first dimension.
        places = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        logits: torch.Tensor = self.head(self.norm(self.blocks(self.tokens(ids) + self.places(places))))
        return logits
