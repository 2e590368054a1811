"""Integers with geometric noise: no rounding, and so no floating-point hole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from dpaudit.check import FloatArray, IntArray, in_range
from dpaudit.errors import UsageError
from dpaudit.targets.mechanisms.checks import flat_difference, integers, positive
from dpaudit.targets.mechanisms.exact import finite_epsilon, invert_profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometric:
    """Adds two-sided geometric noise to integers: P[noise = k] proportional to exp(-epsilon |k| / s).

    Ghosh, Roughgarden & Sundararajan (2009, arXiv:0811.2841), the discrete Laplace mechanism. Data are
    integers of any shape; neighbours differ by at most `sensitivity` in L1 norm.

    Attributes:
        delta: 0, pure differential privacy.
        epsilon: claimed, and exact at delta 0.
        sensitivity: largest L1 distance s between the answers of neighbours, an integer.
    """

    delta: ClassVar[float] = 0.0
    epsilon: float = 0.1
    sensitivity: int = 1

    def __post_init__(self) -> None:
        positive("epsilon", self.epsilon)
        in_range("sensitivity", self.sensitivity, 1, math.inf, open_high=True)

    @property
    def domain(self) -> str:
        """One integer, moved by at most the sensitivity."""
        return f"value(int(-20, 20), step={self.sensitivity})"

    @property
    def ratio(self) -> float:
        """P[noise = k + 1] / P[noise = k] for k >= 0; below 1."""
        return math.exp(-self.epsilon / self.sensitivity)

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> IntArray:
        """Release integers plus noise; (size, *data.shape)."""
        truth = integers("data", data)
        return truth + two_sided_geometric(self.epsilon / self.sensitivity, (size, *truth.shape), rng)

    def log_density(self, data: ArrayLike, outputs: ArrayLike) -> FloatArray:
        """Joint log probability of each of (size, *data.shape) outputs; (size,)."""
        distance = flat_difference(integers("data", data), integers("outputs", outputs))
        each = math.log(-math.expm1(-self.epsilon / self.sensitivity)) - math.log1p(self.ratio)
        rate = self.epsilon / self.sensitivity
        return np.asarray(distance.shape[1] * each - rate * np.abs(distance).sum(axis=1))

    def privacy_profile(self, epsilon: float) -> float:
        """P[noise <= K] - e^epsilon P[noise <= K - s], K the last output whose loss exceeds epsilon, or 0.

        The loss of output k against a shift by s is epsilon (|k-s| - |k|) / s, which falls in k.
        """
        in_range("epsilon", epsilon, 0.0, math.inf)
        if epsilon >= self.epsilon:
            return 0.0
        last = math.ceil(self.sensitivity * (1 - epsilon / self.epsilon) / 2) - 1
        return max(0.0, self._cdf(last) - math.exp(epsilon) * self._cdf(last - self.sensitivity))

    def exact_epsilon(self, delta: float = 0.0) -> float:
        """The root of the profile."""
        in_range("delta", delta, 0.0, 1.0, open_high=True)
        return invert_profile(self.privacy_profile, delta, high=self.epsilon) if delta else self.epsilon

    def worst_pair(self) -> tuple[FloatArray, FloatArray]:
        """One answer, moved by the whole sensitivity."""
        return np.zeros(1), np.full(1, float(self.sensitivity))

    def _cdf(self, k: int) -> float:
        tail = self.ratio ** (-k if k < 0 else k + 1) / (1 + self.ratio)
        return tail if k < 0 else 1 - tail


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncatedGeometric:
    """Geometric noise on a count in [0, n], truncated to it, drawn with integer arithmetic alone.

    GeoSample, algorithm 4.8 of Balcer & Vadhan (2018, arXiv:1709.05396): a uniform integer is
    inverted through F, whose steps have the ratio 1 + 2^-k and a common denominator, so that the law
    is exact.

    Attributes:
        delta: 0, pure differential privacy.
        n: greatest count.
        k: binary digits of the ratio; the claim is log(1 + 2^-k), and is exact.
    """

    delta: ClassVar[float] = 0.0
    n: int = 5
    k: int = 3

    def __post_init__(self) -> None:
        in_range("n", self.n, 1, math.inf, open_high=True)
        in_range("k", self.k, 1, math.inf, open_high=True)
        if self._denominator >= 2**63:
            raise UsageError(f"Expected n and k to fit 63 bits, found n={self.n}, k={self.k}. Lower one.")

    @property
    def epsilon(self) -> float:
        """Claimed: log(1 + 2^-k)."""
        return math.log1p(2.0**-self.k)

    @property
    def domain(self) -> str:
        """A count, moved by 1."""
        return f"value(int(0, {self.n}), step=1)"

    def cumulative(self, count: int) -> tuple[int, ...]:
        """F(z) for z = 0..n: P[output <= z] times F(n), all integers."""
        low, high, total = 2**self.k, 2**self.k + 1, self._denominator
        below = [low ** (count - z) * high ** (self.n - count + z) for z in range(count)]
        above = [
            total - low ** (z - count + 1) * high ** (self.n - 1 - z + count) for z in range(count, self.n)
        ]
        return (*below, *above, total)

    def probabilities(self, data: ArrayLike) -> FloatArray:
        """Probability of each output 0..n; (n + 1,)."""
        steps = self.cumulative(self._count(data))
        return np.array([b - a for a, b in zip((0, *steps), steps, strict=False)]) / self._denominator

    def log_probabilities(self, data: ArrayLike) -> FloatArray:
        """Log probability of each output 0..n; (n + 1,)."""
        return np.log(self.probabilities(data))

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> IntArray:
        """Release the count; (size, *data.shape), data being one number."""
        count = self._count(data)
        drawn = rng.integers(1, self._denominator, size=(size, *np.shape(data)), endpoint=True)
        return np.searchsorted(np.array(self.cumulative(count)), drawn).astype(np.int64)

    def pair_epsilon(self, first: ArrayLike, second: ArrayLike, delta: float = 0.0) -> float:
        """Of one pair of counts, by enumeration."""
        return finite_epsilon(self.log_probabilities(first), self.log_probabilities(second), delta)

    def exact_epsilon(self, delta: float = 0.0) -> float:
        """The largest over all neighbouring counts, by enumeration."""
        return max(self.pair_epsilon(c, c + 1, delta) for c in range(self.n))

    @property
    def _denominator(self) -> int:
        denominator: int = (2 ** (self.k + 1) + 1) * (2**self.k + 1) ** (self.n - 1)
        return denominator

    def _count(self, data: ArrayLike) -> int:
        values = integers("data", data).ravel()
        if values.size != 1 or not 0 <= values[0] <= self.n:
            raise UsageError(f"Expected data to be one count in [0, {self.n}], found {values.tolist()!r}.")
        return int(values[0])


def two_sided_geometric(rate: float, shape: tuple[int, ...], rng: np.random.Generator) -> IntArray:
    """Integers k with probability proportional to exp(-rate |k|), as the difference of two geometrics."""
    chance = -math.expm1(-rate)
    return np.asarray(rng.geometric(chance, size=shape) - rng.geometric(chance, size=shape), dtype=np.int64)
