"""Vectors of noisy counts, their prefix sums, and repeated releases of one answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from dpaudit.check import FloatArray, in_range
from dpaudit.targets.mechanisms.additive import Laplace, one_moves
from dpaudit.targets.mechanisms.checks import answers, positive, pure


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisyHist:
    """Adds Laplace noise to every cell of a histogram, of which one cell differs by 1 between neighbours.

    Algorithms 9 and 10 of Ding et al. (2018, arXiv:1805.10277).

    Attributes:
        delta: 0, pure differential privacy.
        epsilon: claimed.
        scale: of the noise; 1/epsilon keeps the claim.
        dimension: number of cells, of the domain only.
    """

    delta: ClassVar[float] = 0.0
    epsilon: float = 0.1
    scale: float = 10.0
    dimension: int = 5

    def __post_init__(self) -> None:
        positive("epsilon", self.epsilon)
        positive("scale", self.scale)
        in_range("dimension", self.dimension, 1, math.inf)

    @property
    def domain(self) -> str:
        """Cells, of which one moves."""
        return one_moves(self.dimension)

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> FloatArray:
        """Noisy cells; (size, d)."""
        return self._noise.sample(answers("data", data), size, rng)

    def exact_epsilon(self, delta: float = 0.0) -> float:
        """That of Laplace noise of this scale on the one cell that differs."""
        return self._noise.exact_epsilon(delta)

    @property
    def _noise(self) -> Laplace:
        return Laplace(epsilon=1 / self.scale)


def NoisyHist1(*, epsilon: float = 0.1, dimension: int = 5) -> NoisyHist:
    """Noise of scale 1/epsilon: private, and exactly as claimed."""
    return NoisyHist(epsilon=epsilon, scale=1 / positive("epsilon", epsilon), dimension=dimension)


def NoisyHist2(*, epsilon: float = 0.1, dimension: int = 5) -> NoisyHist:
    """Noise of scale epsilon, which is upside down: 1/epsilon."""
    return NoisyHist(epsilon=epsilon, scale=epsilon, dimension=dimension)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaplaceParallel:
    """Releases one answer many times, each time with Laplace noise of its own (Bichsel et al. 2021).

    Attributes:
        delta: 0, pure differential privacy.
        each: epsilon of one release.
        releases: number of them, n.
    """

    delta: ClassVar[float] = 0.0
    each: float = 0.005
    releases: int = 20

    def __post_init__(self) -> None:
        positive("each", self.each)
        in_range("releases", self.releases, 1, math.inf)

    @property
    def epsilon(self) -> float:
        """Claimed: the sum over the releases."""
        return self.releases * self.each

    @property
    def domain(self) -> str:
        """One answer."""
        return one_moves(1)

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> FloatArray:
        """Releases of the one answer; (size, n)."""
        return np.asarray(
            float(answers("data", data)[0]) + rng.laplace(scale=1 / self.each, size=(size, self.releases))
        )

    def log_density(self, data: ArrayLike, outputs: ArrayLike) -> FloatArray:
        """Joint log density of each of (size, n) outputs; (size,)."""
        repeated = np.full(self.releases, float(answers("data", data)[0]))
        return Laplace(epsilon=self.each).log_density(repeated, outputs)

    def exact_epsilon(self, delta: float = 0.0) -> float:
        """The claim, attained at delta 0 where all releases lie beyond both answers.

        Raises:
            UsageError: `delta` is not 0.
        """
        pure(delta)
        return self.epsilon


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixSum:
    """Sums of the first 1, 2, .. d noisy answers (Wang et al. 2019, arXiv:1903.12254).

    Noise of scale 1/epsilon serves neighbours of which one answer differs by 1. Neighbours of which all
    differ, as here, cost d epsilon.

    Attributes:
        delta: 0, pure differential privacy.
        epsilon: claimed.
        movable: how many answers may differ; all if None.
        dimension: number of answers d, of the domain and `exact_epsilon` only.
    """

    delta: ClassVar[float] = 0.0
    epsilon: float = 0.1
    movable: int | None = None
    dimension: int = 10

    def __post_init__(self) -> None:
        positive("epsilon", self.epsilon)
        in_range("dimension", self.dimension, 1, math.inf)
        in_range("movable", 1 if self.movable is None else self.movable, 1, math.inf)

    @property
    def domain(self) -> str:
        """Answers, of which `movable` may move."""
        return f"answers({self.dimension}{'' if self.movable is None else f', movable={self.movable}'})"

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> FloatArray:
        """Prefix sums of noisy answers; (size, d)."""
        return Laplace(epsilon=self.epsilon).sample(answers("data", data), size, rng).cumsum(axis=1)

    def log_density(self, data: ArrayLike, outputs: ArrayLike) -> FloatArray:
        """Joint log density of each of (size, d) outputs; (size,). Differences undo the sums."""
        noisy = np.diff(np.asarray(outputs, dtype=np.float64), axis=1, prepend=0.0)
        return Laplace(epsilon=self.epsilon).log_density(answers("data", data), noisy)

    def pair_epsilon(self, first: ArrayLike, second: ArrayLike, delta: float = 0.0) -> float:
        """Of one pair at delta 0: epsilon times the L1 distance of the answers."""
        pure(delta)
        return float(self.epsilon * np.abs(answers("first", first) - answers("second", second)).sum())

    def exact_epsilon(self, delta: float = 0.0) -> float:
        """Epsilon times the number of answers that may differ, at delta 0."""
        pure(delta)
        return self.epsilon * (self.dimension if self.movable is None else min(self.movable, self.dimension))


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialSum:
    """The sum of the answers with Laplace noise; one answer differs by 1 (Wang et al. 2020, CheckDP).

    Attributes:
        delta: 0, pure differential privacy.
        epsilon: claimed.
        scale: of the noise; 1/epsilon keeps the claim, the faulty 1/(2 epsilon) doubles it.
        dimension: number of answers, of the domain only.
    """

    delta: ClassVar[float] = 0.0
    epsilon: float = 0.1
    scale: float = 5.0
    dimension: int = 10

    def __post_init__(self) -> None:
        positive("epsilon", self.epsilon)
        positive("scale", self.scale)
        in_range("dimension", self.dimension, 1, math.inf)

    @property
    def domain(self) -> str:
        """Answers, of which one moves."""
        return one_moves(self.dimension)

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> FloatArray:
        """Noisy sums; (size,)."""
        return Laplace(epsilon=1 / self.scale).sample(answers("data", data).sum(), size, rng)

    def exact_epsilon(self, delta: float = 0.0) -> float:
        """That of Laplace noise of this scale."""
        return Laplace(epsilon=1 / self.scale).exact_epsilon(delta)
