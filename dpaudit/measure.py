"""Evidence to estimates, rates and curves: which estimator fits which design, and at what share of alpha."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from dpaudit import attribute_rates, extraction, membership, recovery
from dpaudit.accounting import family_for
from dpaudit.asking import Extracts, Game, Guessing
from dpaudit.claim import Adjacency, Claim, Sampler
from dpaudit.contradictions import family_of_part, part_findings
from dpaudit.designs import paired_coins
from dpaudit.disclosure import clustered_ranks, final_scores
from dpaudit.errors import UsageError
from dpaudit.estimate import Estimate, Rate
from dpaudit.evidence import (
    Evidence,
    Finding,
    Guesses,
    KnownNull,
    Note,
    OneRun,
    Rebuilt,
    Replay,
    Sampling,
    TwoSample,
)
from dpaudit.membership import series
from dpaudit.plan import AuditPlan
from dpaudit.protocols import ModelAttack, View
from dpaudit.record import Curve
from dpaudit.riding import Describes
from dpaudit.stats import clusters, evalues, known_null, noise, one_run, reconstruction, sampler
from dpaudit.stats.family import EpsilonDeltaFamily, Family
from dpaudit.stats.multiplicity import split
from dpaudit.trial import attacks_of

_ANYTIME_SHARE = 0.2
_LAW_SHARE = 0.02
"""Noise of another law, or drawn once for two, shows at any level: little is spent on it."""
_POINTS = 160
NOT_DRAWN = "chance alone decided who was in, which nobody has declared"
_MATCHING = 0x9A125


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Everything measured on one target."""

    estimates: tuple[Estimate, ...] = ()
    rates: tuple[Rate, ...] = ()
    findings: tuple[Finding, ...] = ()
    curves: tuple[Curve, ...] = ()


def label(estimate: Estimate) -> str:
    """The name under which an estimate's weight is pre-registered."""
    return f"{estimate.source}, anytime" if "anytime" in estimate.method else estimate.source


def weights(plan: AuditPlan) -> dict[str, float]:
    """Weights of all tests that the plan can lead to, fixed before anything is seen."""
    found: dict[str, float] = {}
    for name, attack in attacks_of(plan).items():
        weight = plan.attacks[name].weight
        if isinstance(attack, Describes):
            continue
        if isinstance(attack, Game):
            found[f"{name}, anytime"] = weight
        elif name == "step-canary":
            found[name] = weight * (1 - _ANYTIME_SHARE)
            found[f"{name}, anytime"] = weight * _ANYTIME_SHARE
        else:
            tests = recovery.tests_of(attack, attack.name)
            found |= dict.fromkeys(tests, weight / max(1, len(tests)))
    return found


