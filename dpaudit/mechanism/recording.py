"""An audit of a mechanism as a record: the reports and the gate treat it like any other."""

from __future__ import annotations

import hashlib
import math
import platform
from dataclasses import replace
from datetime import UTC, datetime

from dpaudit import __version__
from dpaudit.claim import Adjacency, Claim
from dpaudit.estimate import Estimate
from dpaudit.evidence import Access, Finding
from dpaudit.judge import EXIT
from dpaudit.mechanism.audit import MechanismAudit
from dpaudit.mechanism.confirmation import Confirmation
from dpaudit.mechanism.text import rows
from dpaudit.mechanism.verdicts import strongest
from dpaudit.plan import canonical
from dpaudit.record import SCHEMA_VERSION, AuditRecord, Check, Coverage, Provenance, TargetRecord
from dpaudit.stats.guarantees import GaussianDP, Guarantee, RenyiDP, SeveralDP
from dpaudit.stats.tradeoff import gaussian_epsilon
from dpaudit.verdict import Status

_METHOD = "an event, fixed before it was counted; alpha is divided among all that were"
_SOURCE = "event-search"
_OF_MODELS = ("membership inference", "reconstruction", "attribute inference")
_ASSUMED = ("outputs are independent of each other", "the mechanism that was called is the one that is used")


def record_of(audit: MechanismAudit, *, command: str = "") -> AuditRecord:
    """Everything that a reader of the record needs; epsilons are stated at the claim's delta.

    Args:
        audit: of a mechanism.
        command: what the user typed.
    """
    options = {"claim": audit.guarantee.words(), "domain": audit.domain, "mechanism": audit.mechanism}
    return AuditRecord(
        schema_version=SCHEMA_VERSION,
        title=f"Audit of the mechanism {audit.mechanism}",
        alpha=audit.alpha,
        delta=audit.guarantee.delta,
        status=str(audit.verdict.status),
        reason=audit.verdict.reason,
        exit_code=EXIT[audit.verdict.status],
        plan={},
        plan_toml="",
        targets=(_target(audit),),
        coverage=_coverage(audit),
        trials=(),
        provenance=_provenance(audit, canonical(options), command),
    )


def _coverage(audit: MechanismAudit) -> tuple[Coverage, ...]:
    found = Coverage(
        attack=_SOURCE,
        target=audit.mechanism,
        status="RUN" if audit.confirmations else "NOT RUN",
        access=Access.RELEASE,
        reason=f"{audit.examples:,} pairs of data sets, {audit.outputs:,} outputs",
    )
    why = "no model was trained: outputs are looked at"
    return (
        found,
        *(replace(found, attack=name, status="NOT APPLICABLE", reason=why) for name in _OF_MODELS),
    )


def _target(audit: MechanismAudit) -> TargetRecord:
    claim = claim_of(audit)
    estimates = tuple(_estimate(each, audit, claim, i) for i, each in enumerate(audit.confirmations))
    refuted = audit.verdict.status is Status.REFUTED
    return TargetRecord(
        name=audit.mechanism,
        role="audited",
        description=f"Release mechanism on {audit.domain}, claimed {audit.guarantee.words()}",
        claim=claim,
        recomputed=(),
        test_accuracy=None,
        train_accuracy=None,
        n_parameters=0,
        alpha=audit.alpha,
        estimates=estimates,
        rates=(),
        findings=(_finding(audit, strongest(audit.confirmations)),) if refuted else (),
        curves=(),
        checklist=tuple(_checklist(audit, claim)),
        verdict=replace(audit.verdict, decided_by=_SOURCE if refuted else None),
    )


def claim_of(audit: MechanismAudit) -> Claim:
    """The claim as (epsilon, delta); what a GDP or a Renyi claim implies at its delta."""
    guarantee = audit.guarantee
    return Claim(
        epsilon=_epsilon(guarantee),
        delta=guarantee.delta,
        adjacency=_adjacency(audit),
        unit="user" if audit.domain.startswith("users(") else "record",
        source=f"declared: {guarantee.words()}",
    )


