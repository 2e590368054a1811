"""Scores as evidence of the kind that their design allows, and of no other."""

from __future__ import annotations

import numpy as np

from dpaudit.check import BoolArray
from dpaudit.claim import Adjacency
from dpaudit.evidence import Access, KnownNull, OneRun, TwoSample
from dpaudit.scoring.ranks import outranked
from dpaudit.scoring.scores import Scores


def two_sample(scores: Scores, source: str, adjacency: Adjacency, rng: np.random.Generator) -> TwoSample:
    """Scores of independent runs, in random order because files are often sorted by class."""
    inside, outside = scores.score[scores.member], scores.score[~scores.member]
    return TwoSample(
        scores_in=rng.permutation(inside),
        scores_out=rng.permutation(outside),
        source=source,
        access=Access.FINAL_MODEL,
        adjacency=adjacency,
    )


def ranks(scores: Scores, source: str, adjacency: Adjacency) -> KnownNull:
    """Rank of each record that was in among the records of its run that were not.

    Who is in was drawn at random. Without record i, the record and the K that are out are exchangeable, so
    that (1 + #{out >= i}) / (K + 1) is a p-value under add-remove neighbours. Under replace-one neighbours i
    is swapped with one j of those out; leaving j out unseen costs at most one rank, hence K for K + 1. Runs
    with more records out than the fewest have finer p-values, which estimators round up.

    Returns:
        Evidence about runs; without p-values where no run has both.
    """
    counts = outranked(scores.score, scores.member, scores.run)
    spent = 1 if adjacency is Adjacency.REPLACE_ONE else 0
    usable = scores.member & (counts.total > spent)
    total = counts.total[usable] - spent
    return KnownNull(
        p_values=np.minimum((1.0 + counts.at_or_above[usable]) / (total + 1.0), 1.0),
        n_references=int(total.min()) if total.size else 1,
        unit="run",
        source=source,
        access=Access.FINAL_MODEL,
        adjacency=adjacency,
        cluster=scores.cluster[usable],
    )


def one_run(scores: Scores, source: str, adjacency: Adjacency, rng: np.random.Generator) -> OneRun:
    """Scores with their coins, made fair by leaving out some of the class that was likelier.

    A record that was in with probability q > 1/2 is kept with probability (1 - q) / q if it was in, and
    always if it was not. Given which records are kept, and with those left out fixed, each kept one was in
    with probability 1/2 by a coin of its own.

    Several independent runs are one mechanism of all their coins together, in which one coin moves one run:
    their scores go together. Of runs whose members were drawn together only the first is used.
    """
    keep = fair(scores, rng) & _first_of_draw(scores)
    return OneRun(
        scores=scores.score[keep],
        included=scores.member[keep],
        source=source,
        access=Access.FINAL_MODEL,
        adjacency=adjacency,
    )


def fair(scores: Scores, rng: np.random.Generator) -> BoolArray:
    """(n,) which scores to keep so that each is of a fair coin."""
    q = scores.inclusion
    if q == 0.5:
        return np.ones(scores.score.size, dtype=np.bool_)
    likelier = scores.member if q > 0.5 else ~scores.member
    kept: BoolArray = ~likelier | (rng.random(scores.score.size) < min(q, 1 - q) / max(q, 1 - q))
    return kept


def _first_of_draw(scores: Scores) -> BoolArray:
    """(n,) whether the score is of the first run of its draw."""
    first = np.full(int(scores.cluster.max()) + 1, scores.n_runs, np.int64)
    np.minimum.at(first, scores.cluster, scores.run)
    of_first: BoolArray = first[scores.cluster] == scores.run
    return of_first


def exact_halves(scores: Scores) -> bool:
    """Whether every run has exactly half of its records in, as drawn halves do and coins seldom."""
    size = np.bincount(scores.run)
    inside = np.bincount(scores.run, weights=scores.member)
    return bool((2 * inside == size).all())
