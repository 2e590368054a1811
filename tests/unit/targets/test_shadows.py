"""The recipe of a stack is the one that the built-in training functions follow."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from dpaudit.asking import Asked
from dpaudit.targets import trainer
from dpaudit.targets.broken import loop
from dpaudit.targets.ensemble.shadows import recipe_of, stackable, train_shadows
from dpaudit.targets.recipe import Recipe
from tests.training import canaries, perceptron

OPTIONS = {"hidden": [9, 7], "epochs": 3, "batch_size": 17, "learning_rate": 0.3}
PRIVATE = {"noise_multiplier": 0.7, "max_grad_norm": 0.4}


@pytest.mark.parametrize("options", [{}, OPTIONS, OPTIONS | PRIVATE])
def test_a_stack_of_the_private_loop_has_the_settings_that_the_loop_gets(options, monkeypatch):
    seen: list[loop.Loop] = []

    def stop(self: loop.Loop) -> torch.nn.Module:
        seen.append(self)
        self.build()
        return self.model

    monkeypatch.setattr(loop.Loop, "fit", stop)
    draw = canaries()
    trainer.fit_opacus(draw.train_x, draw.train_y, seed=0, device="cpu", **options)
    recipe = recipe_of(trainer.fit_opacus, options, draw)
    (run,) = seen
    for name in ("epochs", "batch_size", "learning_rate", "noise_multiplier", "max_grad_norm"):
        assert getattr(recipe, name) == getattr(run, name), name
    assert str(recipe.model()) == str(run.model)
    assert type(recipe.new_optimizer(run.model.parameters())) is type(run.optimizer)
    assert recipe.poisson


@pytest.mark.parametrize("options", [{}, OPTIONS])
def test_a_stack_of_the_plain_loop_has_the_settings_that_the_loop_gets(options, monkeypatch):
    seen: list[Recipe] = []

    def note(self: Recipe, *_: object, **__: object) -> torch.nn.Module:
        seen.append(self)
        return self.model()

    monkeypatch.setattr(Recipe, "__call__", note)
    draw = canaries()
    trainer.fit_plain(draw.train_x, draw.train_y, seed=0, device="cpu", **options)
    recipe = recipe_of(trainer.fit_plain, options, draw)
    (run,) = seen
    for name in Recipe.__dataclass_fields__:
        if name != "model":
            assert getattr(recipe, name) == getattr(run, name), name
    assert str(recipe.model()) == str(run.model())
    assert not recipe.private and not recipe.poisson


def test_every_option_of_the_built_in_loops_is_known_to_stacks():
    known = set(Recipe.__dataclass_fields__) | {
        "hidden",
        "fault",
        "grad_sample_mode",
        "seed",
        "device",
        "x",
        "y",
    }
    for fit in (trainer.fit_plain, trainer.fit_opacus):
        assert set(inspect.signature(fit).parameters) <= known


def test_what_is_stackable():
    assert stackable(trainer.fit_plain, {}) and stackable(Recipe(model=perceptron), {})
    assert stackable(trainer.fit_opacus, {"fault": None, "grad_sample_mode": "ghost"})
    assert not stackable(trainer.fit_opacus, {"fault": "no-noise"})
    assert not stackable(lambda x, y, *, seed, device: perceptron(), {})


def test_views_are_those_of_the_models():
    draws = [canaries(), canaries()]
    recipe = Recipe(model=perceptron, epochs=3, noise_multiplier=1.0)
    views = train_shadows(recipe, {}, draws, [1, 2], "cpu", Asked())
    assert [view.canaries for view in views] == draws
    assert len({view.weights_sha256 for view in views}) == 2
    for view in views:
        assert view.scores.shape == (len(draws[0].y), 2) and view.scores.dtype == np.float64
        assert np.allclose(np.exp(view.scores).sum(1), 1.0)
        clean = view.canaries.member & ~view.canaries.canary
        right = (view.scores.argmax(1) == view.canaries.y)[clean].mean()
        assert view.train_accuracy == pytest.approx(right)
        assert 0 <= view.test_accuracy <= 1 and view.n_parameters == 16 * 8 + 8 + 8 * 2 + 2
        (phase,) = view.ledger
        assert phase.noise_multiplier == 1.0 and phase.steps == 3 * 2 and phase.sample_rate == 0.5
