"""Randomised response: of one category, and of the bits of a Bloom filter."""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpaudit.check import FloatArray, IntArray, in_range
from dpaudit.errors import UsageError
from dpaudit.targets.mechanisms.checks import flat_difference, indices, integers, positive
from dpaudit.targets.mechanisms.exact import finite_epsilon


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomisedResponse:
    """Reports the true one of k categories with probability e^eps / (e^eps + k - 1), else another.

    Warner (1965); k-ary by Kairouz, Bonawitz & Ramage (2016, arXiv:1602.07387). Data are integers in
    [0, k) of any shape, each answered for itself; neighbours differ in one of them.

    Attributes:
        delta: 0, pure differential privacy.
        epsilon: claimed, and exact at delta 0.
        categories: k, at least 2.
    """

    delta: ClassVar[float] = 0.0
    epsilon: float = 1.0
    categories: int = 2

    def __post_init__(self) -> None:
        positive("epsilon", self.epsilon)
        in_range("categories", self.categories, 2, math.inf)

    @property
    def domain(self) -> str:
        """One category."""
        return f"value(int(0, {self.categories - 1}))"

    def probabilities(self, value: int) -> FloatArray:
        """Probability of each answer when the truth is `value`; (k,)."""
        return np.exp(self.log_density([value], np.arange(self.categories)[:, None]))

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> IntArray:
        """Answer for each datum; (size, *data.shape)."""
        truth = indices("data", data, self.categories)
        lie = rng.random((size, *truth.shape)) >= math.exp(self._log_true())
        return (truth + lie * rng.integers(1, self.categories, size=lie.shape)) % self.categories

    def log_density(self, data: ArrayLike, outputs: ArrayLike) -> FloatArray:
        """Joint log probability of each of (size, *data.shape) outputs; (size,)."""
        truth = indices("data", data, self.categories)
        distance = flat_difference(truth, indices("outputs", outputs, self.categories))
        lies = np.count_nonzero(distance, axis=1)
        return np.asarray(distance.shape[1] * self._log_true() - self.epsilon * lies)

    def privacy_profile(self, epsilon: float) -> float:
        """(e^self.epsilon - e^epsilon) / (e^self.epsilon + k - 1), or 0."""
        in_range("epsilon", epsilon, 0.0, math.inf)
        return -math.expm1(min(0.0, epsilon - self.epsilon)) * math.exp(self._log_true())

    def exact_epsilon(self, delta: float = 0.0) -> float:
        """`self.epsilon + log(1 - delta (1 + (k-1) exp(-self.epsilon)))`, or 0."""
        in_range("delta", delta, 0.0, 1.0, open_high=True)
        mass = delta * math.exp(-self._log_true())
        return max(0.0, self.epsilon + math.log1p(-mass)) if mass < 1 else 0.0

    def worst_pair(self) -> tuple[FloatArray, FloatArray]:
        """Any two different truths."""
        return np.zeros(1), np.ones(1)

    def _log_true(self) -> float:
        return -math.log1p((self.categories - 1) * math.exp(-self.epsilon))


