"""Models with one unknown record each, and shadow models with known ones, beside the same other records."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dpaudit.asking import Reconstructs
from dpaudit.canary import Canaries
from dpaudit.check import FloatArray, IntArray
from dpaudit.errors import UsageError
from dpaudit.evidence import Guesses, Rebuilt
from dpaudit.targets.answers import log_probabilities
from dpaudit.targets.ensemble.line_up import fresh
from dpaudit.targets.ensemble.shadows import recipe_of
from dpaudit.targets.ensemble.training import Ensemble, train_ensemble, trained
from dpaudit.targets.ensemble.worst_case import fitted
from dpaudit.targets.recipe import Recipe

_FEWEST = 8
"""Records for shadow models, beside the candidates."""


def play(
    game: Reconstructs,
    fit: Callable[..., Any],
    options: Mapping[str, Any],
    canaries: Canaries,
    rng: np.random.Generator,
    device: str,
) -> tuple[Guesses | Rebuilt, ...]:
    """Games won and played, and how near records came; what depends on their number is as without one.

    Costs models + shadows trainings, stacked, and memory for all their weights twice.

    Args:
        game: chooses labels, learns, and rebuilds.
        fit: a training function that `stackable` accepts.
        options: of it.
        canaries: whose members are the other records; of its non-members, n are candidates and the others the
            adversary's.
        rng: of candidates, of who is in, and of seeds.
        device: cpu or cuda.

    Raises:
        UsageError: too few records outside the training set.
    """
    recipe = recipe_of(fit, options, canaries)
    x, y = canaries.train_x.astype(np.float32), canaries.train_y
    outside = rng.permutation(np.flatnonzero(~canaries.member & ~canaries.canary))
    size = game.sizes[-1]
    if len(outside) < size + _FEWEST:
        raise UsageError(
            f"Expected at least {size + _FEWEST} records outside the training set for {game.name}, {size} of "
            f"them candidates, found {len(outside)}. Ask for fewer candidates."
        )
    others, own = canaries.x[outside].astype(np.float32), canaries.y[outside]
    start = fitted(recipe, x, y, device) if game.start == "fitted" else fresh(recipe).to(device)
    labels = game.labels(log_probabilities(copy.deepcopy(start), others.astype(np.float64), device), own)
    public_seed = game.batches == "known" and not recipe.private
    secrets = _secrets(size, game.models, public_seed, rng)
    shadows = size + np.arange(game.shadows) % (len(outside) - size)
    chosen = np.concatenate([shadows, secrets])
    member = np.ones((len(chosen), len(y) + len(others)), dtype=np.bool_)
    member[:, len(y) :] = chosen[:, None] == np.arange(len(others))
    seeds = rng.integers(2**31, size=len(chosen))
    ensemble = train_ensemble(
        recipe if game.start == "recipe" else replace(recipe, model=lambda: copy.deepcopy(start).cpu()),
        np.concatenate([x, others]),
        np.concatenate([y, labels]),
        member,
        np.where(public_seed, seeds[0], seeds).tolist(),
        device,
        public=len(y),
    )
    weights, candidates = _weights(recipe, ensemble), others[:size].astype(np.float64)
    known = others[shadows].astype(np.float64)
    return game.reconstructed(
        weights[: len(shadows)], known, weights[len(shadows) :], candidates, secrets, rng
    )


def _secrets(size: int, models: int, once: bool, rng: np.random.Generator) -> IntArray:
    """(M,) candidates that are in; each once at most where equal records would give equal models."""
    drawn = rng.permutation(size)[:models] if once else rng.integers(size, size=models)
    return drawn.astype(np.int64)


def _weights(recipe: Recipe, ensemble: Ensemble) -> FloatArray:
    """(M, p) of all that the optimizer updates, in its order."""
    parts = [value.flatten(1).double().numpy() for value in trained(recipe, ensemble.values).values()]
    return np.concatenate(parts, axis=1)
