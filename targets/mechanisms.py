"""Reference mechanisms whose exact epsilon is known: what the auditor itself is tested against.

The exact answers are those of the real-valued mechanism. `Laplace` and `Gaussian` are sampled in
floating point, whose rounding can reveal the data bit by bit (Mironov 2012,
doi:10.1145/2382196.2382264): an attack that reads low-order bits is right to break them.
`Exponential` and `RandomisedResponse` have finitely many outcomes and no such hole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr, log_softmax

from dpaudit.check import FloatArray, IntArray, finite, in_range
from dpaudit.errors import UsageError


@runtime_checkable
class Mechanism(Protocol):
    """A randomised release and the privacy that is claimed for it. Its fields are its recipe."""

    @property
    def epsilon(self) -> float:
        """The claimed epsilon."""

    @property
    def delta(self) -> float:
        """The claimed delta; 0 for pure differential privacy."""

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> NDArray[Any]:
        """Release `data` independently `size` times; (size, ...)."""


@runtime_checkable
class ExactMechanism(Mechanism, Protocol):
    """A mechanism whose output law and whose privacy are known in closed form."""

    def log_density(self, data: ArrayLike, outputs: ArrayLike) -> FloatArray:
        """Log density (log probability for discrete outputs) of each of (size, ...) outputs; (size,)."""

    def privacy_profile(self, epsilon: float) -> float:
        """The least delta at which the mechanism is (epsilon, delta)-private, over all neighbours."""

    def exact_epsilon(self, delta: float) -> float:
        """The least epsilon at which the mechanism is (epsilon, delta)-private; the profile's inverse."""

    def worst_pair(self) -> tuple[FloatArray, FloatArray]:
        """Neighbouring data on which `privacy_profile` is attained, or approached where so documented."""


def _positive(name: str, value: float) -> float:
    return in_range(name, value, 0.0, math.inf, open_low=True, open_high=True)


