"""What log-odds are usual for such a record: quantile regression (Bertran et al. 2023, arXiv:2307.03694).

One auxiliary model, a regression with a Gaussian head, is fitted to the target's answers about the records
outside the game. Those were in no training set and are not scored, so that no record is judged by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpaudit.attacks.membership.logodds import has_population, log_odds, odds_of, unknown
from dpaudit.check import FloatArray, IntArray
from dpaudit.evidence import Access
from dpaudit.protocols import View

_FEWEST = 20
_PENALTIES = np.geomspace(1e-3, 1e3, 13)
_STREAM = 230_703_694
_MEAN_LOG_CHI_SQUARE = -1.2704


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantileRegression:
    """Standardised residual of the log-odds, given the record: a threshold on it is a conditional quantile.

    Attributes:
        population: at most so many records outside the game are learnt from.
        features: random cosine features beside the record's own and its class.
    """

    name: str = "quantile-regression"
    access: Access = Access.FINAL_MODEL
    shadows: int = 0
    population: int = 2000
    features: int = 200

    def scores(self, targets: Sequence[View], shadows: Sequence[View]) -> FloatArray:
        """(targets, n); NaN with fewer than 20 records outside the game.

        Cost k * p * min(k, p) once for p features, and (n + k) * p a target.
        """
        canaries = targets[0].canaries
        k = min(len(canaries.test_y), self.population)
        if not has_population(targets) or k < _FEWEST:
            return unknown(targets)
        known = np.stack([log_odds(v.test_scores[:k], canaries.test_y[:k]) for v in targets], axis=1)
        fitted, design = self._designs(
            canaries.test_x[:k], canaries.test_y[:k], canaries.x, canaries.y, targets[0].scores.shape[1]
        )
        regression = Ridge.of(fitted)
        mean, residual = regression.predict(known, design)
        log_variance, _ = regression.predict(np.log(residual**2 + 1e-12) - _MEAN_LOG_CHI_SQUARE, design)
        # A variance that is only estimated may be too small by chance; that of all records bounds it.
        overall = np.log((residual**2).mean(axis=0) + 1e-12)
        spread = np.exp(0.5 * np.clip(log_variance, overall - 4.0, overall + 4.0))
        result: FloatArray = (odds_of(targets) - mean.T) / spread.T
        return result

    def _designs(
        self, x: FloatArray, y: IntArray, other_x: FloatArray, other_y: IntArray, classes: int
    ) -> tuple[FloatArray, FloatArray]:
        """Features of the population (k, p) and of the records (n, p), standardised by the population."""
        flat, other = x.reshape(len(x), -1), other_x.reshape(len(other_x), -1)
        centre, spread = flat.mean(axis=0), flat.std(axis=0)
        spread = np.where(spread > 0, spread, 1.0)
        flat, other = (flat - centre) / spread, (other - centre) / spread
        rng = np.random.default_rng(_STREAM)
        width = np.sqrt(
            np.median(((flat[: len(flat) // 2] - flat[-(len(flat) // 2) :]) ** 2).sum(axis=1)) or 1.0
        )
        turn = rng.standard_normal((flat.shape[1], self.features)) / width
        phase = rng.uniform(0.0, 2.0 * np.pi, self.features)
        one_hot = np.eye(max(classes, int(y.max(initial=0)) + 1, int(other_y.max(initial=0)) + 1))
        made = [
            np.concatenate([part, one_hot[label], np.cos(part @ turn + phase)], axis=1)
            for part, label in ((flat, y), (other, other_y))
        ]
        return made[0], made[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ridge:
    """Ridge regression with an intercept, decomposed once for any number of answers.

    Attributes:
        centre: (p,) mean of the features.
        left: (k, r) left singular vectors.
        values: (r,) singular values.
        right: (r, p) right singular vectors.
    """

    centre: FloatArray
    left: FloatArray
    values: FloatArray
    right: FloatArray

    @classmethod
    def of(cls, design: FloatArray) -> Ridge:
        """Decompose (k, p) features; cost k * p * min(k, p)."""
        centre = design.mean(axis=0)
        left, values, right = np.linalg.svd(design - centre, full_matrices=False)
        kept = values > 1e-9 * max(float(values[0]), 1e-300)
        return cls(centre=centre, left=left[:, kept], values=values[kept], right=right[kept])

    def predict(self, answers: FloatArray, design: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Predictions (n, t) for (n, p) features, and residuals (k, t) of `answers` each left out in turn.

        The penalty of each answer is the one with the least squared error of those residuals, which a ridge
        regression has in closed form: residual / (1 - leverage).
        """
        k = len(answers)
        mean = answers.mean(axis=0)
        rotated = self.left.T @ (answers - mean)
        best = np.full(answers.shape[1], np.inf)
        residual, coefficient = np.zeros(answers.shape), np.zeros((len(self.values), answers.shape[1]))
        for penalty in _PENALTIES * float((self.values**2).mean() if self.values.size else 1.0):
            shrunk = self.values**2 / (self.values**2 + penalty)
            leverage = (self.left**2) @ shrunk + 1.0 / k
            left_out = (answers - mean - self.left @ (shrunk[:, None] * rotated)) / (1.0 - leverage)[:, None]
            error = (left_out**2).sum(axis=0)
            better = error < best
            best = np.where(better, error, best)
            residual[:, better] = left_out[:, better]
            coefficient[:, better] = ((shrunk / self.values)[:, None] * rotated)[:, better]
        return (design - self.centre) @ (self.right.T @ coefficient) + mean, residual
