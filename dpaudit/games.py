"""Attacks that have models of their own trained: trials of so many models, and their evidence together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dpaudit.asking import Game, LineUp, Reconstructs
from dpaudit.canary import Canaries
from dpaudit.claim import Adjacency
from dpaudit.evidence import Evidence, Guesses, Rebuilt, TwoSample
from dpaudit.plan import AuditPlan, TargetPlan
from dpaudit.protocols import View
from dpaudit.registry import LINE_UP, PLAY, RECONSTRUCT, STACKABLE, resolve
from dpaudit.trial import (
    TrialSpec,
    attacks_of,
    canaries_of,
    explained,
    save_view,
    target_of,
    training_function,
)

TOGETHER = 64
"""Models of one trial: more would be lost together."""
_STREAM = 0x6A3E


Played = Game | LineUp | Reconstructs
"""An attack that has models of its own trained."""


def games_of(plan: AuditPlan) -> dict[str, Played]:
    """Those attacks of a plan, by name."""
    return {
        name: attack
        for name, attack in attacks_of(plan).items()
        if isinstance(attack, (Game, LineUp, Reconstructs))
    }


def trials_of(plan: AuditPlan, target: TargetPlan, fit: object) -> Iterator[tuple[str, int]]:
    """Name of the game and number of each trial that a target needs; none where nothing can be stacked."""
    games = games_of(plan)
    if target.trained or not games or not resolve("trainer", STACKABLE, {})(fit, plan.options_of(target)):
        return
    for name, game in games.items():
        # A reconstructor learns once from all of its shadow models.
        for number in range(1 if isinstance(game, Reconstructs) else -(-game.models // TOGETHER)):
            yield name, number


def execute_game(spec: TrialSpec) -> float:
    """Train the models of one trial and write their scores under its key; returns seconds.

    Raises:
        TrialError: training raised.
        StoreError: the result could not be written.
    """
    start = time.perf_counter()
    game, target = games_of(spec.plan)[spec.kind], target_of(spec)
    fit = training_function(spec.plan, target, spec.plan_folder)
    canaries = canaries_of(spec.plan, spec.plan_folder, spec.draw)
    places = [each.name for each in spec.plan.targets], list(games_of(spec.plan))
    at = [place.index(name) for place, name in zip(places, (spec.target, spec.kind), strict=True)]
    rng = np.random.default_rng([spec.plan.seed, _STREAM, *at, spec.index])
    count = min(TOGETHER, game.models - TOGETHER * spec.index)
    with explained(target):
        evidence = _evidence(game, fit, spec, canaries, count, rng)
    view = View(
        canaries=canaries,
        scores=np.zeros((len(canaries.y), 0)),
        test_accuracy=float("nan"),
        train_accuracy=float("nan"),
        n_parameters=0,
        claim=None,
        evidence=evidence,
        seconds=time.perf_counter() - start,
    )
    save_view(spec, view)
    return view.seconds


def _evidence(
    game: Played,
    fit: Callable[..., Any],
    spec: TrialSpec,
    canaries: Canaries,
    count: int,
    rng: np.random.Generator,
) -> tuple[Evidence, ...]:
    if isinstance(game, Reconstructs):
        return _reconstructed(game, fit, spec, canaries, rng)
    if isinstance(game, LineUp):
        return _line_up(game, fit, spec, canaries, count, rng)
    return _two_samples(game, fit, spec, canaries, count, rng)


def _two_samples(
    game: Game,
    fit: Callable[..., Any],
    spec: TrialSpec,
    canaries: Canaries,
    count: int,
    rng: np.random.Generator,
) -> tuple[TwoSample, ...]:
    """Scores of models with and without one record."""
    coins = rng.permutation(np.arange(count) % 2 == 0)
    seeds = rng.integers(2**31, size=count).tolist()
    play = resolve("game", PLAY, {})
    scores = play(game, fit, spec.plan.options_of(target_of(spec)), canaries, coins, seeds, spec.device)
    found = TwoSample(
        scores_in=scores[coins],
        scores_out=scores[~coins],
        source=game.name,
        access=game.access,
        adjacency=Adjacency.ADD_REMOVE,
    )
    return (found,)


def _line_up(
    game: LineUp,
    fit: Callable[..., Any],
    spec: TrialSpec,
    canaries: Canaries,
    count: int,
    rng: np.random.Generator,
) -> tuple[Guesses, ...]:
    """Guesses at which of n candidates each model was trained on."""
    play = resolve("game", LINE_UP, {})
    found: tuple[Guesses, ...] = play(
        game, fit, spec.plan.options_of(target_of(spec)), canaries, count, rng, spec.device
    )
    return found


def _reconstructed(
    game: Reconstructs,
    fit: Callable[..., Any],
    spec: TrialSpec,
    canaries: Canaries,
    rng: np.random.Generator,
) -> tuple[Guesses | Rebuilt, ...]:
    """What was rebuilt of the record that each model was trained on, and guesses by it."""
    play = resolve("game", RECONSTRUCT, {})
    options = spec.plan.options_of(target_of(spec))
    found: tuple[Guesses | Rebuilt, ...] = play(game, fit, options, canaries, rng, spec.device)
    return found


def with_games(audited: View, played: Sequence[View]) -> View:
    """The audited run, with the scores of all trials of each game behind its own evidence."""
    parts: dict[str, list[TwoSample]] = {}
    counts: dict[str, Guesses] = {}
    shown: list[Rebuilt] = []
    for view in played:
        for item in view.evidence:
            if isinstance(item, Rebuilt):
                shown.append(item)
            elif isinstance(item, TwoSample):
                parts.setdefault(item.source, []).append(item)
            elif isinstance(item, Guesses):
                counts[item.source] = _together(counts.get(item.source), item)
    whole = [
        replace(
            each[0],
            scores_in=np.concatenate([part.scores_in for part in each]),
            scores_out=np.concatenate([part.scores_out for part in each]),
        )
        for each in parts.values()
    ]
    return replace(audited, evidence=(*audited.evidence, *whole, *counts.values(), *shown))


def _together(before: Guesses | None, more: Guesses) -> Guesses:
    """Games of several trials as one count."""
    if before is None:
        return more
    return replace(more, successes=before.successes + more.successes, trials=before.trials + more.trials)
