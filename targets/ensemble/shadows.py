"""Shadow models of a target as stacks: from a training function that a plan names to Views."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np

from dpaudit.asking import Asked
from dpaudit.canary import Canaries
from dpaudit.check import FloatArray
from dpaudit.claim import Ledger, Phase, Sampler
from dpaudit.protocols import View
from dpaudit.targets.answers import with_answers
from dpaudit.targets.ensemble.training import Ensemble, train_ensemble
from dpaudit.targets.models import mlp
from dpaudit.targets.observed import accuracy, hash_of, n_parameters
from dpaudit.targets.recipe import Recipe
from dpaudit.targets.trainer import fit_opacus, fit_plain


def stackable(fit: Callable[..., Any], options: Mapping[str, Any]) -> bool:
    """Whether shadow models of a training function are trained by `train_shadows`."""
    if isinstance(fit, Recipe):
        return True
    return fit in (fit_plain, fit_opacus) and options.get("fault") is None


def train_shadows(
    fit: Callable[..., Any],
    options: Mapping[str, Any],
    draws: Sequence[Canaries],
    seeds: Sequence[int],
    device: str,
    asked: Asked,
) -> tuple[View, ...]:
    """One shadow model for each draw of one pool, by the recipe of a stackable training function.

    No step is observed and no accountant runs, so a View has scores and no claim. A model that diverged has
    scores that are not finite.

    Args:
        fit: the training function, for which `stackable` holds.
        options: of it.
        draws: who is in.
        seeds: of each model.
        device: cpu or cuda.
        asked: what the model attacks want of every model beyond the scores of its records.
    """
    pool = draws[0]
    member = np.stack([draw.member for draw in draws])
    x = pool.x.astype(np.float32)
    recipe = recipe_of(fit, options, pool)
    ensemble = train_ensemble(recipe, x, pool.y, member, seeds, device)
    scores = ensemble.log_probabilities(x)
    test_scores = ensemble.log_probabilities(pool.test_x.astype(np.float32))
    return tuple(
        _view(ensemble, number, draw, scores[number], test_scores[number], asked)
        for number, draw in enumerate(draws)
    )


def recipe_of(fit: Callable[..., Any], options: Mapping[str, Any], pool: Canaries) -> Recipe:
    """The recipe that a stackable training function follows with these options on members of this pool."""
    if isinstance(fit, Recipe):
        return fit
    settings = {**(fit.__kwdefaults__ or {}), **options}
    model = partial(mlp, pool.x[0].size, tuple(settings["hidden"]), int(pool.y.max()) + 1)
    known = {field.name for field in fields(Recipe)} & set(settings)
    return replace(Recipe(model=model), **{name: settings[name] for name in known})


def _view(
    ensemble: Ensemble,
    number: int,
    draw: Canaries,
    scores: FloatArray,
    test_scores: FloatArray,
    asked: Asked,
) -> View:
    model = ensemble.model(number)
    clean = draw.member & ~draw.canary
    view = View(
        canaries=draw,
        scores=scores,
        test_scores=test_scores,
        test_accuracy=accuracy(test_scores, draw.test_y),
        train_accuracy=accuracy(scores[clean], draw.y[clean]),
        n_parameters=n_parameters(model),
        claim=None,
        ledger=_ledger(ensemble.recipe, int(draw.member.sum())),
        weights_sha256=hash_of(model),
        seconds=ensemble.seconds / len(ensemble),
    )
    return with_answers(view, model, asked, ensemble.device)


def _ledger(recipe: Recipe, n_records: int) -> Ledger:
    """The private steps of one model."""
    if recipe.noise_multiplier is None:
        return ()
    steps = recipe.steps(n_records)
    phase = Phase(
        noise_multiplier=recipe.noise_multiplier,
        sample_rate=1 / steps,
        steps=recipe.epochs * steps,
        max_grad_norm=recipe.max_grad_norm,
        sampler=Sampler.POISSON if recipe.poisson else Sampler.SHUFFLE,
    )
    return (phase,)
