"""What the server of one federated update could rebuild of the records behind it.

The records go through the run's own model, loss and optimizer: clip and noise are those of the real step,
executed on a batch of these records alone. What is shown tests no claim and has no share of the error level.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dpaudit.attacks.reconstruction.rebuilding import Search, Subject, Updates, rebuilt
from dpaudit.canary import Canaries
from dpaudit.check import in_range
from dpaudit.evidence import NOT_TRIED, Access, Evidence, Note, Rebuilt
from dpaudit.matcher import GradientMatcher, Invertible
from dpaudit.protocols import RowArray, StepOracle

AS_RELEASED, UNPROTECTED = "as released", "without clip and noise"


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientInversion:
    """Updates of one step, inverted.

    Attributes:
        records: how many records at hand are rebuilt, as far as the batch has so many.
        batch: records in one update.
        step: number of the step.
        restarts: of each search; the one whose update agrees best is kept.
        iterations: steps of each search.
        smoothness: weight of the total variation of pictures.
        height: of a picture, where a record is a flat row of its pixels; 0 to go by the shape of a record.
        width: likewise.
    """

    name: str = "gradient-inversion"
    access: Access = Access.STEP
    records: int = 16
    batch: int = 1
    step: int = 0
    restarts: int = 2
    iterations: int = 300
    smoothness: float = 0.01
    height: int = 0
    width: int = 0
    show_records: bool = False
    descriptive: bool = True
    inverts: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be searched."""
        in_range("batch", self.batch, 1, 64)
        in_range("records", self.records, self.batch, 4096)
        in_range("restarts", self.restarts, 1, 1000)
        in_range("iterations", self.iterations, 1, 100_000)

    def with_records(self) -> GradientInversion:
        """The same attack, keeping pictures of real records."""
        return replace(self, show_records=True)

    def begin(self, canaries: Canaries, rng: np.random.Generator) -> GradientInversionSession:
        """Wait for the step, with a stream of its own: other attacks draw what they drew without it."""
        return GradientInversionSession(self, rng.spawn(1)[0])


class GradientInversionSession:
    """One look at one step."""

    def __init__(self, attack: GradientInversion, rng: np.random.Generator):
        self._attack = attack
        self._rng = rng
        self._found: tuple[Rebuilt | Note, ...] = ()

    def observe(self, step: StepOracle) -> None:
        """Invert at the one step; costs an execution an update, and what `inverting.by_angle` costs."""
        if step.index != self._attack.step:
            return
        matcher = step.matcher() if isinstance(step, Invertible) else "its steps cannot be differentiated"
        self._found = self._not_tried(matcher) if isinstance(matcher, str) else self._tried(step, matcher)

    def released(self, gradient: RowArray) -> None:
        """Nothing was inserted into the real step."""

    def evidence(self) -> tuple[Evidence, ...]:
        """What was rebuilt, or why nothing was."""
        return self._found or self._not_tried(f"the run has no step {self._attack.step}")

    def _not_tried(self, reason: str) -> tuple[Note, ...]:
        return (
            Note(
                check=NOT_TRIED,
                where=self._attack.name,
                measured=reason,
                meaning="Nothing is known of what this attack could rebuild.",
                source=self._attack.name,
                access=self._attack.access,
            ),
        )

    def _tried(self, step: StepOracle, matcher: GradientMatcher) -> tuple[Rebuilt | Note, ...]:
        attack = self._attack
        x, labels = matcher.batch()
        whole = min(len(x), attack.records) // attack.batch * attack.batch
        if not whole:
            return self._not_tried(
                f"its batch has {len(x)} records, fewer than the {attack.batch} of an update"
            )
        subjects = [Subject(name="records of the batch", real=True, x=x[:whole], labels=labels[:whole])]
        search = self._search(matcher, x)
        drawn = search.cards()
        subjects += [drawn] if drawn is not None else []
        updates = [each for subject in subjects for each in self._updates(step, matcher, subject)]
        return tuple(rebuilt(search, updates))

    def _search(self, matcher: GradientMatcher, x: RowArray) -> Search:
        attack, low, high = self._attack, float(x.min()), float(x.max())
        return Search(
            matcher=matcher,
            rng=self._rng,
            low=low,
            high=high if high > low else low + 1.0,
            source=attack.name,
            access=attack.access,
            batch=attack.batch,
            restarts=attack.restarts,
            iterations=attack.iterations,
            smoothness=attack.smoothness,
            height=attack.height,
            width=attack.width,
            show_records=attack.show_records,
        )

    def _updates(self, step: StepOracle, matcher: GradientMatcher, subject: Subject) -> list[Updates]:
        """What is seen of each batch: what the real step makes of it, and the bare sum where that differs."""
        rows = matcher.rows(subject.x, subject.labels).reshape(-1, self._attack.batch, sum(step.sizes))
        bare = rows.sum(axis=1)
        seen = np.stack([step.execute([each]).released for each in rows])
        noise = step.noise_multiplier
        clip = step.max_grad_norm if noise else np.inf
        released = Updates(subject=subject, condition=AS_RELEASED, seen=seen, clip=clip, noise=noise)
        if np.allclose(seen, bare, rtol=1e-4, atol=1e-5 * float(np.abs(bare).max())):
            return [released]
        bare_ = Updates(subject=subject, condition=UNPROTECTED, seen=bare, clip=np.inf, noise=0.0)
        return [bare_, released]
