"""Scores ranked within their runs: how many non-members of the same run lie above each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpaudit.check import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Outranked:
    """For each score, non-members of its run; all of shape (n,).

    Attributes:
        above: with a higher score.
        at_or_above: with a score as high; the score itself counts if it is of a non-member.
        total: in the run.
    """

    above: IntArray
    at_or_above: IntArray
    total: IntArray


def outranked(score: FloatArray, member: BoolArray, run: IntArray) -> Outranked:
    """Count in O(n log n), all runs at once.

    Args:
        score: (n,) higher means member.
        member: (n,) whether it was in.
        run: (n,) index of the run, from 0.
    """
    order = np.lexsort((-score, run))
    total = np.bincount(run, weights=~member)
    # Non-members met so far, with those of earlier runs taken off again.
    met = np.concatenate([[0], np.cumsum(~member[order])])
    earlier = (np.cumsum(total) - total)[run[order]]
    new = np.ones(score.size + 1, dtype=np.bool_)
    new[1:-1] = (np.diff(run[order]) != 0) | (np.diff(score[order]) != 0)
    edges = np.flatnonzero(new)
    group = np.cumsum(new[:-1]) - 1
    above, at_or_above = np.empty(score.size, np.int64), np.empty(score.size, np.int64)
    above[order] = met[edges[group]] - earlier
    at_or_above[order] = met[edges[group + 1]] - earlier
    return Outranked(above=above, at_or_above=at_or_above, total=total[run].astype(np.int64))


def mean_auc(score: FloatArray, member: BoolArray, run: IntArray) -> float:
    """Area under the ROC within each run, averaged over pairs; 0.5 where no run has both classes."""
    counts = outranked(score, member, run)
    lost = float((counts.above[member] + counts.at_or_above[member]).sum()) / 2
    pairs = float(counts.total[member].sum())
    return 1.0 - lost / pairs if pairs else 0.5
