"""One record against many models that all start where it leaks most (Annamalai and De Cristofaro 2024).

The adversary of arXiv:2405.14106 sees final models only, but chose the initial weights: those of a model that
fits every other record already, so that what a run adds is the canary's gradient and the noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpaudit.attacks.membership.logodds import log_odds
from dpaudit.check import FloatArray, one_of
from dpaudit.evidence import Access


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstCase:
    """Half of the models are trained with the canary, half without.

    Attributes:
        models: to train; they are stacked where the training function declares its recipe.
        canary: "blank", every feature zero; or "clip-bkd", along the direction in which the other records
            vary least, as long as the longest of them (Jagielski et al. 2020, arXiv:2006.07709).
    """

    name: str = "worst-case"
    access: Access = Access.FINAL_MODEL
    models: int = 200
    canary: str = "blank"

    def __post_init__(self) -> None:
        """Refuse an unknown canary."""
        one_of("canary", self.canary, ("blank", "clip-bkd"))

    def features(self, others: FloatArray) -> FloatArray:
        """Features (...) of the canary beside other records (n, ...). Costs n d^2 for clip-bkd."""
        if self.canary == "blank":
            return np.zeros(others.shape[1:])
        flat = others.reshape(len(others), -1)
        # The last right singular vector; of the second moments, so that d is all that must fit.
        _, vectors = np.linalg.eigh(flat.T @ flat)
        longest = float(np.linalg.norm(flat, axis=1).max())
        return np.asarray(vectors[:, 0] * longest, dtype=np.float64).reshape(others.shape[1:])

    def label(self, log_probabilities: FloatArray) -> int:
        """The class (of (classes,) log-probabilities at the start) that the canary is least taken for."""
        return int(np.argmin(log_probabilities))

    def scores(self, log_probabilities: FloatArray, label: int) -> FloatArray:
        """(M,) log-odds of the canary's label in each final model, (M, classes)."""
        return log_odds(log_probabilities, np.full(len(log_probabilities), label))
