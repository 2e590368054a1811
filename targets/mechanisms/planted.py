"""Sums of numbers in [0, 10] with one fault each, and the same sum without one.

Records are clipped and then rounded to integers, of a grid, to which two-sided geometric noise is
added: nothing depends on the rounding of floats. Neighbours have one record more, and records may be
any floats, NaN and the infinities among them: a release has to be private whatever it is given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from dpaudit.check import FloatArray, IntArray
from dpaudit.targets.mechanisms.checks import positive, pure, records
from dpaudit.targets.mechanisms.discrete import two_sided_geometric

CAP = 10.0
GRID = 2.0**-10
DOMAIN = "list(float(0, 10))"


def in_units(values: FloatArray) -> FloatArray:
    """Values as the nearest whole numbers of `GRID`."""
    return np.asarray(np.rint(values / GRID))


def noisy(total: float, epsilon: float, size: int, rng: np.random.Generator) -> FloatArray:
    """A total in units plus geometric noise for a sensitivity of `CAP`, as multiples of `GRID`; (size,)."""
    noise = two_sided_geometric(epsilon * GRID / CAP, (size,), rng)
    return np.asarray((total + noise) * GRID)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundSum:
    """The control: NaN counts as 0, everything else is clipped, and the noise fits the cap.

    Attributes:
        delta: 0, pure differential privacy.
        domain: lists of numbers; as for all releases of this module.
        epsilon: claimed.
    """

    delta: ClassVar[float] = 0.0
    domain: ClassVar[str] = DOMAIN
    epsilon: float = 1.0

    def __post_init__(self) -> None:
        positive("epsilon", self.epsilon)

    def total(self, data: ArrayLike) -> float:
        """What the noise is added to, in units."""
        return float(in_units(records(data, 0.0, CAP)).sum())

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> FloatArray:
        """Noisy sums; (size,)."""
        return noisy(self.total(data), self.epsilon, size, rng)

    def exact_epsilon(self, delta: float = 0.0) -> float:
        """The claim: one record at the cap moves the sum by all the noise is made for."""
        pure(delta)
        return self.epsilon


@dataclass(frozen=True, slots=True, kw_only=True)
class NoLowerClip:
    """Clips from above alone: one negative record moves the sum as far as it likes."""

    delta: ClassVar[float] = 0.0
    domain: ClassVar[str] = DOMAIN
    epsilon: float = 1.0

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> FloatArray:
        """Noisy sums; (size,)."""
        with np.errstate(over="ignore"):
            total = in_units(records(data, -math.inf, CAP, nan=0.0)).sum()
        return noisy(total, self.epsilon, size, rng)

    def exact_epsilon(self, delta: float = 0.0) -> float:
        """Infinite: -inf among the records is among the outputs."""
        pure(delta)
        return math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class NaNSurvives:
    """Clips with `np.clip`, which lets NaN through: one such record makes every release NaN."""

    delta: ClassVar[float] = 0.0
    domain: ClassVar[str] = DOMAIN
    epsilon: float = 1.0

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> FloatArray:
        """Noisy sums; (size,)."""
        clipped = np.clip(np.asarray(data, dtype=np.float64), 0.0, CAP)
        return noisy(in_units(clipped).sum(), self.epsilon, size, rng)

    def exact_epsilon(self, delta: float = 0.0) -> float:
        """Infinite."""
        pure(delta)
        return math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class EmptyRaises:
    """Looks at the largest record first, which raises `ValueError` where there is none."""

    delta: ClassVar[float] = 0.0
    domain: ClassVar[str] = DOMAIN
    epsilon: float = 1.0

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> FloatArray:
        """Noisy sums; (size,)."""
        known = records(data, 0.0, CAP)
        cap = min(CAP, known.max())
        return noisy(in_units(np.minimum(known, cap)).sum(), self.epsilon, size, rng)

    def exact_epsilon(self, delta: float = 0.0) -> float:
        """Infinite: the empty list raises and a list of one does not."""
        pure(delta)
        return math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class TrueCount:
    """A mean: the noisy sum over the true number of records, so that the noise shrinks with it."""

    delta: ClassVar[float] = 0.0
    domain: ClassVar[str] = DOMAIN
    epsilon: float = 1.0

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> FloatArray:
        """Noisy means, rounded to the grid again; (size,)."""
        known = records(data, 0.0, CAP)
        sums = noisy(in_units(known).sum(), self.epsilon, size, rng)
        return in_units(sums / max(known.size, 1)) * GRID

    def exact_epsilon(self, delta: float = 0.0) -> float:
        """Infinite: tails of different scales."""
        pure(delta)
        return math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class NarrowCount:
    """Counts in int8, so that the 128th record takes the count from 127 to -128."""

    delta: ClassVar[float] = 0.0
    domain: ClassVar[str] = DOMAIN
    epsilon: float = 1.0

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> IntArray:
        """Noisy counts; (size,)."""
        count = np.asarray(np.size(data)).astype(np.int8).astype(np.int64)
        return np.asarray(count + two_sided_geometric(self.epsilon, (size,), rng))

    def exact_epsilon(self, delta: float = 0.0) -> float:
        """255 times the claim."""
        pure(delta)
        return 255 * self.epsilon


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietAtTheCap:
    """Divides the noise by 4 when three or more records sit at the cap."""

    delta: ClassVar[float] = 0.0
    domain: ClassVar[str] = DOMAIN
    epsilon: float = 1.0

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> FloatArray:
        """Noisy sums; (size,)."""
        known = records(data, 0.0, CAP)
        epsilon = self.epsilon * (4 if np.count_nonzero(known == CAP) >= 3 else 1)
        return noisy(in_units(known).sum(), epsilon, size, rng)

    def exact_epsilon(self, delta: float = 0.0) -> float:
        """Infinite: tails of different scales."""
        pure(delta)
        return math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfScale:
    """Noise of half the scale that the claim needs."""

    delta: ClassVar[float] = 0.0
    domain: ClassVar[str] = DOMAIN
    epsilon: float = 1.0

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> FloatArray:
        """Noisy sums; (size,)."""
        return noisy(in_units(records(data, 0.0, CAP)).sum(), 2 * self.epsilon, size, rng)

    def exact_epsilon(self, delta: float = 0.0) -> float:
        """Twice the claim."""
        pure(delta)
        return 2 * self.epsilon
