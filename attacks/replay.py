"""Re-execute single optimizer steps on neighbouring batches: how far one record moves the sum, and the noise.

With the random state frozen, the noise is the same on both sides, so the difference of two releases is
exactly what the record contributed (Cebere et al. 2026, arXiv:2602.17454, call it record and replay).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from dpaudit.canary import Canaries
from dpaudit.check import FloatArray
from dpaudit.evidence import Access, Evidence, Finding, NoiseSample, Note, Replay
from dpaudit.protocols import RowArray, StepOracle


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayAttack:
    """Records that stress the clip, and repeated releases that show the noise.

    Attributes:
        steps: at how many of the first and then every `stride`-th step to look.
        stride: distance between the steps looked at.
        repeats: releases of the unchanged batch per step, for the noise.
        scale: norm of a huge record's gradient, in clipping norms.
    """

    name: str = "replay"
    access: Access = Access.REPLAY
    steps: int = 20
    stride: int = 25
    repeats: int = 5
    scale: float = 1e4

    def begin(self, canaries: Canaries, rng: np.random.Generator) -> ReplaySession:
        """Start observing one run."""
        return ReplaySession(self, rng)


class ReplaySession:
    """Collects sensitivities and noise over the steps of one run."""

    def __init__(self, attack: ReplayAttack, rng: np.random.Generator):
        self._attack = attack
        self._rng = rng
        self._sensitivity, self._where = 0.0, "no record tried"
        self._squares: FloatArray | None = None
        self._names: tuple[str, ...] = ()
        self._sizes: tuple[int, ...] = ()
        self._draws = self._executions = self._looked = 0
        self._claimed = 0.0
        self._repeated: list[str] = []
        self._untested = ""

    def observe(self, step: StepOracle) -> None:
        """Look at the first step and every `stride`-th; costs about 12 + parameters + repeats executions."""
        attack = self._attack
        if self._looked >= attack.steps or step.index % attack.stride:
            return
        self._looked += 1
        self._names, self._sizes = step.names, step.sizes
        self._claimed = self._claimed or step.noise_multiplier
        self._measure_noise(step)
        if step.forms_rows:
            self._measure_sensitivity(step)
        elif not self._sensitivity:
            self._sensitivity, self._where = 1.0, "not measured: no per-record gradients are formed"
            self._untested = "no per-record gradients are formed"

    def released(self, gradient: RowArray) -> None:
        """Nothing was inserted."""

    def _measure_noise(self, step: StepOracle) -> None:
        """Sum of squares of the noise about its mean over equal batches, per parameter, in units of C^2."""
        releases = np.stack([step.release() for _ in range(self._attack.repeats)]).astype(np.float64)
        self._executions += len(releases)
        # Under a noise schedule, steps are brought to the scale of the first before they are added up.
        schedule = self._claimed / step.noise_multiplier if step.noise_multiplier > 0 else 1.0
        deviations = (releases - releases.mean(axis=0)) * (schedule / step.max_grad_norm)
        self._squares = _per_parameter((deviations**2).sum(axis=0), step.sizes) + (
            0.0 if self._squares is None else self._squares
        )
        self._draws += len(releases) - 1
        if step.noise_multiplier > 0 and np.array_equal(releases[0], releases[1]):
            self._repeated.append(f"step {step.index}")

    def _measure_sensitivity(self, step: StepOracle) -> None:
        """Largest distance between releases of neighbouring batches under equal noise, in units of C."""
        release = self._repeatable(step)
        if release is None:
            self._untested = "two executions of one step differ even without noise and from one random state"
            self._sensitivity = max(self._sensitivity, 1.0)
            return
        base = release().astype(np.float64)
        self._executions += 1
        for where, neighbour in self._neighbours(step, base, release):
            distance = float(np.linalg.norm(neighbour - base)) / step.max_grad_norm
            self._executions += 1
            if not math.isfinite(distance) or distance > self._sensitivity:
                self._sensitivity, self._where = distance, f"{where}, step {step.index}"
            if not math.isfinite(distance):
                self._sensitivity = math.inf

    def _repeatable(self, step: StepOracle) -> Callable[..., RowArray] | None:
        """How to execute the step so that equal batches give equal releases; None if it cannot be had.

        Without noise if the optimizer heeds its noise multiplier, else from a frozen random state: noise
        from a generator that nobody knows of must not pass for what a record contributed.
        """
        for release in (partial(step.release, noise=False), partial(step.release, frozen=True)):
            first, second = (release() for _ in range(2))
            self._executions += 2
            if np.array_equal(first, second):
                return release
        return None

    def _neighbours(
        self, step: StepOracle, base: FloatArray, release: Callable[..., RowArray]
    ) -> Iterator[tuple[str, RowArray]]:
        """Releases with one record more or less: huge ones, with and against the batch, and real ones."""
        rows = step.rows()
        total = rows.astype(np.float64).sum(axis=0) if len(rows) else np.ones(base.size)
        random = self._rng.standard_normal(base.size)
        directions = {
            "huge, random direction": random,
            "huge, along the batch": total,
            "huge, against it": -total,
        }
        for name, direction in directions.items():
            yield name, release(insert=self._huge(direction, step))
        starts = np.cumsum([0, *step.sizes])
        for i, name in enumerate(step.names):
            only = np.zeros(base.size)
            only[starts[i] : starts[i + 1]] = random[starts[i] : starts[i + 1]]
            yield f"huge in parameter {name} alone", release(insert=self._huge(only, step))
        if len(rows):
            largest = int(np.linalg.norm(rows, axis=1).argmax())
            yield "largest record removed", release(remove=largest)
            yield "largest record twice", release(insert=rows[largest])

    def _huge(self, direction: FloatArray, step: StepOracle) -> RowArray:
        norm = np.linalg.norm(direction)
        unit = direction / norm if norm > 0 else np.full_like(direction, direction.size**-0.5)
        return np.asarray(unit * self._attack.scale * step.max_grad_norm, dtype=np.float32)

    def evidence(self) -> tuple[Evidence, ...]:
        """The measurements, and a finding where noise came out equal twice."""
        if self._squares is None:
            return ()
        noise = tuple(
            NoiseSample(
                where=name, sum_of_squares=float(s), count=size * self._draws, claimed_std=self._claimed
            )
            for name, size, s in zip(self._names, self._sizes, self._squares, strict=True)
        )
        measured = Replay(
            sensitivity=self._sensitivity,
            sensitivity_where=self._where,
            noise=noise,
            executions=self._executions,
            steps=self._looked,
        )
        return (measured, *self._repetitions(), *self._blind())

    def _blind(self) -> tuple[Note, ...]:
        if not self._untested:
            return ()
        return (
            Note(
                check="clip not tested",
                where="every step",
                measured=self._untested,
                meaning="Noise was measured, but how far one record moves the sum was not.",
            ),
        )

    def _repetitions(self) -> tuple[Finding, ...]:
        if not self._repeated:
            return ()
        return (
            Finding(
                check="noise drawn anew",
                where=f"{self._repeated[0]} and {len(self._repeated) - 1} others",
                expected="two executions of one step to draw different noise",
                measured="bit-identical releases",
                epsilon=float("inf"),
                remedy="Do not seed the noise generator inside the step.",
            ),
        )


def _per_parameter(values: FloatArray, sizes: tuple[int, ...]) -> FloatArray:
    """Sum (d,) values within each parameter."""
    starts = np.cumsum([0, *sizes[:-1]])
    summed: FloatArray = np.add.reduceat(values, starts)
    return summed
