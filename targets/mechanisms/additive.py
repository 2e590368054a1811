"""Answers with real-valued noise added.

The exact answers are those of the real-valued mechanism. `Laplace` and `Gaussian` are sampled in
floating point, whose rounding can reveal the data bit by bit (Mironov 2012,
doi:10.1145/2382196.2382264): an attack that reads low-order bits is right to break them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import log_ndtr

from dpaudit.check import FloatArray, finite, in_range
from dpaudit.targets.mechanisms.checks import flat_difference, positive
from dpaudit.targets.mechanisms.exact import invert_profile


def one_moves(dimension: int, sensitivity: float = 1.0) -> str:
    """The domain of `dimension` answers, one of which moves by `sensitivity` at most."""
    moved = "" if sensitivity == 1 else f", sensitivity={sensitivity!r}"
    return f"answers({dimension}{moved}, movable=1)"


def gaussian_profile(mu: float, epsilon: float) -> float:
    """Exact delta of a Gaussian mechanism with sensitivity over noise `mu`, at `epsilon`.

    Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu) in logarithms, accurate far into the tail
    (Balle & Wang 2018, arXiv:1805.06530, theorem 8).
    """
    positive("mu", mu)
    in_range("epsilon", epsilon, 0.0, math.inf)
    if math.isinf(epsilon):
        return 0.0
    log_kept = float(log_ndtr(mu / 2 - epsilon / mu))
    log_removed = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    return math.exp(log_kept) * -math.expm1(min(log_removed - log_kept, 0.0))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The epsilon at which `gaussian_profile` is `delta`; infinite at 0."""
    in_range("delta", delta, 0.0, 1.0, open_high=True)
    if delta == 0:
        return math.inf
    high = mu
    while gaussian_profile(mu, high) > delta:
        high *= 2
    return invert_profile(lambda epsilon: gaussian_profile(mu, epsilon), delta, high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Laplace:
    """Adds Laplace noise of scale sensitivity/epsilon to each answer.

    Dwork, McSherry, Nissim & Smith (2006). Data are query answers of any shape; neighbours differ
    by at most `sensitivity` in L1 norm.

    Attributes:
        delta: 0, pure differential privacy.
        epsilon: claimed, and exact at delta 0.
        sensitivity: largest L1 distance between the answers of neighbours.
        dimension: number of answers; of the domain only, data of any shape are released.
    """

    delta: ClassVar[float] = 0.0
    epsilon: float = 0.1
    sensitivity: float = 1.0
    dimension: int = 1

    def __post_init__(self) -> None:
        positive("epsilon", self.epsilon)
        positive("sensitivity", self.sensitivity)

    @property
    def domain(self) -> str:
        """Answers of which one moves."""
        return one_moves(self.dimension, self.sensitivity)

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
        distance = flat_difference(data, outputs)
        each = math.log(2 * self.scale)
        return np.asarray(-np.abs(distance).sum(axis=1) / self.scale - distance.shape[1] * each)

    def privacy_profile(self, epsilon: float) -> float:
        """1 - exp((epsilon - self.epsilon) / 2): all of the sensitivity spent on one answer."""
        in_range("epsilon", epsilon, 0.0, math.inf)
        return -math.expm1(min(0.0, (epsilon - self.epsilon) / 2))

    def exact_epsilon(self, delta: float = 0.0) -> float:
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
        dimension: number of answers; of the domain only, data of any shape are released.
    """

    epsilon: float = 1.0
    delta: float = 1e-5
    sensitivity: float = 1.0
    classic: bool = False
    dimension: int = 1

    def __post_init__(self) -> None:
        positive("epsilon", self.epsilon)
        in_range("delta", self.delta, 0.0, 1.0, open_low=True, open_high=True)
        positive("sensitivity", self.sensitivity)
        if self.classic:
            remedy = "The classic calibration is proven for epsilon < 1 only: leave `classic` False."
            in_range("epsilon", self.epsilon, 0.0, 1.0, open_low=True, open_high=True, remedy=remedy)

    @property
    def domain(self) -> str:
        """Answers of which one moves."""
        return one_moves(self.dimension, self.sensitivity)

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
        standard = flat_difference(data, outputs) / self.sigma
        each = math.log(self.sigma) + math.log(2 * math.pi) / 2
        return np.asarray(-np.square(standard).sum(axis=1) / 2 - standard.shape[1] * each)

    def privacy_profile(self, epsilon: float) -> float:
        """`gaussian_profile` at mu = sensitivity / sigma; the direction of the movement is immaterial."""
        return gaussian_profile(self.sensitivity / self.sigma, epsilon)

    def exact_epsilon(self, delta: float = 0.0) -> float:
        """The root of the profile; infinite at delta 0."""
        return gaussian_epsilon(self.sensitivity / self.sigma, delta)

    def worst_pair(self) -> tuple[FloatArray, FloatArray]:
        """One answer, moved by the whole sensitivity."""
        return np.zeros(1), np.full(1, self.sensitivity)


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
