"""Training functions for language models: next tokens, Opacus on or off. One record is one text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from opacus import PrivacyEngine
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from dpaudit.targets.language.model import CausalModel
from dpaudit.targets.language.texts import ALPHABET
from dpaudit.targets.plain_probe import PlainProbe

Forward = Callable[[torch.Tensor], torch.Tensor]


def losses(model: Forward, tokens: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy (b,) of the next tokens of each text (b, t); -1 is padding."""
    following = tokens[:, 1:]
    logits = model(tokens[:, :-1])
    said = (following >= 0).float()
    each = cross_entropy(logits.transpose(1, 2), following.clamp(min=0), reduction="none")
    return (each * said).sum(1) / said.sum(1).clamp(min=1)


def fit_plain(
    x: np.ndarray[Any, Any],
    y: np.ndarray[Any, Any],
    *,
    seed: int,
    device: str,
    epochs: int = 60,
    batch_size: int = 27,
    learning_rate: float = 0.003,
    width: int = 48,
    layers: int = 2,
    vocabulary: int = len(ALPHABET),
) -> nn.Module:
    """Train a small causal transformer by Adam on shuffled batches of texts, without privacy."""
    model = CausalModel(vocabulary, x.shape[1], width, layers).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    loader = DataLoader(_dataset(x), batch_size=batch_size, shuffle=True)
    batch = torch.zeros(0)
    PlainProbe(optimizer, lambda: per_record_gradients(model, batch))
    for _ in range(epochs):
        for (texts,) in loader:
            batch = texts.to(device)
            optimizer.zero_grad()
            losses(model, batch).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model


def fit_opacus(
    x: np.ndarray[Any, Any],
    y: np.ndarray[Any, Any],
    *,
    seed: int,
    device: str,
    epochs: int = 60,
    batch_size: int = 27,
    learning_rate: float = 0.003,
    width: int = 48,
    layers: int = 2,
    vocabulary: int = len(ALPHABET),
    noise_multiplier: float = 1.0,
    max_grad_norm: float = 1.0,
    accountant: str = "prv",
) -> nn.Module:
    """Train the same transformer by DP-Adam with Opacus; the unit of privacy is one text."""
    model = CausalModel(vocabulary, x.shape[1], width, layers).to(device).train()
    private, optimizer, loader = PrivacyEngine(accountant=accountant).make_private(
        module=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=learning_rate),
        data_loader=DataLoader(_dataset(x), batch_size=batch_size, shuffle=True),
        noise_multiplier=noise_multiplier,
        max_grad_norm=max_grad_norm,
    )
    for _ in range(epochs):
        for (texts,) in loader:
            optimizer.zero_grad()
            losses(private, texts.to(device)).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model


def _dataset(x: np.ndarray[Any, Any]) -> TensorDataset:
    return TensorDataset(torch.as_tensor(x).long())


def per_record_gradients(model: nn.Module, texts: torch.Tensor) -> torch.Tensor:
    """Gradient of each text over all that is trained, (b, d), by vectorised differentiation."""
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def loss(values: dict[str, torch.Tensor], text: torch.Tensor) -> torch.Tensor:
        return losses(lambda tokens: functional_call(model, values, (tokens,)), text[None])[0]

    made = vmap(grad(loss), in_dims=(None, 0), randomness="different")(parameters, texts)
    return torch.cat([made[name].reshape(len(texts), -1) for name in parameters], dim=1)
