"""A record's log-odds read against those of other records, or of other models that did not see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpaudit.attacks.membership.logodds import (
    has_population,
    log_odds,
    members,
    odds_of,
    share_log_odds,
    unknown,
)
from dpaudit.check import FloatArray
from dpaudit.evidence import Access
from dpaudit.protocols import View


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackP:
    """Share of a population that the model fits less well (Ye et al. 2022, arXiv:2111.09679).

    The population, of known non-members, are the records outside the game.

    Attributes:
        by_class: compare with the population of the record's class; where that is empty, with all of it.
    """

    name: str = "attack-p"
    access: Access = Access.FINAL_MODEL
    shadows: int = 0
    by_class: bool = False

    def scores(self, targets: Sequence[View], shadows: Sequence[View]) -> FloatArray:
        """(targets, n) log-odds of that share, ties counted half; NaN without a population.

        Cost targets * (n + k) log k, k being the size of the population; ties where k is small.
        """
        if not has_population(targets):
            return unknown(targets)
        return np.stack([self._one(view) for view in targets])

    def _one(self, view: View) -> FloatArray:
        canaries = view.canaries
        own = log_odds(view.scores, canaries.y)
        population = log_odds(view.test_scores, canaries.test_y)
        result = _share_below(own, population)
        if self.by_class and view.scores.shape[1] > 1:
            for label in np.unique(canaries.test_y):
                chosen = canaries.y == label
                result[chosen] = _share_below(own[chosen], population[canaries.test_y == label])
        return result


def _share_below(values: FloatArray, population: FloatArray) -> FloatArray:
    ordered = np.sort(population)
    below = np.searchsorted(ordered, values, side="left") + np.searchsorted(ordered, values, side="right")
    return share_log_odds(below / 2.0, float(len(ordered)))


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackR:
    """Share of references without the record that fit it less well (Ye et al. 2022, arXiv:2111.09679)."""

    name: str = "attack-r"
    access: Access = Access.FINAL_MODEL
    shadows: int = 16

    def scores(self, targets: Sequence[View], shadows: Sequence[View]) -> FloatArray:
        """(targets, n) log-odds of that share, ties counted half; NaN where all references had it in.

        Cost targets * shadows * n; at most shadows + 1 different values.
        """
        reference, out = odds_of(shadows), ~members(shadows)
        found = []
        for own in odds_of(targets):
            below = ((reference < own) + 0.5 * (reference == own)) * out
            found.append(share_log_odds(below.sum(axis=0), out.sum(axis=0).astype(np.float64)))
        result: FloatArray = np.where(out.any(axis=0), np.stack(found), np.nan)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Difficulty:
    """Log-odds above those of reference models without the record (Watson et al. 2022, arXiv:2111.08440)."""

    name: str = "difficulty"
    access: Access = Access.FINAL_MODEL
    shadows: int = 16

    def scores(self, targets: Sequence[View], shadows: Sequence[View]) -> FloatArray:
        """(targets, n); NaN for a record that all references had in. Cost (targets + shadows) * n."""
        out = ~members(shadows)
        count = out.sum(axis=0)
        expected = (odds_of(shadows) * out).sum(axis=0) / np.maximum(count, 1)
        result: FloatArray = np.where(count > 0, odds_of(targets) - expected, np.nan)
        return result
