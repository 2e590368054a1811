"""Means of bounded records with a private or a true count, and a step of noisy gradients.

Records and noise are rounded to a grid that is far coarser than the rounding errors of their sums and
far finer than the noise, so that the low-order bits of floats reveal nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from dpaudit.check import FloatArray, in_range, one_of
from dpaudit.errors import UsageError
from dpaudit.targets.mechanisms.additive import Gaussian, gaussian_epsilon
from dpaudit.targets.mechanisms.checks import positive, pure, records

GRID = 2.0**-20


def on_grid(values: FloatArray) -> FloatArray:
    """The nearest multiples of `GRID`."""
    return np.asarray(np.rint(values / GRID) * GRID)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundedMean:
    """Mean of records clipped to [0, 1], half of epsilon for the sum and half for the count.

    The mean mechanism of DP-Auditorium (Kong et al. 2023, arXiv:2307.05608) and its two faults, except
    that counts below 1 are taken as 1: there, a negative noisy count switches the noise off. Releases
    sum / n + noise / n, in which each n is the noisy or the true count. Neighbours have one record more.

    Attributes:
        delta: 0, pure differential privacy.
        epsilon: claimed.
        mean_count: "noisy" or "true": by which count the sum is divided.
        noise_count: "noisy" or "true": by which count the noise is divided.
    """

    delta: ClassVar[float] = 0.0
    domain: ClassVar[str] = "list(float(0, 1))"
    epsilon: float = 1.0
    mean_count: str = "noisy"
    noise_count: str = "noisy"

    def __post_init__(self) -> None:
        positive("epsilon", self.epsilon)
        one_of("mean_count", self.mean_count, ("noisy", "true"))
        one_of("noise_count", self.noise_count, ("noisy", "true"))

    @property
    def scale(self) -> float:
        """Scale of the noise of sum and count, 2/epsilon."""
        return 2 / self.epsilon

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> FloatArray:
        """Noisy means; (size,)."""
        known = on_grid(records(data, 0.0, 1.0))
        noise, count_noise = on_grid(rng.laplace(scale=self.scale, size=(2, size)))
        counts = {
            "true": np.full(size, max(known.size, 1.0)),
            "noisy": np.maximum(known.size + count_noise, 1.0),
        }
        divided, spread = counts[self.mean_count], counts[self.noise_count]
        return np.asarray(known.sum() / divided + noise / spread)

    @property
    def epsilon_limit(self) -> float:
        """No neighbours lose more: epsilon where both counts are noisy; else no bound is known."""
        return self.epsilon if self.mean_count == self.noise_count == "noisy" else math.inf

    def exact_epsilon(self, delta: float = 0.0) -> float | None:
        """Infinite where the true count divides the noise, which has another scale on neighbours; or None."""
        pure(delta)
        return math.inf if self.noise_count == "true" else None


def Mean0(*, epsilon: float = 1.0) -> BoundedMean:
    """Both counts noisy: private."""
    return BoundedMean(epsilon=epsilon)


def Mean1(*, epsilon: float = 1.0) -> BoundedMean:
    """The true count for both: infinite."""
    return BoundedMean(epsilon=epsilon, mean_count="true", noise_count="true")


def Mean2(*, epsilon: float = 1.0) -> BoundedMean:
    """The true count for the mean, a noisy one for its noise: not private."""
    return BoundedMean(epsilon=epsilon, mean_count="true")


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientStep:
    """Sum of clipped gradients with Gaussian noise (Abadi et al. 2016, arXiv:1607.00133).

    Data are gradients (n, columns), one row for each record; rows that are not finite count as 0.
    Neighbours have one row more. Clipping the sum instead of the rows lets one row turn it round, and
    the sensitivity is twice the norm.

    Attributes:
        epsilon: claimed.
        delta: claimed.
        max_grad_norm: clipping norm C, to which the noise is calibrated.
        clips: "record", or "batch": the sum alone, which is the fault.
        columns: length of a gradient.
    """

    epsilon: float = 1.0
    delta: float = 1e-5
    max_grad_norm: float = 1.0
    clips: str = "record"
    columns: int = 3

    def __post_init__(self) -> None:
        positive("epsilon", self.epsilon)
        in_range("delta", self.delta, 0.0, 1.0, open_low=True, open_high=True)
        positive("max_grad_norm", self.max_grad_norm)
        one_of("clips", self.clips, ("record", "batch"))
        in_range("columns", self.columns, 1, math.inf)

    @property
    def domain(self) -> str:
        """Gradients."""
        return f"array(float(-10, 10), columns={self.columns})"

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise on each coordinate."""
        return Gaussian(epsilon=self.epsilon, delta=self.delta, sensitivity=self.max_grad_norm).sigma

    @property
    def sensitivity(self) -> float:
        """How far one row can move what the noise is added to, in L2 norm."""
        return self.max_grad_norm * (1 if self.clips == "record" else 2)

    def total(self, data: ArrayLike) -> FloatArray:
        """What the noise is added to; (columns,)."""
        rows = np.asarray(data, dtype=np.float64)
        if rows.size and (rows.ndim != 2 or rows.shape[1] != self.columns):
            raise UsageError(f"Expected gradients of shape (n, {self.columns}), found {rows.shape}.")
        rows = rows.reshape(-1, self.columns)
        # Far beyond any norm; squares of what is left do not overflow.
        kept = np.clip(np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0), -1e100, 1e100)
        if self.clips == "batch":
            kept = kept.sum(axis=0, keepdims=True)
        norms = np.linalg.norm(kept, axis=1, keepdims=True)
        return np.asarray(
            (kept * np.minimum(1.0, self.max_grad_norm / np.maximum(norms, 1e-300))).sum(axis=0)
        )

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> FloatArray:
        """Noisy sums; (size, columns)."""
        return on_grid(self.total(data) + rng.normal(scale=self.sigma, size=(size, self.columns)))

    def exact_epsilon(self, delta: float = 0.0) -> float:
        """That of Gaussian noise against the true sensitivity."""
        return gaussian_epsilon(self.sensitivity / self.sigma, delta)


def GradientStepBatchClip(*, epsilon: float = 1.0, delta: float = 1e-5, columns: int = 3) -> GradientStep:
    """Clips the sum of the gradients, and not each: twice the sensitivity."""
    return GradientStep(epsilon=epsilon, delta=delta, columns=columns, clips="batch")
