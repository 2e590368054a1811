"""The likelihood-ratio attack, online and offline (Carlini et al. 2022, arXiv:2112.03570).

Shadow models are trained as the target was, on random halves of the pool: each record is in about half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr

from dpaudit.asking import Asked
from dpaudit.attacks.membership.logodds import log_odds, members, unknown
from dpaudit.check import BoolArray, FloatArray
from dpaudit.evidence import Access
from dpaudit.protocols import View

_LEAST_VARIANCE = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Lira:
    """Gaussian likelihood ratio of the log-odds, in against out.

    Attributes:
        shadows: models trained beside the target on random halves of the pool.
        fixed_variance_below: with fewer shadows a side and query, one variance is shared by all records.
        queries: how often each record is asked about: once as it is, and then changed a little.
        joint: whether the queries of a record are one Gaussian vector, or taken for independent.
    """

    name: str = "lira"
    access: Access = Access.FINAL_MODEL
    shadows: int = 16
    fixed_variance_below: int = 32
    queries: int = 1
    joint: bool = True

    @property
    def asked(self) -> Asked:
        """Changed copies of every record."""
        return Asked(copies=max(self.queries - 1, 0))

    def scores(self, targets: Sequence[View], shadows: Sequence[View]) -> FloatArray:
        """(targets, n) log-likelihood ratios; NaN for a record that no shadow had in, or none had out.

        Cost (targets + shadows) * n * queries**2.
        """
        observed, phi = queried(targets, self.queries), queried(shadows, self.queries)
        if observed is None or phi is None:
            return unknown(targets)
        member = members(shadows)
        ratio = np.zeros((len(targets), len(targets[0].canaries.y)))
        for sign, side in ((1.0, member), (-1.0, ~member)):
            mean, covariance = _fit(phi, side, self.fixed_variance_below)
            if not self.joint:
                covariance = covariance * np.eye(self.queries)
            ratio += sign * _log_normal(observed - mean, covariance)
        result: FloatArray = np.where(member.any(axis=0) & ~member.all(axis=0), ratio, np.nan)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class LiraOffline:
    """How improbable the log-odds are for a model without the record: shadows need not have seen it.

    Attributes:
        shadows: models trained beside the target; those with the record in say nothing about it.
        fixed_variance_below: as in `Lira`.
        queries: as in `Lira`; the log-odds are averaged over them.
    """

    name: str = "lira-offline"
    access: Access = Access.FINAL_MODEL
    shadows: int = 16
    fixed_variance_below: int = 32
    queries: int = 1

    @property
    def asked(self) -> Asked:
        """Changed copies of every record."""
        return Asked(copies=max(self.queries - 1, 0))

    def scores(self, targets: Sequence[View], shadows: Sequence[View]) -> FloatArray:
        """(targets, n) log-odds of Phi((phi - mean) / sd) among models without the record.

        NaN for a record that all shadows had in. Cost (targets + shadows) * n * queries.
        """
        observed, phi = queried(targets, self.queries), queried(shadows, self.queries)
        if observed is None or phi is None:
            return unknown(targets)
        out = ~members(shadows)
        averaged = phi.mean(axis=2, keepdims=True)
        mean, covariance = _fit(averaged, out, self.fixed_variance_below)
        z = (observed.mean(axis=2) - mean[:, 0]) / np.sqrt(covariance[:, 0, 0])
        result: FloatArray = np.where(out.any(axis=0), log_ndtr(z) - log_ndtr(-z), np.nan)
        return result


def queried(views: Sequence[View], queries: int) -> FloatArray | None:
    """Log-odds (models, n, queries), the record as it is first; None where a model was not asked so often."""
    if any(len(view.queries) < queries - 1 for view in views):
        return None
    answers = [(view.scores, *view.queries[: max(queries - 1, 0)]) for view in views]
    return np.stack(
        [
            np.stack([log_odds(scores, view.canaries.y) for scores in answer], axis=1)
            for view, answer in zip(views, answers, strict=True)
        ]
    )


def _fit(phi: FloatArray, side: BoolArray, fixed_below: int) -> tuple[FloatArray, FloatArray]:
    """Mean (n, q) and covariance (n or 1, q, q) of `phi` (shadows, n, q) over those where `side` holds."""
    count = side.sum(axis=0).astype(np.float64)
    mean = (side[:, :, None] * phi).sum(axis=0) / np.maximum(count, 1.0)[:, None]
    residual = side[:, :, None] * (phi - mean)
    if np.median(count) < fixed_below * phi.shape[2]:
        # With few models a record's own variance is noise, and a covariance needs more of them.
        freedom = np.maximum(count - 1.0, 0.0).sum()
        products = np.einsum("siq,sir->qr", residual, residual)[None] / max(freedom, 1.0)
    else:
        products = np.einsum("siq,sir->iqr", residual, residual) / np.maximum(count - 1.0, 1.0)[:, None, None]
    diagonal = np.arange(phi.shape[2])
    products[:, diagonal, diagonal] = np.maximum(products[:, diagonal, diagonal], _LEAST_VARIANCE)
    if len(diagonal) > 1:
        # Copies that answer alike make it singular.
        products[:, diagonal, diagonal] *= 1.0 + 1e-6
    return mean, products


def _log_normal(off: FloatArray, covariance: FloatArray) -> FloatArray:
    """Log-density (targets, n), constants aside, of deviations (targets, n, q)."""
    inverse, size = np.linalg.inv(covariance), np.linalg.slogdet(covariance)[1]
    distance = np.einsum(
        "tiq,iqr,tir->ti", off, np.broadcast_to(inverse, (off.shape[1], *inverse.shape[1:])), off
    )
    density: FloatArray = -0.5 * (size + distance)
    return density
