"""What a mechanism is, and what one is whose privacy is known exactly."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpaudit.check import FloatArray


@runtime_checkable
class Mechanism(Protocol):
    """A randomised release and the privacy that is claimed for it. Its fields are its recipe.

    Mechanisms also say, as `domain`, which data they take and which of them are neighbours, in the
    grammar of domains: `answers(10)`, `value(int(0, 5), step=1)`, `list(float(0, 10))`.
    """

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

    def exact_epsilon(self, delta: float = 0.0) -> float:
        """The least epsilon at which the mechanism is (epsilon, delta)-private; the profile's inverse."""

    def worst_pair(self) -> tuple[FloatArray, FloatArray]:
        """Neighbouring data on which `privacy_profile` is attained, or approached where so documented."""


@runtime_checkable
class PairwiseMechanism(Mechanism, Protocol):
    """A mechanism whose privacy is known on any one pair of neighbours."""

    def pair_epsilon(self, first: ArrayLike, second: ArrayLike, delta: float = 0.0) -> float:
        """The least epsilon at which this pair alone, in both orders, is (epsilon, delta)-private."""
