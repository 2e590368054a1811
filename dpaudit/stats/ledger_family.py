"""The family that a ledger spans: the same steps with all noise scaled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dpaudit.check import FloatArray, IntArray, in_range
from dpaudit.claim import Adjacency, Ledger
from dpaudit.errors import UsageError
from dpaudit.stats import composition
from dpaudit.stats.family import LARGEST_EPSILON, search
from dpaudit.stats.shuffle import epsilon_lower
from dpaudit.stats.tradeoff import TradeOff

_COARSE = 3e-3
_SLACK = 5e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerFamily:
    """The claimed ledger with all its noise scaled, accounted for by privacy-loss distributions.

    Epsilons beyond 500 cost too much to compute: scales below the one that reaches it count as that one,
    which makes the figure a lower bound there. One evaluation costs about 0.1 s and is remembered. Of more
    than 12 distinct phases neighbouring ones are taken together, on the safe side for either figure.

    Attributes:
        ledger: noisy phases.
        delta: at which epsilons are stated.
        adjacency: neighbouring relation of curves and epsilons.
        claimed_epsilon: under that adjacency, or None.
    """

    ledger: Ledger
    delta: float
    adjacency: Adjacency = Adjacency.ADD_REMOVE
    claimed_epsilon: float | None = None

    def __post_init__(self) -> None:
        """Refuse a ledger that cannot be scaled."""
        if not composition.running(self.ledger) or composition.silent(self.ledger):
            raise UsageError(
                f"Expected a ledger of noisy steps, found {self.ledger!r}. `family_for` knows what to do."
            )
        in_range("delta", self.delta, 0.0, 1.0, open_high=True)

    @property
    def claimed_scale(self) -> float:
        """See `Family`; a claim within 0.5 % below the ledger's own epsilon is taken as exactly that."""
        return _claimed_scale(self)

    @property
    def scales(self) -> tuple[float, float]:
        """See `Family`."""
        return _scales(self.ledger, self.adjacency)

    @property
    def assumption(self) -> str:
        """See `Family`."""
        return f"epsilon: the mechanism is the claimed ledger, its noise scaled ({self.adjacency} neighbours)"

    def _at(self, scale: float, *, leak_more: bool) -> Ledger:
        in_range("scale", scale, 0.0, math.inf)
        short = composition.condense(self.ledger, leak_more=leak_more)
        return composition.scaled(short, min(max(scale, self.scales[0]), self.scales[1]))

    def epsilon(self, scale: float) -> float:
        """See `Family`; `epsilon_lower` of the scaled ledger, inf at scale 0."""
        if scale == 0.0:
            return math.inf
        return epsilon_lower(self._at(scale, leak_more=False), self.delta, self.adjacency, coarsest=_COARSE)

    def curve(self, scale: float) -> TradeOff:
        """See `Family`."""
        return composition.curve(self._at(scale, leak_more=True), self.adjacency, coarsest=_COARSE)

    def step_mean(self, phase: IntArray | None = None) -> FloatArray | float:
        """See `Family`: reach of the adjacency over the noise multiplier; without phases the largest.

        Raises:
            UsageError: a phase that the ledger does not have.
        """
        means = composition.reach(self.adjacency) / np.array([each.noise_multiplier for each in self.ledger])
        if phase is None:
            return float(means.max())
        index = np.asarray(phase, dtype=np.int64)
        if index.size and (index.min() < 0 or index.max() >= means.size):
            raise UsageError(
                f"Expected phase indices in [0, {means.size - 1}], "
                f"found {int(index.min())} to {int(index.max())}. The evidence belongs to another ledger."
            )
        result: FloatArray = means[index]
        return result

    def scale_for(self, epsilon: float) -> float:
        """See `Family`."""
        return search(lambda scale: self.epsilon(scale) - epsilon, *self.scales)


@lru_cache(maxsize=64)
def _scales(ledger: Ledger, adjacency: Adjacency) -> tuple[float, float]:
    """Scales from a rough epsilon of 500 to one of 1e-3."""
    ledger = composition.condense(ledger, leak_more=False)

    def end(target: float) -> float:
        return search(
            lambda s: composition.rough_epsilon(composition.scaled(ledger, s), adjacency) - target, 1e-6, 1e9
        )

    return end(LARGEST_EPSILON), end(1e-3)


@lru_cache(maxsize=64)
def _claimed_scale(family: LedgerFamily) -> float:
    claimed = family.claimed_epsilon
    if claimed is None or math.isinf(claimed):
        return 1.0
    own = family.epsilon(1.0)
    return 1.0 if own * (1 - _SLACK) <= claimed <= own else family.scale_for(claimed)
