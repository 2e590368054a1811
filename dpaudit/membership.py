"""What membership scores disclose about whom: rates and curves by slice, and why an attack has none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike

from dpaudit.asking import Asks
from dpaudit.blind_baseline import LEVEL, blind_baseline
from dpaudit.canary import Canaries
from dpaudit.check import BoolArray, FloatArray
from dpaudit.disclosure import final_scores
from dpaudit.estimate import Rate
from dpaudit.plan import AuditPlan
from dpaudit.protocols import ModelAttack, View
from dpaudit.record import Check, Curve
from dpaudit.slices import FEWEST, fine, of_users, shares, wide
from dpaudit.stats import roc

USERS = "users (mean of their records)"


def series(values: ArrayLike) -> tuple[float, ...]:
    """Six digits are more than a figure shows, and keep the record small."""
    return tuple(float(f"{value:.6g}") for value in np.asarray(values, dtype=np.float64).tolist())


def rates(attack: ModelAttack, scores: FloatArray, view: View, plan: AuditPlan) -> Iterator[Rate]:
    """Disclosure by slice; the intervals of an attack share what each attack gets of alpha.

    Wide slices have every metric. Finer ones, for which the data allow less, have the area and the TPR at
    10 % FPR; those with fewer than 20 members or others have a row without a value. An interval speaks of
    records drawn like these and scored by this one model: another run of the training is not in it.
    """
    if not np.isfinite(scores).any():
        return
    main, others = wide(view.canaries), fine(view)
    users = of_users(scores, view.canaries)
    share = shares(main, [*others, USERS] if users is not None else others)
    level = plan.alpha / len(plan.attacks)
    for name, mask in (main | others).items():
        usable = mask & np.isfinite(scores)
        yield from _of_slice(
            scores[usable], view.canaries.member[usable], attack.name, name, level * share[name], name in main
        )
    if users is not None:
        yield from _of_slice(*users, attack.name, USERS, level * share[USERS], main=False)


def _of_slice(
    scores: FloatArray, member: BoolArray, source: str, name: str, alpha: float, main: bool
) -> Iterator[Rate]:
    if min(member.sum(), (~member).sum()) < FEWEST:
        yield Rate(
            name="auc",
            value=math.nan,
            lower=None,
            upper=None,
            alpha=alpha,
            source=source,
            slice=name,
            n=len(scores),
            fine=not main,
        )
        return
    fprs = (0.001, 0.01, 0.1) if main else (0.1,)
    for rate in roc.rates(scores, member, alpha=alpha, source=source, slice=name, fprs=fprs, fine=not main):
        if main or rate.name != "balanced_accuracy":
            yield rate


def curves(attack: ModelAttack, scores: FloatArray, view: View, alpha: float) -> Iterator[Curve]:
    """ROC and histograms of the wide slices; none where there are too few scores to draw."""
    for name, mask in wide(view.canaries).items():
        usable = mask & np.isfinite(scores)
        inside = view.canaries.member[usable]
        if not inside.any() or inside.all():
            continue
        points = roc.band(scores[usable], inside, alpha=alpha)
        yield Curve(
            kind="roc",
            source=attack.name,
            slice=name,
            x=series(points.fpr),
            y=series(points.tpr),
            lower=series(points.lower),
            upper=series(points.upper),
        )
        bins = roc.histogram(scores[usable], inside)
        for kind, density in (("histogram-in", bins.inside), ("histogram-out", bins.outside)):
            yield Curve(kind=kind, source=attack.name, slice=name, x=series(bins.centre), y=series(density))


def ran(attack: ModelAttack, runs: Mapping[int, View]) -> tuple[str, str]:
    """Whether an attack on final models said anything, and otherwise why not."""
    views = [runs[index] for index in sorted(runs)]
    scores = final_scores(attack, views)
    if scores is None:
        return "NOT RUN", "too few shadow models"
    if np.isfinite(scores).any():
        return "RUN", f"{len(runs)} models"
    return "NOT APPLICABLE", _why_not(attack, views[0])


def _why_not(attack: ModelAttack, view: View) -> str:
    if not view.scores.size:
        return "there is no final model"
    single = view.scores.shape[1] == 1
    if isinstance(attack, Asks) and attack.asked.gradients:
        return "the model is no torch module, so its gradients cannot be had"
    if isinstance(attack, Asks) and (attack.asked.copies or attack.asked.directions) and single:
        return "a sequence of tokens has no copies that are changed a little"
    if single:
        return "the model gives one likelihood a record, and no classes"
    return "no record has the models, or the population, that it needs"


def told_apart(canaries: Canaries) -> Check | None:
    """The row of the checklist about the split itself; None with too few records to say."""
    found = blind_baseline(canaries)
    if found is None:
        return None
    alarm = found.p_value <= LEVEL
    meaning = (
        "members and non-members can be told apart without the model: membership rates measure the split too"
        if alarm
        else "membership rates speak of the model and not of the split"
    )
    return Check(
        name="members told apart without the model",
        state="contradicted" if alarm else "checked",
        detail=f"a classifier of the records alone has AUC {found.auc:.3f} ({found.lower:.3f} to "
        f"{found.upper:.3f}, p = {found.p_value:.2g}, {found.n} held out): {meaning}",
    )
