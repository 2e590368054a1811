"""Models with one of n candidates each, beside the same other records."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from dpaudit.asking import LineUp
from dpaudit.canary import Canaries
from dpaudit.errors import UsageError
from dpaudit.evidence import Guesses
from dpaudit.targets.answers import log_probabilities
from dpaudit.targets.ensemble.shadows import recipe_of
from dpaudit.targets.ensemble.training import train_ensemble
from dpaudit.targets.ensemble.worst_case import fitted
from dpaudit.targets.recipe import Recipe


def play(
    game: LineUp,
    fit: Callable[..., Any],
    options: Mapping[str, Any],
    canaries: Canaries,
    models: int,
    rng: np.random.Generator,
    device: str,
) -> tuple[Guesses, ...]:
    """Games won and played; what training derives from the number of records is as without a candidate.

    Costs so many trainings, stacked, and memory models * (members + n).

    Args:
        game: chooses labels and picks.
        fit: a training function that `stackable` accepts.
        options: of it.
        canaries: whose members are the other records, and of whose non-members the candidates are drawn.
        models: to train.
        rng: of candidates, of who is in, and of seeds.
        device: cpu or cuda.

    Raises:
        UsageError: fewer records outside the training set than candidates.
    """
    recipe = recipe_of(fit, options, canaries)
    x, y = canaries.train_x.astype(np.float32), canaries.train_y
    outside = np.flatnonzero(~canaries.member & ~canaries.canary)
    size = game.sizes[-1]
    if len(outside) < size:
        raise UsageError(
            f"Expected at least {size} records outside the training set for {game.name}, found "
            f"{len(outside)}. Ask for fewer candidates."
        )
    chosen = rng.choice(outside, size=size, replace=False)
    others, own = canaries.x[chosen].astype(np.float32), canaries.y[chosen]
    start = fitted(recipe, x, y, device) if game.start == "fitted" else fresh(recipe).to(device)
    labels = game.labels(log_probabilities(copy.deepcopy(start), others.astype(np.float64), device), own)
    secrets = rng.integers(size, size=models)
    member = np.ones((models, len(y) + size), dtype=np.bool_)
    member[:, len(y) :] = secrets[:, None] == np.arange(size)
    ensemble = train_ensemble(
        recipe if game.start == "recipe" else replace(recipe, model=lambda: copy.deepcopy(start).cpu()),
        np.concatenate([x, others]),
        np.concatenate([y, labels]),
        member,
        rng.integers(2**31, size=models).tolist(),
        device,
        public=len(y),
    )
    return game.evidence(ensemble.log_probabilities(others), labels, secrets, rng)


def fresh(recipe: Recipe) -> nn.Module:
    """A model before training, always the same."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the generators of every device.
        torch.default_generator.manual_seed(0)
        return recipe.model()
