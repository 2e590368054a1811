"""The likelihood-ratio attack, online (Carlini et al. 2022, arXiv:2112.03570).

Every run is attacked with all the others as its shadow models: records are in half of them at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpaudit.attacks.membership.logodds import log_odds
from dpaudit.check import BoolArray, FloatArray
from dpaudit.evidence import Access
from dpaudit.protocols import View


@dataclass(frozen=True, slots=True, kw_only=True)
class Lira:
    """Gaussian likelihood ratio of the log-odds, in against out.

    Attributes:
        shadows: models trained beside the target on random halves of the pool.
        fixed_variance_below: with fewer shadows a side than this, one variance is shared by all records.
    """

    name: str = "lira"
    access: Access = Access.FINAL_MODEL
    shadows: int = 16
    fixed_variance_below: int = 32

    def scores(self, views: Sequence[View]) -> FloatArray:
        """(runs, n) log-likelihood ratios; NaN for a record that no shadow had in, or none had out.

        Cost runs * n: sums over all runs once, less each run's own.
        """
        phi = np.stack([log_odds(view.scores, view.canaries.y) for view in views])
        member = np.stack([view.canaries.member for view in views])
        mean_in, var_in, n_in = _leave_one_out(phi, member, self.fixed_variance_below)
        mean_out, var_out, n_out = _leave_one_out(phi, ~member, self.fixed_variance_below)
        ratio = _log_normal(phi, mean_in, var_in) - _log_normal(phi, mean_out, var_out)
        result: FloatArray = np.where((n_in > 0) & (n_out > 0), ratio, np.nan)
        return result


def _leave_one_out(phi: FloatArray, side: BoolArray, fixed_below: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean, variance and count (runs, n) of `phi` over the other runs in which `side` holds."""
    weight = side.astype(np.float64)
    count = weight.sum(axis=0) - weight
    total = (weight * phi).sum(axis=0) - weight * phi
    safe = np.maximum(count, 1.0)
    mean = total / safe
    square = (weight * phi**2).sum(axis=0) - weight * phi**2
    variance = np.maximum(square / safe - mean**2, 0.0) * safe / np.maximum(count - 1.0, 1.0)
    if np.median(count) < fixed_below:
        enough = count > 1
        pooled = np.where(enough, variance, 0.0).sum(axis=1) / np.maximum(enough.sum(axis=1), 1)
        variance = np.broadcast_to(pooled[:, None], variance.shape)
    return mean, np.maximum(variance, 1e-8), count


def _log_normal(x: FloatArray, mean: FloatArray, variance: FloatArray) -> FloatArray:
    density: FloatArray = -0.5 * (np.log(variance) + (x - mean) ** 2 / variance)
    return density
