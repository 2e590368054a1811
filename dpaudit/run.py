"""A plan becomes a record: trials, then judgement, as a stream of events. Nothing here prints."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dpaudit import __version__
from dpaudit.address import IN_THIS_PROCESS, Address, Place
from dpaudit.backend import Engine, Outcome, choose_device, device_name
from dpaudit.commitment import Commitment, commit, counted, drawn_salt, excluded, salted
from dpaudit.errors import UsageError
from dpaudit.events import Analysing, Event, RunFinished, RunStarted, TrialFinished, TrialLost
from dpaudit.games import games_of, trials_of, with_games
from dpaudit.judge import AuditJudgement, judge_audit
from dpaudit.plan import AuditPlan, ComputePlan, TargetPlan, canonical
from dpaudit.protocols import View
from dpaudit.record import RECORD_NAME, SCHEMA_VERSION, AuditRecord, Provenance, TrialRecord, dump
from dpaudit.registry import DATA, ENGINES, build, resolve
from dpaudit.stacking import tasks_of
from dpaudit.store import Store, code_sha256, write_atomic
from dpaudit.trial import (
    AUDITED,
    SHADOW,
    TrialSpec,
    asked_of,
    attacks_of,
    canaries_of,
    load_view,
    module_files,
    pool_of,
    training_function,
)

Wanted = tuple[str, int, int, TargetPlan]
"""Kind, number, position of the target in the plan, and the target."""
_ENVIRONMENT = ("torch", "opacus", "dp-accounting", "numpy", "scipy", "scikit-learn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to run and where.

    Attributes:
        plan: the audit plan.
        plan_text: its TOML as the user wrote it.
        plan_folder: where the user's own modules are found.
        out: folder of the record, or its address.
        command: what the user typed, for the record.
        policy_sha256: of the policy file that applies; empty without one.
    """

    plan: AuditPlan
    plan_text: str
    plan_folder: Path
    out: Place
    command: str
    policy_sha256: str = ""


def run(job: Job) -> Iterator[Event]:
    """Run every trial that is not on disk yet, judge, and write the record.

    To resume after an interruption is to call it again. Yields events as they happen.

    Raises:
        UsageError: the plan names something that is not there, before anything is trained.
        StoreError: the folder or address cannot be written or reached.
    """
    started = time.perf_counter()
    plan = job.plan
    device = choose_device(plan.compute.device)
    engine = _engine(plan.compute, device)
    code = check(job)
    specs = specs_of(job, device, code, drawn_salt(job.out))
    store = Store(job.out)
    # Seconds alone: what a thousand models released would fill the memory long before it is judged.
    done = {spec.key: view.seconds for spec in specs if (view := load_view(store, spec)) is not None}
    write_atomic(job.out / "plan.toml", job.plan_text.encode())
    committed = _commit(job, code, specs)
    yield RunStarted(
        folder=str(job.out), trials=len(specs), cached=len(done), device=device, engine=plan.compute.engine
    )
    trials = {spec.key: _trial_record(spec, "cached", done[spec.key]) for spec in specs if spec.key in done}
    for spec in specs:
        if spec.key in done:
            yield _finished(spec, done[spec.key], cached=True)
    planned = tasks_of(plan, [spec for spec in specs if spec.key not in done])
    made = {task.key: part for task, part in planned}
    tasks = [task for task, _ in planned]
    limits = plan.compute
    for outcome in engine.outcomes(
        tasks, workers=limits.workers, timeout=limits.timeout, memory=limits.memory
    ):
        for spec in made[outcome.key]:
            # Of several trials of one task, those are lost that are not on disk.
            view = load_view(store, spec)
            trials[spec.key] = _ended(spec, outcome, view)
            if view is None:
                yield TrialLost(
                    key=spec.key, target=spec.target, kind=spec.kind, error=trials[spec.key].error
                )
            else:
                yield _finished(spec, trials[spec.key].seconds, cached=False)
    yield Analysing(targets=tuple(target.name for target in plan.targets))
    views = _views(store, specs, trials)
    ordered = counted(job.out, (trials[spec.key] for spec in specs))
    audit = judge_audit(plan, _by_target(specs, views), ordered)
    provenance = _provenance(job, device, committed, time.perf_counter() - started)
    write_atomic(job.out / RECORD_NAME, dump(_record(job, audit, ordered, provenance)))
    yield RunFinished(folder=str(job.out), exit_code=audit.exit_code)


