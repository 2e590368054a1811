"""Trials to tasks: shadow models of a stackable target are trained together, everything else by itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dpaudit.backend import Task, available_cores
from dpaudit.errors import TrialError
from dpaudit.games import TOGETHER, execute_game
from dpaudit.plan import AuditPlan
from dpaudit.protocols import View
from dpaudit.registry import STACKABLE, TRAIN_SHADOWS, resolve
from dpaudit.trial import (
    AUDITED,
    SHADOW,
    TrialSpec,
    asked_of,
    canaries_of,
    execute,
    explained,
    save_view,
    target_of,
    training_function,
    training_seed,
)

FEWEST, MOST = 16, 256
"""Models of one task. Fewer do not gain; more would be lost together."""
Planned = tuple[Task, tuple[TrialSpec, ...]]


def tasks_of(plan: AuditPlan, specs: Sequence[TrialSpec]) -> tuple[Planned, ...]:
    """Tasks for these trials in their order, each with the trials that it makes."""
    stackable = {spec.target: _stackable(spec) for spec in {spec.target: spec for spec in specs}.values()}
    together: dict[str, list[TrialSpec]] = {}
    found: list[Planned] = []
    for spec in specs:
        if spec.kind == SHADOW and stackable[spec.target]:
            together.setdefault(spec.target, []).append(spec)
        else:
            game = spec.kind not in (AUDITED, SHADOW)
            each = TOGETHER if game else 1
            make = execute_game if game else execute
            found.append((Task(key=spec.key, run=make, argument=spec, trials=each), (spec,)))
    for group in together.values():
        size = int(np.clip(-(-len(group) // (plan.compute.workers or available_cores())), FEWEST, MOST))
        for start in range(0, len(group), size):
            part = tuple(group[start : start + size])
            task = Task(key=part[0].key, run=execute_stack, argument=part, trials=len(part))
            found.append((task, part))
    return tuple(found)


def execute_stack(specs: tuple[TrialSpec, ...]) -> float:
    """Train shadow models of one target, and write each under its own key; returns seconds.

    Raises:
        TrialError: training raised, or models diverged; the others are written.
        StoreError: a result could not be written.
    """
    first, target = specs[0], target_of(specs[0])
    fit = training_function(first.plan, target, first.plan_folder)
    draws = [canaries_of(spec.plan, spec.plan_folder, spec.index) for spec in specs]
    with explained(target):
        views: tuple[View, ...] = resolve("trainer", TRAIN_SHADOWS, {})(
            fit,
            first.plan.options_of(target),
            draws,
            [training_seed(spec) for spec in specs],
            first.device,
            asked_of(first.plan, SHADOW),
        )
    right = [bool(np.isfinite(view.scores).all()) for view in views]
    for spec, view, finite in zip(specs, views, right, strict=True):
        if finite:
            save_view(spec, view)
    if not all(right):
        raise TrialError(
            f"Expected finite logits, found NaN or infinity for {right.count(False)} of {len(specs)} shadow "
            "models. Lower the learning rate or repair the loss."
        )
    return sum(view.seconds for view in views)


def _stackable(spec: TrialSpec) -> bool:
    target = target_of(spec)
    fit = training_function(spec.plan, target, spec.plan_folder)
    return bool(resolve("trainer", STACKABLE, {})(fit, spec.plan.options_of(target)))
