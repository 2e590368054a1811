"""Stop a run whose step canaries contradict its noise, because what follows would be trained for nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dpaudit.accounting import LedgerFamily
from dpaudit.canary import Canaries
from dpaudit.claim import Phase
from dpaudit.evidence import Access, Evidence, KnownNull
from dpaudit.protocols import RowArray, StepAttack, StepOracle, StepSession, StopTraining
from dpaudit.riding import Plants, Several
from dpaudit.stats import known_null

_MARGIN = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """A step attack that stops the run once its ranks refute the noise that the optimizer states.

    The test is the anytime martingale at the level at which the verdict will read it, against 0.8 of the
    stated noise: accountants that are not tight claim more than the noise is worth, and a run that is stopped
    shall be refuted, too. Smaller faults do not stop the run; its verdict still sees them.

    Attributes:
        inner: the attack.
        alpha: of its anytime line.
    """

    inner: StepAttack
    alpha: float

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
        return isinstance(self.inner, Plants) and self.inner.due(index)

    def begin(self, canaries: Canaries, rng: np.random.Generator) -> StoppingSession:
        """See `StepAttack`."""
        return StoppingSession(inner=self.inner.begin(canaries, rng), alpha=self.alpha)


@dataclass(kw_only=True)
class StoppingSession:
    """The session of the inner attack, with an eye on what it has collected."""

    inner: StepSession
    alpha: float
    _noise: dict[int, float] = field(default_factory=dict)
    _index: int = 0
    _due: bool = False

    @property
    def several(self) -> bool:
        """See `Several`."""
        return isinstance(self.inner, Several) and self.inner.several

    def observe(self, step: StepOracle) -> RowArray | None:
        """See `StepSession`."""
        self._index = step.index
        self._noise[step.phase] = step.noise_multiplier
        row = self.inner.observe(step)
        self._due = row is not None
        return row

    def released(self, gradient: RowArray) -> None:
        """See `StepSession`."""
        self.inner.released(gradient)

    def evidence(self) -> tuple[Evidence, ...]:
        """See `StepSession`."""
        return self.inner.evidence()

    def about_to_step(self, step: StepOracle) -> None:
        """See `Watcher`."""

    def stepped(self, released: RowArray) -> None:
        """Look at the wealth after each step that had a canary. Costs 24 passes over the ranks so far.

        Raises:
            StopTraining: the ranks refute the stated noise.
        """
        if not self._due:
            return
        self._due = False
        noise = [max(self._noise.get(phase, 0.0), 1e-9) for phase in range(max(self._noise) + 1)]
        family = LedgerFamily(
            ledger=tuple(Phase(noise_multiplier=_MARGIN * each, sample_rate=1.0, steps=1) for each in noise),
            delta=1e-5,
        )
        for ranks in self.inner.evidence():
            if isinstance(ranks, KnownNull) and known_null.refuted(ranks, family, alpha=self.alpha):
                raise StopTraining(
                    self._index, f"the ranks of {ranks.p_values.size} canaries contradict the stated noise"
                )