def gaussian_profile(mu: float, epsilon: float) -> float:
    """Exact delta of a Gaussian mechanism with sensitivity over noise `mu`, at `epsilon`.

    Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu) in logarithms, accurate far into the tail
    (Balle & Wang 2018, arXiv:1805.06530, theorem 8).
    """
    _positive("mu", mu)
    in_range("epsilon", epsilon, 0.0, math.inf)
    if math.isinf(epsilon):
        return 0.0
    log_kept = float(log_ndtr(mu / 2 - epsilon / mu))
    log_removed = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    return math.exp(log_kept) * -math.expm1(min(log_removed - log_kept, 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Laplace:
    """Adds Laplace noise of scale sensitivity/epsilon to each answer.

    Dwork, McSherry, Nissim & Smith (2006). Data are query answers of any shape; neighbours differ
    by at most `sensitivity` in L1 norm.

    Attributes:
        delta: 0, pure differential privacy.
        epsilon: claimed, and exact at delta 0.
        sensitivity: largest L1 distance between the answers of neighbours.
    """

    delta: ClassVar[float] = 0.0
    epsilon: float
    sensitivity: float = 1.0

    def __post_init__(self) -> None:
        _positive("epsilon", self.epsilon)
        _positive("sensitivity", self.sensitivity)

    @property
    def scale(self) -> float:
        """Scale b of the noise, in units of the answers; its standard deviation is b*sqrt(2)."""
        return self.sensitivity / self.epsilon

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> FloatArray:
        """Release answers plus noise; (size, *data.shape)."""
        answers = finite("data", data)
        return answers + rng.laplace(scale=self.scale, size=(size, *answers.shape))

    def log_density(self, data: ArrayLike, outputs: ArrayLike) -> FloatArray:
        """Joint log density of each of (size, *data.shape) outputs; (size,)."""
        distance = _flat_difference(data, outputs)
        each = math.log(2 * self.scale)
        return np.asarray(-np.abs(distance).sum(axis=1) / self.scale - distance.shape[1] * each)

    def privacy_profile(self, epsilon: float) -> float:
        """1 - exp((epsilon - self.epsilon) / 2): all of the sensitivity spent on one answer."""
        in_range("epsilon", epsilon, 0.0, math.inf)
        return -math.expm1(min(0.0, (epsilon - self.epsilon) / 2))

    def exact_epsilon(self, delta: float) -> float:
        """`self.epsilon + 2 log(1 - delta)`, or 0."""
        in_range("delta", delta, 0.0, 1.0, open_high=True)
        return max(0.0, self.epsilon + 2 * math.log1p(-delta))

    def worst_pair(self) -> tuple[FloatArray, FloatArray]:
        """One answer, moved by the whole sensitivity."""
        return np.zeros(1), np.full(1, self.sensitivity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaussian:
    """Adds Gaussian noise calibrated to (epsilon, delta).

    Data are query answers of any shape; neighbours differ by at most `sensitivity` in L2 norm.
    The analytic calibration is exact: its profile at `epsilon` is `delta` (Balle & Wang 2018,
    arXiv:1805.06530). The classic one, sigma = sensitivity sqrt(2 log(1.25/delta)) / epsilon, is
    looser and proven for epsilon below 1 only (Dwork & Roth 2014, theorem A.1).

    Attributes:
        epsilon: claimed.
        delta: claimed.
        sensitivity: largest L2 distance between the answers of neighbours.
        classic: which of the two.
    """

    epsilon: float
    delta: float
    sensitivity: float = 1.0
    classic: bool = False

    def __post_init__(self) -> None:
        _positive("epsilon", self.epsilon)
        in_range("delta", self.delta, 0.0, 1.0, open_low=True, open_high=True)
        _positive("sensitivity", self.sensitivity)
        if self.classic:
            remedy = "The classic calibration is proven for epsilon < 1 only: leave `classic` False."
            in_range("epsilon", self.epsilon, 0.0, 1.0, open_low=True, open_high=True, remedy=remedy)

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise, in units of the answers."""
        if self.classic:
            return self.sensitivity * math.sqrt(2 * math.log(1.25 / self.delta)) / self.epsilon
        return self.sensitivity / _largest_mu(self.epsilon, self.delta)

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> FloatArray:
        """Release answers plus noise; (size, *data.shape)."""
        answers = finite("data", data)
        return answers + rng.normal(scale=self.sigma, size=(size, *answers.shape))

    def log_density(self, data: ArrayLike, outputs: ArrayLike) -> FloatArray:
        """Joint log density of each of (size, *data.shape) outputs; (size,)."""
        standard = _flat_difference(data, outputs) / self.sigma
        each = math.log(self.sigma) + math.log(2 * math.pi) / 2
        return np.asarray(-np.square(standard).sum(axis=1) / 2 - standard.shape[1] * each)

    def privacy_profile(self, epsilon: float) -> float:
        """`gaussian_profile` at mu = sensitivity / sigma; the direction of the movement is immaterial."""
        return gaussian_profile(self.sensitivity / self.sigma, epsilon)

    def exact_epsilon(self, delta: float) -> float:
        """The root of the profile; infinite at delta 0."""
        in_range("delta", delta, 0.0, 1.0, open_high=True)
        if delta == 0:
            return math.inf
        if self.privacy_profile(0.0) <= delta:
            return 0.0
        high = self.epsilon
        while self.privacy_profile(high) > delta:
            high *= 2
        return float(brentq(lambda epsilon: self.privacy_profile(epsilon) - delta, 0.0, high, xtol=1e-300))

    def worst_pair(self) -> tuple[FloatArray, FloatArray]:
        """One answer, moved by the whole sensitivity."""
        return np.zeros(1), np.full(1, self.sensitivity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exponential:
    """Picks candidate i with probability proportional to exp(epsilon u_i / (2 sensitivity)).

    McSherry & Talwar (2007). Data are the utilities of k candidates, (k,); neighbours move each
    by at most `sensitivity`. Exact answers are suprema over all utilities (Dong, Durfee & Rogers
    2020, arXiv:1909.13830: the mechanism has bounded range epsilon).

    Attributes:
        delta: 0, pure differential privacy.
        epsilon: claimed; the supremum at delta 0, which no single pair attains.
        sensitivity: largest movement of one utility between neighbours.
    """

    delta: ClassVar[float] = 0.0
    epsilon: float
    sensitivity: float = 1.0

    def __post_init__(self) -> None:
        _positive("epsilon", self.epsilon)
        _positive("sensitivity", self.sensitivity)

    def probabilities(self, data: ArrayLike) -> FloatArray:
        """Probability of each candidate, exact up to rounding; (k,)."""
        return np.exp(self._log_probabilities(data))

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> IntArray:
        """Pick candidates; (size,) indices."""
        chances = self.probabilities(data)
        return rng.choice(chances.size, size=size, p=chances)

    def log_density(self, data: ArrayLike, outputs: ArrayLike) -> FloatArray:
        """Log probability of each of (size,) picked indices; (size,)."""
        logs = self._log_probabilities(data)
        return logs[_indices("outputs", outputs, logs.size)]

    def privacy_profile(self, epsilon: float) -> float:
        """(e^(self.epsilon/2) - e^(epsilon/2))^2 / (e^self.epsilon - 1), or 0."""
        in_range("epsilon", epsilon, 0.0, math.inf)
        gap = -math.expm1(min(0.0, (epsilon - self.epsilon) / 2))
        return gap**2 / -math.expm1(-self.epsilon)

    def exact_epsilon(self, delta: float) -> float:
        """`self.epsilon + 2 log(1 - sqrt(delta (1 - exp(-self.epsilon))))`, or 0."""
        in_range("delta", delta, 0.0, 1.0, open_high=True)
        return max(0.0, self.epsilon + 2 * math.log1p(-math.sqrt(delta * -math.expm1(-self.epsilon))))

    def worst_pair(self, at: float = 0.0) -> tuple[FloatArray, FloatArray]:
        """Two candidates whose pair attains the profile at epsilon = `at`.

        The privacy loss of candidate 0 is then (self.epsilon + at) / 2.
        """
        in_range("at", at, 0.0, self.epsilon, open_high=True)
        loss = (self.epsilon + at) / 2
        # P(0) = (e^eps - e^loss) / (e^eps - 1); its log-odds are the difference of scaled utilities.
        odds = math.log(-math.expm1(loss - self.epsilon)) - math.log(-math.expm1(-loss))
        lead = (odds + self.epsilon - loss) * 2 * self.sensitivity / self.epsilon
        first = np.array([lead, 0.0])
        return first, first + np.array([-self.sensitivity, self.sensitivity])

    def _log_probabilities(self, data: ArrayLike) -> FloatArray:
        utilities = finite("data", data)
        if utilities.ndim != 1 or not utilities.size:
            raise UsageError(f"Expected data to be (k,) utilities, k >= 1, found shape {utilities.shape}.")
        with np.errstate(over="ignore"):
            behind = utilities - utilities.max()
            logs: FloatArray = log_softmax(behind * (self.epsilon / (2 * self.sensitivity)))
        return logs


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
    epsilon: float
    categories: int = 2

    def __post_init__(self) -> None:
        _positive("epsilon", self.epsilon)
        in_range("categories", self.categories, 2, math.inf)

    def probabilities(self, value: int) -> FloatArray:
        """Probability of each answer when the truth is `value`; (k,)."""
        return np.exp(self.log_density([value], np.arange(self.categories)[:, None]))

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> IntArray:
        """Answer for each datum; (size, *data.shape)."""
        truth = _indices("data", data, self.categories)
        lie = rng.random((size, *truth.shape)) >= math.exp(self._log_true())
        return (truth + lie * rng.integers(1, self.categories, size=lie.shape)) % self.categories

    def log_density(self, data: ArrayLike, outputs: ArrayLike) -> FloatArray:
        """Joint log probability of each of (size, *data.shape) outputs; (size,)."""
        truth = _indices("data", data, self.categories)
        distance = _flat_difference(truth, _indices("outputs", outputs, self.categories))
        lies = np.count_nonzero(distance, axis=1)
        return np.asarray(distance.shape[1] * self._log_true() - self.epsilon * lies)

    def privacy_profile(self, epsilon: float) -> float:
        """(e^self.epsilon - e^epsilon) / (e^self.epsilon + k - 1), or 0."""
        in_range("epsilon", epsilon, 0.0, math.inf)
        return -math.expm1(min(0.0, epsilon - self.epsilon)) * math.exp(self._log_true())

    def exact_epsilon(self, delta: float) -> float:
        """`self.epsilon + log(1 - delta (1 + (k-1) exp(-self.epsilon)))`, or 0."""
        in_range("delta", delta, 0.0, 1.0, open_high=True)
        mass = delta * math.exp(-self._log_true())
        return max(0.0, self.epsilon + math.log1p(-mass)) if mass < 1 else 0.0

    def worst_pair(self) -> tuple[FloatArray, FloatArray]:
        """Any two different truths."""
        return np.zeros(1), np.ones(1)

    def _log_true(self) -> float:
        return -math.log1p((self.categories - 1) * math.exp(-self.epsilon))


def _largest_mu(epsilon: float, delta: float) -> float:
    """The mu at which `gaussian_profile` is `delta`; the profile grows in mu."""
    low = high = epsilon / math.sqrt(2 * math.log(1.25 / delta))
    while gaussian_profile(low, epsilon) > delta:
        low /= 2
    while gaussian_profile(high, epsilon) < delta:
        high *= 2
    if low == high:
        return low
    return float(brentq(lambda mu: gaussian_profile(mu, epsilon) - delta, low, high, rtol=1e-14, xtol=1e-300))


def _flat_difference(data: ArrayLike, outputs: ArrayLike) -> FloatArray:
    """Outputs (size, *shape) less data (*shape), as (size, number of data)."""
    centre, released = np.asarray(data, dtype=np.float64), np.asarray(outputs, dtype=np.float64)
    if released.ndim == 0 or released.shape[1:] != centre.shape:
        raise UsageError(f"Expected outputs of shape (size, *{centre.shape}), found {released.shape}.")
    difference: FloatArray = (released - centre).reshape(released.shape[0], centre.size)
    return difference


def _indices(name: str, values: ArrayLike, count: int) -> IntArray:
    array = finite(name, values)
    whole = array.astype(np.int64)
    bad = array[(whole != array) | (array < 0) | (array >= count)]
    if bad.size:
        raise UsageError(f"Expected {name} to be integers in [0, {count}), found {float(bad[0])!r}.")
    return whole
