"""Noise that looks normal under a claim without delta: a reason that people understand."""

from __future__ import annotations

import numpy as np
from scipy.stats import shapiro

from dpaudit.attacks.event_search.selection import Samples
from dpaudit.check import FloatArray
from dpaudit.stats.guarantees import ApproximateDP, Guarantee
from dpaudit.stats.tradeoff import gaussian_epsilon

_ROWS = 2000
_DOUBT = 0.01
_LEAST_VALUES = 100
_DELTA = 1e-5
_LEAST_MU, _MOST_MU = 0.02, 30.0


def remark(samples: Samples, guarantee: Guarantee) -> str:
    """Say so where a pure claim is made for noise that looks normal; empty otherwise.

    It is a remark and no evidence: a test that does not reject normality proves nothing. Laplace noise is
    rejected at this size practically always.

    Args:
        samples: on the pair that was tested; the first number of an output that varies is looked at.
        guarantee: the claim.
    """
    if not isinstance(guarantee, ApproximateDP) or guarantee.delta > 0:
        return ""
    for path in samples.first.paths:
        first = samples.first.number(path)[:_ROWS]
        if np.isfinite(first).all() and np.unique(first).size >= _LEAST_VALUES:
            return _remark(first, samples.second.number(path)[:_ROWS])
    return ""


def _remark(first: FloatArray, second: FloatArray) -> str:
    if not np.isfinite(second).all() or min(_normality(first), _normality(second)) < _DOUBT:
        return ""
    start = "The noise looks normal, and no Gaussian mechanism is (epsilon, 0)-DP: state a delta."
    mu = float(abs(first.mean() - second.mean()) / np.sqrt((first.var() + second.var()) / 2))
    if not _LEAST_MU < mu < _MOST_MU:
        return start
    epsilon = gaussian_epsilon(mu, _DELTA)
    return f"{start} At delta {_DELTA:g}, noise like this costs an epsilon of about {epsilon:.3g}."


def _normality(values: FloatArray) -> float:
    return float(shapiro((values - values.mean()) / values.std()).pvalue) if values.std() > 0 else 0.0