def _epsilon(guarantee: Guarantee) -> float:
    """Epsilon at the delta of the claim; of a Renyi claim by Mironov 2017 (arXiv:1702.07476, prop. 3)."""
    if isinstance(guarantee, GaussianDP):
        return gaussian_epsilon(guarantee.claimed, guarantee.delta)
    if isinstance(guarantee, RenyiDP):
        return guarantee.claimed + math.log(1 / guarantee.delta) / (guarantee.order - 1)
    return guarantee.points[0][0] if isinstance(guarantee, SeveralDP) else guarantee.claimed


def _adjacency(audit: MechanismAudit) -> Adjacency:
    return Adjacency.ADD_REMOVE if audit.witness is None else Adjacency(audit.witness.adjacency)


def _estimate(of: Confirmation, audit: MechanismAudit, claim: Claim, number: int) -> Estimate:
    same = audit.guarantee.symbol == "epsilon"
    return Estimate(
        epsilon_lower=of.epsilon_lower,
        delta=audit.guarantee.delta,
        alpha=of.alpha,
        adjacency=claim.adjacency,
        method=_METHOD,
        source=_SOURCE if number == 0 else f"{_SOURCE}, candidate {number + 1}",
        access=Access.RELEASE,
        # Of another parameter than epsilon neither figure is one.
        ceiling=of.ceiling if same else math.inf,
        detectable=of.detectable if same else None,
        n_observations=of.counts.trials + of.counts.other_trials,
        p_value=of.p_value,
        claimed_epsilon=claim.epsilon,
        assumptions=_ASSUMED,
    )


def _finding(audit: MechanismAudit, by: Confirmation) -> Finding:
    counts = by.counts
    limit = min(1.0, by.line.slope * counts.other_hits / counts.other_trials + by.line.intercept)
    pair = by.tried.pair
    where = "outside of the stated domain" if pair.outside else "within the stated domain"
    return Finding(
        check="event",
        where=f"{by.tried.event_words}; on data {where}",
        expected=f"at most {limit:.4g} of the outputs, by how often it happened on the neighbour",
        measured=f"{counts.hits / counts.trials:.4g} of {counts.trials:,} outputs",
        epsilon=by.epsilon_lower,
        remedy="Look at what this event says of the data of the witness.",
        source=_SOURCE,
        access=Access.RELEASE,
    )


def _checklist(audit: MechanismAudit, claim: Claim) -> list[Check]:
    checks = [
        Check(name="mechanism", state="checked", detail="called as it is; its code was not read"),
        Check(name="domain", state="declared", detail=audit.domain),
        Check(name="adjacency", state="declared", detail=str(claim.adjacency)),
        Check(name="unit of privacy", state="declared", detail=claim.unit),
        Check(name="epsilon", state="declared", detail=audit.guarantee.words()),
    ]
    if audit.confirmations:
        seen = dict(rows(audit))
        pair = f"{seen['Data']}, and its neighbour {seen['Neighbour']}"
        checks.append(Check(name="data looked at", state="checked", detail=pair))
        event = f"{seen['Event']}: happened {seen['Happened']}"
        checks.append(Check(name="event counted", state="checked", detail=event))
    return checks + [Check(name="note", state="checked", detail=note) for note in audit.notes]


def _provenance(audit: MechanismAudit, options: str, command: str) -> Provenance:
    versions = {} if audit.witness is None else audit.witness.versions
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        dpaudit_version=__version__,
        command=command or "dpaudit.mechanism.audit_mechanism(...)",
        plan_sha256=hashlib.sha256(options.encode()).hexdigest(),
        data_sha256="",
        code_sha256="",
        canary_commitment="",
        seed=0 if audit.witness is None else audit.witness.seed,
        device="none: nothing was trained",
        engine="none",
        environment={"platform": platform.platform(), **versions},
        seconds=audit.seconds,
    )
