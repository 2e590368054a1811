"""Statistics of lists of numbers by diffprivlib (`diffprivlib.tools`); `pip install 'dpaudit[diffprivlib]'`.

The library does not name its neighbours. Its formulas do: `mean`, `var`, `std`, `sum` and `count_nonzero`
use the true number of records, as divisor or as a bound on the output, and a sensitivity of one record
exchanged: replace-one. `histogram` counts every record in at most one bin with sensitivity 1 and no bound
that depends on the data: add/remove; exchanging a record costs twice its epsilon. `quantile` weighs
candidates by |i - q n| with sensitivity 1, and is taken as replace-one too.
Numbers beyond the bounds are clipped, or not counted by the histogram. NaN is let through: the numbers must
be numbers, and `nanmean` and others are meant for the rest. Empty data raise an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dpaudit.claim import Adjacency
from dpaudit.targets.libraries.draws import random_state, repeated
from dpaudit.targets.libraries.installed import diffprivlib


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """One statistic of a list of numbers.

    Attributes:
        tool: function of `diffprivlib.tools`.
        epsilon: claimed and used.
        bounds: of the numbers, and of the histogram's range.
        bins: of the histogram.
        quantile: which one, in [0, 1].
        secure: draw from the operating system, as diffprivlib does without a seed.
    """

    tool: str = "mean"
    epsilon: float = 1.0
    bounds: tuple[float, float] = (0, 10)
    bins: int = 5
    quantile: float = 0.5
    secure: bool = False
    delta: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        diffprivlib("tools")

    @property
    def adjacency(self) -> Adjacency:
        """The neighbours that the library's sensitivities are right for."""
        return Adjacency.ADD_REMOVE if self.tool == "histogram" else Adjacency.REPLACE_ONE

    @property
    def domain(self) -> str:
        """Lists of numbers; of 0 and 1 where non-zeros are counted."""
        low, high = self.bounds
        record = "int(0, 1)" if self.tool == "count_nonzero" else f"float({low}, {high})"
        return f"list({record})"

    def sample(self, data: Any, size: int, rng: np.random.Generator) -> NDArray[Any]:
        """Release the statistic `size` times; (size,), or (size, bins) for the histogram.

        Raises:
            ZeroDivisionError: `data` is empty and the statistic a mean.
        """
        state = None if self.secure else random_state(rng)
        return repeated(partial(self._release(), np.asarray(data), state), size)

    def _release(self) -> Callable[[Any, Any], Any]:
        tools, accountant = diffprivlib("tools"), diffprivlib("accountant").BudgetAccountant
        tool = getattr(tools, self.tool)

        def release(data: Any, state: Any) -> Any:
            # An accountant of its own: the library's default one remembers every release ever made.
            common = {"epsilon": self.epsilon, "random_state": state, "accountant": accountant()}
            if self.tool == "histogram":
                return tool(data, bins=self.bins, range=self.bounds, **common)[0]
            if self.tool == "count_nonzero":
                return tool(data, **common)
            wanted = {"quant": self.quantile} if self.tool == "quantile" else {}
            return tool(data, bounds=self.bounds, **wanted, **common)

        return release


mean = partial(Statistic, tool="mean")
"""Laplace noise of scale (upper - lower) / (n epsilon), truncated to the bounds."""
variance = partial(Statistic, tool="var")
"""Laplace noise on the variance, drawn within [0, (upper - lower)^2 / 4]."""
standard_deviation = partial(Statistic, tool="std")
"""The square root of the noisy variance."""
total = partial(Statistic, tool="sum")
"""Laplace noise of scale (upper - lower) / epsilon, truncated to n times the bounds."""
count_nonzero = partial(Statistic, tool="count_nonzero")
"""Geometric noise, truncated to [0, n]: a sum of truths."""
histogram = partial(Statistic, tool="histogram")
"""Geometric noise on each count, truncated at 0."""
quantile = partial(Statistic, tool="quantile")
"""A point of an interval between sorted records, chosen by the exponential mechanism (Smith 2011)."""
