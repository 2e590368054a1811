"""What extracted secrets are evidence of, and the rates, limits and curves that are told of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dpaudit.asking import Extracted, Extracts
from dpaudit.check import FloatArray
from dpaudit.claim import Adjacency
from dpaudit.estimate import Estimate, Rate
from dpaudit.evidence import Access, Guesses, KnownNull
from dpaudit.membership import series
from dpaudit.plan import AuditPlan
from dpaudit.protocols import View
from dpaudit.record import Coverage, Curve
from dpaudit.stats import clusters, one_run
from dpaudit.stats.binomial import lower
from dpaudit.stats.family import Family

FamilyOf = Callable[[Adjacency], Family]
RATES = 5
"""Intervals that share what the attack gets of alpha."""
LEFT_OUT = "records that were left out"
MOST_QUERIES = 1e12
_POINTS = 120
_GIVEN_MODEL = ("secrets are independent given the model",)
_CLASSES = "the model gives classes, and no likelihoods of tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is told of the secrets of one target: nothing where none were planted."""

    estimates: tuple[Estimate, ...]
    rates: tuple[Rate, ...]
    curves: tuple[Curve, ...]


def told(attack: Extracts, views: Sequence[View], family_of: FamilyOf, plan: AuditPlan, alpha: float) -> Told:
    """Estimates, rates and curves of all runs of a target, the audited one first.

    Args:
        attack: whose secrets they are.
        views: the runs.
        family_of: what is tested, under the adjacency that it is asked for.
        plan: says whether the audited run alone decides, and what the intervals share.
        alpha: of the bound.
    """
    found = of_views(attack, views)
    one, level = plan.one_run(attack.name), plan.alpha / len(plan.attacks)
    return Told(
        estimates=tuple(estimates(attack, found, family_of, one=one, alpha=alpha)),
        rates=tuple(rates(attack, found, family_of, alpha=level)),
        curves=tuple(curves(attack, found, family_of)),
    )


def choices(attack: Extracts, found: Extracted) -> Guesses:
    """One run as a game: which of K + 1 candidates stood in each member's record?

    The guess is the candidate that scores highest; where two do, it counts as wrong. Every secret was drawn
    evenly and by itself, so that `one_run.choices` holds however the guesses depend on one another.
    """
    places = found.n_references + 1
    ranks = found.p_values[found.member]
    return Guesses(
        successes=int(np.count_nonzero(ranks <= 1.5 / places)),
        trials=len(ranks),
        baseline=1.0 / places,
        unit="run",
        source=attack.name,
        access=attack.access,
        adjacency=Adjacency.REPLACE_ONE,
    )


def ranks(attack: Extracts, found: Sequence[Extracted]) -> KnownNull | None:
    """Ranks of the members' secrets in several runs; None for fewer than two.

    Each run draws its secrets and their candidates anew, so that runs are independent, and a secret of a
    record that was left out has an even rank: what is tested is adding the record.
    """
    parts = [(run, each.p_values[each.member]) for run, each in enumerate(found)]
    parts = [(run, values) for run, values in parts if len(values)]
    if len(parts) < 2:
        return None
    return KnownNull(
        p_values=np.concatenate([values for _, values in parts]),
        n_references=min(each.n_references for each in found),
        unit="run",
        cluster=np.concatenate([np.full(len(values), run) for run, values in parts]).astype(np.int64),
        source=attack.name,
        access=attack.access,
        adjacency=Adjacency.ADD_REMOVE,
    )


def of_views(attack: Extracts, views: Sequence[View]) -> list[Extracted]:
    """What the attack made of each run, the audited one first; empty if it has nothing to say of that."""
    found = [attack.extracted(view) for view in views]
    return [each for each in found if each is not None] if found and found[0] is not None else []


def estimates(
    attack: Extracts, found: Sequence[Extracted], family_of: FamilyOf, *, one: bool, alpha: float
) -> Iterator[Estimate]:
    """The bound by the design that the plan fixed: one run by choices, several by bets on their ranks.

    Args:
        attack: whose secrets they are.
        found: of each run, the audited one first.
        family_of: what is tested, under the adjacency that it is asked for.
        one: whether the audited run alone decides.
        alpha: of this attack.
    """
    if one and found:
        made = choices(attack, found[0])
        yield one_run.choices(made, family_of(made.adjacency), alpha=alpha)
        return
    evidence = ranks(attack, found)
    if evidence is not None:
        yield clusters.clustered_betting(evidence, family_of(evidence.adjacency), alpha=alpha)


def guessed_blindly(found: Extracted, queries: FloatArray) -> FloatArray:
    """(s, n) largest chance, for each secret of a record that was left out, to come within n samples.

    Probabilities of all secrets of a space add up to at most 1, so that at most 1 / t of them have one of t
    or more; t is what makes 1 - (1 - t)^n = p. A secret that was drawn evenly from S of them is one of these
    with probability at most kappa = 1 / (S t).
    """
    with np.errstate(divide="ignore"):
        least = -np.expm1(np.log1p(-found.p) / np.asarray(queries, dtype=np.float64))
        shares: FloatArray = np.minimum(1.0, 1.0 / np.multiply.outer(found.size, least))
    return shares


