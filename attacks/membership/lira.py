"""The likelihood-ratio attack, online (Carlini et al. 2022, arXiv:2112.03570).

Shadow models are trained as the target was, on random halves of the pool: each record is in about half.
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

    def scores(self, targets: Sequence[View], shadows: Sequence[View]) -> FloatArray:
        """(targets, n) log-likelihood ratios; NaN for a record that no shadow had in, or none had out.

        Cost (targets + shadows) * n.
        """
        phi = np.stack([log_odds(view.scores, view.canaries.y) for view in shadows])
        member = np.stack([view.canaries.member for view in shadows])
        mean_in, var_in, n_in = _fit(phi, member, self.fixed_variance_below)
        mean_out, var_out, n_out = _fit(phi, ~member, self.fixed_variance_below)
        observed = np.stack([log_odds(view.scores, view.canaries.y) for view in targets])
        ratio = _log_normal(observed, mean_in, var_in) - _log_normal(observed, mean_out, var_out)
        result: FloatArray = np.where((n_in > 0) & (n_out > 0), ratio, np.nan)
        return result


def _fit(phi: FloatArray, side: BoolArray, fixed_below: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean, variance and count (n,) of `phi` (shadows, n) over the shadows in which `side` holds."""
    weight = side.astype(np.float64)
    count = weight.sum(axis=0)
    mean = (weight * phi).sum(axis=0) / np.maximum(count, 1.0)
    squares = (weight * (phi - mean) ** 2).sum(axis=0)
    if np.median(count) < fixed_below:
        # With few models a record's own variance is noise: one for all records is the better estimate.
        freedom = np.maximum(count - 1.0, 0.0).sum()
        variance = np.full_like(mean, squares.sum() / max(freedom, 1.0))
    else:
        variance = squares / np.maximum(count - 1.0, 1.0)
    return mean, np.maximum(variance, 1e-8), count


def _log_normal(x: FloatArray, mean: FloatArray, variance: FloatArray) -> FloatArray:
    density: FloatArray = -0.5 * (np.log(variance) + (x - mean) ** 2 / variance)
    return density
