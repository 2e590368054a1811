"""Measurements of OpenDP (`pip install 'dpaudit[opendp]'`), built as its documentation builds them.

OpenDP states domain, metric and privacy map of all that it builds; the claim here is what its own map says
of one step between neighbours, so a target cannot promise what the library does not. It draws from the
operating system and takes no seed: `rng` is not used, and releases cannot be repeated. Its floating-point
noise is drawn from a grid that does not depend on the data, by exact samplers (Canonne et al. 2020,
arXiv:2004.00010). Numbers outside of a measurement's domain, NaN among them, raise an error or are imputed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dpaudit.claim import Adjacency
from dpaudit.targets.libraries.draws import repeated, scalar
from dpaudit.targets.libraries.installed import library


@cache
def _opendp() -> Any:
    dp = library("opendp.prelude", package="opendp", extra="opendp")
    # Nearly everything is in "contrib"; its proofs are under review or done.
    dp.enable_features("contrib")
    return dp


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Laplace or Gaussian noise on one number.

    Attributes:
        law: "laplace" or "gaussian".
        epsilon: claimed; the scale is the least that OpenDP's map allows.
        delta: claimed; 0 for Laplace noise.
        sensitivity: how far apart two neighbouring numbers are at most.
        whole: integers, which get discrete noise.
    """

    law: str = "laplace"
    epsilon: float = 1.0
    delta: float = 0.0
    sensitivity: float = 1
    whole: bool = False

    def __post_init__(self) -> None:
        _opendp()

    @property
    def domain(self) -> str:
        """One number; neighbours are at most `sensitivity` apart. NaN raises an error."""
        return f"value({'int' if self.whole else 'float'}(-10, 10), step={self.sensitivity})"

    def sample(self, data: Any, size: int, rng: np.random.Generator) -> NDArray[Any]:
        """Release a number `size` times; (size,).

        All are one release of a vector of `size` copies, for the sake of speed: OpenDP itself releases a
        number as a vector of one, with noise of its own for each coordinate.

        Raises:
            TypeError: `data` is not a number of the stated type.
            opendp.mod.OpenDPException: `data` is NaN.
        """
        return np.array(self._vector(self.scale())([scalar(data)] * size))

    def scale(self) -> float:
        """The least scale at which OpenDP's map of one number allows the claim."""
        return _scale(self.law, self.epsilon, self.delta, self.sensitivity, self.whole)

    def _vector(self, scale: float) -> Any:
        dp, kind = _opendp(), int if self.whole else float
        metric = dp.l1_distance(T=kind) if self.law == "laplace" else dp.l2_distance(T=kind)
        noise = dp.m.then_laplace if self.law == "laplace" else dp.m.then_gaussian
        return (dp.vector_domain(_atoms(self.whole)), metric) >> noise(scale=scale)


def _atoms(whole: bool) -> Any:
    dp = _opendp()
    return dp.atom_domain(T=int) if whole else dp.atom_domain(T=float, nan=False)


def _least(measured: Callable[[float], Any], apart: float, epsilon: float) -> Any:
    """The measurement of the least scale whose map of `apart` stays within epsilon."""
    return measured(_opendp().binary_search_param(measured, d_in=apart, d_out=epsilon, T=float))


@cache
def _scale(law: str, epsilon: float, delta: float, sensitivity: float, whole: bool) -> float:
    dp, kind = _opendp(), int if whole else float
    space = _atoms(whole), dp.absolute_distance(T=kind)

    def private(scale: float) -> Any:
        if law == "laplace":
            return space >> dp.m.then_laplace(scale=scale)
        concentrated = space >> dp.m.then_gaussian(scale=scale)
        return dp.c.make_fix_delta(dp.c.make_zCDP_to_approxDP(concentrated), delta)

    wanted = epsilon if law == "laplace" else (epsilon, delta)
    return float(dp.binary_search_param(private, d_in=kind(sensitivity), d_out=wanted, T=float))


