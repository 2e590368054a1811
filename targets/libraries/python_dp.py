"""Statistics of PyDP, OpenMined's bindings of Google's C++ library; `pip install 'dpaudit[python-dp]'`.

The neighbours are add/remove: one user more, who contributes one number (`l0_sensitivity` and
`linf_sensitivity` are 1). Numbers beyond the bounds are clipped and NaN is left out. The noise is drawn on
a grid from the operating system's randomness, without a seed: `rng` is not used, and releases cannot be
repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dpaudit.claim import Adjacency
from dpaudit.targets.libraries.draws import repeated
from dpaudit.targets.libraries.installed import library

UNBOUNDED = ("Count",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """One statistic of a list of numbers.

    Attributes:
        algorithm: class of `pydp.algorithms.laplacian`.
        epsilon: claimed and used.
        bounds: to which numbers are clipped.
        whole: integers in place of floats.
        percentile: which one, in [0, 1], of `Percentile`.
    """

    algorithm: str = "BoundedMean"
    epsilon: float = 1.0
    bounds: tuple[int, int] = (0, 10)
    whole: bool = False
    percentile: float = 0.9
    delta: ClassVar[float] = 0.0
    adjacency: ClassVar[Adjacency] = Adjacency.ADD_REMOVE

    def __post_init__(self) -> None:
        _pydp()

    @property
    def domain(self) -> str:
        """Lists of numbers within the bounds, empty ones too."""
        low, high = self.bounds
        return f"list({'int' if self.whole else 'float'}({low}, {high}))"

    def sample(self, data: Any, size: int, rng: np.random.Generator) -> NDArray[Any]:
        """Release the statistic `size` times; (size,).

        Raises:
            TypeError: numbers are not of the stated type.
        """
        algorithm, numbers = self._algorithm(), np.asarray(data).tolist()
        return repeated(lambda: algorithm.quick_result(numbers), size)

    def _algorithm(self) -> Any:
        settings: dict[str, Any] = {"epsilon": self.epsilon, "dtype": "int" if self.whole else "float"}
        if self.algorithm not in UNBOUNDED:
            settings["lower_bound"], settings["upper_bound"] = self.bounds
        if self.algorithm == "Percentile":
            settings["percentile"] = self.percentile
        return getattr(_pydp(), self.algorithm)(**settings)


def _pydp() -> Any:
    return library("pydp.algorithms.laplacian", package="python-dp", extra="python-dp")


bounded_mean = partial(Statistic, algorithm="BoundedMean")
"""Noisy sum of centred numbers over a noisy count, clipped to the bounds."""
bounded_sum = partial(Statistic, algorithm="BoundedSum")
"""Sum of clipped numbers with Laplace noise."""
bounded_variance = partial(Statistic, algorithm="BoundedVariance")
"""Noisy mean of squares less the square of the noisy mean."""
bounded_standard_deviation = partial(Statistic, algorithm="BoundedStandardDeviation")
"""Square root of the noisy variance."""
count = partial(Statistic, algorithm="Count")
"""Number of records with Laplace noise, as an integer."""
maximum = partial(Statistic, algorithm="Max")
"""Largest number, by a noisy quantile tree."""
minimum = partial(Statistic, algorithm="Min")
"""Smallest number, by a noisy quantile tree."""
median = partial(Statistic, algorithm="Median")
"""Median, by a noisy quantile tree."""
percentile = partial(Statistic, algorithm="Percentile")
"""A percentile, by a noisy quantile tree."""
