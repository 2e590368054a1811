"""What a step canary is drawn from: candidates that are exchangeable, and a score of each for a release."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from dpaudit.check import FloatArray
from dpaudit.protocols import RowArray, StepOracle

_RIDGE = 1e-6


class Bank(Protocol):
    """K + 1 candidates, the same number in every step that is used."""

    competing: int

    def prepare(self, step: StepOracle) -> int:
        """Make the candidates of a step ready; returns how many there are, 0 to leave the step alone."""
        ...

    def row(self, index: int, step: StepOracle) -> RowArray:
        """Gradient (d,) of a candidate, before clipping."""
        ...

    def scores(self, residuals: RowArray) -> FloatArray:
        """Of residuals (k, d), how much each candidate seems to be in them: (k, K + 1)."""
        ...


class Directions:
    """Unit directions on a random support, drawn once a run; memory K * coordinates."""

    def __init__(self, rng: np.random.Generator, *, references: int, scale: float, coordinates: int):
        self.competing = references + 1
        self._rng, self._scale, self._coordinates = rng, scale, coordinates
        self._support = np.empty(0, dtype=np.int64)
        self._directions = np.empty((0, 0), dtype=np.float32)

    def prepare(self, step: StepOracle) -> int:
        """Draw the directions at the first step."""
        if not self._support.size:
            d = sum(step.sizes)
            size = min(d, self._coordinates)
            self._support = np.sort(self._rng.choice(d, size=size, replace=False))
            bank = self._rng.standard_normal((self.competing, size), dtype=np.float32)
            norms = np.linalg.norm(bank, axis=1, keepdims=True)
            self._directions = np.asarray(bank / norms, dtype=np.float32)
        return self.competing

    def row(self, index: int, step: StepOracle) -> RowArray:
        """A direction at `scale` clipping norms."""
        row = np.zeros(sum(step.sizes), dtype=np.float32)
        row[self._support] = self._directions[index] * (self._scale * step.max_grad_norm)
        return row

    def scores(self, residuals: RowArray) -> FloatArray:
        """Inner products with each direction."""
        return np.asarray(residuals[:, self._support] @ self._directions.T, dtype=np.float64)


class Coordinates:
    """Single coordinates (Dirac canaries), as many as there are up to K + 1."""

    def __init__(self, rng: np.random.Generator, *, references: int, scale: float):
        self.competing = references + 1
        self._rng, self._scale = rng, scale
        self._support = np.empty(0, dtype=np.int64)

    def prepare(self, step: StepOracle) -> int:
        """Draw the coordinates at the first step."""
        if not self._support.size:
            d = sum(step.sizes)
            self.competing = min(d, self.competing)
            self._support = self._rng.choice(d, size=self.competing, replace=False)
        return self.competing

    def row(self, index: int, step: StepOracle) -> RowArray:
        """One coordinate at `scale` clipping norms."""
        row = np.zeros(sum(step.sizes), dtype=np.float32)
        row[self._support[index]] = self._scale * step.max_grad_norm
        return row

    def scores(self, residuals: RowArray) -> FloatArray:
        """The coordinates themselves."""
        return np.asarray(residuals[:, self._support], dtype=np.float64)


class Records:
    """Gradients of real records at the weights of the step, as the user's own loop forms them."""

    def __init__(self, *, wanted: int):
        self.competing = wanted
        self._rows = np.empty((0, 0), dtype=np.float32)
        self._solve: FloatArray = np.empty((0, 0))
        self._spread: FloatArray = np.empty(0)

    def prepare(self, step: StepOracle) -> int:
        """Take the step's candidates; leave a step alone that has fewer, or one that is not finite.

        Costs (K + 1)^2 d.
        """
        self._rows = step.candidates()[: self.competing]
        if len(self._rows) < self.competing or not np.isfinite(self._rows).all():
            return 0
        rows = self._rows.astype(np.float64)
        gram = rows @ rows.T
        ridge = _RIDGE * max(float(np.trace(gram)) / len(gram), 1e-300)
        self._solve = np.asarray(np.linalg.inv(gram + ridge * np.eye(len(gram))), dtype=np.float64)
        self._spread = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", self._solve, gram, self._solve), 1e-300))
        return self.competing

    def row(self, index: int, step: StepOracle) -> RowArray:
        """The record's own gradient."""
        row: RowArray = self._rows[index]
        return row

    def scores(self, residuals: RowArray) -> FloatArray:
        """Least-squares share of each candidate in the residual, over its spread under white noise.

        Gradients of records are far from orthogonal: an inner product would credit the canary's look-alikes.
        """
        shares = (residuals.astype(np.float64) @ self._rows.T.astype(np.float64)) @ self._solve
        scores: FloatArray = shares / self._spread
        return scores
