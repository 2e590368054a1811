"""Mechanisms of diffprivlib (Holohan et al. 2019, arXiv:1907.02444); `pip install 'dpaudit[diffprivlib]'`.

Each takes the answer of a query, and holds for answers at most `sensitivity` apart. What kind of neighbours
that means for records is the caller's business. Values are not clipped, except by `Snapping`.

A release here is drawn from a generator seeded by `rng`, so it can be repeated. Without a seed diffprivlib
draws from `secrets.SystemRandom`; that path is audited by `secure=True`, whose releases cannot be repeated.
The floating-point mechanisms sum several variates so that the noise cannot be reconstructed (Holohan and
Braghin 2021, arXiv:2107.10138); which outputs are possible still depends on the input (Mironov 2012,
doi:10.1145/2382196.2382264), and an audit is right to say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dpaudit.targets.libraries.draws import random_state, repeated, scalar
from dpaudit.targets.libraries.installed import diffprivlib


def _released(
    name: str, data: Any, size: int, rng: np.random.Generator, *, secure: bool, **settings: Any
) -> NDArray[Any]:
    """`size` releases of one mechanism, which goes on in its own stream from one to the next."""
    state = None if secure else random_state(rng)
    made = getattr(diffprivlib("mechanisms"), name)(random_state=state, **settings)
    return repeated(lambda: made.randomise(data), size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Additive:
    """A mechanism that adds noise to one number.

    Attributes:
        mechanism: its class in `diffprivlib.mechanisms`.
        epsilon: claimed and used.
        delta: claimed and used; 0 where the mechanism takes none.
        sensitivity: how far apart two neighbouring answers are at most; a whole number if `whole`.
        bounds: lower and upper bound of outputs, for mechanisms that have them, and of the domain.
        whole: the answers are integers.
        secure: draw from the operating system, as diffprivlib does without a seed.
    """

    mechanism: str = "Laplace"
    epsilon: float = 1.0
    delta: float = 0.0
    sensitivity: float = 1
    bounds: tuple[float, float] | None = None
    whole: bool = False
    secure: bool = False

    def __post_init__(self) -> None:
        diffprivlib("mechanisms")

    @property
    def domain(self) -> str:
        """One number; neighbours are at most `sensitivity` apart."""
        low, high = (-10, 10) if self.bounds is None else self.bounds
        kind = "int" if self.whole else "float"
        return f"value({kind}({low}, {high}), step={self.sensitivity})"

    def sample(self, data: Any, size: int, rng: np.random.Generator) -> NDArray[Any]:
        """Release a number `size` times; (size,).

        Raises:
            TypeError: `data` is not a number, or not an integer where `whole`.
        """
        settings: dict[str, Any] = {"epsilon": self.epsilon, "sensitivity": self.sensitivity}
        if self.delta:
            settings["delta"] = self.delta
        if self.bounds is not None:
            settings["lower"], settings["upper"] = self.bounds
        return _released(self.mechanism, scalar(data), size, rng, secure=self.secure, **settings)


laplace = partial(Additive, mechanism="Laplace")
"""Laplace noise from four uniform variates."""
laplace_truncated = partial(Additive, mechanism="LaplaceTruncated", bounds=(0, 10))
"""Laplace noise; outputs beyond the bounds become the bounds."""
laplace_folded = partial(Additive, mechanism="LaplaceFolded", bounds=(0, 10))
"""Laplace noise; outputs beyond the bounds are mirrored into them."""
laplace_bounded_domain = partial(Additive, mechanism="LaplaceBoundedDomain", bounds=(0, 10))
"""Laplace noise drawn again until the output lies within the bounds, at a scale that pays for it."""
laplace_bounded_noise = partial(Additive, mechanism="LaplaceBoundedNoise", delta=0.01)
"""Laplace noise cut off where delta allows it (Geng et al. 2018, arXiv:1810.00877)."""
snapping = partial(Additive, mechanism="Snapping", bounds=(0, 10))
"""Clips the value, adds noise and rounds to a grid (Mironov 2012): no hole in the low-order bits."""
staircase = partial(Additive, mechanism="Staircase")
"""Staircase noise (Geng and Viswanath 2012, arXiv:1212.1186). Its unseeded path is numpy's generator."""
gaussian = partial(Additive, mechanism="Gaussian", delta=1e-5)
"""Gaussian noise, classic calibration; epsilon at most 1."""
gaussian_analytic = partial(Additive, mechanism="GaussianAnalytic", delta=1e-5)
"""Gaussian noise, exact calibration (Balle and Wang 2018, arXiv:1805.06530)."""
geometric = partial(Additive, mechanism="Geometric", whole=True)
"""Two-sided geometric noise on integers."""
geometric_truncated = partial(Additive, mechanism="GeometricTruncated", whole=True, bounds=(0, 10))
"""Geometric noise; outputs beyond the bounds become the bounds."""
geometric_folded = partial(Additive, mechanism="GeometricFolded", whole=True, bounds=(0, 10))
"""Geometric noise; outputs beyond the bounds are mirrored into them."""
gaussian_discrete = partial(Additive, mechanism="GaussianDiscrete", whole=True, delta=1e-5)
"""Discrete Gaussian noise (Canonne et al. 2020, arXiv:2004.00010)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A mechanism that releases the index of a good candidate, given the candidates' scores.

    Attributes:
        mechanism: `Exponential`, or `PermuteAndFlip` (McKenna and Sheldon 2020, arXiv:2010.12603).
        epsilon: claimed and used.
        sensitivity: how much each score may move between neighbours, in either direction.
        candidates: how many scores the domain has.
        secure: draw from the operating system, as diffprivlib does without a seed.
    """

    mechanism: str = "Exponential"
    epsilon: float = 1.0
    sensitivity: float = 1.0
    candidates: int = 5
    secure: bool = False
    delta: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        diffprivlib("mechanisms")

    @property
    def domain(self) -> str:
        """Vectors of scores; every score may move by `sensitivity`."""
        return f"answers({self.candidates}, sensitivity={self.sensitivity})"

    def sample(self, data: Any, size: int, rng: np.random.Generator) -> NDArray[Any]:
        """Release the index of one score `size` times; (size,) of int64.

        Raises:
            ValueError: there are no scores, or one is infinite.
        """
        settings = {
            "epsilon": self.epsilon,
            "sensitivity": self.sensitivity,
            "utility": np.asarray(data).tolist(),
        }
        return _released(self.mechanism, None, size, rng, secure=self.secure, **settings)


exponential = partial(Selection, mechanism="Exponential")
"""The exponential mechanism (McSherry and Talwar 2007)."""
permute_and_flip = partial(Selection, mechanism="PermuteAndFlip")
"""Permute and flip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """Randomised response on 0 and 1; any two values are neighbours.

    Attributes:
        epsilon: claimed and used.
        secure: draw from the operating system, as diffprivlib does without a seed.
    """

    epsilon: float = 1.0
    secure: bool = False
    delta: ClassVar[float] = 0.0
    domain: ClassVar[str] = "value(int(0, 1))"

    def __post_init__(self) -> None:
        diffprivlib("mechanisms")

    def sample(self, data: Any, size: int, rng: np.random.Generator) -> NDArray[Any]:
        """Release 0 or 1 `size` times; (size,) of int64.

        Raises:
            ValueError: `data` is neither 0 nor 1.
        """
        settings = {"epsilon": self.epsilon, "value0": "0", "value1": "1"}
        return _released("Binary", str(scalar(data)), size, rng, secure=self.secure, **settings).astype(int)
