"""Attacks that see predicted labels and no scores (Choquette-Choo et al. 2021, arXiv:2007.14321)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpaudit.asking import Asked
from dpaudit.attacks.membership.logodds import share_log_odds, unknown
from dpaudit.check import FloatArray
from dpaudit.evidence import Access
from dpaudit.protocols import View


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationVote:
    """Share of a record's changed copies, and of itself, that are given its label.

    Attributes:
        queries: how often each record is asked about: once as it is, and then changed a little.
    """

    name: str = "augmentation-vote"
    access: Access = Access.FINAL_MODEL
    shadows: int = 0
    queries: int = 9

    @property
    def asked(self) -> Asked:
        """Changed copies of every record."""
        return Asked(copies=max(self.queries - 1, 0))

    def scores(self, targets: Sequence[View], shadows: Sequence[View]) -> FloatArray:
        """(targets, n) log-odds of that share, at most queries + 1 values; NaN without copies.

        Cost targets * queries * n * classes.
        """
        copies = max(self.queries - 1, 0)
        if any(len(v.queries) < copies or v.scores.shape[1] < 2 for v in targets):
            return unknown(targets)
        found = []
        for view in targets:
            y = view.canaries.y
            right = (view.scores.argmax(axis=1) == y).astype(np.float64)
            right += (view.queries[:copies].argmax(axis=2) == y).sum(axis=0) if copies else 0.0
            found.append(share_log_odds(right, copies + 1.0))
        return np.stack(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryDistance:
    """Distance to the nearest change of the label, in the middle of several random directions.

    Along a random direction it is an upper bound of the distance that a search for the nearest point finds,
    at a hundredth of the queries, and needs no step size.

    Attributes:
        directions: how many random directions are followed.
    """

    name: str = "boundary-distance"
    access: Access = Access.FINAL_MODEL
    shadows: int = 0
    directions: int = 8

    @property
    def asked(self) -> Asked:
        """Distances along random directions."""
        return Asked(directions=self.directions)

    def scores(self, targets: Sequence[View], shadows: Sequence[View]) -> FloatArray:
        """(targets, n) mean log distance; a label that is wrong already counts as distance 0.001.

        NaN where distances were not measured. Cost targets * directions * n.
        """
        if any(len(v.distances) < self.directions for v in targets):
            return unknown(targets)
        limits = [np.clip(v.distances[: self.directions], 1e-3, 1e2) for v in targets]
        return np.stack([np.log(limit).mean(axis=0) for limit in limits])
