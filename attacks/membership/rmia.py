"""Robust membership inference: a record against a population (Zarifzadeh et al. 2024, arXiv:2312.03262).

Works with one or two reference models, because it estimates one number a record and no variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpaudit.attacks.membership.logodds import (
    has_population,
    labels_of,
    log_label,
    log_sum,
    members,
    share_log_odds,
)
from dpaudit.check import BoolArray, FloatArray
from dpaudit.evidence import Access
from dpaudit.protocols import View


@dataclass(frozen=True, slots=True, kw_only=True)
class Rmia:
    """Share of the population that the record's likelihood ratio exceeds `gamma` times.

    `p(x)` is the mean of the references with the record and of those without it. Where one of them is missing
    it is taken from the other by the paper's line `1 - p_in = a (1 - p_out)`. The references show its slope:
    they are trained on random halves, so that it is the ratio of the mean complements, with one model too.

    Attributes:
        shadows: reference models.
        gamma: by how much a record has to exceed one of the population.
    """

    name: str = "rmia"
    access: Access = Access.FINAL_MODEL
    shadows: int = 16
    gamma: float = 2.0

    def scores(self, targets: Sequence[View], shadows: Sequence[View]) -> FloatArray:
        """(targets, n) log-odds of that share. Cost (targets + shadows) * (n + k), and k log k to sort.

        The population are the k records outside the game; where the models were not asked about them, the
        pool itself. Records between the same two of the population differ by their own ratio, as they would
        with a larger one.
        """
        prior, a = _prior(labels_of(shadows), members(shadows))
        return _dominance(targets, shadows, prior, self.gamma, a)


@dataclass(frozen=True, slots=True, kw_only=True)
class RmiaOffline:
    """The same with references that did not see the record.

    Attributes:
        shadows: reference models; those with the record in say nothing about it.
        gamma: as in `Rmia`.
        a: slope of the line `1 - p_in = a (1 - p_out)`, which nothing shows here.
    """

    name: str = "rmia-offline"
    access: Access = Access.FINAL_MODEL
    shadows: int = 16
    gamma: float = 2.0
    a: float = 0.3

    def scores(self, targets: Sequence[View], shadows: Sequence[View]) -> FloatArray:
        """(targets, n) as in `Rmia`; NaN for a record that all references had in."""
        out = ~members(shadows)
        prior = _from_out(_log_mean(labels_of(shadows), out), self.a)
        return _dominance(targets, shadows, np.where(out.any(axis=0), prior, np.nan), self.gamma, self.a)


def _log_mean(log_p: FloatArray, side: BoolArray) -> FloatArray:
    """Log of the mean (n,) of exp(log_p) (models, n) over the models where `side` holds; -inf without any."""
    mean: FloatArray = log_sum(np.where(side, log_p, -np.inf).T) - np.log(np.maximum(side.sum(axis=0), 1))
    return mean


def _from_out(log_out: FloatArray, a: float) -> FloatArray:
    prior: FloatArray = np.log(0.5 * ((1.0 + a) * np.exp(log_out) + (1.0 - a)))
    return prior


def _prior(log_p: FloatArray, member: BoolArray) -> tuple[FloatArray, float]:
    """Logarithm of p(x), (n,), and the slope of the line from p_out to p_in."""
    log_in, log_out = _log_mean(log_p, member), _log_mean(log_p, ~member)
    seen, unseen = member.any(axis=0), ~member.all(axis=0)
    missed_in = -np.expm1(log_p[member]).mean() if member.any() else 1.0
    missed_out = -np.expm1(log_p[~member]).mean() if not member.all() else 1.0
    a = float(np.clip(missed_in / missed_out, 1e-3, 1.0)) if missed_out > 0 else 1.0
    with np.errstate(divide="ignore"):
        out_of_in = np.log(np.maximum(1.0 + np.expm1(log_in) / a, 0.0))
    both = np.logaddexp(log_in, np.where(unseen, log_out, out_of_in)) - np.log(2.0)
    return np.where(seen, both, _from_out(log_out, a)), a


def _dominance(
    targets: Sequence[View], shadows: Sequence[View], prior: FloatArray, gamma: float, a: float
) -> FloatArray:
    ratio = labels_of(targets) - prior
    if has_population(targets) and has_population(shadows):
        beside = np.stack([log_label(v.test_scores, v.canaries.test_y) for v in shadows])
        log_z = _from_out(_log_mean(beside, np.ones(beside.shape, dtype=np.bool_)), a)
        others = np.stack([log_label(v.test_scores, v.canaries.test_y) for v in targets]) - log_z
    else:
        others = ratio
    found = []
    for own, other in zip(ratio, others, strict=True):
        ordered = np.sort(other[np.isfinite(other)])
        total = float(len(ordered))
        count = np.searchsorted(ordered, own - np.log(gamma), side="right").astype(np.float64)
        # Less than half the distance of neighbouring shares: this decides between equal ones only.
        found.append(share_log_odds(count, total) + own / (1.0 + np.abs(own)) / (total + 1.0))
    result: FloatArray = np.where(np.isfinite(ratio), np.stack(found), np.nan)
    return result
