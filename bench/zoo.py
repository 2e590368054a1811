"""The bug zoo: every planted fault and every correct use, audited like any other target.

Run `python bench/zoo.py`; the tables go to bench/results/zoo.md. `--only Z07,Z16` or names of faults audits
these alone, `--only none --controls 10` the controls alone, each under ten seeds. A fault is found if the
verdict is REFUTED, and a control accused. Nothing here tells the audit which fault it looks at.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import os
import platform
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpaudit.canary import Canaries, make_pool
from dpaudit.errors import TrialError
from dpaudit.evidence import Replay
from dpaudit.judge import judge_audit
from dpaudit.plan import AuditPlan, parse
from dpaudit.stats.binomial import upper
from dpaudit.stats.composition import pld_epsilon, scaled
from dpaudit.targets.broken import FAULTS, Fault
from dpaudit.targets.broken.controls import CONTROLS
from dpaudit.targets.broken.loop import Loop
from dpaudit.targets.observed import TrainingFunction
from dpaudit.trial import step_attacks

RESULTS = Path(__file__).parent / "results" / "zoo.md"
ALPHA, DELTA = 0.05, 1e-5
RECIPE: dict[str, Any] = {"hidden": (16,), "epochs": 6, "batch_size": 20, "noise_multiplier": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One audit.

    Attributes:
        name: of the fault or control.
        zoo: its number.
        status: of the verdict.
        by: what decided.
        reason: of the verdict.
        executions: of the optimizer up to the first contradiction; 0 where no execution was needed.
        seconds: of the whole audit, training included.
        lower: epsilon that is shown at least.
        true: epsilon of what ran.
        blind: notes that silence means less than it seems.
    """

    name: str
    zoo: str
    status: str
    by: str
    reason: str
    executions: int | None
    seconds: float
    lower: float | None = None
    true: float | None = None
    where: tuple[str, ...] = field(default=())


def records(seed: int) -> Canaries:
    """A pool of 400 random records of 16 features and 2 classes, half of them in."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((440, 16)), rng.integers(0, 2, 440)
    return make_pool(x, y, n_canaries=20, test_fraction=0.1, rng=rng).draw(rng)


def plan(name: str) -> AuditPlan:
    """The same attacks for every target."""
    document = {
        "title": f"Zoo: {name}",
        "alpha": ALPHA,
        "delta": DELTA,
        "targets": [{"name": "run", "role": "audited", "train": "opacus"}],
        "attacks": {"replay": {"weight": 2}, "sampler": {"weight": 1}},
    }
    return parse(document, "bench/zoo.py")


def audit(name: str, zoo: str, options: dict[str, Any], seed: int, fault: Fault | None = None) -> Outcome:
    """Train once under the attacks of the plan, and judge."""
    kind = fault.loop if fault else Loop

    def fit(x: Any, y: Any, *, seed: int, device: str) -> Any:
        return kind(x=torch.as_tensor(x), y=torch.as_tensor(y), device=device, **{**RECIPE, **options}).fit()

    start = time.perf_counter()
    chosen = plan(name)
    target = TrainingFunction(name="run", fit=fit, delta=DELTA)
    try:
        view = target.train(records(seed), seed=seed, device="cpu", attacks=step_attacks(chosen))
    except TrialError as error:
        seconds = time.perf_counter() - start
        return Outcome(
            name=name, zoo=zoo, status="lost", by="", reason=str(error), executions=None, seconds=seconds
        )
    verdict = judge_audit(chosen, {"run": {0: view}}, []).targets[0].verdict
    replayed = next((e for e in view.evidence if isinstance(e, Replay)), None)
    effective = fault.effective if fault else 1.0
    true = None if effective is None else float("inf") if effective == 0 else _true(view.ledger, effective)
    return Outcome(
        name=name,
        zoo=zoo,
        status=str(verdict.status),
        by=verdict.decided_by or "",
        reason=verdict.reason,
        executions=replayed.first_contradiction if replayed else None,
        seconds=time.perf_counter() - start,
        lower=verdict.epsilon_lower,
        true=true,
    )


def _true(ledger: Any, effective: float) -> float:
    return pld_epsilon(scaled(ledger, effective), DELTA, coarsest=3e-3)


def audit_fault(name: str, seed: int = 0) -> Outcome:
    """One planted fault."""
    fault = FAULTS[name]
    return audit(name, fault.zoo, {**fault.options, "mixin": fault.mixin}, seed, fault)


def audit_control(name: str, seed: int = 0) -> Outcome:
    """One correct use."""
    return audit(name, "control", dict(CONTROLS[name]), seed)


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Markdown rows."""
    lines = [
        "| zoo | planted | verdict | by | executions | seconds | eps shown / true |",
        "|---|---|---|---|--:|--:|---|",
    ]
    for o in outcomes:
        shown = f"{_number(o.lower)} / {_number(o.true)}"
        executions = "" if o.executions is None else str(o.executions)
        lines.append(
            f"| {o.zoo} | {o.name} | {o.status} | {o.by} | {executions} | {o.seconds:.1f} | {shown} |"
        )
    return lines


