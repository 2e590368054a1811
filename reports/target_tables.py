"""The tables about one target: bounds, rates, findings, ledger and checklist. Pure."""

from __future__ import annotations

import math

from dpaudit.estimate import Rate
from dpaudit.evidence import Access
from dpaudit.record import Accounted, TargetRecord
from dpaudit.reports import numbers
from dpaudit.reports.tables import Table, metric_name, rate_status, worst_first


def estimates(target: TargetRecord) -> Table:
    """Every bound with what it rests on, strongest access first."""
    order = list(Access)
    rows = sorted(
        target.estimates, key=lambda e: (order.index(e.access), -(e.epsilon_lower or 0.0), e.source)
    )
    return Table(
        caption=f"Lower bounds of ε for {target.name}",
        columns=(
            ("Attack", "text"),
            ("Access", "text"),
            ("Bound", "number"),
            ("Claim", "number"),
            ("Ceiling", "number"),
            ("Detectable", "number"),
            ("Level", "number"),
            ("p", "number"),
            ("n", "number"),
            ("Method", "text"),
            ("It assumes", "text"),
        ),
        rows=tuple(
            (
                item.source,
                str(item.access),
                numbers.epsilon(item.epsilon_lower, end="lower"),
                "none" if item.claimed_epsilon is None else numbers.epsilon(item.claimed_epsilon),
                numbers.epsilon(item.ceiling if item.n_observations else None),
                "none" if item.detectable is None else numbers.epsilon(item.detectable),
                numbers.level(item.alpha),
                "none" if item.claimed_epsilon is None else numbers.p_value(item.p_value),
                numbers.count(item.n_observations),
                f"{item.method} ({item.adjacency})"
                if item.guarantee
                else f"{item.method} (descriptive only)",
                "; ".join(item.assumptions) or "nothing further",
            )
            for item in rows
        ),
        empty="No attack gave an estimate for this target.",
    )


def is_reconstruction(rate: Rate) -> bool:
    """Whether a rate is about recovering records rather than telling members apart."""
    recovered = ("reconstruct", "attribute", "extract", "inversion", "identif", "unique")
    return any(word in rate.name for word in recovered)


def rates(target: TargetRecord, *, reconstruction: bool) -> Table:
    """Disclosure rates of membership, or of reconstruction, worst slice first."""
    what = "Reconstruction" if reconstruction else "Membership"
    shown = [rate for rate in worst_first(target.rates) if is_reconstruction(rate) is reconstruction]
    resting = any(rate.assumptions for rate in shown)
    return Table(
        caption=f"{what} rates of {target.name}, worst group first",
        columns=(
            ("Metric", "text"),
            ("Group", "text"),
            ("Value", "number"),
            ("Interval", "number"),
            ("Claim allows", "number"),
            ("Status", "status"),
            ("n", "number"),
            ("Attack", "text"),
            *((("Interval assumes", "text"),) if resting else ()),
        ),
        rows=tuple(
            (
                metric_name(rate.name),
                rate.slice,
                numbers.rate(rate.name, rate.value),
                numbers.interval(rate.name, rate.lower, rate.upper),
                numbers.NONE if rate.limit is None else numbers.rate(rate.name, rate.limit),
                rate_status(rate),
                numbers.count(rate.n) if rate.n else numbers.NO_DATA,
                rate.source,
                *(("; ".join(rate.assumptions) or "nothing further",) if resting else ()),
            )
            for rate in shown
        ),
        empty=f"{what} was not measured on {target.name}.",
    )


def findings(target: TargetRecord) -> Table:
    """Deterministic contradictions between what was claimed and what ran."""
    return Table(
        caption=f"Contradictions found in {target.name}",
        columns=(
            ("Check", "text"),
            ("Where", "code"),
            ("Expected", "text"),
            ("Measured", "text"),
            ("ε that follows", "number"),
            ("Remedy", "text"),
        ),
        rows=tuple(
            (f.check, f.where, f.expected, f.measured, numbers.epsilon(f.epsilon, end="lower"), f.remedy)
            for f in target.findings
        ),
        empty="No contradiction was found between what was claimed and what ran.",
    )


def ledger(target: TargetRecord) -> Table:
    """The phases that really ran."""
    return Table(
        caption=f"What ran: the ledger of {target.name}",
        columns=(
            ("Phase", "text"),
            ("Sampling", "text"),
            ("Rate q", "number"),
            ("Noise (sigma)", "number"),
            ("Clip C", "number"),
            ("Steps T", "number"),
        ),
        rows=tuple(
            (
                f"{index}",
                str(phase.sampler),
                numbers.plain(phase.sample_rate),
                numbers.plain(phase.noise_multiplier),
                numbers.plain(phase.max_grad_norm),
                numbers.count(phase.steps),
            )
            for index, phase in enumerate(target.claim.ledger if target.claim else (), start=1)
        ),
        empty="No ledger: only epsilon and delta are known.",
    )


def recomputed(target: TargetRecord) -> Table:
    """Epsilon recomputed from the ledger; compared with the claim only under its adjacency and delta."""

    def against(row: Accounted) -> str:
        claim = target.claim
        if claim is None:
            return "no claim"
        if row.adjacency != claim.adjacency or not math.isclose(row.delta, claim.delta):
            return "not comparable"
        difference = row.epsilon - claim.epsilon
        if not math.isfinite(difference):
            return "differs"
        if abs(difference) < 0.005:
            return "equal"
        return f"{numbers.epsilon(abs(difference))} {'more' if difference > 0 else 'less'}"

    return Table(
        caption=f"ε of {target.name} recomputed from its ledger",
        columns=(
            ("Accountant", "text"),
            ("Adjacency", "text"),
            ("ε", "number"),
            ("δ", "number"),
            ("Against the claim", "text"),
        ),
        rows=tuple(
            (
                row.accountant,
                str(row.adjacency),
                numbers.epsilon(row.epsilon),
                numbers.power_of_ten(row.delta),
                against(row),
            )
            for row in target.recomputed
        ),
        empty="Epsilon was not recomputed.",
    )


def checklist(target: TargetRecord) -> Table:
    """The parts of the guarantee, and how each is known."""
    return Table(
        caption=f"What the guarantee of {target.name} rests on",
        columns=(("Part", "text"), ("State", "status"), ("Detail", "text")),
        rows=tuple((row.name, row.state.upper(), row.detail) for row in target.checklist),
        empty="There is no guarantee to check.",
    )
