"""Attacks that have models of their own trained: trials of so many models, and their evidence together."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from dpaudit.asking import Game
from dpaudit.claim import Adjacency
from dpaudit.evidence import TwoSample
from dpaudit.plan import AuditPlan, TargetPlan
from dpaudit.protocols import View
from dpaudit.registry import PLAY, STACKABLE, resolve
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


def games_of(plan: AuditPlan) -> dict[str, Game]:
    """Those attacks of a plan, by name."""
    return {name: attack for name, attack in attacks_of(plan).items() if isinstance(attack, Game)}


def trials_of(plan: AuditPlan, target: TargetPlan, fit: object) -> Iterator[tuple[str, int]]:
    """Name of the game and number of each trial that a target needs; none where nothing can be stacked."""
    games = games_of(plan)
    if target.trained or not games or not resolve("trainer", STACKABLE, {})(fit, plan.options_of(target)):
        return
    for name, game in games.items():
        for number in range(-(-game.models // TOGETHER)):
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
    coins = rng.permutation(np.arange(count) % 2 == 0)
    seeds = rng.integers(2**31, size=count).tolist()
    with explained(target):
        play = resolve("game", PLAY, {})
        scores = play(game, fit, spec.plan.options_of(target), canaries, coins, seeds, spec.device)
    evidence = TwoSample(
        scores_in=scores[coins],
        scores_out=scores[~coins],
        source=game.name,
        access=game.access,
        adjacency=Adjacency.ADD_REMOVE,
    )
    view = View(
        canaries=canaries,
        scores=np.zeros((len(canaries.y), 0)),
        test_accuracy=float("nan"),
        train_accuracy=float("nan"),
        n_parameters=0,
        claim=None,
        evidence=(evidence,),
        seconds=time.perf_counter() - start,
    )
    save_view(spec, view)
    return view.seconds


def with_games(audited: View, played: Sequence[View]) -> View:
    """The audited run, with the scores of all trials of each game behind its own evidence."""
    parts: dict[str, list[TwoSample]] = {}
    for view in played:
        for item in view.evidence:
            if isinstance(item, TwoSample):
                parts.setdefault(item.source, []).append(item)
    whole = [
        replace(
            each[0],
            scores_in=np.concatenate([part.scores_in for part in each]),
            scores_out=np.concatenate([part.scores_out for part in each]),
        )
        for each in parts.values()
    ]
    return replace(audited, evidence=(*audited.evidence, *whole))