laplace = partial(Noise, law="laplace")
"""`make_laplace` on a float."""
laplace_integer = partial(Noise, law="laplace", whole=True)
"""`make_laplace` on an integer: discrete Laplace, also called geometric noise."""
gaussian = partial(Noise, law="gaussian", delta=1e-5)
"""`make_gaussian` on a float, from zero-concentrated to approximate differential privacy."""
gaussian_integer = partial(Noise, law="gaussian", delta=1e-5, whole=True)
"""`make_gaussian` on an integer: discrete Gaussian noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisyMax:
    """`make_noisy_max`: the index of the largest score after exponential noise (permute and flip).

    Attributes:
        epsilon: claimed; the scale is the least that OpenDP's map allows, 2 sensitivity / epsilon.
        sensitivity: how far each score may move.
        candidates: how many scores the domain has.
    """

    epsilon: float = 1.0
    sensitivity: float = 1.0
    candidates: int = 5
    delta: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        _opendp()

    @property
    def domain(self) -> str:
        """Vectors of scores; every score may move by `sensitivity`."""
        return f"answers({self.candidates}, sensitivity={self.sensitivity})"

    def sample(self, data: Any, size: int, rng: np.random.Generator) -> NDArray[Any]:
        """Release an index `size` times; (size,) of int64."""
        measurement, scores = self.measurement(), np.asarray(data, dtype=float).tolist()
        return repeated(lambda: measurement(scores), size)

    def measurement(self) -> Any:
        """OpenDP's object, whose `map` states the epsilon."""
        dp = _opendp()
        space = dp.vector_domain(_atoms(False)), dp.linf_distance(T=float)
        return _least(
            lambda scale: space >> dp.m.then_noisy_max(dp.max_divergence(), scale=scale),
            float(self.sensitivity),
            self.epsilon,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomizedResponse:
    """`make_randomized_response_bool` on 0 and 1; any two values are neighbours.

    Attributes:
        epsilon: claimed; the truth is told with probability e^epsilon / (1 + e^epsilon).
    """

    epsilon: float = 1.0
    delta: ClassVar[float] = 0.0
    domain: ClassVar[str] = "value(int(0, 1))"

    def __post_init__(self) -> None:
        _opendp()

    def sample(self, data: Any, size: int, rng: np.random.Generator) -> NDArray[Any]:
        """Release a bit `size` times; (size,) of bool."""
        measurement, truth = self.measurement(), bool(scalar(data))
        return repeated(lambda: measurement(truth), size)

    def measurement(self) -> Any:
        """OpenDP's object, whose `map` states the epsilon."""
        # The map rounds up: the largest float whose epsilon is not above the claim is a few ulp lower.
        probability = 1 / (1 + np.exp(-self.epsilon)) - 1e-12
        return _opendp().m.make_randomized_response_bool(prob=float(probability))


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A statistic of a list of numbers with Laplace noise: impute, clip, aggregate, add noise.

    Attributes:
        statistic: "sum", "count" or "mean"; "histogram" of integers.
        epsilon: claimed; the scale is the least that OpenDP's map allows.
        bounds: to which numbers are clipped; NaN counts as the lower one.
        records: how many there are: of the mean only, whose neighbours exchange one.
        bins: how many integers, from 0, the histogram counts.
    """

    statistic: str = "sum"
    epsilon: float = 1.0
    bounds: tuple[float, float] = (0.0, 10.0)
    records: int = 10
    bins: int = 5
    delta: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        _opendp()

    @property
    def adjacency(self) -> Adjacency:
        """Symmetric distance 1, or 2 within one size."""
        return Adjacency.REPLACE_ONE if self.statistic == "mean" else Adjacency.ADD_REMOVE

    @property
    def domain(self) -> str:
        """Lists of numbers; of exactly `records` for the mean."""
        if self.statistic == "histogram":
            return f"list(int(0, {self.bins - 1}))"
        low, high = self.bounds
        # The record that is exchanged comes on top of the shared ones, which min_size counts.
        sized = f", min_size={self.records - 1}, max_size={self.records}" if self.statistic == "mean" else ""
        return f"list(float({low:g}, {high:g}){sized})"

    def sample(self, data: Any, size: int, rng: np.random.Generator) -> NDArray[Any]:
        """Release the statistic `size` times; (size,), or (size, bins + 1) for the histogram.

        Raises:
            opendp.mod.OpenDPException: the mean of another number of records.
        """
        kind = int if self.statistic == "histogram" else float
        measurement, numbers = self.measurement(), [kind(value) for value in data]
        return repeated(lambda: measurement(numbers), size)

    def measurement(self) -> Any:
        """OpenDP's object, whose `map` states the epsilon for the symmetric distance of neighbours."""
        return _measured(self)

    def transformation(self) -> Any:
        """OpenDP's object before noise is added."""
        dp = _opendp()
        if self.statistic == "histogram":
            integers = dp.vector_domain(dp.atom_domain(T=int)), dp.symmetric_distance()
            return integers >> dp.t.then_count_by_categories(categories=list(range(self.bins)))
        sized = {"size": self.records} if self.statistic == "mean" else {}
        numbers = dp.vector_domain(dp.atom_domain(T=float), **sized), dp.symmetric_distance()
        if self.statistic == "count":
            return numbers >> dp.t.then_count()
        clipped = numbers >> dp.t.then_impute_constant(self.bounds[0]) >> dp.t.then_clamp(self.bounds)
        return clipped >> (dp.t.then_mean() if self.statistic == "mean" else dp.t.then_sum())


@cache
def _measured(query: Query) -> Any:
    dp, exact = _opendp(), query.transformation()
    apart = 2 if query.adjacency is Adjacency.REPLACE_ONE else 1
    return _least(lambda scale: exact >> dp.m.then_laplace(scale=scale), apart, query.epsilon)


total = partial(Query, statistic="sum")
"""Sum of clipped numbers."""
count = partial(Query, statistic="count")
"""Number of records."""
mean = partial(Query, statistic="mean")
"""Mean of a known number of clipped numbers."""
histogram = partial(Query, statistic="histogram")
"""Counts of the integers 0, 1, ..., and of all others."""
