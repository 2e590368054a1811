"""An unmodified training script as an audit: run it under observation, judge, and keep the record."""

from __future__ import annotations

import hashlib
import platform
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, TextIO

from dpaudit import __version__, legacy
from dpaudit.address import Place
from dpaudit.ending import Ended
from dpaudit.errors import UsageError
from dpaudit.judge import EXIT, EXIT_LOST, AuditJudgement, judge_audit
from dpaudit.measure import weights
from dpaudit.memory import set_aside, uncollected
from dpaudit.plan import AuditPlan, parse
from dpaudit.protocols import StepAttack, View
from dpaudit.record import RECORD_NAME, SCHEMA_VERSION, AuditRecord, Provenance, TrialRecord, dump
from dpaudit.registry import ATTACKS, SCRIPT_TARGET, resolve
from dpaudit.schedule import Thinned
from dpaudit.stats.multiplicity import split
from dpaudit.stopping import Stopping
from dpaudit.store import write_atomic
from dpaudit.trial import step_attacks
from dpaudit.verdict import Status

_ENVIRONMENT = ("torch", "opacus", "dp-accounting", "numpy", "scipy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to run and what is claimed.

    Attributes:
        path: script, or name of a module.
        module: whether it is the latter.
        arguments: of the script.
        out: folder of the record, or its address.
        command: what the user typed.
        epsilon: declared; None takes the accountant's.
        delta: declared; None takes the one that the script asks its accountant for.
        alpha: error probability of the verdict.
        seed: of the audit's own random streams.
        canaries: whether to insert canaries into real steps, which changes the trained weights.
        canary: their kind, as of the step-canary attack.
        every: after the first eight steps, canaries go into every so many-th.
        looks: at how many steps the optimizer is re-executed on neighbouring batches.
        stop_early: whether to stop the script at the first contradiction that is beyond doubt.
        fault: planted in a second run as a positive control; None for none.
    """

    path: str
    module: bool = False
    arguments: tuple[str, ...] = ()
    out: Place
    command: str = ""
    epsilon: float | None = None
    delta: float | None = None
    alpha: float = 0.05
    seed: int = 0
    canaries: bool = True
    canary: str = "random"
    every: int = 40
    looks: int = 6
    stop_early: bool = False
    fault: str | None = None

    @property
    def name(self) -> str:
        """Of the target: the script's file name."""
        found = self.path if self.module else Path(self.path).name
        return re.sub(r"[^A-Za-z0-9_.-]", "_", found).lstrip("_.-") or "script"


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """What came of it.

    Attributes:
        record: as written.
        ended: how the script ended; if somebody stopped its control, that.
        answer: what else to tell its author; may be empty.
    """

    record: AuditRecord
    ended: Ended
    answer: str


def trace(job: Job, *, stdout: TextIO | None = None) -> Traced:
    """Run the script once (twice with a control), judge, and write the record.

    Args:
        job: what to run.
        stdout: where the script's output goes; None leaves that alone.

    Raises:
        UsageError: no such script or module, or an impossible setting.
    """
    start = time.perf_counter()
    plan = _plan(job, job.delta if job.delta is not None else 1e-5)
    view, ended = _run(job, plan, stdout)
    runs = {job.name: {0: view}}
    trials = [_trial(job.name, view, ended)]
    if job.fault is not None and ended.how == "finished":
        control, how = _run(job, plan, StringIO(), fault=job.fault)
        runs["control"] = {0: control}
        trials.append(_trial("control", control, how))
    else:
        how = ended
    delta = job.delta if job.delta is not None else view.claim.delta if view.claim else 1e-5
    plan = _plan(job, delta, control="control" in runs)
    with uncollected():
        audit = _ended(judge_audit(plan, runs, trials), view, ended, job)
        record = _record(job, plan, audit, trials, time.perf_counter() - start)
        write_atomic(job.out / "plan.toml", record.plan_toml.encode())
        write_atomic(job.out / RECORD_NAME, dump(record))
    last = how if how.how == "interrupted" else ended
    return Traced(record=record, ended=last, answer=_answer(job, ended))


def _run(job: Job, plan: AuditPlan, stdout: TextIO | None, fault: str | None = None) -> tuple[View, Ended]:
    with ExitStack() as stack:
        with uncollected():
            target = resolve("target", SCRIPT_TARGET, {})(
                name=job.name, path=job.path, module=job.module, arguments=job.arguments, fault=fault
            )
            attacks = tuple(_scheduled(attack, job, plan) for attack in step_attacks(plan))
            # What was imported for the audit is not to cost the script time.
            stack.enter_context(set_aside())
        result: tuple[View, Ended] = target.run(
            attacks, seed=job.seed, delta=job.delta, declared=job.epsilon is not None, stdout=stdout
        )
    return result


def _scheduled(attack: StepAttack, job: Job, plan: AuditPlan) -> StepAttack:
    """The attack at the steps that were asked for, and able to stop the script if that was."""
    if attack.name != "step-canary":
        return attack
    thinned = Thinned(inner=attack, every=job.every)
    if not job.stop_early:
        return thinned
    # At the level of its line in the verdict: of a control, too, which takes half of alpha.
    alpha = plan.alpha / (1 if job.fault is None else 2)
    return Stopping(inner=thinned, alpha=split(alpha, weights(plan))[f"{attack.name}, anytime"])


def _plan(job: Job, delta: float, *, control: bool = False) -> AuditPlan:
    """The audit as a plan: one run without shadow models, so without attacks on the final model."""
    replay = {"steps": job.looks, "watch": False, "stop_early": job.stop_early}
    known = {field.name for field in fields(resolve("attack", "replay", ATTACKS))}
    attacks: dict[str, dict[str, Any]] = {
        "replay": {"weight": 2, **{name: value for name, value in replay.items() if name in known}},
        "sampler": {"weight": 1},
    }
    if job.canaries:
        attacks["step-canary"] = {"weight": 4, "references": 1000, "replays": 6, "kind": job.canary}
    words = " ".join((f"-m {job.path}" if job.module else job.path, *job.arguments))
    target: dict[str, Any] = {"name": job.name, "role": "audited", "train": words}
    if job.epsilon is not None:
        target["claim"] = {"epsilon": job.epsilon}
    targets = [target]
    if control:
        targets.append(
            {"name": "control", "role": "control", "train": words, "options": {"fault": job.fault}}
        )
    document = {
        "title": f"Trace of {job.name}",
        "seed": job.seed,
        "alpha": job.alpha,
        "delta": delta,
        "targets": targets,
        "attacks": attacks,
    }
    return parse(document, "the options")


def _trial(name: str, view: View, ended: Ended) -> TrialRecord:
    fine = ended.how in ("finished", "stopped")
    return TrialRecord(
        key=name,
        target=name,
        kind="audited",
        status="finished" if fine else "lost",
        seconds=view.seconds,
        error="" if fine else _crash(ended),
    )


def _crash(ended: Ended) -> str:
    return f"{ended.message} at {ended.where}" if ended.where else ended.message


def _ended(audit: AuditJudgement, view: View, ended: Ended, job: Job) -> AuditJudgement:
    """Say in the verdict how the script ended and what it never did."""
    words = ""
    if ended.how == "stopped":
        return _stopped(audit, ended)
    if ended.how in ("crashed", "interrupted"):
        words = f"The script did not finish: {_crash(ended)}; the findings are of the steps until then."
    elif not view.ledger and audit.targets[0].verdict.status is Status.INCONCLUSIVE:
        made = view.claim is not None
        words = (
            "A PrivacyEngine was made, but its optimizer never stepped."
            if made
            else "No PrivacyEngine and no DPOptimizer was made: there is no private training to look at."
        )
    if not words:
        return audit
    first = audit.targets[0]
    reason = f"{words} {first.verdict.reason}" if first.verdict.status is Status.REFUTED else words
    first = replace(first, verdict=replace(first.verdict, reason=reason))
    return replace(
        audit,
        targets=(first, *audit.targets[1:]),
        reason=f"{first.name}: {reason}",
        exit_code=EXIT_LOST if ended.how in ("crashed", "interrupted") else audit.exit_code,
    )


def _stopped(audit: AuditJudgement, ended: Ended) -> AuditJudgement:
    """A run that was stopped is refuted, or else nothing was shown of the steps that never came."""
    first = audit.targets[0]
    words = f"The script was stopped at step {ended.step}: {ended.message}."
    status = first.verdict.status
    if status is Status.NOT_REFUTED:
        status = Status.INCONCLUSIVE
    first = replace(
        first, verdict=replace(first.verdict, status=status, reason=f"{words} {first.verdict.reason}")
    )
    return replace(
        audit,
        targets=(first, *audit.targets[1:]),
        status=status,
        reason=f"{first.name}: {first.verdict.reason}",
        exit_code=EXIT[status],
    )


def _answer(job: Job, ended: Ended) -> str:
    """The present form of a script that an Opacus before 1.0 would have run."""
    if ended.how != "crashed":
        return ""
    for file in _files(job, ended):
        present = legacy.recognise(file.read_text(encoding="utf-8", errors="replace"))
        if present is not None:
            return legacy.describe(present, file.name)
    return ""


def _files(job: Job, ended: Ended) -> list[Path]:
    """The script, and the file beside it in which it crashed."""
    main = _source(job)
    if main is None:
        return []
    beside = main.parent / ended.where.partition(":")[0]
    return [main, *([beside] if beside != main and beside.is_file() else [])]


def _source(job: Job) -> Path | None:
    if not job.module:
        return Path(job.path)
    try:
        spec = find_spec(job.path) or find_spec(f"{job.path}.__main__")
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


def _record(
    job: Job, plan: AuditPlan, audit: AuditJudgement, trials: Sequence[TrialRecord], seconds: float
) -> AuditRecord:
    source = _source(job)
    return AuditRecord(
        schema_version=SCHEMA_VERSION,
        title=plan.title,
        alpha=plan.alpha,
        delta=plan.delta,
        status=audit.status,
        reason=audit.reason,
        exit_code=audit.exit_code,
        plan=plan.model_dump(mode="json"),
        plan_toml=_toml(plan),
        targets=audit.targets,
        coverage=audit.coverage,
        trials=tuple(trials),
        provenance=Provenance(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            dpaudit_version=__version__,
            command=job.command,
            plan_sha256=plan.digest(),
            data_sha256="",
            code_sha256=hashlib.sha256(source.read_bytes()).hexdigest() if source else "",
            canary_commitment="",
            seed=job.seed,
            device="as the script chose",
            engine="in this process",
            environment={
                "python": platform.python_version(),
                "platform": platform.platform(),
                **{name: version(name) for name in _ENVIRONMENT},
            },
            seconds=seconds,
        ),
    )


def _toml(plan: AuditPlan) -> str:
    """The plan as text, for the report."""
    import tomlkit

    return tomlkit.dumps(plan.model_dump(mode="json", exclude_none=True, exclude_defaults=True))


def checked(job: Job) -> Job:
    """The job, if its settings are possible.

    Raises:
        UsageError: a setting out of range.
    """
    if job.epsilon is not None and not job.epsilon > 0:
        raise UsageError(
            f"Expected --epsilon={job.epsilon!r} to be above 0. Leave it out to take the accountant's."
        )
    if job.delta is not None and not 0 < job.delta < 1:
        raise UsageError(
            f"Expected --delta={job.delta!r} in (0, 1). Below one over the number of records is usual."
        )
    for option, value in (("--every", job.every), ("--looks", job.looks)):
        if value < 1:
            raise UsageError(
                f"Expected {option}={value} to be 1 or more. Use --no-canaries to leave weights alone."
            )
    return job
