"""What a ride of the replay has found so far, and whether that is enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from dpaudit.attacks.replay import flow
from dpaudit.attacks.replay.noise_log import NoiseLog
from dpaudit.attacks.replay.search import Worst
from dpaudit.check import FloatArray
from dpaudit.evidence import Finding, Movement, Note, Replay
from dpaudit.protocols import Execution, RowArray, StepOracle, StopTraining
from dpaudit.stats import noise

_BLIND = "clip not tested every step"
SURE = 1e-9
"""Level below which a deviation is called a contradiction outright, apart from the alpha of the audit."""


class Book:
    """Findings, notes and measurements of one run."""

    def __init__(self, step: StepOracle, *, stop_early: bool):
        self.log = NoiseLog(step.names, step.sizes, step.noise_multiplier, step.precision)
        self.worst = Worst()
        self.executions = self.looked = 0
        self.can_freeze = self.can_silence = True
        self.first: int | None = None
        self._stop_early = stop_early
        self._index = step.index
        self._of = f" (optimizer {step.optimizer + 1})" if step.optimizer else ""
        self._phases: Counter[int] = Counter()
        # Norm, factor and product are rounded one after the other.
        self._tolerance = max(1e-3, 2 * step.precision if step.precision > 1e-4 else 0.0)
        self._findings: dict[str, Finding] = {}
        self._notes: dict[str, Note] = {}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The first of each check."""
        return tuple(self._findings.values())

    @property
    def notes(self) -> tuple[Note, ...]:
        """The first of each kind."""
        return tuple(self._notes.values())

    def at(self, step: StepOracle) -> None:
        """Go on to another step."""
        self._index = step.index
        self._phases[step.phase] += 1

    def run(
        self,
        step: StepOracle,
        batch: Sequence[RowArray] | None,
        words: str,
        *,
        after: Sequence[RowArray] | None = None,
        noise: bool = True,
        frozen: bool = False,
    ) -> Execution | None:
        """Execute and count; what raises is noted, and None comes back."""
        self.executions += 1 + (after is not None)
        try:
            return step.execute(batch, after=after, noise=noise, frozen=frozen)
        except Exception as error:
            self.note(flow.raised(words, error))
            return None

    def found(self, findings: Iterable[Finding]) -> None:
        """Keep the first finding of each check."""
        for finding in findings:
            self._findings.setdefault(finding.check, replace(finding, where=f"{finding.where}{self._of}"))
            self.settle()

    def note(self, note: Note) -> None:
        """Keep the first note of each kind."""
        self._notes.setdefault(f"{note.check} {note.where}", replace(note, where=f"{note.where}{self._of}"))

    def moved(self, movement: Movement, step: StepOracle) -> None:
        """Take down how far one record moved the sum where the clip is not the optimizer's affair."""
        self._notes.pop(_BLIND, None)
        within = np.asarray(movement.within, dtype=np.float64)
        if self.worst.movement.size and movement.distance <= self.worst.distance:
            return
        self.worst.distance, self.worst.where = movement.distance, f"{movement.where}, step {step.index}"
        self.worst.movement = self.worst.within = within
        self.settle()

    def blind(self, why: str) -> None:
        """Say that nothing is known of the clip, and take one record to move the sum by the clipping norm."""
        if self.worst.distance:
            return
        self.worst.distance, self.worst.where = 1.0, f"not measured: {why}"
        self.note(
            Note(
                check="clip not tested",
                where="every step",
                measured=why,
                meaning="Noise was measured, but how far one record moves the sum was not.",
            )
        )

    def noise(self, z: FloatArray, step: StepOracle, where: str, draws: float = 1.0) -> None:
        """Take down a draw of the noise; of a release that is not finite, nothing is known of its noise."""
        if not np.isfinite(z).all():
            self.note(flow.lost_noise(where))
            return
        claimed = step.noise_multiplier
        self.log.add(z, clip=step.max_grad_norm, claimed=claimed, where=where, draws=draws)
        if self.log.repeated:
            one, other = self.log.repeated[0]
            self.found((flow.repeated(f"{one} and {other}"),))
        self.settle()

    def settle(self) -> None:
        """Count the executions up to the first contradiction, and stop the run there if that was asked for.

        Raises:
            StopTraining: the claim is contradicted beyond doubt.
        """
        if self.first is not None:
            return
        reason = next(iter(self._findings), None)
        if reason is None and self.log.draws >= 1:
            wrong = noise.contradictions(self.measured(), level=SURE)
            reason = f"noise of {next(iter(wrong))}" if wrong else None
        if reason is not None:
            self.first = self.executions
            if self._stop_early:
                raise StopTraining(self._index, reason)

    def measured(self, law: tuple[tuple[str, float], ...] = (), *, whole: bool = True) -> Replay:
        """The measurements as evidence, of every step of the run or of the part that one optimizer made."""
        return Replay(
            sensitivity=self.worst.distance,
            sensitivity_where=f"{self.worst.where}{self._of}",
            noise=self.log.samples(self.worst.within if self.worst.within.size else None),
            executions=self.executions,
            steps=self.looked,
            tolerance=self._tolerance,
            law=law,
            movement=tuple(self.worst.movement.tolist()),
            first_contradiction=self.first,
            part=() if whole else tuple(sorted(self._phases.items())),
        )


def releases(executions: Iterable[Execution | None]) -> list[FloatArray]:
    """What was released, in double precision, by those that did not raise."""
    return [np.asarray(done.released, dtype=np.float64) for done in executions if done is not None]