def measure(plan: AuditPlan, views: Sequence[View], claim: Claim | None, alpha: float) -> Measured:
    """Apply every estimator that the design of the evidence allows.

    Args:
        plan: the attacks and their weights.
        views: finished runs, the audited model first; empty if that was lost.
        claim: what is tested, or None.
        alpha: of this target, split over `weights`.
    """
    if not views:
        return Measured()
    shares = split(alpha, weights(plan))
    estimates, curves = list[Estimate](), list[Curve]()
    findings = list(views[0].findings)
    stopped = views[0].stopped is not None
    for evidence in views[0].evidence:
        if isinstance(evidence, Finding):
            findings.append(evidence)
            continue
        if isinstance(evidence, (Note, Rebuilt, Replay, TwoSample)) or _of_whole_runs(evidence):
            continue  # The checklist has it; replays are put together below, and so are games.
        if not composable(claim):
            continue  # What one step shows becomes an epsilon only by composing the steps of a ledger.
        assert claim is not None
        family = family_for(claim, adjacency=evidence.adjacency, delta=plan.delta)
        if isinstance(evidence, Sampling) and not stopped:
            level = shares[evidence.source]
            estimates.append(sampler.sampler(evidence, family, claim.ledger, alpha=level))
            findings += sampler.findings(evidence, family, claim.ledger, alpha=level)
            continue
        estimates += (e for e in _estimates(evidence, family, shares) if _holds(e, stopped))
        curves += _step_curves(evidence, family, shares)
    replays = [e for e in views[0].evidence if isinstance(e, Replay)]
    if replays and claim is not None and composable(claim):
        level = shares[replays[0].source]
        parts = [(replay, family_of_part(replay, claim, plan.delta)) for replay in replays]
        joint = noise.replays(parts, alpha=(1 - _LAW_SHARE) * level)
        estimates += [joint] if _holds(joint, stopped) else []
        findings += part_findings(parts, alpha=_LAW_SHARE * level, stopped=stopped)
    games = [e for e in views[0].evidence if isinstance(e, Guesses)]
    allowed = partial(_of_ledger, claim, plan)
    rates = list(recovery.rates(games, plan, allowed))
    curves += recovery.curves(games, plan, allowed)
    estimates += _of_games(views[0].evidence, claim, plan, shares)
    for name, attack in attacks_of(plan).items():
        if isinstance(attack, Extracts):
            told = extraction.told(attack, views, partial(_whole_run, claim, plan), plan, shares[name])
            estimates += told.estimates
            rates, curves = rates + list(told.rates), curves + list(told.curves)
        if isinstance(attack, ModelAttack):
            estimates += _of_models(attack, views, claim, plan, shares[attack.name], plan.one_run(name))
            disclosed = _disclosed(attack, views, plan, allowed(Adjacency.REPLACE_ONE))
            rates, curves = rates + disclosed[0], curves + disclosed[1]
    if claim is not None:
        curves.append(_claimed_roc(_whole_run(claim, plan)))
    _one_test_each(estimates)
    return Measured(
        estimates=tuple(estimates), rates=tuple(rates), findings=tuple(findings), curves=tuple(curves)
    )


def _holds(estimate: Estimate, stopped: bool) -> bool:
    """Whether an estimate is valid for a run that was stopped because of what was seen."""
    return not stopped or "anytime" in estimate.method


def _one_test_each(estimates: Sequence[Estimate]) -> None:
    """Refuse two tests that would spend the same share of alpha, as of an attack with twice the evidence."""
    deciding = Counter(label(estimate) for estimate in estimates if estimate.guarantee)
    double = [name for name, count in deciding.items() if count > 1]
    if double:
        raise UsageError(
            f"Expected one piece of evidence for each test, found {deciding[double[0]]} of {double[0]!r}. "
            "Let the attack put its observations together."
        )


def composable(claim: Claim | None) -> bool:
    """Whether the claim has a ledger whose every phase says how its batches were drawn."""
    if claim is None or not claim.ledger:
        return False
    return all(phase.sampler is not Sampler.UNKNOWN for phase in claim.ledger)


def _whole_run(claim: Claim | None, plan: AuditPlan, adjacency: Adjacency = Adjacency.REPLACE_ONE) -> Family:
    """Family against which a run is tested: of the ledger, or of any mechanism with the bare epsilon."""
    shape = "auto" if claim is None or composable(claim) else "epsilon-delta"
    return family_for(claim, adjacency=adjacency, delta=plan.delta, shape=shape)


def _of_games(
    evidence: Sequence[Evidence], claim: Claim | None, plan: AuditPlan, shares: Mapping[str, float]
) -> Iterator[Estimate]:
    """What models that were trained with and without one record show."""
    for scores in evidence:
        if isinstance(scores, TwoSample):
            family = _whole_run(claim, plan, scores.adjacency)
            yield evalues.anytime(scores, family, alpha=shares[f"{scores.source}, anytime"])
        elif isinstance(scores, Guesses) and _of_whole_runs(scores):
            family = _whole_run(claim, plan, scores.adjacency)
            yield reconstruction.guesses(scores, family, alpha=shares[scores.source])


