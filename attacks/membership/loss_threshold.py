"""Members have the smaller loss (Yeom et al. 2018, arXiv:1709.01604)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpaudit.attacks.membership.logodds import log_odds
from dpaudit.check import FloatArray
from dpaudit.evidence import Access
from dpaudit.protocols import View


@dataclass(frozen=True, slots=True, kw_only=True)
class LossThreshold:
    """Score a record by the log-odds of its label; needs no model but the target."""

    name: str = "loss-threshold"
    access: Access = Access.FINAL_MODEL
    shadows: int = 0

    def scores(self, targets: Sequence[View], shadows: Sequence[View]) -> FloatArray:
        """(targets, n) log-odds; cost targets * n * classes."""
        return np.stack([log_odds(view.scores, view.canaries.y) for view in targets])
