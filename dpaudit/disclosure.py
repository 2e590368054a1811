"""What membership scores are evidence of: ranks for a bound, and scores of the audited model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dpaudit.check import FloatArray
from dpaudit.claim import Adjacency
from dpaudit.evidence import KnownNull
from dpaudit.protocols import ModelAttack, View


def clustered_ranks(attack: ModelAttack, views: Sequence[View]) -> KnownNull | None:
    """Ranks of the canaries that were in among those that were not, in runs that share no shadow model.

    Half of the runs are attacked and the others serve as their shadows, so that given the shadows the
    attacked runs are independent. Attacks without shadows attack every run.

    With member i swapped for non-member j, i is exchangeable with the non-members but j; leaving j out of
    the references unseen costs at most one rank, so (1 + #{non-member >= i}) / K is conservative, K being
    the number of non-members. A record of which the attack says nothing in any run is left out; where it
    says nothing in some, which may depend on who was in, a member stands last and a non-member first.
    """
    split = (len(views) + 1) // 2 if attack.shadows else len(views)
    targets, shadows = views[:split], views[split:]
    if len(targets) < 2 or len(shadows) < min(attack.shadows, 2):
        return None
    scores = attack.scores(targets, shadows)
    known = ~np.isnan(scores).all(axis=0)
    ranks, cluster = [], []
    fewest = None
    for run, view in enumerate(targets):
        usable = known & (view.canaries.canary if view.canaries.canary.any() else True)
        said = np.where(np.isnan(scores[run]), np.where(view.canaries.member, -np.inf, np.inf), scores[run])
        inside = said[usable & view.canaries.member]
        outside = np.sort(said[usable & ~view.canaries.member])
        if len(inside) == 0 or len(outside) < 2:
            continue
        above = len(outside) - np.searchsorted(outside, inside, side="left")
        ranks.append(np.minimum((1 + above) / len(outside), 1.0))
        cluster.append(np.full(len(inside), run))
        fewest = min(fewest or len(outside), len(outside))
    if len(ranks) < 2 or fewest is None:
        return None
    return KnownNull(
        p_values=np.concatenate(ranks),
        n_references=fewest - 1,
        unit="run",
        cluster=np.concatenate(cluster).astype(np.int64),
        source=attack.name,
        access=attack.access,
        adjacency=Adjacency.REPLACE_ONE,
    )


def final_scores(attack: ModelAttack, views: Sequence[View]) -> FloatArray | None:
    """Scores (n,) of the audited model, with every other run as a shadow; None with too few of them."""
    if len(views) - 1 < min(attack.shadows, 2):
        return None
    scores: FloatArray = attack.scores(views[:1], views[1:])[0]
    return scores