def _disclosed(
    attack: ModelAttack, views: Sequence[View], plan: AuditPlan, family: Family | None
) -> tuple[list[Rate], list[Curve]]:
    """Rates and curves of an attack on the audited model; none with too few shadow models."""
    if isinstance(attack, Guessing):
        return list(attribute_rates.of(attack, attack.name, views, plan, family)), []
    scores = final_scores(attack, views)
    if scores is None:
        return [], []
    rates = list(membership.rates(attack, scores, views[0], plan))
    return rates, list(membership.curves(attack, scores, views[0], plan.alpha))


def _of_whole_runs(evidence: Evidence) -> bool:
    """Whether it is of games of which each had a model of its own."""
    return isinstance(evidence, Guesses) and evidence.unit == "run"


def _of_models(
    attack: ModelAttack,
    views: Sequence[View],
    claim: Claim | None,
    plan: AuditPlan,
    alpha: float,
    one: bool,
) -> Iterator[Estimate]:
    """What the scores of final models show, by the design that the plan fixed."""
    if one:
        # The matching is drawn apart from the members, whose draw it must not know.
        coins = paired_coins(attack, views, np.random.default_rng([plan.seed, _MATCHING]))
        if coins is not None:
            yield _as_drawn(_of_coins(coins, _whole_run(claim, plan), alpha), plan)
        return
    ranks = clustered_ranks(attack, views)
    if ranks is not None:
        yield from (_as_drawn(estimate, plan) for estimate in _run_level(ranks, claim, plan, alpha))


def _of_coins(coins: OneRun, family: Family, alpha: float) -> Estimate:
    bare = isinstance(family, EpsilonDeltaFamily)
    return (one_run.epsilon_delta if bare else one_run.f_dp)(coins, family, alpha=alpha)


def _as_drawn(estimate: Estimate, plan: AuditPlan) -> Estimate:
    """Without a guarantee where nobody says that chance decided who was in the audited run."""
    if not plan.data.non_members or plan.data.drawn:
        return estimate
    return replace(estimate, guarantee=False, assumptions=(NOT_DRAWN, *estimate.assumptions))


def _run_level(ranks: KnownNull, claim: Claim | None, plan: AuditPlan, alpha: float) -> Iterator[Estimate]:
    """The exact bet decides; the t-interval, which needs near-normal run means, stands beside it."""
    family = _whole_run(claim, plan)
    yield clusters.clustered_betting(ranks, family, alpha=alpha)
    yield replace(clusters.clustered(ranks, family, alpha=alpha), guarantee=False)


def _estimates(evidence: Evidence, family: Family, shares: Mapping[str, float]) -> Iterator[Estimate]:
    match evidence:
        case KnownNull():
            yield known_null.fixed(evidence, family, alpha=shares[evidence.source])
            anytime = shares.get(f"{evidence.source}, anytime")
            if anytime is not None:
                yield known_null.anytime(evidence, family, alpha=anytime)
        case Guesses():
            yield reconstruction.guesses(evidence, family, alpha=shares[evidence.source])


def spent_on_law(plan: AuditPlan, alpha: float) -> float:
    """What `law_findings` spend of a target's alpha, before any other test."""
    return _LAW_SHARE * split(alpha, weights(plan)).get("replay", 0.0)


def _step_curves(evidence: Evidence, family: Family, shares: Mapping[str, float]) -> Iterator[Curve]:
    if isinstance(evidence, KnownNull) and f"{evidence.source}, anytime" in shares:
        path = known_null.trajectory(evidence, family, alpha=shares[f"{evidence.source}, anytime"])
        yield Curve(
            kind="anytime",
            source=evidence.source,
            x=series(path.n),
            y=series(path.epsilon),
        )


def _of_ledger(claim: Claim | None, plan: AuditPlan, adjacency: Adjacency) -> Family | None:
    """What the steps of a claim allow under a neighbouring relation; None where no ledger says."""
    if claim is None or not composable(claim):
        return None
    return family_for(claim, adjacency=adjacency, delta=plan.delta)


def _claimed_roc(family: Family) -> Curve:
    fpr = np.geomspace(1e-4, 1.0, _POINTS)
    tpr = family.curve(family.claimed_scale).tpr(fpr)
    return Curve(kind="claimed-roc", source="claim", x=series(fpr), y=series(tpr))