def _engine(compute: ComputePlan, device: str) -> Engine:
    """The engine by its name and, for a cluster, its address: "ray" or "ray://10.0.0.1:6379"."""
    name, _, address = compute.engine.partition("://")
    options: dict[str, Any] = {"address": address} if address else {}
    if name == "ray":
        options["gpus"] = float(device == "cuda") if compute.gpus is None else compute.gpus
    made: Engine = build("engine", name, ENGINES, options)
    return made


def _record(
    job: Job, audit: AuditJudgement, trials: tuple[TrialRecord, ...], provenance: Provenance
) -> AuditRecord:
    return AuditRecord(
        schema_version=SCHEMA_VERSION,
        title=job.plan.title,
        alpha=job.plan.alpha,
        delta=job.plan.delta,
        status=audit.status,
        reason=audit.reason,
        exit_code=audit.exit_code,
        plan=job.plan.model_dump(mode="json"),
        plan_toml=job.plan_text,
        targets=audit.targets,
        coverage=audit.coverage,
        trials=trials,
        provenance=provenance,
    )


def check(job: Job) -> str:
    """Resolve every name of the plan before anything is trained; returns the hash of the code."""
    engine = job.plan.compute.engine
    if isinstance(job.out, Address) and job.out.scheme == IN_THIS_PROCESS and engine != "inline":
        raise UsageError(
            f"Expected the engine 'inline' for {job.out}, which is in the memory of one process, "
            f"found {engine!r}. Use --engine inline, or name a folder or another address with --out."
        )
    functions = [training_function(job.plan, target, job.plan_folder) for target in job.plan.targets]
    source = resolve("data source", job.plan.data.source, DATA, path=job.plan_folder)
    attacks_of(job.plan)
    pool_of(job.plan, job.plan_folder)
    names = [job.plan.data.source, *(target.train for target in job.plan.targets)]
    return code_sha256(module_files([*functions, source], names))


def wanted(plan: AuditPlan, folder: Path) -> tuple[Wanted, ...]:
    """The trials of the plan, audited ones first: they take longest.

    Raises:
        UsageError: an attack or a training function that is not there.
    """
    found: list[Wanted] = [
        (AUDITED if index == 0 else SHADOW, index, position, target)
        for index in range(plan.shadows + 1)
        for position, target in enumerate(plan.targets)
        # Of a model that somebody else trained, nothing says how to train another.
        if index == 0 or not target.trained
    ]
    for position, target in enumerate(plan.targets if games_of(plan) else ()):
        fit = training_function(plan, target, folder)
        found += [(name, index, position, target) for name, index in trials_of(plan, target, fit)]
    return tuple(found)


def specs_of(job: Job, device: str, code: str, salt: str) -> tuple[TrialSpec, ...]:
    """The trials of the plan, each with the name under which its result lies.

    Args:
        job: what to run.
        device: on which.
        code: its hash, see `check`.
        salt: of the folder, in hexadecimal digits.
    """
    # The names of trials are in the record: with the salt, they confirm no guess of the data either.
    plan, data = job.plan, salted(salt, pool_of(job.plan, job.plan_folder).sha256())
    specs = [
        TrialSpec(
            key=_key(plan, data, code, device, *each),
            target=each[3].name,
            kind=each[0],
            index=each[1],
            plan=plan,
            plan_folder=job.plan_folder,
            out=job.out.resolve(),  # A training function may leave the folder.
            device=device,
        )
        for each in wanted(plan, job.plan_folder)
    ]
    if len({spec.key for spec in specs}) != len(specs):
        raise UsageError("Expected every trial to differ, found two equal ones. Report this with the plan.")
    return tuple(specs)


