"""One-parameter families of mechanisms, by which evidence is turned into an epsilon."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
from scipy.optimize import brentq

from dpaudit.check import FloatArray, IntArray, in_range
from dpaudit.claim import Adjacency
from dpaudit.errors import UsageError
from dpaudit.stats.tradeoff import EpsilonDelta, Gaussian, TradeOff, gaussian_epsilon, gaussian_mu

SCALE_TOLERANCE = 5e-4
"""Relative precision to which scales are searched; bounds give it away on the safe side."""

_FIRST_STEP = math.log(1.15)

LARGEST_EPSILON = 500.0
"""Where searches end: no audit needs to tell larger epsilons apart."""

_NO_STEPS = (
    "Expected a ledger for evidence about steps, found a bare (epsilon, delta) claim. "
    "State noise_multiplier, sample_rate and steps in the claim."
)


class Family(Protocol):
    """Mechanisms that differ in one number: by how much every noise multiplier is scaled.

    A test of "leaks no more than the member at this scale" needs nothing but that member's curve.
    The scale where the tests start to reject becomes an epsilon through `epsilon`.
    """

    def __hash__(self) -> int:
        """Families do not change, so that what follows from them alone can be remembered."""
        ...

    @property
    def delta(self) -> float:
        """Delta at which epsilons are stated."""
        ...

    @property
    def adjacency(self) -> Adjacency:
        """Neighbouring relation of curves and epsilons."""
        ...

    @property
    def claimed_epsilon(self) -> float | None:
        """Epsilon of the claim under `adjacency`; None without a claim."""
        ...

    @property
    def claimed_scale(self) -> float:
        """Scale of the member that has the claimed epsilon; 1 without a claim."""
        ...

    @property
    def scales(self) -> tuple[float, float]:
        """Least and largest scale that are searched: from an enormous epsilon to none."""
        ...

    @property
    def assumption(self) -> str:
        """What a bound in epsilon assumes by using this family."""
        ...

    def epsilon(self, scale: float) -> float:
        """Epsilon at `delta` (a valid lower figure where only that is computable); decreasing in scale."""
        ...

    def curve(self, scale: float) -> TradeOff:
        """What the whole run allows (an upper figure where only that is computable)."""
        ...

    def step_mean(self, phase: IntArray | None = None) -> FloatArray | float:
        """Mu of one noisy step at scale 1: (n,) for given phases, else a float that bounds all of them."""
        ...

    def scale_for(self, epsilon: float) -> float:
        """Scale at which `epsilon(scale)` is the given one, within `scales`."""
        ...


def search(decreasing: Callable[[float], float], low: float, high: float, *, start: float = 1.0) -> float:
    """Root in log scale of a function that decreases from positive to negative; an end where it does not.

    Args:
        decreasing: function of the scale.
        low: least scale.
        high: largest scale.
        start: a scale near which the root is likely, so that few evaluations are needed.
    """

    @cache
    def at(log_scale: float) -> float:
        value = decreasing(min(max(math.exp(log_scale), low), high))
        # What is far below zero says no more than what is below it, and would mislead the secants.
        return value if value > 0 else -math.log1p(-value)

    bottom, top = math.log(low), math.log(high)
    left = right = min(max(math.log(start), bottom), top)
    step = _FIRST_STEP
    if at(left) > 0:
        while at(right) > 0:
            if right >= top:
                return high
            left, right, step = right, min(right + step, top), 2 * step
    else:
        while at(left) <= 0:
            if left <= bottom:
                return low
            left, right, step = max(left - step, bottom), left, 2 * step
    return math.exp(brentq(at, left, right, xtol=SCALE_TOLERANCE / 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianFamily:
    """Gaussian mechanisms; the member at scale 1 matches a bare (epsilon, delta) claim."""

    mu: float
    delta: float
    adjacency: Adjacency = Adjacency.ADD_REMOVE
    claimed_epsilon: float | None = None

    def __post_init__(self) -> None:
        """Refuse a member that releases nothing, which has no scale."""
        in_range("mu", self.mu, 0.0, math.inf, open_low=True, open_high=True)
        in_range("delta", self.delta, 0.0, 1.0, open_low=True, open_high=True)

    @property
    def claimed_scale(self) -> float:
        """See `Family`."""
        claimed = self.claimed_epsilon
        if claimed is None or math.isinf(claimed):
            return 1.0
        return self.scale_for(claimed)

    @property
    def scales(self) -> tuple[float, float]:
        """See `Family`."""
        return self.mu / 40.0, self.mu / 1e-4

    @property
    def assumption(self) -> str:
        """See `Family`."""
        return f"epsilon: the run as a whole is a Gaussian mechanism ({self.adjacency} neighbours)"

    def epsilon(self, scale: float) -> float:
        """See `Family`."""
        return gaussian_epsilon(self.mu / scale, self.delta) if scale else math.inf

    def curve(self, scale: float) -> TradeOff:
        """See `Family`."""
        return Gaussian(mu=self.mu / scale)

    def step_mean(self, phase: IntArray | None = None) -> FloatArray | float:
        """Refuse: a bare claim says nothing of its steps."""
        raise UsageError(_NO_STEPS)

    def scale_for(self, epsilon: float) -> float:
        """See `Family`."""
        mu = gaussian_mu(epsilon, self.delta)
        return float(np.clip(self.mu / mu, *self.scales))


@dataclass(frozen=True, slots=True, kw_only=True)
class EpsilonDeltaFamily:
    """Everything that is (epsilon / scale, delta): assumes nothing more, at the price of weaker bounds."""

    base_epsilon: float
    delta: float
    adjacency: Adjacency = Adjacency.ADD_REMOVE
    claimed_epsilon: float | None = None

    def __post_init__(self) -> None:
        """Refuse a base that has no scale."""
        in_range("base_epsilon", self.base_epsilon, 0.0, math.inf, open_low=True, open_high=True)
        in_range("delta", self.delta, 0.0, 1.0, open_high=True)

    @property
    def claimed_scale(self) -> float:
        """See `Family`."""
        claimed = self.claimed_epsilon
        return 1.0 if claimed is None or math.isinf(claimed) else self.scale_for(claimed)

    @property
    def scales(self) -> tuple[float, float]:
        """See `Family`."""
        return self.base_epsilon / LARGEST_EPSILON, self.base_epsilon / 1e-4

    @property
    def assumption(self) -> str:
        """See `Family`."""
        return f"epsilon: nothing beyond (epsilon, delta) ({self.adjacency} neighbours)"

    def epsilon(self, scale: float) -> float:
        """See `Family`."""
        return self.base_epsilon / scale if scale else math.inf

    def curve(self, scale: float) -> TradeOff:
        """See `Family`."""
        return EpsilonDelta(epsilon=self.epsilon(scale), delta=self.delta)

    def step_mean(self, phase: IntArray | None = None) -> FloatArray | float:
        """Refuse: a bare claim says nothing of its steps."""
        raise UsageError(_NO_STEPS)

    def scale_for(self, epsilon: float) -> float:
        """See `Family`."""
        return float(np.clip(self.base_epsilon / max(epsilon, 1e-300), *self.scales))