def _allowed(family: Family, kappa: FloatArray) -> FloatArray:
    """1 - f(kappa), elementwise: what a record's presence can make of a chance (Hayes et al. 2023)."""
    tpr = family.curve(family.claimed_scale).tpr(np.clip(kappa.ravel(), 0.0, 1.0))
    allowed: FloatArray = np.clip(tpr, kappa.ravel(), 1.0).reshape(kappa.shape)
    return allowed


def _claimed(family_of: FamilyOf) -> Family | None:
    """What is claimed about adding a record; None without a claim about it."""
    family = family_of(Adjacency.ADD_REMOVE)
    known = family.claimed_epsilon is not None and math.isfinite(family.claimed_epsilon)
    return family if known else None


def rates(
    attack: Extracts, runs: Sequence[Extracted], family_of: FamilyOf, *, alpha: float
) -> Iterator[Rate]:
    """Shares of the members' secrets that were ranked first, that few samples bring out, and that came out.

    Of the audited run. The intervals share `alpha`, are exact if secrets are independent given the model, and
    speak of secrets planted like these in this one model.
    """
    if not runs:
        return
    found = runs[0]
    family, made, inside = _claimed(family_of), choices(attack, found), found.member
    within = int(np.count_nonzero(found.queries[inside] <= found.n))
    first = feasible = None
    if family is not None and made.trials:
        first = float(_allowed(family, np.array([made.baseline]))[0])
        feasible = float(_allowed(family, guessed_blindly(found, np.array([found.n])))[inside].mean())
    (inside_pii, leaked), (outside_pii, beside), (said, right) = found.leaked, found.beside, found.said
    for name, count, of, limit, slice_ in (
        ("extraction_success", made.successes, made.trials, first, "all"),
        (f"extraction_rate_{found.n}_queries", within, made.trials, feasible, "all"),
        ("extracted_pii_rate", leaked, inside_pii, None, "all"),
        ("extracted_pii_rate", beside, outside_pii, None, LEFT_OUT),
        ("extracted_pii_precision_rate", right, said, None, "all"),
    ):
        yield Rate(
            name=name,
            value=count / of if of else math.nan,
            lower=float(lower(count, of, alpha / RATES / 2)) if of else None,
            upper=1.0 - float(lower(of - count, of, alpha / RATES / 2)) if of else None,
            alpha=alpha / RATES,
            source=attack.name,
            n=of,
            limit=limit,
            slice=slice_,
            fine=slice_ == LEFT_OUT,
            assumptions=_GIVEN_MODEL,
        )


def curves(attack: Extracts, runs: Sequence[Extracted], family_of: FamilyOf) -> Iterator[Curve]:
    """Shares of secrets by exposure, and by the samples that it takes; of members, of others, and allowed."""
    if not runs:
        return
    found, family = runs[0], _claimed(family_of)
    bits = np.linspace(0.0, math.log2(found.n_references + 1), _POINTS)
    queries = np.geomspace(1.0, MOST_QUERIES, _POINTS)
    exposure = -np.log2(found.p_values)
    for side, kind in ((found.member, ""), (~found.member, "-out")):
        if side.any():
            shares = (exposure[side] >= bits[:, None] - 1e-9).mean(axis=1)
            yield Curve(kind=f"exposure{kind}", source=attack.name, x=series(bits), y=series(shares))
            shares = (found.queries[side] <= queries[:, None]).mean(axis=1)
            yield Curve(kind=f"extraction{kind}", source=attack.name, x=series(queries), y=series(shares))
    if family is not None and found.member.any():
        places = found.n_references + 1
        ranks_ = np.floor(2.0**-bits * places + 1e-9) / places
        yield Curve(
            kind="exposure-limit", source=attack.name, x=series(bits), y=series(_allowed(family, ranks_))
        )
        allowed = _allowed(family, guessed_blindly(found, queries)[found.member]).mean(axis=0)
        yield Curve(kind="extraction-limit", source=attack.name, x=series(queries), y=series(allowed))


def ran(attack: Extracts, runs: Mapping[int, View]) -> tuple[str, str]:
    """Whether the attack said anything of the runs of a target, and otherwise why not."""
    found, view = of_views(attack, [runs[index] for index in sorted(runs)]), runs[0]
    if found:
        inside = int(found[0].member.sum())
        plural = "s" if len(found) > 1 else ""
        return (
            "RUN",
            f"{inside} planted secrets, {found[0].n_references} references each, {len(found)} model{plural}",
        )
    if not view.scores.size:
        return "NOT APPLICABLE", "there is no final model"
    if view.scores.shape[1] > 1:
        return "NOT APPLICABLE", _CLASSES
    return "NOT APPLICABLE", 'no secret was planted (data.canary_kind = "secret")'


def not_asked(target: str, view: View | None) -> Coverage:
    """Why extraction did not run where the plan does not name it."""
    classes = view is not None and view.scores.shape[-1] > 1
    return Coverage(
        attack="extraction",
        target=target,
        status="NOT APPLICABLE" if classes else "NOT RUN",
        access=Access.FINAL_MODEL,
        reason=_CLASSES if classes else "not part of this plan",
    )
