"""At which steps an attack looks, fixed before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dpaudit.canary import Canaries
from dpaudit.evidence import Access, Evidence
from dpaudit.protocols import RowArray, StepAttack, StepOracle, StepSession
from dpaudit.riding import Plants, Several

FIRST = 8
"""Steps at the start of a run that are all looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinned:
    """A step attack at the first eight steps and at every n-th, fixed before anything runs.

    Attributes:
        inner: the attack.
        every: n.
    """

    inner: StepAttack
    every: int

    @property
    def name(self) -> str:
        """See `StepAttack`."""
        return self.inner.name

    @property
    def access(self) -> Access:
        """See `StepAttack`."""
        return self.inner.access

    @property
    def planted(self) -> int:
        """See `Plants`."""
        return self.inner.planted if isinstance(self.inner, Plants) else 0

    def due(self, index: int) -> bool:
        """See `Plants`."""
        return index < FIRST or index % self.every == 0

    def begin(self, canaries: Canaries, rng: np.random.Generator) -> ThinnedSession:
        """See `StepAttack`."""
        return ThinnedSession(self.inner.begin(canaries, rng), self.due)


class ThinnedSession:
    """The session of the inner attack, asked at some steps only."""

    def __init__(self, inner: StepSession, due: Callable[[int], bool]):
        self._inner = inner
        self._due = due
        self.several = isinstance(inner, Several) and inner.several

    def observe(self, step: StepOracle) -> RowArray | None:
        """See `StepSession`."""
        return self._inner.observe(step) if self._due(step.index) else None

    def released(self, gradient: RowArray) -> None:
        """See `StepSession`."""
        self._inner.released(gradient)

    def evidence(self) -> tuple[Evidence, ...]:
        """See `StepSession`."""
        return self._inner.evidence()
