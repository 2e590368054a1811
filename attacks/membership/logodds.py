"""The logit-scaled confidence phi = log p_y - log(1 - p_y), stable in float64."""

from __future__ import annotations

import numpy as np

from dpaudit.check import FloatArray, IntArray


def log_odds(log_probabilities: FloatArray, labels: IntArray) -> FloatArray:
    """Log-odds of the assigned label.

    Args:
        log_probabilities: (n, classes).
        labels: (n,).

    Returns:
        (n,) `log p_y - logsumexp` of the other classes, which stays finite where p_y rounds to 1
        (Carlini et al. 2022, arXiv:2112.03570).
    """
    rows = np.arange(len(labels))
    own = log_probabilities[rows, labels]
    others = log_probabilities.copy()
    others[rows, labels] = -np.inf
    largest = others.max(axis=1, keepdims=True)
    rest = largest[:, 0] + np.log(np.exp(others - largest).sum(axis=1))
    result: FloatArray = own - rest
    return result
