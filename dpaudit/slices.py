"""Groups of records whose disclosure is reported apart, and the share of alpha that each gets."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from dpaudit.canary import Canaries
from dpaudit.check import BoolArray, FloatArray
from dpaudit.protocols import View

FEWEST = 20
"""Members, and others, that a group needs before its rates mean anything."""
USER = "user"
_MOST_CLASSES = 50
_MAIN_SHARE = 0.5


def wide(canaries: Canaries) -> dict[str, BoolArray]:
    """The slices that a policy judges: all records; and where there are canaries, those and the others."""
    groups = {"all": np.ones(len(canaries.y), dtype=np.bool_)}
    if canaries.canary.any():
        groups |= {"canaries": canaries.canary, "natural records": ~canaries.canary}
    return groups


def fine(view: View) -> dict[str, BoolArray]:
    """Finer slices of the records that are no canaries, each (n,).

    Each class (the largest 50 of them); rightly and wrongly classified by the attacked model, which is known
    only after training; the tenth that lies farthest from the mean of its class in standardised features,
    whatever the model; and each value of the groups that came with the data, users aside.
    """
    canaries = view.canaries
    if not len(canaries.y):
        return {}
    natural = ~canaries.canary
    found = dict(_classes(canaries, natural))
    if view.scores.shape[1] > 1:
        right = view.scores.argmax(axis=1) == canaries.y
        found |= {"rightly classified": natural & right, "wrongly classified": natural & ~right}
    found["outlier decile"] = natural & _outlying(canaries, natural)
    for name, values in canaries.groups.items():
        if name != USER:
            found |= {f"{name} {value}": natural & (values == value) for value in np.unique(values)}
    return found


def shares(main: Collection[str], others: Collection[str]) -> dict[str, float]:
    """Share of an attack's alpha for each slice: half of it for the wide ones, where there are others."""
    kept = _MAIN_SHARE if others else 1.0
    return {name: kept / len(main) for name in main} | {name: (1.0 - kept) / len(others) for name in others}


def of_users(scores: FloatArray, canaries: Canaries) -> tuple[FloatArray, BoolArray] | None:
    """Scores of users: the mean over the records of each that were in, and over those that were not.

    Records are drawn one by one, so that nearly every user has both: the two means are what an adversary
    would see of a user who gave the one half, and of one who gave the other.

    Returns:
        (u,) means and whether they are of members; None without a group "user". NaN scores count for nothing.
    """
    if USER not in canaries.groups:
        return None
    known = np.isfinite(scores) & ~canaries.canary
    _, user = np.unique(canaries.groups[USER][known], return_inverse=True)
    member, value = canaries.member[known], scores[known]
    size = int(user.max(initial=-1)) + 1
    means, inside = [], []
    for side in (True, False):
        chosen = member == side
        count = np.bincount(user[chosen], minlength=size)
        total = np.bincount(user[chosen], weights=value[chosen], minlength=size)
        means.append(total[count > 0] / count[count > 0])
        inside.append(np.full(int((count > 0).sum()), side))
    return np.concatenate(means), np.concatenate(inside)


def _classes(canaries: Canaries, natural: BoolArray) -> Iterator[tuple[str, BoolArray]]:
    labels, count = np.unique(canaries.y[natural], return_counts=True)
    if len(labels) > 1:
        for label in np.sort(labels[np.argsort(-count, kind="stable")[:_MOST_CLASSES]]):
            yield f"class {label}", natural & (canaries.y == label)


def _outlying(canaries: Canaries, natural: BoolArray) -> BoolArray:
    """The tenth of the natural records farthest from the mean of their class; cost n * d."""
    features = canaries.x.reshape(len(canaries.y), -1)
    spread = features[natural].std(axis=0) if natural.any() else np.ones(features.shape[1])
    features = features / np.where(spread > 0, spread, 1.0)
    distance = np.full(len(features), -np.inf)
    for label in np.unique(canaries.y[natural]):
        chosen = natural & (canaries.y == label)
        distance[chosen] = ((features[chosen] - features[chosen].mean(axis=0)) ** 2).sum(axis=1)
    farthest: BoolArray = np.zeros(len(features), dtype=np.bool_)
    farthest[np.argsort(-distance, kind="stable")[: int(natural.sum()) // 10]] = True
    return farthest
