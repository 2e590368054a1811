"""Which of n known records was used? A guess from one noisy gradient, against 1 - f(1/n).

The candidates are real records: their gradients come from the batch at hand, through the user's own
model, loss and preprocessing. One of them, drawn at random, is inserted once more; the adversary knows the
rest of the batch and picks the likeliest (Hayes, Mahloujifar & Balle 2023, arXiv:2302.07225).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpaudit.canary import Canaries
from dpaudit.check import in_range
from dpaudit.evidence import Access, Evidence, Guesses
from dpaudit.protocols import RowArray, StepOracle


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorAware:
    """One game at each step whose batch is large enough.

    Attributes:
        candidates: n, so that a blind guess succeeds with probability 1/n.
        games: games at each step, each with fresh candidates and fresh noise.
    """

    name: str = "prior-aware"
    access: Access = Access.STEP
    candidates: int = 10
    games: int = 2

    def __post_init__(self) -> None:
        """Refuse a game without a choice."""
        in_range("candidates", self.candidates, 2, 10_000)

    def begin(self, canaries: Canaries, rng: np.random.Generator) -> PriorAwareSession:
        """Start counting."""
        return PriorAwareSession(self, rng)


class PriorAwareSession:
    """Games played and won over one run."""

    def __init__(self, attack: PriorAware, rng: np.random.Generator):
        self._attack = attack
        self._rng = rng
        self._successes = 0
        self._trials = 0

    def observe(self, step: StepOracle) -> None:
        """Play; costs one execution for each game and one for what is known, memory b * d."""
        rows = _clipped(step.rows(), step)
        n = self._attack.candidates
        if len(rows) < n:
            return
        known = step.release(noise=False)
        raw = step.rows()
        for _ in range(self._attack.games):
            drawn = self._rng.choice(len(rows), size=n, replace=False)
            secret = int(self._rng.integers(n))
            seen = step.release(insert=raw[drawn[secret]]) - known
            self._successes += self._guess(rows[drawn], seen) == secret
            self._trials += 1

    def released(self, gradient: RowArray) -> None:
        """Nothing was inserted into the real step."""

    def evidence(self) -> tuple[Evidence, ...]:
        """Successes of all games."""
        if not self._trials:
            return ()
        return (
            Guesses(
                successes=int(self._successes),
                trials=self._trials,
                baseline=1.0 / self._attack.candidates,
                unit="step",
                source=self._attack.name,
                access=self._attack.access,
            ),
        )

    def _guess(self, candidates: RowArray, seen: RowArray) -> int:
        """The candidate nearest to what was seen: the likeliest under Gaussian noise. Ties fall at random."""
        likelihood = candidates @ seen - 0.5 * np.einsum("nd,nd->n", candidates, candidates)
        best = np.flatnonzero(likelihood >= likelihood.max())
        return int(self._rng.choice(best))


def _clipped(rows: RowArray, step: StepOracle) -> RowArray:
    """What a sound optimizer makes of the rows; without noise nothing is clipped either."""
    if step.noise_multiplier == 0:
        return rows
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows * np.minimum(1.0, step.max_grad_norm / np.maximum(norms, 1e-12)), dtype=np.float32)
