"""What is claimed: an epsilon, and the ledger of training that was said to produce it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from dpaudit.check import in_range

if TYPE_CHECKING:
    from dpaudit.check import FloatArray


class Adjacency(StrEnum):
    """Which data sets are neighbours. Epsilons under different adjacencies are never compared."""

    ADD_REMOVE = "add-remove"
    REPLACE_ONE = "replace-one"


class Sampler(StrEnum):
    """How batches are drawn. Only Poisson sampling has the amplification that the ledger counts."""

    POISSON = "poisson"
    SHUFFLE = "shuffle"
    FULL_BATCH = "full-batch"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of training steps with constant settings.

    Attributes:
        noise_multiplier: standard deviation of the noise over the clipping norm (sigma).
        sample_rate: probability with which a record enters a batch (q).
        steps: number of noisy steps (T).
        max_grad_norm: clipping norm (C).
        sampler: how the batches were drawn.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int
    max_grad_norm: float = 1.0
    sampler: Sampler = Sampler.POISSON

    def __post_init__(self) -> None:
        """Refuse settings that no DP-SGD run can have."""
        in_range("noise_multiplier", self.noise_multiplier, 0.0, float("inf"))
        in_range("sample_rate", self.sample_rate, 0.0, 1.0, open_low=True)
        in_range("steps", self.steps, 0, float("inf"))


Ledger = tuple[Phase, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claimed (epsilon, delta), with what ran.

    Attributes:
        epsilon: the claimed epsilon at `delta`.
        delta: the delta of the claim.
        adjacency: the neighbouring relation that the claim is about.
        unit: the unit of privacy, such as "record" or "user".
        ledger: the phases that really ran; empty when only (epsilon, delta) is known.
        source: who says so, such as "opacus prv accountant".
        dataset_size: number of training records, where known.
    """

    epsilon: float
    delta: float
    adjacency: Adjacency = Adjacency.ADD_REMOVE
    unit: str = "record"
    ledger: Ledger = ()
    source: str = "declared"
    dataset_size: int | None = None

    def __post_init__(self) -> None:
        """Refuse an impossible epsilon or delta."""
        in_range("epsilon", self.epsilon, 0.0, float("inf"))
        in_range("delta", self.delta, 0.0, 1.0, open_high=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """Epsilon over the course of training, as the run's own accountant states it.

    Attributes:
        accountant: in words.
        delta: at which it was asked.
        steps: (k,) noisy steps so far.
        epsilon: (k,) stated after so many.
    """

    accountant: str
    delta: float
    steps: FloatArray
    epsilon: FloatArray
