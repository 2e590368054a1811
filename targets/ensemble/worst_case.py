"""Models with and without one record, all from the initial weights at which every other record is fitted."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from dpaudit.asking import Game
from dpaudit.canary import Canaries
from dpaudit.check import BoolArray, FloatArray
from dpaudit.targets.ensemble.shadows import recipe_of
from dpaudit.targets.ensemble.training import train_ensemble
from dpaudit.targets.recipe import Recipe, tensors

_STEPS, _BATCH, _RATE, _FITTED = 1000, 2048, 5e-3, 2e-3


def play(
    game: Game,
    fit: Callable[..., Any],
    options: Mapping[str, Any],
    canaries: Canaries,
    coins: BoolArray,
    seeds: Sequence[int],
    device: str,
) -> FloatArray:
    """Scores (M,) of the canary in M models, of which those with a coin were trained with it.

    Add or remove one record. What training derives from the number of records is the same on both sides,
    since the guarantee of DP-SGD takes that number as known. Costs M trainings, stacked.

    Args:
        game: chooses the record and scores the models.
        fit: a training function that `stackable` accepts.
        options: of it.
        canaries: whose members are the other records.
        coins: (M,) whether the canary is in.
        seeds: (M,) of batches and noise.
        device: cpu or cuda.
    """
    recipe = recipe_of(fit, options, canaries)
    x, y = canaries.train_x.astype(np.float32), canaries.train_y
    start = fitted(recipe, x, y, device)
    record = game.features(x.astype(np.float64)).astype(np.float32)
    label = game.label(_log_probabilities(start, record, device))
    member = np.ones((len(coins), len(y) + 1), dtype=np.bool_)
    member[:, -1] = coins
    ensemble = train_ensemble(
        replace(recipe, model=lambda: copy.deepcopy(start).cpu()),
        np.concatenate([x, record[None]]),
        np.append(y, label),
        member,
        seeds,
        device,
        public=len(y),
    )
    return game.scores(ensemble.log_probabilities(record[None])[:, 0], label)


def fitted(recipe: Recipe, x: np.ndarray, y: np.ndarray, device: str) -> nn.Module:
    """A model of the recipe that fits every record: trained without privacy, for 1,000 steps at most.

    Its seed is fixed: the adversary may choose the initial weights, and all runs share them.
    """
    features, labels = (part.to(device) for part in tensors(x, y))
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []):
        torch.manual_seed(0)
        model = recipe.model().to(device).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=_RATE)
        for _ in range(_STEPS):
            chosen = torch.randperm(len(labels), device=device)[:_BATCH]
            optimizer.zero_grad()
            loss = cross_entropy(model(features[chosen]), labels[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if loss.item() < _FITTED:
                break
    return model


def _log_probabilities(model: nn.Module, record: np.ndarray, device: str) -> FloatArray:
    with torch.no_grad():
        logits = copy.deepcopy(model).eval()(torch.as_tensor(record[None], device=device))
    found: FloatArray = torch.log_softmax(logits.double(), dim=-1)[0].cpu().numpy()
    return found
