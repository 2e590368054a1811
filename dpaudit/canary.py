"""The records of the membership game: who could be in, who was, and a commitment made before training."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from dpaudit.check import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Canaries:
    """A pool of records and the random half of it that is trained on.

    Attributes:
        x: (n, ...) features of the pool, raw as the user's preprocessing expects them.
        y: (n,) labels; those of canaries are deliberately wrong.
        member: (n,) whether the record is in the training set.
        canary: (n,) whether the record is a planted (mislabelled) canary.
        test_x: (k, ...) records outside the game, for accuracy and as reconstruction candidates.
        test_y: (k,) their labels.
    """

    x: FloatArray
    y: IntArray
    member: BoolArray
    canary: BoolArray
    test_x: FloatArray
    test_y: IntArray

    def commitment(self) -> str:
        """SHA-256 of the draw, to be published before training."""
        digest = hashlib.sha256()
        for part in (self.x, self.y, self.member, self.canary):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    @property
    def train_x(self) -> FloatArray:
        """Features of the members."""
        return self.x[self.member]

    @property
    def train_y(self) -> IntArray:
        """Labels of the members."""
        return self.y[self.member]
