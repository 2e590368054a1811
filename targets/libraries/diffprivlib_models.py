"""Models of diffprivlib: the output is the fitted estimator; `pip install 'dpaudit[diffprivlib]'`.

What is released is what a user would pass on, the whole object with every fitted attribute, for that is
what the library calls private. The library does not name its neighbours; all of its models use the true
number of records, so the claim is taken as replace-one. In 0.6.6 some attributes hold data without noise:

* `KMeans`: `labels_` and `inertia_` are those of the training records, and a cluster without records is
  left as it was.
* `GaussianNB`: `classes_` are the classes that occur. A record that changes its class moves two counts, two
  means and two variances, a third of epsilon each: the library's own parts add up to twice the claim.
* `LinearRegression`: the noise of the second moments has the scale of the square of the lower bound, which
  the code reads where both bounds are meant: with a lower bound of 0 after centring there is no noise.
* `LogisticRegression`: passes an option that scikit-learn 1.8 removed, and needs an older one.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dpaudit.claim import Adjacency
from dpaudit.errors import UsageError
from dpaudit.targets.libraries.draws import random_state
from dpaudit.targets.libraries.installed import diffprivlib


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model fitted to a list of records, dicts of numbers in [0, 1].

    Attributes:
        model: class of `diffprivlib.models`.
        epsilon: claimed and used.
        features: how many numbers a record has, named x0, x1, ...
        target: "class" for a label among a and b, "number" for a number y in [0, 1], "none" without.
        bounds_named: names of the options that state bounds (0, 1).
        norm: whether the model is told the largest norm of a record.
        fixed: further options of the model.
        secure: draw from the operating system, as diffprivlib does without a seed.
    """

    model: str = "GaussianNB"
    epsilon: float = 1.0
    features: int = 2
    target: str = "class"
    bounds_named: tuple[str, ...] = ("bounds",)
    norm: bool = False
    fixed: tuple[tuple[str, Any], ...] = ()
    secure: bool = False
    delta: ClassVar[float] = 0.0
    adjacency: ClassVar[Adjacency] = Adjacency.REPLACE_ONE

    def __post_init__(self) -> None:
        try:
            self._unfitted(None)
        except TypeError as error:
            raise UsageError(
                f"Expected diffprivlib's {self.model} to be made, found {error}. "
                "Install an older scikit-learn."
            ) from None

    @property
    def domain(self) -> str:
        """Lists of records; of fewer than two the library raises an error, on both of two neighbours."""
        fields = [f"x{i}=float(0, 1)" for i in range(self.features)]
        last = {"class": ['y=category("a", "b")'], "number": ["y=float(0, 1)"]}
        return f"records({', '.join(fields + last.get(self.target, []))})"

    def sample(self, data: Any, size: int, rng: np.random.Generator) -> list[Any]:
        """Fit to the records `size` times; a list of `size` fitted estimators.

        Raises:
            ValueError: records are missing, or hold NaN or an infinity; or all have one class where the
                model needs two.
        """
        features, target = self._columns(data)
        state = None if self.secure else random_state(rng)
        return [self._fit(features, target, state) for _ in range(size)]

    def _columns(self, data: Any) -> tuple[NDArray[Any], NDArray[Any] | None]:
        rows = [[row[f"x{i}"] for i in range(self.features)] for row in data]
        features = np.array(rows, dtype=float).reshape(-1, self.features)
        return features, None if self.target == "none" else np.array([row["y"] for row in data])

    def _unfitted(self, state: Any) -> Any:
        options: dict[str, Any] = dict.fromkeys(self.bounds_named, (0, 1)) | dict(self.fixed)
        if self.norm:
            options["data_norm"] = float(np.sqrt(self.features))
        # An accountant of its own: the library's default one remembers every release ever made.
        options["accountant"] = diffprivlib("accountant").BudgetAccountant()
        model = getattr(diffprivlib("models"), self.model)
        return model(epsilon=self.epsilon, random_state=state, **options)

    def _fit(self, features: NDArray[Any], target: NDArray[Any] | None, state: Any) -> Any:
        made = self._unfitted(state)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = made.fit(features) if target is None else made.fit(features, target)
        # The seed is the auditor's, not an output of the mechanism: it would tell everything.
        fitted.random_state = None
        return fitted


gaussian_nb = partial(Model, model="GaussianNB")
"""Naive Bayes: noisy counts, means and variances of each class, a third of epsilon each."""
linear_regression = partial(
    Model, model="LinearRegression", target="number", features=1, bounds_named=("bounds_X", "bounds_y")
)
"""Least squares with noisy moments (Zhang et al. 2012, arXiv:1208.0219)."""
logistic_regression = partial(Model, model="LogisticRegression", bounds_named=(), norm=True)
"""Objective perturbation (Chaudhuri et al. 2011, arXiv:0912.0071)."""
k_means = partial(Model, model="KMeans", target="none", fixed=(("n_clusters", 2),))
"""Lloyd's algorithm with noisy counts and sums in every iteration."""
standard_scaler = partial(Model, model="StandardScaler", target="none")
"""Noisy mean and variance of each column."""
