"""The sparse vector technique in its sound and its broken variants, as settings of `SparseVector`.

`SVT1` to `SVT6` are algorithms 1 to 6 of Lyu, Su & Li (2017, arXiv:1603.01699). That 3 and 6 have no
finite epsilon is a limit over the number of answers d: with d answers the fields bound it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike

from dpaudit.check import FloatArray
from dpaudit.targets.mechanisms.checks import positive
from dpaudit.targets.mechanisms.noisy_threshold import SparseVector


class Queries(TypedDict, total=False):
    """What every variant passes on: `SparseVector.queries` and `.dimension`."""

    queries: str
    dimension: int


def SVT1(
    *, epsilon: float = 0.1, cutoff: int = 1, threshold: float = 0.5, **asked: Unpack[Queries]
) -> SparseVector:
    """Algorithm 1, by Lyu, Su & Li: private."""
    return SparseVector(
        epsilon=epsilon,
        threshold=threshold,
        cutoff=cutoff,
        threshold_scale=2 / positive("epsilon", epsilon),
        answer_scale=4 * cutoff / epsilon,
        **asked,
    )


def SVT2(
    *, epsilon: float = 0.1, cutoff: int = 1, threshold: float = 1.0, **asked: Unpack[Queries]
) -> SparseVector:
    """Algorithm 2, of Dwork & Roth (2014): private, with a noisier threshold that is drawn again."""
    return SparseVector(
        epsilon=epsilon,
        threshold=threshold,
        cutoff=cutoff,
        threshold_scale=2 * cutoff / positive("epsilon", epsilon),
        answer_scale=4 * cutoff / epsilon,
        refresh=True,
        **asked,
    )


def SVT3(
    *, epsilon: float = 0.1, cutoff: int = 1, threshold: float = 1.0, **asked: Unpack[Queries]
) -> SparseVector:
    """Algorithm 3, of lecture notes: releases the noisy answers that were compared. d epsilon / 2c."""
    return SparseVector(
        epsilon=epsilon,
        threshold=threshold,
        cutoff=cutoff,
        threshold_scale=2 / positive("epsilon", epsilon),
        answer_scale=2 * cutoff / epsilon,
        releases="noisy",
        **asked,
    )


def SVT4(
    *, epsilon: float = 0.1, cutoff: int = 1, threshold: float = 1.0, **asked: Unpack[Queries]
) -> SparseVector:
    """Algorithm 4, of Lee & Clifton (2014): too little noise on answers. (1 + 6c) epsilon / 4."""
    return SparseVector(
        epsilon=epsilon,
        threshold=threshold,
        cutoff=cutoff,
        threshold_scale=4 / positive("epsilon", epsilon),
        answer_scale=4 / (3 * epsilon),
        **asked,
    )


def SVT5(*, epsilon: float = 0.1, threshold: float = 1.0, **asked: Unpack[Queries]) -> SparseVector:
    """Algorithm 5, of Stoddard et al. (2014): no noise on answers and no stop. Infinite."""
    return SparseVector(
        epsilon=epsilon,
        threshold=threshold,
        cutoff=None,
        threshold_scale=2 / positive("epsilon", epsilon),
        answer_scale=0.0,
        **asked,
    )


def SVT6(*, epsilon: float = 0.1, threshold: float = 1.0, **asked: Unpack[Queries]) -> SparseVector:
    """Algorithm 6, of Chen et al. (2015): does not stop. d epsilon / 2."""
    return SparseVector(
        epsilon=epsilon,
        threshold=threshold,
        cutoff=None,
        threshold_scale=2 / positive("epsilon", epsilon),
        answer_scale=2 / epsilon,
        **asked,
    )


def NumericalSVT(
    *, epsilon: float = 0.1, cutoff: int = 2, threshold: float = 1.0, **asked: Unpack[Queries]
) -> SparseVector:
    """Private release of fresh noisy answers (Wang et al. 2019, arXiv:1903.12254, NumSVT)."""
    return SparseVector(
        epsilon=epsilon,
        threshold=threshold,
        cutoff=cutoff,
        threshold_scale=3 / positive("epsilon", epsilon),
        answer_scale=6 * cutoff / epsilon,
        value_scale=3 * cutoff / epsilon,
        releases="fresh",
        **asked,
    )


def GapSVT(
    *, epsilon: float = 0.1, cutoff: int = 1, threshold: float = 1.0, **asked: Unpack[Queries]
) -> SparseVector:
    """Releases q + nu in place of the gap: the faulty twin in Wang et al. (2020, CheckDP). d epsilon / 4c."""
    return SparseVector(
        epsilon=epsilon,
        threshold=threshold,
        cutoff=cutoff,
        threshold_scale=2 / positive("epsilon", epsilon),
        answer_scale=4 * cutoff / epsilon,
        releases="noisy",
        **asked,
    )


def FreeGapSVT(
    *, epsilon: float = 0.1, cutoff: int = 1, threshold: float = 1.0, **asked: Unpack[Queries]
) -> SparseVector:
    """Releases the gap to the noisy threshold: private (Ding et al. 2019, arXiv:1904.12773)."""
    return SparseVector(
        epsilon=epsilon,
        threshold=threshold,
        cutoff=cutoff,
        threshold_scale=2 / positive("epsilon", epsilon),
        answer_scale=4 * cutoff / epsilon,
        releases="gap",
        **asked,
    )


SVT1Sum, SVT1Reveal = partial(SVT1, queries="sum"), partial(SVT1, queries="reveal")
SVT2Sum, SVT2Reveal = partial(SVT2, queries="sum"), partial(SVT2, queries="reveal")
SVT3Sum, SVT3Reveal = partial(SVT3, queries="sum"), partial(SVT3, queries="reveal")
SVT4Sum, SVT4Reveal = partial(SVT4, queries="sum"), partial(SVT4, queries="reveal")
SVT5Sum, SVT5Reveal = partial(SVT5, queries="sum"), partial(SVT5, queries="reveal")
SVT6Sum, SVT6Reveal = partial(SVT6, queries="sum"), partial(SVT6, queries="reveal")


@dataclass(frozen=True, slots=True, kw_only=True)
class SVT34Parallel:
    """SVT3 and SVT4 side by side on the same answers, each with its own noise (Bichsel et al. 2021).

    Releases are (size, 2d) floats: the numbers of SVT3, then the codes of SVT4.

    Attributes:
        delta: 0, pure differential privacy.
        each: claimed of either part.
        cutoff: c, of both.
        threshold: of both.
        dimension: number of answers d; of the domain and the limit only.
    """

    delta: ClassVar[float] = 0.0
    each: float = 0.1
    cutoff: int = 2
    threshold: float = 1.0
    dimension: int = 10

    @property
    def epsilon(self) -> float:
        """Claimed: the sum of what is claimed of the parts."""
        return 2 * self.each

    @property
    def domain(self) -> str:
        """Answers, all of which may move."""
        return f"answers({self.dimension})"

    @property
    def parts(self) -> tuple[SparseVector, SparseVector]:
        """The two mechanisms."""
        make = partial(SVT3, epsilon=self.each, cutoff=self.cutoff, threshold=self.threshold)
        other = partial(SVT4, epsilon=self.each, cutoff=self.cutoff, threshold=self.threshold)
        return make(dimension=self.dimension), other(dimension=self.dimension)

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> FloatArray:
        """Numbers and codes; (size, 2d)."""
        return np.concatenate(
            [part.sample(data, size, rng).astype(np.float64) for part in self.parts], axis=1
        )

    @property
    def epsilon_limit(self) -> float:
        """No pair loses more than its parts together could at their worst pairs."""
        return math.fsum(part.epsilon_limit for part in self.parts)
