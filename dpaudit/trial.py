"""One trial: train one target once and write what it released, in any process."""

from __future__ import annotations

import inspect
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dpaudit.address import Place
from dpaudit.asking import Asked, Asks
from dpaudit.canary import Canaries, Pool, given_pool, make_pool
from dpaudit.errors import DpauditError, TrialError, UsageError, nearest
from dpaudit.plan import AuditPlan, DataPlan, TargetPlan
from dpaudit.protocols import ModelAttack, StepAttack, Target, View
from dpaudit.registry import (
    ATTACKS,
    DATA,
    LOAD_DATA,
    TRAINED_TARGET,
    TRAINING_TARGET,
    TRAININGS,
    build,
    resolve,
)
from dpaudit.riding import Shows
from dpaudit.store import Store

AUDITED, SHADOW = "audited", "shadow"
_EXPECTED_WARNINGS = ("Secure RNG turned off", "Full backward hook is firing", "Optimal order is the")
"""What Opacus says in every run; the report says the first of them in its checklist."""
_POOL_STREAM, _DRAW_STREAM, _TRAIN_STREAM = range(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """Everything a worker needs: what to train, on which draw, and where the result goes.

    Attributes:
        key: content hash of what determines the result.
        target: name in the plan.
        kind: "audited" (observed, attacked in every step), "shadow", or the name of a game.
        index: number of the draw, 0 being the audited model's; of a game, number of the trial.
        plan: the whole plan.
        plan_folder: where the user's modules are.
        out: the audit's folder, or its address.
        device: cpu or cuda.
    """

    key: str
    target: str
    kind: str
    index: int
    plan: AuditPlan
    plan_folder: Path
    out: Place
    device: str

    @property
    def draw(self) -> int:
        """Number of the draw of members; games are played beside those of the audited model."""
        return self.index if self.kind in (AUDITED, SHADOW) else 0


def execute(spec: TrialSpec) -> float:
    """Train, and write the result under its key; returns seconds.

    Raises:
        TrialError: the training function raised or returned nonsense.
        StoreError: the result could not be written.
    """
    view = trained(spec, canaries_of(spec.plan, spec.plan_folder, spec.index))
    save_view(spec, view)
    return view.seconds


def trained(spec: TrialSpec, canaries: Canaries) -> View:
    """What a trial releases that is trained on the members of this draw.

    Raises:
        TrialError: the training function raised or returned nonsense.
    """
    target_plan = target_of(spec)
    kind = TRAINED_TARGET if target_plan.trained else TRAINING_TARGET
    target: Target = resolve("target", kind, {})(
        name=spec.target,
        fit=training_function(spec.plan, target_plan, spec.plan_folder),
        options=spec.plan.options_of(target_plan),
        delta=spec.plan.delta,
        asked=asked_of(spec.plan, spec.kind),
    )
    attacks = step_attacks(spec.plan) if spec.kind == AUDITED else ()
    with explained(target_plan):
        return target.train(canaries, seed=training_seed(spec), device=spec.device, attacks=attacks)


@contextmanager
def explained(target: TargetPlan) -> Iterator[None]:
    """Turn what the user's training code raises into one line with its place; drop expected warnings.

    Raises:
        TrialError: whatever was raised that is no error of this package.
    """
    try:
        with warnings.catch_warnings():
            for message in _EXPECTED_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    except DpauditError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise TrialError(
            f"Expected {target.train!r} to train, found {type(error).__name__}: {error} "
            f"({Path(frame.filename).name}:{frame.lineno})."
        ) from error


def target_of(spec: TrialSpec) -> TargetPlan:
    """The target of the plan that is trained."""
    return next(target for target in spec.plan.targets if target.name == spec.target)


def training_seed(spec: TrialSpec) -> int:
    """Of a trial, by target and number of the draw."""
    position = [target.name for target in spec.plan.targets].index(spec.target)
    return _integer_seed(spec.plan.seed, _TRAIN_STREAM, position, spec.index)


def save_view(spec: TrialSpec, view: View) -> None:
    """Write a result under its key.

    Raises:
        StoreError: it could not be written.
    """
    facts = {f.name: getattr(view, f.name) for f in fields(View) if f.name != "canaries"}
    Store(spec.out).save(spec.key, {**facts, "member": view.canaries.member})


def load_view(store: Store, spec: TrialSpec) -> View | None:
    """The view of a finished trial; None if it is not there."""
    facts = store.load(spec.key)
    if facts is None:
        return None
    canaries = canaries_of(spec.plan, spec.plan_folder, spec.draw)
    try:
        member, view = facts.pop("member"), View(canaries=canaries, **facts)
    except (KeyError, TypeError):
        store.set_aside(spec.key)  # Whole, and yet no result of a trial.
        return None
    return view if np.array_equal(member, canaries.member) else None


def pool_of(plan: AuditPlan, folder: Path) -> Pool:
    """The pool of an audit, the same in every process."""
    return _pool(plan.data, plan.seed, folder)


@lru_cache(maxsize=2)
def _pool(data: DataPlan, seed: int, folder: Path) -> Pool:
    load = resolve("data loader", LOAD_DATA, {})
    x, y, groups, secrets = load(resolve("data source", data.source, DATA, path=folder))
    rng = np.random.default_rng([seed, _POOL_STREAM])
    if data.non_members:
        *others, theirs, _ = load(resolve("data source", data.non_members, DATA, path=folder))
        fraction = data.test_fraction
        return given_pool((x, y), tuple(others), test_fraction=fraction, rng=rng, groups=(groups, theirs))
    return make_pool(
        x,
        y,
        n_canaries=data.planted,
        test_fraction=data.test_fraction,
        rng=rng,
        kind=data.canary_kind,
        groups=groups,
        secrets=secrets,
    )


def canaries_of(plan: AuditPlan, folder: Path, index: int) -> Canaries:
    """Draw number `index`: who is in. Of a model that is trained already, number 0 is as it was."""
    pool = pool_of(plan, folder)
    if pool.member is not None and index == 0:
        return pool.as_given()
    return pool.draw(np.random.default_rng([plan.seed, _DRAW_STREAM, index]))


def training_function(plan: AuditPlan, target: TargetPlan, folder: Path) -> Callable[..., Any]:
    """Import a target's training function and check that it accepts what the plan gives it.

    Raises:
        UsageError: not found, or an option that it does not have, with the nearest right one.
    """
    fit: Callable[..., Any] = resolve("training function", target.train, TRAININGS, path=folder)
    if target.trained:
        return fit
    options = plan.options_of(target)
    parameters = inspect.signature(fit).parameters
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        for option in options:
            if option not in parameters:
                raise UsageError(
                    f"Expected an option of {target.train!r}, found {option!r} for target {target.name!r}: "
                    f"{nearest(option, parameters)}"
                )
        for needed in ("seed", "device"):
            if needed not in parameters:
                raise UsageError(
                    f"Expected {target.train!r} to take {needed!r}, found ({', '.join(parameters)}). "
                    "Define it as fit(x, y, *, seed, device)."
                )
    return fit


def attacks_of(plan: AuditPlan) -> dict[str, StepAttack | ModelAttack]:
    """Every attack of the plan by name.

    Raises:
        UsageError: unknown attack or option.
    """
    built = {name: build("attack", name, ATTACKS, attack.options) for name, attack in plan.attacks.items()}
    shown = {name for name, a in built.items() if plan.data.show_records and isinstance(a, Shows)}
    return {name: attack.with_records() if name in shown else attack for name, attack in built.items()}


def step_attacks(plan: AuditPlan) -> tuple[StepAttack, ...]:
    """Those that ride on the training run."""
    return tuple(attack for attack in attacks_of(plan).values() if isinstance(attack, StepAttack))


def model_attacks(plan: AuditPlan) -> tuple[ModelAttack, ...]:
    """Those on the final models."""
    return tuple(attack for attack in attacks_of(plan).values() if isinstance(attack, ModelAttack))


def asked_of(plan: AuditPlan, kind: str) -> Asked:
    """What the attacks on final models together want of a model; some want it of the audited one alone."""
    wanted = [attack.asked for attack in attacks_of(plan).values() if isinstance(attack, Asks)]
    return Asked(
        copies=max((asked.copies for asked in wanted), default=0),
        directions=max((asked.directions for asked in wanted), default=0),
        gradients=any(asked.gradients for asked in wanted),
        attribute=next((asked.attribute for asked in wanted if asked.attribute is not None), None),
        secrets=next((asked.secrets for asked in wanted if asked.secrets), None),
        representatives=next(
            (asked.representatives for asked in wanted if asked.representatives and kind == AUDITED), None
        ),
        linear=kind == AUDITED and any(asked.linear for asked in wanted),
        stationary=next((asked.stationary for asked in wanted if asked.stationary and kind == AUDITED), None),
    )


def module_files(functions: Iterable[Callable[..., Any]], names: Iterable[str] = ()) -> tuple[Path, ...]:
    """Source files that determine what the user's own functions do: part of a trial's key.

    Their own files, and every imported module that lies in one of their folders and is not installed.

    Args:
        functions: imported already; any callable object.
        names: by which the plan knows them: of an object, its class is often of another module.
    """
    modules = {function.__module__ for function in functions}
    modules |= {name.partition(":")[0] for name in names if ":" in name}
    own = [name for name in modules if name.partition(".")[0] != "dpaudit"]
    files = [getattr(sys.modules.get(name), "__file__", None) for name in own]
    sources = {Path(file).resolve() for file in files if file}
    folders = {file.parent for file in sources}
    for name, module in list(sys.modules.items()):
        found = Path(getattr(module, "__file__", None) or "")
        if not found.is_absolute():
            continue  # Some modules are made in memory and name a file that is nowhere.
        found = found.resolve()
        installed = {"site-packages", "dist-packages"} & set(found.parts)
        own_module = name.partition(".")[0] != "dpaudit" and found.suffix == ".py" and not installed
        if own_module and folders & set(found.parents) and found.is_file():
            sources.add(found)
    return tuple(sorted(sources))


def _integer_seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint32)[0])
