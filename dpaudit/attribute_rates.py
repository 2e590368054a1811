"""How often a guess about a record is right: of members, beside imputation and beside people who were out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.special import stdtrit

from dpaudit.asking import Guessing
from dpaudit.check import BoolArray
from dpaudit.estimate import Rate
from dpaudit.plan import AuditPlan
from dpaudit.protocols import ModelAttack, View
from dpaudit.slices import FEWEST, fine, shares
from dpaudit.stats import reconstruction
from dpaudit.stats.binomial import lower, two_sided, upper
from dpaudit.stats.family import Family

_PARTS = 6
"""Intervals of all records and of run means, which share what is not spent on groups."""


_GIVEN_MODEL = ("records are independent given the model",)


def of(
    attack: Guessing, source: str, views: Sequence[View], plan: AuditPlan, family: Family | None
) -> Iterator[Rate]:
    """Rates of the audited model, and run means where there are runs.

    Intervals of one model are exact if records are independent given the model; another training run is not
    in them. Run means need nothing within a run, and means close to normal between runs. The limit is
    1 - f(baseline), with the upper end of the success with people who were out as the baseline (Kulynych et
    al. 2025, arXiv:2507.06969); it holds for the mean over records because f is convex.

    Args:
        attack: with `shadows`, the runs that it learns from.
        source: its name.
        views: the audited run first.
        plan: for its alpha, split over attacks.
        family: of the claim, replace-one; None if no ledger says what is allowed.
    """
    wanted = attack.shadows if isinstance(attack, ModelAttack) else 0
    found = attack.guesses(views[0], views[1:] if wanted else ())
    if found is None or (wanted and len(views) < 3):
        return
    right, imputed = found
    member = views[0].canaries.member
    alpha = plan.alpha / len(plan.attacks)
    groups = {name: mask for name, mask in fine(views[0]).items() if (mask & member).sum() >= FEWEST}
    share = shares(["all"], groups)
    yield from _of_all(right, imputed, member, source, alpha * share["all"] / _PARTS, family)
    for name, mask in groups.items():
        yield _success(right[mask & member], source, name, alpha * share[name], fine=True)
    yield from _of_runs(attack, source, views, wanted, alpha * share["all"] / _PARTS)


def _of_all(
    right: BoolArray, imputed: BoolArray, member: BoolArray, source: str, alpha: float, family: Family | None
) -> Iterator[Rate]:
    out = right[~member]
    baseline = float(two_sided(int(out.sum()), out.size, alpha)[1]) if out.size else 1.0
    limit = None
    if family is not None and 0 < baseline < 1:
        limit = reconstruction.success_limit(family, baseline)
    yield _success(right[member], source, "members", alpha, limit=limit)
    # What those give who were not in is no leak, whatever a policy allows.
    yield _success(out, source, "others", alpha, fine=True)
    yield _success(imputed[member], source, "members, by imputation", alpha, fine=True)
    yield _over_imputation(right[member], imputed[member], source, alpha)
    yield _over_others(right[member], out, source, alpha)


def _success(
    right: BoolArray, source: str, where: str, alpha: float, *, limit: float | None = None, fine: bool = False
) -> Rate:
    low, high = two_sided(int(right.sum()), right.size, alpha)
    return Rate(
        name="attribute_success",
        value=float(right.mean()) if right.size else float("nan"),
        lower=float(low) if right.size else None,
        upper=float(high) if right.size else None,
        alpha=alpha,
        source=source,
        slice=where,
        n=right.size,
        limit=limit,
        fine=fine,
        assumptions=_GIVEN_MODEL,
    )


def _over_imputation(right: BoolArray, imputed: BoolArray, source: str, alpha: float) -> Rate:
    """Difference of paired shares, from exact limits of the two kinds of disagreement."""
    n, gained, lost = right.size, int((right & ~imputed).sum()), int((imputed & ~right).sum())
    return Rate(
        name="attribute_advantage_over_imputation",
        value=(gained - lost) / n if n else float("nan"),
        lower=float(lower(gained, n, alpha / 4) - upper(lost, n, alpha / 4)) if n else None,
        upper=float(upper(gained, n, alpha / 4) - lower(lost, n, alpha / 4)) if n else None,
        alpha=alpha,
        source=source,
        slice="members",
        n=n,
        assumptions=_GIVEN_MODEL,
    )


def _over_others(inside: BoolArray, out: BoolArray, source: str, alpha: float) -> Rate:
    """Difference of the shares of members and of others, from exact limits of both."""
    both = inside.size and out.size
    won, drawn = int(inside.sum()), int(out.sum())
    return Rate(
        name="attribute_advantage_over_others",
        value=float(inside.mean() - out.mean()) if both else float("nan"),
        lower=float(lower(won, inside.size, alpha / 4) - upper(drawn, out.size, alpha / 4)) if both else None,
        upper=float(upper(won, inside.size, alpha / 4) - lower(drawn, out.size, alpha / 4)) if both else None,
        alpha=alpha,
        source=source,
        slice="members and others",
        n=inside.size + out.size,
        assumptions=_GIVEN_MODEL,
    )


def _of_runs(
    attack: Guessing, source: str, views: Sequence[View], wanted: int, alpha: float
) -> Iterator[Rate]:
    """Mean over runs of what members gain; half of the runs are shadows, so that the others are apart."""
    split = (len(views) + 1) // 2 if wanted else len(views)
    found = [(view, attack.guesses(view, views[split:])) for view in views[:split]]
    gains = [
        float(each[0][view.canaries.member].mean() - each[0][~view.canaries.member].mean())
        for view, each in found
        if each is not None
    ]
    if len(gains) < 3:
        return
    mean, error = float(np.mean(gains)), float(np.std(gains, ddof=1) / np.sqrt(len(gains)))
    reach = float(stdtrit(len(gains) - 1, 1 - alpha / 2)) * error
    yield Rate(
        name="attribute_advantage_over_others",
        value=mean,
        lower=max(mean - reach, -1.0),
        upper=min(mean + reach, 1.0),
        alpha=alpha,
        source=source,
        slice="means of runs",
        n=len(gains),
        assumptions=("runs are independent, and their means near normal",),
    )
