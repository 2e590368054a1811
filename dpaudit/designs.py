"""What membership scores of one run are evidence of: fair coins, one for each pair of records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dpaudit.claim import Adjacency
from dpaudit.disclosure import final_scores
from dpaudit.evidence import OneRun
from dpaudit.protocols import ModelAttack, View


def paired_coins(attack: ModelAttack, views: Sequence[View], rng: np.random.Generator) -> OneRun | None:
    """One run as a game of fair coins: of each pair of records, one was in.

    The members are a uniformly drawn half of a group. Matching them at random with the others gives pairs of
    which, whoever is paired with whom, either record was in with probability 1/2 and independently of all
    other pairs. N stays what it was, and the neighbouring relation is replace-one. This is the design of
    Steinke, Nasr and Jagielski 2023 (arXiv:2305.08846) and Mahloujifar et al. 2025 (arXiv:2410.22235) with
    two options a coin.

    Args:
        attack: scores the first run; every other one is a shadow model.
        views: the audited run first.
        rng: of the matching and of the order within a pair.

    Returns:
        Differences of scores, (m,) for m pairs of canaries, or of all records where there are no canaries;
        0 where the attack cannot say. None with too few shadow models.
    """
    scores = final_scores(attack, views)
    if scores is None:
        return None
    canaries = views[0].canaries
    game = canaries.canary if canaries.canary.any() else np.ones(len(scores), dtype=np.bool_)
    inside = rng.permutation(np.flatnonzero(game & canaries.member))
    outside = rng.permutation(np.flatnonzero(game & ~canaries.member))
    pairs = min(len(inside), len(outside))
    first = rng.random(pairs) < 0.5
    with np.errstate(invalid="ignore"):
        lead = scores[inside[:pairs]] - scores[outside[:pairs]]
    lead = np.where(np.isfinite(lead), lead, 0.0)
    return OneRun(
        scores=np.where(first, lead, -lead),
        included=first,
        source=attack.name,
        access=attack.access,
        adjacency=Adjacency.REPLACE_ONE,
    )