@dataclass(frozen=True, slots=True, kw_only=True)
class RAPPOR:
    """Reports the bits of one value's Bloom filter, each randomised for good and then for this report.

    Erlingsson, Pihur & Korolova (2014, arXiv:1407.6981), steps 1 to 3 on a fresh client for every
    release. A bit is first replaced by a fair coin with probability f; then a 1 is reported with
    probability q if it is set and p if it is not. Data are one integer, and any two are neighbours.

    Attributes:
        delta: 0, pure differential privacy.
        hashes: h, number of bits that a value sets, less those that coincide.
        bits: m, length of the filter.
        f: probability that the permanent response is a fair coin.
        p: probability that an unset bit is reported as 1.
        q: probability that a set bit is reported as 1.
        largest: values of the domain are the integers in [-largest, largest].
    """

    delta: ClassVar[float] = 0.0
    hashes: int = 4
    bits: int = 20
    f: float = 0.75
    p: float = 0.45
    q: float = 0.55
    largest: int = 10

    def __post_init__(self) -> None:
        in_range("hashes", self.hashes, 1, math.inf, open_high=True)
        in_range("bits", self.bits, 1, 2**16)
        in_range("f", self.f, 0.0, 1.0, open_high=True)
        in_range("p", self.p, 0.0, 1.0)
        in_range("q", self.q, self.p, 1.0, open_low=True)

    @property
    def epsilon(self) -> float:
        """Claimed: h log(q* (1 - p*) / (p* (1 - q*))), their theorem 2, with q* and p* of `chances`."""
        p, q = self.chances
        odds = q * (1 - p)
        return self.hashes * math.log(odds / (p * (1 - q))) if p * (1 - q) else math.inf

    @property
    def domain(self) -> str:
        """Any two integers."""
        return f"value(int({-self.largest}, {self.largest}))"

    @property
    def chances(self) -> tuple[float, float]:
        """P[1 is reported] for a bit that is not set, and for one that is."""
        kept, coin = 1 - self.f / 2, self.f / 2
        return coin * self.q + kept * self.p, kept * self.q + coin * self.p

    def filter(self, value: int) -> NDArray[np.int8]:
        """Bloom filter of a value, (m,), hashed with SHA-256 of the value and the number of the hash."""
        found = np.zeros(self.bits, dtype=np.int8)
        for i in range(self.hashes):
            digest = hashlib.sha256(f"{i}:{value}".encode()).digest()
            found[int.from_bytes(digest[:8], "big") % self.bits] = 1
        return found

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> NDArray[np.int8]:
        """Reports; (size, m) of 0 and 1."""
        chances = np.asarray(self.chances)[self._filter_of(data)]
        return (rng.random((size, self.bits)) < chances).astype(np.int8)

    def log_density(self, data: ArrayLike, outputs: ArrayLike) -> FloatArray:
        """Log probability of each of (size, m) reports; (size,)."""
        ones = np.asarray(self.chances)[self._filter_of(data)]
        reported = indices("outputs", outputs, 2)
        with np.errstate(divide="ignore"):
            return np.asarray(np.where(reported == 1, np.log(ones), np.log1p(-ones)).sum(axis=1))

    def pair_epsilon(self, first: ArrayLike, second: ArrayLike, delta: float = 0.0) -> float:
        """Of one pair of values, by enumeration of how many differing bits are reported as set.

        Bits in which the filters agree say nothing. Of the a set only in one and the b set only in the
        other, the numbers reported as 1 are sufficient: (a + 1)(b + 1) outcomes.
        """
        one, two = self._filter_of(first), self._filter_of(second)
        alone = int((one > two).sum()), int((two > one).sum())
        p, q = self.chances
        outcomes = list(itertools.product(range(alone[0] + 1), range(alone[1] + 1)))
        return finite_epsilon(
            [_binomial(i, alone[0], q) + _binomial(j, alone[1], p) for i, j in outcomes],
            [_binomial(i, alone[0], p) + _binomial(j, alone[1], q) for i, j in outcomes],
            delta,
        )

    def exact_epsilon(self, delta: float = 0.0) -> float:
        """The largest over all pairs of the domain: below the claim where filters share bits."""
        values = range(-self.largest, self.largest + 1)
        return max(self.pair_epsilon(a, b, delta) for a, b in itertools.combinations(values, 2))

    def _filter_of(self, data: ArrayLike) -> NDArray[np.int8]:
        values = integers("data", data).ravel()
        if values.size != 1:
            raise UsageError(f"Expected data to be one integer, found {values.size} of them. Report one.")
        return self.filter(int(values[0]))


def OneTimeRAPPOR(*, hashes: int = 4, bits: int = 20, f: float = 0.95, largest: int = 10) -> RAPPOR:
    """RAPPOR whose permanent response is itself reported (its one-time variant, steps 1 and 2)."""
    return RAPPOR(hashes=hashes, bits=bits, f=f, p=0.0, q=1.0, largest=largest)


def _binomial(successes: int, trials: int, chance: float) -> float:
    """Log probability of that many successes."""
    if chance in (0.0, 1.0):
        return 0.0 if successes == trials * chance else -math.inf
    ways = math.log(math.comb(trials, successes))
    return ways + successes * math.log(chance) + (trials - successes) * math.log1p(-chance)
