"""A realistic record without an audit: a target that kept its claim, one that broke it, and a control."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

from dpaudit.claim import Adjacency, Claim, Phase
from dpaudit.estimate import Estimate, Rate
from dpaudit.evidence import Access, Finding
from dpaudit.record import (
    SCHEMA_VERSION,
    Accounted,
    AuditRecord,
    Check,
    Coverage,
    Curve,
    Provenance,
    TargetRecord,
    TrialRecord,
)
from dpaudit.verdict import Status, Verdict

NORMAL = NormalDist()
CLAIM = Claim(
    epsilon=5.5,
    delta=1e-5,
    adjacency=Adjacency.ADD_REMOVE,
    ledger=(Phase(noise_multiplier=1.5, sample_rate=1 / 15, steps=600),),
    source="opacus prv accountant",
    dataset_size=898,
)
CLAIMED_MU = 1.216  # of the Gaussian claim with epsilon 5.5 at delta 1e-5
ALPHA = 0.05
PLAN = """[audit]
title = "Digits classifier, release candidate 3"
alpha = 0.05
delta = 1e-5

[[targets]]
name = "private"
epsilon = 5.5
"""


def sample_record() -> AuditRecord:
    """Three targets; the audit as a whole refutes one claim."""
    targets = (_private(), _broken(), _plain())
    return AuditRecord(
        schema_version=SCHEMA_VERSION,
        title="Digits classifier, release candidate 3",
        alpha=ALPHA,
        delta=1e-5,
        status="REFUTED",
        reason=f"broken: {targets[1].verdict.reason}",
        exit_code=1,
        plan={"audit": {"alpha": ALPHA, "delta": 1e-5}},
        plan_toml=PLAN,
        targets=targets,
        coverage=_coverage(),
        trials=_trials(),
        provenance=_provenance(),
    )


def quiet_record() -> AuditRecord:
    """The same audit without the broken target: nothing is refuted."""
    record = sample_record()
    return replace(
        record,
        status="NOT REFUTED",
        reason="private: The largest lower bound is 5.45, below the claim of 5.50.",
        exit_code=0,
        targets=tuple(target for target in record.targets if target.name != "broken"),
        coverage=tuple(row for row in record.coverage if row.target != "broken"),
        trials=tuple(trial for trial in record.trials if trial.target != "broken"),
    )


def with_target(record: AuditRecord, name: str, /, **changes: object) -> AuditRecord:
    """The record with some fields of one target replaced."""
    targets = tuple(
        replace(target, **changes) if target.name == name else target  # type: ignore[arg-type]
        for target in record.targets
    )
    return replace(record, targets=targets)


def _private() -> TargetRecord:
    return TargetRecord(
        name="private",
        role="audited",
        description="MLP 64-128-10, Opacus DP-SGD, Poisson sampling",
        claim=CLAIM,
        recomputed=_recomputed(5.5),
        test_accuracy=0.911,
        train_accuracy=0.924,
        n_parameters=9_610,
        alpha=ALPHA,
        estimates=(
            _estimate(
                5.45, "replay", Access.REPLAY, math.inf, 76_880, "sensitivity and chi-square of the noise"
            ),
            _estimate(
                5.0, "step-canary", Access.STEP, 11.2, 600, "known-null rank e-process, PLD composition"
            ),
            _estimate(0.02, "lira", Access.FINAL_MODEL, 3.28, 200, "one-run f-DP", detectable=9.1),
            _estimate(None, "worst-case", Access.FINAL_MODEL, 0.0, 0, "known-null rank"),
        ),
        rates=_rates(0.514, 0.014, "lira"),
        findings=(),
        curves=_curves("lira", 0.12, 5.0),
        checklist=_checklist("checked", "sigma measured 1.498 to 1.503 at every parameter"),
        verdict=Verdict(
            status=Status.NOT_REFUTED,
            reason="The largest lower bound is 5.45, below the claim of 5.50.",
            epsilon_lower=5.45,
            decided_by=None,
        ),
        weights_sha256="3f1c" * 16,
    )


def _broken() -> TargetRecord:
    finding = Finding(
        check="sensitivity",
        where="clip: whole batch instead of each record",
        expected="one record moves the clipped sum by at most 1.00 C",
        measured="one record moved it by 2.00 C",
        epsilon=17.6,
        remedy="Clip each record's gradient before the sum (opacus DPOptimizer does).",
    )
    unnoised = Finding(
        check="noise at each parameter",
        where="2.bias",
        expected="noise of 1.50 C",
        measured="noise of 0.00 C in 8 executions",
        epsilon=math.inf,
        remedy="Add noise to every trainable parameter.",
    )
    return TargetRecord(
        name="broken",
        role="audited",
        description="the same, with the batch gradient clipped and one bias left without noise",
        claim=CLAIM,
        recomputed=_recomputed(5.5),
        test_accuracy=0.957,
        train_accuracy=0.981,
        n_parameters=9_610,
        alpha=ALPHA,
        estimates=(
            _estimate(
                17.2, "replay", Access.REPLAY, math.inf, 76_880, "sensitivity and chi-square of the noise"
            ),
            _estimate(
                15.8, "step-canary", Access.STEP, 18.4, 600, "known-null rank e-process, PLD composition"
            ),
            _estimate(0.61, "lira", Access.FINAL_MODEL, 3.28, 200, "one-run f-DP", detectable=9.1),
        ),
        rates=_rates(0.567, 0.041, "lira"),
        findings=(finding, unnoised),
        curves=_curves("lira", 0.35, 15.8),
        checklist=_checklist("recomputed", "the sum moved by 2.00 C, twice what the ledger counts"),
        verdict=Verdict(
            status=Status.REFUTED,
            reason="Replay: 2.bias received no noise in 8 executions, so no finite epsilon holds; "
            "the claim is 5.50.",
            epsilon_lower=math.inf,
            decided_by="replay",
        ),
        weights_sha256="9b0e" * 16,
    )


def _plain() -> TargetRecord:
    step = _estimate(41.7, "step-canary", Access.STEP, 44.0, 600, "known-null rank e-process")
    model = _estimate(3.1, "lira", Access.FINAL_MODEL, 3.28, 200, "one-run f-DP")
    return TargetRecord(
        name="plain",
        role="control",
        description="the same model trained by plain SGD",
        claim=None,
        recomputed=(),
        test_accuracy=0.972,
        train_accuracy=1.0,
        n_parameters=9_610,
        alpha=ALPHA,
        estimates=tuple(replace(item, claimed_epsilon=None, p_value=None) for item in (step, model)),
        rates=_rates(0.781, 0.233, "lira", limit=False),
        findings=(),
        curves=tuple(c for c in _curves("lira", 1.3, 40.0) if "claim" not in c.source),
        checklist=(),
        verdict=Verdict(status=Status.INCONCLUSIVE, reason="No claim to judge.", epsilon_lower=41.7),
        caught=True,
        weights_sha256="77aa" * 16,
    )


def _estimate(
    bound: float | None,
    source: str,
    access: Access,
    ceiling: float,
    n: int,
    method: str,
    detectable: float | None = None,
) -> Estimate:
    p_value = None if bound is None else (1e-9 if bound > CLAIM.epsilon else 0.41)
    return Estimate(
        epsilon_lower=bound,
        delta=1e-5,
        alpha=ALPHA / 3,
        adjacency=Adjacency.ADD_REMOVE,
        method=method,
        source=source,
        access=access,
        ceiling=ceiling,
        n_observations=n,
        p_value=p_value,
        claimed_epsilon=CLAIM.epsilon,
        detectable=detectable,
        assumptions=("canaries exchangeable with their references", "steps counted by the optimizer"),
    )


def _recomputed(epsilon: float) -> tuple[Accounted, ...]:
    return (
        Accounted(accountant="Opacus PRV", adjacency=Adjacency.ADD_REMOVE, epsilon=epsilon, delta=1e-5),
        Accounted(accountant="PLD", adjacency=Adjacency.ADD_REMOVE, epsilon=epsilon - 0.004, delta=1e-5),
        Accounted(accountant="PLD", adjacency=Adjacency.REPLACE_ONE, epsilon=2 * epsilon - 0.3, delta=1e-5),
    )


def _rates(auc: float, tpr: float, source: str, *, limit: bool = True) -> tuple[Rate, ...]:
    def rate(name: str, value: float, half: float, bound: float, group: str, n: int) -> Rate:
        return Rate(
            name=name,
            value=value,
            lower=max(value - half, 0.0),
            upper=min(value + half, 1.0),
            alpha=ALPHA,
            source=source,
            slice=group,
            n=n,
            limit=bound if limit else None,
        )

    return (
        rate("auc", auc, 0.03, 0.805, "all", 898),
        rate("tpr_at_fpr_0.001", tpr / 4, 0.006, 0.031, "all", 898),
        rate("tpr_at_fpr_0.01", tpr, 0.009, 0.134, "all", 898),
        rate("tpr_at_fpr_0.01", tpr * 1.7, 0.021, 0.134, "digit 8", 88),
        rate("tpr_at_fpr_0.1", tpr + 0.1, 0.03, 0.474, "all", 898),
        rate("reconstruction_success", tpr + 0.09, 0.02, 0.474, "all", 600),
        Rate(name="auc", value=auc - 0.01, lower=None, upper=None, alpha=ALPHA, source="loss", n=898),
    )


def _curves(source: str, mu: float, bound: float) -> tuple[Curve, ...]:
    fpr = (*(10 ** (-3 + 3 * i / 60) for i in range(60)), 1.0)
    roc = tuple(_power(x, mu) for x in fpr)
    centres = tuple(-4 + 8 * i / 31 for i in range(32))
    seen = tuple(range(10, 601, 10))
    sizes = tuple(2.0**-k for k in range(7, 0, -1))
    success = tuple(_power(x, mu) for x in sizes)
    return (
        Curve(
            kind="roc",
            source=source,
            x=fpr,
            y=roc,
            lower=tuple(max(y - 1.2 * math.sqrt(y * (1 - y) / 450) - 0.001, 0.0) for y in roc),
            upper=tuple(min(y + 1.2 * math.sqrt(y * (1 - y) / 450) + 0.002, 1.0) for y in roc),
        ),
        Curve(kind="claimed-roc", source="claim", x=fpr, y=tuple(_power(x, CLAIMED_MU) for x in fpr)),
        Curve(
            kind="histogram-in", source=source, x=centres, y=tuple(NormalDist(mu, 1).pdf(x) for x in centres)
        ),
        Curve(kind="histogram-out", source=source, x=centres, y=tuple(NORMAL.pdf(x) for x in centres)),
        Curve(
            kind="anytime",
            source="step-canary",
            x=tuple(map(float, seen)),
            y=tuple(max(0.0, bound * (1 - math.sqrt(12 / n))) for n in seen),
        ),
        Curve(
            kind="reconstruction",
            source="prior-aware",
            x=sizes,
            y=success,
            lower=tuple(y * 0.85 for y in success),
            upper=tuple(min(y * 1.15 + 0.01, 1.0) for y in success),
        ),
        Curve(
            kind="reconstruction-limit",
            source="claim",
            x=sizes,
            y=tuple(_power(x, CLAIMED_MU) for x in sizes),
        ),
    )


def _power(fpr: float, mu: float) -> float:
    """The largest TPR at `fpr` of a mu-GDP mechanism."""
    return 1.0 if fpr >= 1 else NORMAL.cdf(NORMAL.inv_cdf(fpr) + mu)


def _checklist(state: str, detail: str) -> tuple[Check, ...]:
    return (
        Check(name="accounting", state="recomputed", detail="two accountants agree to 0.004"),
        Check(name="noise and sensitivity", state=state, detail=detail),
        Check(name="sampling", state="checked", detail="batch sizes vary as Poisson does (p = 0.44)"),
        Check(name="unit of privacy", state="declared", detail="one record; one person may have several"),
        Check(name="preprocessing", state="unknown", detail="scaling was fitted outside the observed run"),
    )


def _coverage() -> tuple[Coverage, ...]:
    rows = []
    for name in ("private", "broken", "plain"):
        rows += [
            Coverage(attack="replay", target=name, status="RUN", access=Access.REPLAY, reason="8 steps")
            if name != "plain"
            else Coverage(
                attack="replay",
                target=name,
                status="NOT APPLICABLE",
                access=Access.REPLAY,
                reason="no noise to measure",
            ),
            Coverage(attack="step-canary", target=name, status="RUN", access=Access.STEP, reason="600 steps"),
            Coverage(
                attack="lira", target=name, status="RUN", access=Access.FINAL_MODEL, reason="16 shadows"
            ),
            Coverage(
                attack="attribute-inference",
                target=name,
                status="NOT RUN",
                access=Access.FINAL_MODEL,
                reason="not asked for in the plan",
            ),
        ]
    return tuple(rows)


def _trials() -> tuple[TrialRecord, ...]:
    return tuple(
        TrialRecord(
            key=f"{name[:2]}{index:04d}",
            target=name,
            kind="train" if index == 0 else "shadow",
            status="cached" if index > 12 else "finished",
            seconds=3.5 + index / 10,
        )
        for name in ("private", "broken", "plain")
        for index in range(17)
    )


def _provenance() -> Provenance:
    return Provenance(
        created="2025-11-03T09:12:44Z",
        dpaudit_version="0.1.0",
        command="dpaudit run dpaudit.toml --out audits/rc3",
        plan_sha256="a1b2" * 16,
        data_sha256="c3d4" * 16,
        code_sha256="e5f6" * 16,
        canary_commitment="0718" * 16,
        seed=20_251_103,
        device="cpu",
        engine="local",
        environment={"python": "3.11.9", "torch": "2.6.0", "opacus": "1.5.4", "numpy": "2.4.6"},
        seconds=212.4,
    )
