"""Private selection: the exponential mechanism and the maxima of noisy answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, logsumexp

from dpaudit.check import FloatArray, IntArray, finite, in_range, one_of
from dpaudit.errors import UsageError
from dpaudit.targets.mechanisms.checks import answers, indices, positive, pure
from dpaudit.targets.mechanisms.exact import finite_epsilon, log_laplace, log_laplace_cdf, panels


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
        candidates: k; of the domain only, data of any length are answered.
    """

    delta: ClassVar[float] = 0.0
    epsilon: float = 1.0
    sensitivity: float = 1.0
    candidates: int = 5

    def __post_init__(self) -> None:
        positive("epsilon", self.epsilon)
        positive("sensitivity", self.sensitivity)

    @property
    def domain(self) -> str:
        """Utilities, every one of which may move."""
        moved = "" if self.sensitivity == 1 else f", sensitivity={self.sensitivity!r}"
        return f"answers({self.candidates}{moved})"

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
        return logs[indices("outputs", outputs, logs.size)]

    def pair_epsilon(self, first: ArrayLike, second: ArrayLike, delta: float = 0.0) -> float:
        """Of one pair of utilities, by enumeration."""
        return finite_epsilon(self._log_probabilities(first), self._log_probabilities(second), delta)

    def privacy_profile(self, epsilon: float) -> float:
        """(e^(self.epsilon/2) - e^(epsilon/2))^2 / (e^self.epsilon - 1), or 0."""
        in_range("epsilon", epsilon, 0.0, math.inf)
        gap = -math.expm1(min(0.0, (epsilon - self.epsilon) / 2))
        return gap**2 / -math.expm1(-self.epsilon)

    def exact_epsilon(self, delta: float = 0.0) -> float:
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
class NoisyMax:
    """Adds noise to every answer and reports which is largest, or wrongly how large it is.

    Dwork & Roth (2014), section 3.3, and algorithms 5 to 8 of Ding et al. (2018, arXiv:1805.10277). Data
    are answers (d,), each of which moves by at most 1 between neighbours.

    Attributes:
        delta: 0, pure differential privacy.
        epsilon: claimed; the noise has scale 2/epsilon.
        noise: "laplace", or "exponential", which is permute-and-flip (Ding et al. 2021,
            arXiv:2105.07260).
        releases: "index" of the largest, which is private, or its "value", which is not.
        dimension: number of answers d; of the domain and `exact_epsilon` only.
    """

    delta: ClassVar[float] = 0.0
    epsilon: float = 0.1
    noise: str = "laplace"
    releases: str = "index"
    dimension: int = 5

    def __post_init__(self) -> None:
        positive("epsilon", self.epsilon)
        one_of("noise", self.noise, ("laplace", "exponential"))
        one_of("releases", self.releases, ("index", "value"))
        in_range("dimension", self.dimension, 1, math.inf)

    @property
    def domain(self) -> str:
        """Answers, every one of which may move."""
        return f"answers({self.dimension})"

    @property
    def scale(self) -> float:
        """Scale of the noise, 2/epsilon."""
        return 2 / self.epsilon

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> NDArray[Any]:
        """Indices or values of the largest noisy answer; (size,)."""
        values = answers("data", data)
        draw = rng.laplace if self.noise == "laplace" else rng.exponential
        noisy = values + draw(scale=self.scale, size=(size, values.size))
        return np.asarray(noisy.argmax(axis=1) if self.releases == "index" else noisy.max(axis=1))

    def log_probabilities(self, data: ArrayLike) -> FloatArray:
        """Log probability of each index, (d,), by quadrature over the largest noisy answer.

        Raises:
            UsageError: `releases` is "value", which has a density.
        """
        if self.releases == "value":
            raise UsageError("Expected releases='index', found 'value', which has no probabilities.")
        values = answers("data", data)
        nodes, weights = panels(values, self.scale, (values.size + 1) / self.scale)
        densities, cumulative = self._laws(nodes, values)
        with np.errstate(invalid="ignore"):
            others = cumulative.sum(axis=0) - cumulative
        # Where one answer alone is impossible, the sum of the others is minus infinity less itself.
        others = np.where(np.isnan(others), -math.inf, others)
        return np.asarray(logsumexp(densities + others + weights, axis=1))

    def pair_epsilon(self, first: ArrayLike, second: ArrayLike, delta: float = 0.0) -> float:
        """Of one pair of answers: by enumeration of the indices, or by the tails of the value.

        The value's likelihood ratio is looked at on a grid and in its limits, at delta 0 only: the
        result is exact where a limit attains it, as it does on all patterns, else within 1e-3 of it.
        """
        if self.releases == "index":
            return finite_epsilon(self.log_probabilities(first), self.log_probabilities(second), delta)
        pure(delta)
        a, b = answers("first", first), answers("second", second)
        if self.noise == "exponential" and a.max() != b.max():
            return math.inf
        kinks = np.concatenate([a, b])
        inside = np.linspace(kinks.min(), kinks.max() + 20 * self.scale, 4_001)[1:]
        found = np.abs(self._log_value_density(a, inside) - self._log_value_density(b, inside)).max()
        tail = abs(logsumexp(a / self.scale) - logsumexp(b / self.scale))
        left = abs((a - b).sum()) / self.scale if self.noise == "laplace" else 0.0
        return float(max(found, tail, left))

    def exact_epsilon(self, delta: float = 0.0) -> float:
        """The supremum over all neighbours, at delta 0.

        Of the index, epsilon for d >= 2: Laplace noise approaches it as one answer falls far behind
        (the ratio of P[X - Y > g] to P[X - Y > g + 2] tends to exp(2/scale)), exponential noise attains
        it. Of the value with Laplace noise, d epsilon / 2, approached in the left tail when all move
        together; with exponential noise infinite, because no value lies below the largest answer.
        """
        pure(delta)
        if self.releases == "index":
            return self.epsilon if self.dimension > 1 else 0.0
        return self.dimension * self.epsilon / 2 if self.noise == "laplace" else math.inf

    def _laws(self, x: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Log densities and log distribution functions of the d noisy answers at x; (d, n) each."""
        z = x - values[:, None]
        if self.noise == "laplace":
            return log_laplace(z, self.scale), log_laplace_cdf(z, self.scale)
        with np.errstate(divide="ignore"):
            cumulative = np.log(-np.expm1(-np.maximum(z, 0.0) / self.scale))
        return np.where(z >= 0, -z / self.scale - math.log(self.scale), -math.inf), cumulative

    def _log_value_density(self, values: FloatArray, x: FloatArray) -> FloatArray:
        densities, cumulative = self._laws(x, values)
        possible = x > values.max() if self.noise == "exponential" else np.full(x.shape, True)
        ratios = densities[:, possible] - cumulative[:, possible]
        found = np.zeros(x.shape)
        found[possible] = logsumexp(ratios, axis=0) + cumulative[:, possible].sum(axis=0)
        return found


def ReportNoisyMax1(*, epsilon: float = 0.1, dimension: int = 5) -> NoisyMax:
    """Index of the largest answer with Laplace noise: private (Ding et al. 2018, algorithm 5)."""
    return NoisyMax(epsilon=epsilon, dimension=dimension)


def ReportNoisyMax2(*, epsilon: float = 0.1, dimension: int = 5) -> NoisyMax:
    """Index of the largest answer with exponential noise: private (Ding et al. 2018, algorithm 6)."""
    return NoisyMax(epsilon=epsilon, noise="exponential", dimension=dimension)


def ReportNoisyMax3(*, epsilon: float = 0.1, dimension: int = 5) -> NoisyMax:
    """Value of the largest answer with Laplace noise: d epsilon / 2 (Ding et al. 2018, algorithm 7)."""
    return NoisyMax(epsilon=epsilon, releases="value", dimension=dimension)


def ReportNoisyMax4(*, epsilon: float = 0.1, dimension: int = 5) -> NoisyMax:
    """Value of the largest answer with exponential noise: infinite (Ding et al. 2018, algorithm 8)."""
    return NoisyMax(epsilon=epsilon, noise="exponential", releases="value", dimension=dimension)
