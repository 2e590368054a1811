"""The search for the record that moves a step's release the farthest.

With the random state frozen, the noise is the same on both sides, so the difference of two releases is
exactly what the record contributed (Cebere et al. 2026, arXiv:2602.17454, call it record and replay).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from dpaudit.attacks.replay.neighbours import ALIGNED, Neighbour, Neighbourhood
from dpaudit.check import FloatArray
from dpaudit.protocols import RowArray

_FARTHER = 1.01
_FARTHEST = 1.001
Batch = Sequence[RowArray]
Released = Callable[[Batch, Batch | None], RowArray | None]


@dataclass(slots=True)
class Worst:
    """The farthest that one record was seen to move a release, over all steps.

    Attributes:
        distance: over the clipping norm.
        where: the neighbour that did it.
        within: (parameters,) largest distance within each parameter, over the clipping norm.
        movement: (parameters,) distances within each parameter by the record of `distance`, or by the first
            that came within rounding of it.
    """

    distance: float = 0.0
    where: str = "no record tried"
    within: FloatArray = field(default_factory=lambda: np.zeros(0))
    movement: FloatArray = field(default_factory=lambda: np.zeros(0))


class Search:
    """The search at one step."""

    def __init__(
        self,
        around: Neighbourhood,
        released: Released,
        worst: Worst,
        step: int,
        settle: Callable[[], None] = lambda: None,
    ):
        """Search `around`.

        Args:
            around: the neighbours.
            released: executes the step on a batch, after one on another if that is given; None where
                it raised.
            worst: what is to be surpassed.
            step: number of the step.
            settle: called after each measurement.
        """
        self._around = around
        self._released = released
        self._worst = worst
        self._step = step
        self._settle = settle
        self._bases: dict[str, FloatArray | None] = {}
        if not worst.within.size:
            worst.within = np.zeros(len(around.sizes))

    def run(self, budget: int, rng: np.random.Generator, skip: int = 0) -> None:
        """Try the battery after its first `skip`, then climb with what is left of the budget."""
        tried = 0
        for neighbour in islice(self._around.battery(rng), skip, skip + budget):
            self.measure(neighbour)
            tried += 1
        if tried < budget:
            self._climb(budget - tried, rng)

    def measure(self, neighbour: Neighbour) -> float:
        """Distance between the releases of a batch and its neighbour, in clipping norms."""
        name, around = neighbour.base, self._around
        after = around.after.get(name)
        if name not in self._bases:
            self._bases[name] = _double(self._released(around.bases[name], after))
        base, other = self._bases[name], _double(self._released(neighbour.batch, after))
        if base is None or other is None:
            return 0.0
        moved = (other - base) / (around.clip * neighbour.records)
        starts = np.cumsum([0, *around.sizes[:-1]])
        within = np.sqrt(np.add.reduceat(moved**2, starts))
        distance = float(np.linalg.norm(within))
        # Not-a-number is no growth here: the distance below tells of it.
        grew = bool((within > _FARTHEST * self._worst.within).any()) or not np.isfinite(distance)
        self._worst.within = np.fmax(self._worst.within, within)
        if not distance <= _FARTHER * float(np.linalg.norm(self._worst.movement)):
            self._worst.movement = within
        # Not-a-number counts as farther than anything.
        if not distance <= self._worst.distance:
            self._worst.distance, self._worst.where = distance, f"{neighbour.where}, step {self._step}"
        if grew:
            self._settle()
        return distance

    def _climb(self, budget: int, rng: np.random.Generator) -> None:
        """(1+1) search: mutate the best record so far and keep what moves the release farther."""
        best = self._around.spread(base=ALIGNED, sign=-1, seed=1)
        reached = -1.0
        for _ in range(budget):
            tried = self._around.mutated(best, rng)
            distance = self.measure(self._around.add(tried))
            if distance >= reached:
                best, reached = tried, distance


def _double(released: RowArray | None) -> FloatArray | None:
    return None if released is None else released.astype(np.float64)