def _key(
    plan: AuditPlan,
    data: str,
    code: str,
    device: str,
    kind: str,
    index: int,
    position: int,
    target: TargetPlan,
) -> str:
    """Hash of all that determines the result of a trial."""
    recipes = {name: attack.options for name, attack in plan.attacks.items()}
    attacks = recipes if kind == AUDITED else {} if kind == SHADOW else {kind: recipes[kind]}
    content = {
        "data": data,
        "code": code,
        "train": target.train,
        "options": plan.options_of(target),
        "kind": kind,
        "attacks": attacks,
        "seed": [plan.seed, position, index],
        "delta": plan.delta,
        "device": device,
        "asked": asdict(asked_of(plan, kind)),
    }
    if kind == AUDITED and plan.data.show_records:
        content["show_records"] = True
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:32]


def _views(store: Store, specs: tuple[TrialSpec, ...], trials: dict[str, TrialRecord]) -> dict[str, View]:
    """The results of all trials that are not lost; one that has gone meanwhile is lost from now on."""
    views = {}
    for spec in specs:
        if trials[spec.key].status != "lost":
            view = load_view(store, spec)
            if view is None:
                trials[spec.key] = _ended(spec, Outcome(key=spec.key), None)
            else:
                views[spec.key] = view
    return views


def _by_target(specs: tuple[TrialSpec, ...], views: dict[str, View]) -> dict[str, dict[int, View]]:
    found: dict[str, dict[int, View]] = {spec.target: {} for spec in specs}
    played: dict[str, list[View]] = {spec.target: [] for spec in specs}
    for spec in specs:
        if spec.key in views and spec.kind in (AUDITED, SHADOW):
            found[spec.target][spec.index] = views[spec.key]
        elif spec.key in views:
            played[spec.target].append(views[spec.key])
    for target, runs in found.items():
        if 0 in runs:
            runs[0] = with_games(runs[0], played[target])
    return found


def _ended(spec: TrialSpec, outcome: Outcome, view: View | None) -> TrialRecord:
    if view is not None:
        return _trial_record(spec, "finished", view.seconds)
    error = outcome.error or "Expected a readable result on disk, found none; run the same command again."
    return replace(_trial_record(spec, "lost", 0.0), error=error)


def _trial_record(spec: TrialSpec, status: str, seconds: float) -> TrialRecord:
    return TrialRecord(key=spec.key, target=spec.target, kind=spec.kind, status=status, seconds=seconds)


def _finished(spec: TrialSpec, seconds: float, *, cached: bool) -> TrialFinished:
    return TrialFinished(key=spec.key, target=spec.target, kind=spec.kind, seconds=seconds, cached=cached)


def _commit(job: Job, code: str, specs: tuple[TrialSpec, ...]) -> Commitment:
    """Write down what is going to be done, before it is."""
    plan = job.plan
    return commit(
        job.out,
        data=pool_of(plan, job.plan_folder).sha256(),
        draw=canaries_of(plan, job.plan_folder, 0).commitment(),
        plan=plan.digest(),
        policy=job.policy_sha256,
        code=code,
        seed=plan.seed,
        alpha=plan.alpha,
        weights={name: attack.weight for name, attack in plan.attacks.items()},
        trials=(spec.key for spec in specs),
    )


def _provenance(job: Job, device: str, committed: Commitment, seconds: float) -> Provenance:
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        dpaudit_version=__version__,
        command=job.command,
        plan_sha256=committed.plan_sha256,
        data_sha256=committed.data_sha256,
        code_sha256=committed.code_sha256,
        canary_commitment=committed.canary_commitment,
        seed=job.plan.seed,
        device=device_name(device),
        engine=job.plan.compute.engine,
        environment={
            "python": platform.python_version(),
            "platform": platform.platform(),
            **{name: importlib.metadata.version(name) for name in _ENVIRONMENT},
        },
        seconds=seconds,
        salted=True,
        committed=committed.created,
        commitment_sha256=committed.sha256(),
        policy_sha256=committed.policy_sha256,
        lock_sha256=committed.lock_sha256,
        excluded=excluded(job.out, committed.trials),
    )
