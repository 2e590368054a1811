"""A canary gradient through the real clip and noise, ranked among candidates that were not inserted.

The canary is drawn uniformly from K+1 candidates. Without it, its rank among the others is
uniform whatever the optimizer does; with it, a step that satisfies its claim bounds how high it ranks
(the known-null rank test; ideas from Carlini et al. 2019, arXiv:1802.08232, Nasr et al. 2023,
arXiv:2302.07956, and Andrew et al. 2024, arXiv:2302.03098).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpaudit.attacks.candidates import Bank, Coordinates, Directions, Records
from dpaudit.canary import Canaries
from dpaudit.check import FloatArray, IntArray, one_of
from dpaudit.evidence import Access, Evidence, KnownNull
from dpaudit.protocols import RowArray, StepOracle


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCanary:
    """One canary in every real step, and more in re-executions of it.

    Attributes:
        references: K, candidates that compete with the canary; caps a rank at 1/(K+1).
        replays: re-executions of each step, each with a fresh canary and fresh noise.
        coordinates: size of the random set of coordinates that directions live on (memory K * coordinates).
        scale: norm of an inserted direction in clipping norms: the clip has to bring it down to 1.
        kind: "random" directions; "dirac": a canary's gradient lies on one coordinate, and each reference is
            another one, as far as there are enough; "input": mislabelled records, whose gradients come out of
            the user's own forward and backward pass.
        records: K+1 where the kind is "input": so many records ride along in every batch.
    """

    name: str = "step-canary"
    access: Access = Access.STEP
    references: int = 2000
    replays: int = 10
    coordinates: int = 4096
    scale: float = 10.0
    kind: str = "random"
    records: int = 32

    def __post_init__(self) -> None:
        """Refuse an unknown kind."""
        one_of("kind", self.kind, ("random", "dirac", "input"))

    @property
    def planted(self) -> int:
        """How many records ride along in every batch."""
        return self.records if self.kind == "input" else 0

    def due(self, index: int) -> bool:
        """Whether the step of this number is ranked: every one is."""
        return True

    def begin(self, canaries: Canaries, rng: np.random.Generator) -> StepCanarySession:
        """Start a session."""
        return StepCanarySession(self, rng)

    def bank(self, rng: np.random.Generator) -> Bank:
        """Candidates for the steps of one optimizer."""
        match self.kind:
            case "input":
                return Records(wanted=self.records)
            case "dirac":
                return Coordinates(rng, references=self.references, scale=self.scale)
            case _:
                return Directions(
                    rng, references=self.references, scale=self.scale, coordinates=self.coordinates
                )


class StepCanarySession:
    """Ranks of the canaries of one run, of all of its optimizers, in order of execution."""

    def __init__(self, attack: StepCanary, rng: np.random.Generator):
        self._attack = attack
        self._bank = attack.bank(rng)
        self._rng = rng
        # Records ride in the batch of one optimizer, which is stripped of them before its step.
        self.several = not attack.planted
        self._banks: dict[int, Bank] = {0: self._bank}
        self._competing = 0
        self._base: RowArray | None = None
        self._canary = -1
        self._p_values: list[FloatArray] = []
        self._phases: list[int] = []

    def observe(self, step: StepOracle) -> RowArray | None:
        """Replay the step with canaries, and return the one that goes into the real step.

        Costs replays + 1 executions and the scores of (replays, d) residuals against K + 1 candidates.
        """
        if step.optimizer not in self._banks:
            self._banks[step.optimizer] = self._attack.bank(self._rng)
        self._bank = self._banks[step.optimizer]
        competing = self._bank.prepare(step)
        # Ranks among fewer would be no part of the sequence that the first optimizer began.
        if competing < 2 or competing != (self._competing or competing):
            return None
        self._competing = competing
        self._base = step.release(noise=False)
        chosen = self._rng.integers(competing, size=self._attack.replays)
        rows = [self._bank.row(int(i), step) for i in chosen]
        if rows:
            releases = np.stack([step.release(insert=row) for row in rows])
            self._rank(releases - self._base, chosen)
        self._phases += [step.phase] * (len(rows) + 1)
        self._canary = int(self._rng.integers(competing))
        return self._bank.row(self._canary, step)

    def released(self, gradient: RowArray) -> None:
        """Rank the canary of the real step."""
        assert self._base is not None
        self._rank((gradient - self._base)[None], np.array([self._canary]))

    def evidence(self) -> tuple[Evidence, ...]:
        """All ranks, as one sequence of steps."""
        if not self._p_values:
            return ()
        p_values = np.concatenate(self._p_values)
        return (
            KnownNull(
                p_values=p_values,
                n_references=self._competing - 1,
                unit="step",
                phase=np.asarray(self._phases[: p_values.size], dtype=np.int64),
                source=self._attack.name,
                access=self._attack.access,
            ),
        )

    def _rank(self, residuals: RowArray, chosen: IntArray) -> None:
        """Append (1 + #{reference >= canary}) / (K + 1) for residuals (k, d); ties count for the others."""
        scores = self._bank.scores(residuals)
        own = np.take_along_axis(scores, chosen[:, None], axis=1)
        # A release that is not a number shows nothing: all references count as at or above.
        self._p_values.append((~(scores < own)).sum(axis=1) / scores.shape[1])
