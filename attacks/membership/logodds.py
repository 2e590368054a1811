"""The logit-scaled confidence phi = log p_y - log(1 - p_y), stable in float64, and its relatives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dpaudit.check import BoolArray, FloatArray, IntArray
from dpaudit.protocols import View


def log_odds(log_probabilities: FloatArray, labels: IntArray) -> FloatArray:
    """Log-odds of the assigned label.

    Args:
        log_probabilities: (n, classes); or (n, 1), a record's likelihood.
        labels: (n,).

    Returns:
        (n,) `log p_y - logsumexp` of the other classes, which stays finite where p_y rounds to 1
        (Carlini et al. 2022, arXiv:2112.03570); a likelihood has no other classes and is returned as it is.
    """
    if log_probabilities.shape[1] == 1:
        return log_probabilities[:, 0]
    rows = np.arange(len(labels))
    own = log_probabilities[rows, labels]
    others = log_probabilities.copy()
    others[rows, labels] = -np.inf
    result: FloatArray = own - log_sum(others)
    return result


def log_sum(values: FloatArray) -> FloatArray:
    """Logarithm of the sum of exponentials over the last axis; -inf where all are."""
    largest = values.max(axis=-1, keepdims=True)
    safe = np.where(np.isfinite(largest), largest, 0.0)
    with np.errstate(divide="ignore"):
        total: FloatArray = safe[..., 0] + np.log(np.exp(values - safe).sum(axis=-1))
    return total


def log_label(log_probabilities: FloatArray, labels: IntArray) -> FloatArray:
    """Log-probability (n,) of the assigned label, or the likelihood of a record without classes."""
    if log_probabilities.shape[1] == 1:
        return log_probabilities[:, 0]
    picked: FloatArray = log_probabilities[np.arange(len(labels)), labels]
    return picked


def log_rest(log_probabilities: FloatArray) -> FloatArray:
    """log(1 - p) of every class, (n, classes), without cancellation where p is close to 1."""
    top = log_probabilities.argmax(axis=1)
    rows = np.arange(len(top))
    # Only the largest can be close to 1; one of several that are 1/2 is small enough either way.
    small = np.minimum(log_probabilities, np.log(0.5))
    rest = np.log1p(-np.exp(small))
    others = log_probabilities.copy()
    others[rows, top] = -np.inf
    rest[rows, top] = log_sum(others)
    return rest


def odds_of(views: Sequence[View]) -> FloatArray:
    """Log-odds (models, n) of the records' labels."""
    return np.stack([log_odds(view.scores, view.canaries.y) for view in views])


def labels_of(views: Sequence[View]) -> FloatArray:
    """Log-probabilities (models, n) of the records' labels."""
    return np.stack([log_label(view.scores, view.canaries.y) for view in views])


def members(views: Sequence[View]) -> BoolArray:
    """Who was in, (models, n)."""
    return np.stack([view.canaries.member for view in views])


def has_population(views: Sequence[View]) -> bool:
    """Whether every model was asked about the records outside the game."""
    return all(len(view.test_scores) == len(view.canaries.test_y) > 0 for view in views)


def share_log_odds(count: FloatArray, total: FloatArray | float) -> FloatArray:
    """Log-odds of `count` out of `total`, half an observation added to each side so that it stays finite."""
    odds: FloatArray = np.log(count + 0.5) - np.log(total - count + 0.5)
    return odds


def unknown(targets: Sequence[View]) -> FloatArray:
    """(targets, n) of NaN: the attack cannot say."""
    return np.full((len(targets), len(targets[0].canaries.y)), np.nan)
