"""What the target's own output says of one record: no other model, no other record.

All are monotone where log-probabilities round: computed from logarithms throughout, so that a record that is
known to 1 - 1e-30 still differs from one that is known to 1 - 1e-20.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpaudit.attacks.membership.logodds import log_odds, log_rest, log_sum, unknown
from dpaudit.check import FloatArray
from dpaudit.evidence import Access
from dpaudit.protocols import View


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """Log-odds of the likeliest class, whatever the label (Salem et al. 2019, arXiv:1806.01246)."""

    name: str = "confidence"
    access: Access = Access.FINAL_MODEL
    shadows: int = 0

    def scores(self, targets: Sequence[View], shadows: Sequence[View]) -> FloatArray:
        """(targets, n); NaN for records without classes. Cost targets * n * classes."""
        if targets[0].scores.shape[1] < 2:
            return unknown(targets)
        return np.stack([log_odds(view.scores, view.scores.argmax(axis=1)) for view in targets])


@dataclass(frozen=True, slots=True, kw_only=True)
class Entropy:
    """Minus the log of the entropy of the prediction (Salem et al. 2019, arXiv:1806.01246)."""

    name: str = "entropy"
    access: Access = Access.FINAL_MODEL
    shadows: int = 0

    def scores(self, targets: Sequence[View], shadows: Sequence[View]) -> FloatArray:
        """(targets, n); NaN for records without classes. Cost targets * n * classes."""
        if targets[0].scores.shape[1] < 2:
            return unknown(targets)
        return np.stack([_minus_log_entropy(view.scores) for view in targets])


@dataclass(frozen=True, slots=True, kw_only=True)
class ModifiedEntropy:
    """Minus the log of an entropy that knows the label (Song and Mittal 2021, arXiv:2003.10595).

    `-(1 - p_y) log p_y - sum over the other classes of p log(1 - p)`: sure of a wrong label counts against.
    """

    name: str = "modified-entropy"
    access: Access = Access.FINAL_MODEL
    shadows: int = 0

    def scores(self, targets: Sequence[View], shadows: Sequence[View]) -> FloatArray:
        """(targets, n); NaN for records without classes. Cost targets * n * classes."""
        if targets[0].scores.shape[1] < 2:
            return unknown(targets)
        return np.stack([_modified(view) for view in targets])


def _log_of_minus(log_p: FloatArray, log_complement: FloatArray) -> FloatArray:
    """log(-log p) from log p and log(1 - p): for p near 1, -log p is 1 - p."""
    near = log_complement < -30.0
    with np.errstate(divide="ignore"):
        direct = np.log(-np.where(log_p < 0.0, log_p, -0.0))
        exact = np.log(-np.log1p(-np.exp(np.minimum(log_complement, -1e-16))))
    result: FloatArray = np.where(near, log_complement, np.where(log_complement < -0.7, exact, direct))
    return result


def _minus_log_entropy(scores: FloatArray) -> FloatArray:
    return -log_sum(scores + _log_of_minus(scores, log_rest(scores)))


def _modified(view: View) -> FloatArray:
    scores, rows, y = view.scores, np.arange(len(view.canaries.y)), view.canaries.y
    rest = log_rest(scores)
    terms = scores + _log_of_minus(rest, scores)
    terms[rows, y] = rest[rows, y] + _log_of_minus(scores, rest)[rows, y]
    return -log_sum(terms)
