"""What games of reconstruction show beside their bounds: rates against 1 - f(kappa), curves, and coverage."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from dpaudit.asking import SeveralTests
from dpaudit.claim import Adjacency
from dpaudit.estimate import Rate
from dpaudit.evidence import Guesses
from dpaudit.membership import series
from dpaudit.plan import AuditPlan
from dpaudit.record import Curve
from dpaudit.stats import reconstruction
from dpaudit.stats.family import Family
from dpaudit.trial import attacks_of

FamilyOf = Callable[[Adjacency], Family | None]
"""What is tested under a neighbouring relation; None without a claim that says what one step allows."""


def tests_of(attack: object, name: str) -> tuple[str, ...]:
    """Sources of the evidence of an attack: its name, or one for each of several tests."""
    return attack.tests if isinstance(attack, SeveralTests) else (name,)


def rates(games: Sequence[Guesses], plan: AuditPlan, family_of: FamilyOf) -> Iterator[Rate]:
    """Success of the reconstruction games with exact intervals, beside what the claim allows at most."""
    sharing = {
        test: len(tests)
        for name, attack in attacks_of(plan).items()
        for tests in (tests_of(attack, name),)
        for test in tests
    }
    for each in games:
        alpha = plan.alpha / len(plan.attacks) / sharing.get(each.source, 1)
        lower, upper = reconstruction.success_interval(each, alpha=alpha)
        family = family_of(each.adjacency)
        yield Rate(
            name="reconstruction_success",
            value=each.successes / each.trials if each.trials else math.nan,
            lower=lower,
            upper=upper,
            alpha=alpha,
            source=each.source,
            n=each.trials,
            limit=None if family is None else reconstruction.success_limit(family, each.baseline, each.unit),
            assumptions=("games are independent given the past",),
        )


def curves(games: Sequence[Guesses], plan: AuditPlan, family_of: FamilyOf) -> Iterator[Curve]:
    """Success over the baseline, one series an attack, and the limit of each unit and relation."""
    limits = dict.fromkeys((each.unit, each.adjacency) for each in games)
    baselines = np.geomspace(1e-3, 0.5, 40)
    for unit, adjacency in limits:
        family = family_of(adjacency)
        if family is not None:
            allowed = [reconstruction.success_limit(family, float(b), unit) for b in baselines]
            yield Curve(
                kind="reconstruction-limit",
                source=f"one {unit}, {adjacency}",
                x=series(baselines),
                y=series(allowed),
            )
    measured = {rate.source: rate for rate in rates(games, plan, family_of)}
    for attack in dict.fromkeys(each.source.partition(",")[0] for each in games):
        own = sorted(
            (g for g in games if g.source.partition(",")[0] == attack and g.trials), key=lambda g: g.baseline
        )
        if own:
            shown = [measured[each.source] for each in own]
            yield Curve(
                kind="reconstruction",
                source=attack,
                x=series([each.baseline for each in own]),
                y=series([rate.value for rate in shown]),
                lower=series([rate.lower or 0.0 for rate in shown]),
                upper=series([1.0 if rate.upper is None else rate.upper for rate in shown]),
            )
