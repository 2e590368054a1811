"""Which of n known candidates was trained on? A guess from one final model, against 1 - f(1/n).

Every model is trained with all other records and one candidate, drawn uniformly: one game a model, so that
games are independent. The adversary learns from some models of its own how sure of each candidate a model is
that was trained without it, and picks the candidate that stands out most (the calibration of LiRA, Carlini et
al. 2022, arXiv:2112.03570, and the game of Hayes, Mahloujifar & Balle 2023, arXiv:2302.07225).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpaudit.attacks.membership.logodds import log_odds
from dpaudit.attacks.reconstruction.tally import Tally, sizes_of, tests_of
from dpaudit.check import FloatArray, IntArray, one_of
from dpaudit.evidence import Access, Guesses

_SHARE = 4
"""Of so many models the adversary learns from one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineUp:
    """One of n candidates is in each model, and nobody else takes the slot (add-remove).

    Attributes:
        models: to train, stacked where the training function declares its recipe; a quarter is the
            adversary's own.
        candidates: n, or several, such as [10, 100], as in `PriorAware`.
        label: of the candidates: "wrong", the one that a model finds least likely before training, which
            leaks most; or "own", for what ordinary records leak.
        start: of training: "recipe", initial weights that are drawn anew for each model; "known", the same
            for all, which the adversary knows; or "fitted", weights at which all other records are fitted,
            which an adversary may have chosen.
    """

    name: str = "line-up"
    access: Access = Access.FINAL_MODEL
    models: int = 256
    candidates: int | Sequence[int] = 10
    label: str = "wrong"
    start: str = "recipe"

    def __post_init__(self) -> None:
        """Refuse a game without a choice."""
        one_of("label", self.label, ("own", "wrong"))
        one_of("start", self.start, ("recipe", "known", "fitted"))
        sizes_of(self.candidates)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Every n, smallest first."""
        return sizes_of(self.candidates)

    @property
    def tests(self) -> tuple[str, ...]:
        """Source of the evidence of each n."""
        return tests_of(self.name, self.sizes)

    def labels(self, log_probabilities: FloatArray, own: IntArray) -> IntArray:
        """(n,) labels of the candidates, given (n, classes) before training and their own."""
        return own if self.label == "own" else np.argmin(log_probabilities, axis=1).astype(np.int64)

    def evidence(
        self, log_probabilities: FloatArray, labels: IntArray, secrets: IntArray, rng: np.random.Generator
    ) -> tuple[Guesses, ...]:
        """Games of all but the adversary's own models.

        Args:
            log_probabilities: (M, n, classes) of the candidates in every final model.
            labels: (n,) of the candidates.
            secrets: (M,) which one was in.
            rng: of the order of the others, and of ties.
        """
        tally = Tally(self.sizes)
        odds = np.stack([log_odds(model, labels) for model in log_probabilities])
        own = max(2, len(odds) // _SHARE)
        stands_out = _standing_out(odds[own:], odds[:own], secrets[:own])
        if len(stands_out):
            tally.count(secret_first(stands_out, secrets[own:], rng), rng)
        return tally.evidence(self.name, self.access, "run")


def _standing_out(odds: FloatArray, known: FloatArray, secrets: IntArray) -> FloatArray:
    """(M, n) deviations of log-odds from those of known models (R, n) without the candidate.

    What candidates share from model to model, such as batches in another order, tells them apart from nobody:
    each is taken beside the best linear guess from all others, with the covariance shrunk as Ledoit and Wolf
    2004 (doi:10.1016/S0047-259X(03)00096-4) have it. Costs n^3.
    """
    from sklearn.covariance import ledoit_wolf

    without = np.where(secrets[:, None] == np.arange(known.shape[1]), np.nan, known)
    usual = np.isfinite(without)
    count = np.maximum(usual.sum(axis=0), 1)
    mean = np.where(usual, without, 0.0).sum(axis=0) / count
    apart = np.where(usual, without - mean, 0.0)
    variance = (apart**2).sum(axis=0) / count
    # Few models know a deviation badly: half of it is that of all candidates together.
    scale = np.sqrt(0.5 * (variance + variance.mean()) + 1e-12)
    covariance, _ = ledoit_wolf(apart / scale, assume_centered=True)
    inverse = np.linalg.inv(covariance + 1e-9 * np.eye(len(covariance)))
    deviations: FloatArray = ((odds - mean) / scale) @ inverse / np.sqrt(np.diag(inverse))
    return deviations


def secret_first(scores: FloatArray, secrets: IntArray, rng: np.random.Generator) -> FloatArray:
    """(M, n) scores of each model in random order, but for its secret candidate's in front."""
    order = rng.random(scores.shape)
    order[np.arange(len(scores)), secrets] = -1.0
    return np.take_along_axis(scores, np.argsort(order, axis=1), axis=1)
