"""Reference mechanisms, sound and broken: what the auditor itself is tested against.

Each is a frozen dataclass whose fields are its recipe, or a function named as in the literature that
returns one. `epsilon` and `delta` are claimed; `exact_epsilon`, `pair_epsilon` and `epsilon_limit`
say what is true.
"""

from dpaudit.targets.mechanisms.additive import Gaussian, Laplace, gaussian_profile
from dpaudit.targets.mechanisms.discrete import Geometric, TruncatedGeometric
from dpaudit.targets.mechanisms.exact import epsilon_over, finite_epsilon, hockey_stick
from dpaudit.targets.mechanisms.histograms import (
    LaplaceParallel,
    NoisyHist,
    NoisyHist1,
    NoisyHist2,
    PartialSum,
    PrefixSum,
)
from dpaudit.targets.mechanisms.means import (
    BoundedMean,
    GradientStep,
    GradientStepBatchClip,
    Mean0,
    Mean1,
    Mean2,
)
from dpaudit.targets.mechanisms.noisy_threshold import SparseVector
from dpaudit.targets.mechanisms.patterns import patterns
from dpaudit.targets.mechanisms.protocols import ExactMechanism, Mechanism, PairwiseMechanism
from dpaudit.targets.mechanisms.response import RAPPOR, OneTimeRAPPOR, RandomisedResponse
from dpaudit.targets.mechanisms.selection import (
    Exponential,
    NoisyMax,
    ReportNoisyMax1,
    ReportNoisyMax2,
    ReportNoisyMax3,
    ReportNoisyMax4,
)
from dpaudit.targets.mechanisms.sparse_vector import (
    SVT1,
    SVT2,
    SVT3,
    SVT4,
    SVT5,
    SVT6,
    FreeGapSVT,
    GapSVT,
    NumericalSVT,
    SVT34Parallel,
)

__all__ = [
    "SVT1",
    "SVT2",
    "SVT3",
    "SVT4",
    "SVT5",
    "SVT6",
    "BoundedMean",
    "ExactMechanism",
    "Exponential",
    "FreeGapSVT",
    "GapSVT",
    "Gaussian",
    "Geometric",
    "GradientStep",
    "GradientStepBatchClip",
    "Laplace",
    "LaplaceParallel",
    "Mean0",
    "Mean1",
    "Mean2",
    "Mechanism",
    "NoisyHist",
    "NoisyHist1",
    "NoisyHist2",
    "NoisyMax",
    "NumericalSVT",
    "OneTimeRAPPOR",
    "PairwiseMechanism",
    "PartialSum",
    "PrefixSum",
    "RAPPOR",
    "RandomisedResponse",
    "ReportNoisyMax1",
    "ReportNoisyMax2",
    "ReportNoisyMax3",
    "ReportNoisyMax4",
    "SVT34Parallel",
    "SparseVector",
    "TruncatedGeometric",
    "epsilon_over",
    "finite_epsilon",
    "gaussian_profile",
    "hockey_stick",
    "patterns",
]
