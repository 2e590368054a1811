"""A canary gradient through the real clip and noise, ranked among directions that were never inserted.

The canary is drawn uniformly from a bank of K+1 directions. Without it, its rank among the others is
uniform whatever the optimizer does; with it, a step that satisfies its claim bounds how high it ranks
(the known-null rank test; ideas from Carlini et al. 2019, arXiv:1802.08232, Nasr et al. 2023,
arXiv:2302.07956, and Andrew et al. 2024, arXiv:2302.03098).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpaudit.canary import Canaries
from dpaudit.check import FloatArray, IntArray, one_of
from dpaudit.evidence import Access, Evidence, KnownNull
from dpaudit.protocols import RowArray, StepOracle


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCanary:
    """One canary in every real step, and more in re-executions of it.

    Attributes:
        references: K, directions that compete with the canary; caps a rank at 1/(K+1).
        replays: re-executions of each step, each with a fresh canary and fresh noise.
        coordinates: size of the random set of coordinates that directions live on (memory K * coordinates).
        scale: norm of the inserted gradient in clipping norms: the clip has to bring it down to 1.
        kind: "random" directions, or "dirac": a canary's gradient lies on one coordinate, and each reference
            is another one, as far as there are enough.
    """

    name: str = "step-canary"
    access: Access = Access.STEP
    references: int = 2000
    replays: int = 10
    coordinates: int = 4096
    scale: float = 10.0
    kind: str = "random"

    def __post_init__(self) -> None:
        """Refuse an unknown kind."""
        one_of("kind", self.kind, ("random", "dirac"))

    def begin(self, canaries: Canaries, rng: np.random.Generator) -> StepCanarySession:
        """Start a session with a bank of its own."""
        return StepCanarySession(self, rng)


class StepCanarySession:
    """Ranks of the canaries of one run, in order of execution."""

    def __init__(self, attack: StepCanary, rng: np.random.Generator):
        self._attack = attack
        self._rng = rng
        self._bank: RowArray | None = None
        self._competing = 0
        self._support = np.empty(0, dtype=np.int64)
        self._base: RowArray | None = None
        self._canary = -1
        self._p_values: list[FloatArray] = []
        self._phases: list[int] = []
        self._phase = 0

    def observe(self, step: StepOracle) -> RowArray:
        """Replay the step with canaries, and return the one that goes into the real step.

        Costs replays + 1 executions and a product of (replays, coordinates) by (coordinates, K + 1).
        """
        self._draw_directions(sum(step.sizes))
        self._base = step.release(noise=False)
        chosen = self._rng.integers(self._competing, size=self._attack.replays)
        rows = [self._row(int(i), step) for i in chosen]
        if rows:
            releases = np.stack([step.release(insert=row) for row in rows])
            self._rank(releases - self._base, chosen)
        self._phase = step.phase
        self._phases += [step.phase] * (len(rows) + 1)
        self._canary = int(self._rng.integers(self._competing))
        return self._row(self._canary, step)

    def released(self, gradient: RowArray) -> None:
        """Rank the canary of the real step."""
        assert self._base is not None
        self._rank((gradient - self._base)[None], np.array([self._canary]))

    def evidence(self) -> tuple[Evidence, ...]:
        """All ranks, as one sequence of steps."""
        if not self._p_values:
            return ()
        return (
            KnownNull(
                p_values=np.concatenate(self._p_values),
                n_references=self._competing - 1,
                unit="step",
                phase=np.asarray(self._phases, dtype=np.int64),
                source=self._attack.name,
                access=self._attack.access,
            ),
        )

    def _draw_directions(self, d: int) -> None:
        """Draw K + 1 unit directions once per run: (K + 1, s) on a random support, or K + 1 coordinates."""
        if self._competing:
            return
        if self._attack.kind == "dirac":
            self._competing = min(d, self._attack.references + 1)
            self._support = self._rng.choice(d, size=self._competing, replace=False)
            return
        self._competing = self._attack.references + 1
        size = min(d, self._attack.coordinates)
        self._support = np.sort(self._rng.choice(d, size=size, replace=False))
        bank = self._rng.standard_normal((self._competing, size), dtype=np.float32)
        self._bank = np.asarray(bank / np.linalg.norm(bank, axis=1, keepdims=True), dtype=np.float32)

    def _row(self, index: int, step: StepOracle) -> RowArray:
        row = np.zeros(sum(step.sizes), dtype=np.float32)
        norm = self._attack.scale * step.max_grad_norm
        if self._bank is None:
            row[self._support[index]] = norm
        else:
            row[self._support] = self._bank[index] * norm
        return row

    def _rank(self, residuals: RowArray, chosen: IntArray) -> None:
        """Append (1 + #{reference >= canary}) / (K + 1) for residuals (k, d); ties count for the others."""
        on_support = residuals[:, self._support]
        scores = on_support if self._bank is None else on_support @ self._bank.T
        own = np.take_along_axis(scores, chosen[:, None], axis=1)
        # A release that is not a number shows nothing: all references count as at or above.
        self._p_values.append((~(scores < own)).sum(axis=1) / scores.shape[1])