def by_control(controls: Sequence[Outcome]) -> list[str]:
    """Markdown rows, one for each control over all its seeds, and one for each accusation."""
    rows: dict[str, list[Outcome]] = {}
    for o in controls:
        rows.setdefault(o.name, []).append(o)
    lines = [
        "| correct use | audits | accused | not refuted | neither | median seconds | eps shown / true |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for name, outcomes in rows.items():
        kinds = Counter(o.status for o in outcomes)
        other = len(outcomes) - kinds["REFUTED"] - kinds["NOT REFUTED"]
        seconds = statistics.median(o.seconds for o in outcomes)
        shown = statistics.median(o.lower or 0.0 for o in outcomes)
        lines.append(
            f"| {name} | {len(outcomes)} | {kinds['REFUTED']} | {kinds['NOT REFUTED']} | {other} "
            f"| {seconds:.1f} | {shown:.3g} / {_number(outcomes[0].true)} |"
        )
    accused = [o for o in controls if o.status == "REFUTED"]
    return lines + [line for o in accused for line in ("", f"Accused: {o.name}, by {o.by}: {o.reason}")]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def summary(faults: Sequence[Outcome], controls: Sequence[Outcome]) -> list[str]:
    """Found of planted, accused of audited, and what it cost."""
    lines = []
    found = [o for o in faults if o.status == "REFUTED"]
    if faults:
        lines.append(f"- found {len(found)} of {len(faults)} planted faults")
        missed = [o.name for o in faults if o.status != "REFUTED"]
        lines.append(f"- not found: {', '.join(missed) or 'none'}")
        executions = [o.executions for o in found if o.executions is not None]
        if executions:
            lines.append(
                f"- optimizer executions to the first contradiction: median {statistics.median(executions):g}"
                f" (of the {len(executions)} that replay contradicts outright)"
            )
        lines.append(
            f"- seconds for a whole audit: median {statistics.median(o.seconds for o in faults):.1f}"
        )
    if controls:
        accused = sum(o.status == "REFUTED" for o in controls)
        limit = upper(accused, len(controls), 0.05)
        lines.append(
            f"- false alarms: {accused} of {len(controls)} control audits at alpha = {ALPHA} "
            f"(at most {limit:.3g} with 95 % confidence)"
        )
    return lines


def machine() -> str:
    """Where and with what this was measured."""
    names = ("torch", "opacus", "dp-accounting", "numpy")
    parts = [f"{name} {version(name)}" for name in names]
    today = datetime.datetime.now(datetime.UTC).date()
    return f"{today}, {os.cpu_count()} cores, Python {platform.python_version()}, {', '.join(parts)}"


def quiet_and_single_threaded() -> None:
    """Settings of each process."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)


def main() -> None:
    """Audit, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="numbers or names of faults, with commas between")
    parser.add_argument("--controls", type=int, default=1, help="audits of each control; 0 for none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, help="that share the controls")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    quiet_and_single_threaded()
    wanted = {part for part in arguments.only.split(",") if part}
    names = [name for name, fault in FAULTS.items() if not wanted or wanted & {name, fault.zoo}]
    faults, controls = [], []
    for name in names:
        faults.append(audit_fault(name, arguments.seed))
        print(table(faults)[-1], flush=True)
    seeds = range(arguments.seed, arguments.seed + arguments.controls)
    jobs = [(name, seed) for seed in seeds for name in CONTROLS]
    with ProcessPoolExecutor(arguments.processes, get_context("spawn"), quiet_and_single_threaded) as pool:
        for outcome in pool.map(audit_control, *zip(*jobs, strict=True)) if jobs else ():
            controls.append(outcome)
            print(table(controls)[-1], flush=True)
    lines = ["# The bug zoo", "", machine(), "", *summary(faults, controls), "", *table(faults)]
    if controls:
        lines += ["", "## Correct uses", "", *by_control(controls)]
    print("\n".join(summary(faults, controls)))
    if not wanted or arguments.out != RESULTS:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
