"""Re-execute single optimizer steps on neighbouring batches: sensitivity, noise and control flow, exactly.

With the random state frozen, the noise is the same on both sides, so the difference of two releases is
exactly what the record contributed (Cebere et al. 2026, arXiv:2602.17454, call it record and replay).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpaudit.attacks.replay.session import ReplaySession
from dpaudit.canary import Canaries
from dpaudit.evidence import Access

__all__ = ["ReplayAttack", "ReplaySession"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayAttack:
    """A search for the record that moves a step the farthest, and the noise of every step.

    Attributes:
        steps: at how many steps to look: the first three, and others by chance.
        stride: mean distance between the others.
        repeats: releases of pure noise at each look.
        scale: norm of a huge record's gradient, in clipping norms.
        budget: neighbours that the search tries at the first look; a quarter of them later.
        watch: whether to take down the noise of every real step, at one execution each.
        retrain: whether to run a training function again, on neighbouring data and under the same releases.
        stop_early: whether to stop the run at the first contradiction that is beyond doubt.
    """

    name: str = "replay"
    access: Access = Access.REPLAY
    steps: int = 20
    stride: int = 25
    repeats: int = 5
    scale: float = 1e4
    budget: int = 60
    watch: bool = True
    stop_early: bool = False
    retrain: bool = True

    def begin(self, canaries: Canaries, rng: np.random.Generator) -> ReplaySession:
        """Start observing one run."""
        return ReplaySession(self, rng)
