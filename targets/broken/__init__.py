"""Faults that real DP-SGD code has had, planted in an otherwise correct Opacus training run.

They are negative controls: the audit has to refute them without knowing them. A fault of the optimizer is
a mixin over whatever class Opacus chose, so that everything but the fault stays the real thing; a fault of
the training code replaces one piece of `Loop`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from opacus.optimizers import DPOptimizer

from dpaudit.check import one_of
from dpaudit.errors import UsageError
from dpaudit.targets.broken import clipping, noise, sampling, state
from dpaudit.targets.broken.loop import Loop, mixed

__all__ = ["FAULTS", "Fault", "Loop", "plant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One planted fault.

    Attributes:
        zoo: its number in the list of known faults.
        summary: in words.
        mixin: of the optimizer; None for a fault of the training code.
        loop: the training code.
        options: of the loop, where the fault shows only with them.
        effective: noise multiplier that is left, as a share of the claimed one: 0 where no epsilon is finite,
            None where it is not noise or sensitivity that is wrong, or depends on the data.
    """

    zoo: str
    summary: str
    mixin: type[DPOptimizer] | None = None
    loop: type[Loop] = Loop
    options: dict[str, Any] = field(default_factory=dict)
    effective: float | None = None


def _mixin(zoo: str, mixin: type[DPOptimizer], effective: float | None = None, **options: Any) -> Fault:
    return Fault(zoo=zoo, summary=_first_line(mixin), mixin=mixin, options=options, effective=effective)


def _loop(zoo: str, loop: type[Loop], effective: float | None = None, **options: Any) -> Fault:
    return Fault(zoo=zoo, summary=_first_line(loop), loop=loop, options=options, effective=effective)


def _first_line(documented: type) -> str:
    return (documented.__doc__ or "").strip().splitlines()[0]


FAULTS: dict[str, Fault] = {
    "clips-the-batch": _mixin("Z01", clipping.Batch, 0.5),
    "clips-the-batch-gradient": _mixin("Z01", clipping.BatchGradient, 0.5),
    "clips-the-batch-gradient-noise-divided": _mixin("Z02", clipping.BatchGradientDivided),
    "noise-divided-by-batch": _mixin("Z03", noise.DividedByBatch),
    "noise-without-clip": _mixin("Z04", noise.WithoutClip, 0.25, max_grad_norm=4.0),
    "variance-for-deviation": _mixin("Z05", noise.Variance, 0.3, max_grad_norm=0.3),
    "noise-over-root-two": _mixin("Z05", noise.RootTwo, 0.5**0.5),
    "half-noise": _mixin("Z05", noise.Half, 0.5),
    "noise-10-percent-low": _mixin("Z06", noise.TenPercentLow, 0.9),
    "noise-5-percent-low": _mixin("Z06", noise.FivePercentLow, 0.95),
    "noise-2-percent-low": _mixin("Z06", noise.TwoPercentLow, 0.98),
    "no-noise": _mixin("Z07", noise.OtherNoise, 0.0),
    "last-parameter-without-noise": _mixin("Z07", noise.LastParameterWithout, 0.0),
    "biases-without-noise": _mixin("Z07", noise.BiasesWithout, 0.0),
    "same-noise-each-step": _mixin("Z08", noise.SameEachStep, 0.0),
    "noise-seed-in-the-code": _loop("Z09", noise.SeedInTheCode, 0.0),
    "sampler-seed-in-the-code": _loop("Z10", sampling.SeededSampler),
    "shuffled-batches": _loop("Z11", sampling.ShuffledBatches),
    "own-loader": _loop("Z11", sampling.OwnLoader),
    "accountant-told-half-the-rate": _loop("Z12", sampling.HalfTheRate),
    "accountant-told-a-tenth-of-the-rate": _loop("Z12", sampling.TenthOfTheRate),
    "accountant-told-half-the-steps": _loop("Z12", sampling.HalfTheSteps),
    "accountant-missed-an-epoch": _loop("Z12", sampling.MissedEpoch),
    "keeps-sums": _mixin("Z14", state.KeepsSums),
    "clips-micro-batch-means": _mixin("Z15", clipping.MicroBatchMeans, 0.5),
    "clips-each-layer-in-full": _mixin("Z16", clipping.EachLayerInFull, 0.5),
    "ghost-forgets-ties": _loop("Z17", clipping.GhostForgetsTies),
    "augmentations-as-records": _loop("Z18", clipping.AugmentationsAsRecords, 0.25),
    "largest-coordinate-for-norm": _mixin("Z19", clipping.LargestCoordinate),
    "stale-norms": _mixin("Z19", clipping.StaleNorms, 0.0),
    "clip-forgets-a-parameter": _mixin("Z20", clipping.ForgetsAParameter, 0.0),
    "standardises-by-the-batch": _loop("Z21", clipping.StandardisesByTheBatch),
    "weighs-by-the-batch": _loop("Z21", clipping.WeighsByTheBatch),
    "adapts-clip-without-noise": _mixin("Z22", state.AdaptsClipWithoutNoise),
    "scaler-fitted-on-the-data": _loop("Z23", state.ScalerFittedOnTheData, 0.0),
    "best-checkpoint-on-the-data": _loop("Z24", state.BestCheckpoint),
    "early-stopping-on-the-data": _loop("Z24", state.EarlyStopping, epochs=20),
    "skips-empty-batches": _loop("Z25", state.SkipsEmptyBatches, batch_size=2, epochs=2),
    "drops-large-batches": _loop("Z25", state.DropsLargeBatches),
    "workers-share-a-seed": _loop("Z26", sampling.WorkersShareASeed),
    "uniform-noise": _mixin("Z27", noise.Uniform),
    "laplace-noise": _mixin("Z27", noise.Laplace),
    "truncated-noise": _mixin("Z27", noise.Truncated),
    "warm-up-without-privacy": _loop("Z29", state.WarmUpWithoutPrivacy, 0.0),
    "raw-momentum": _mixin("Z29", state.RawMomentum, 0.0),
    "raw-preconditioner": _mixin("Z29", state.RawPreconditioner),
    "each-record-four-times": _loop("Z30", sampling.EachRecordFourTimes),
}
"""Every fault by name."""


def plant(optimizer: DPOptimizer, fault: str) -> None:
    """Give `optimizer` the named fault, in place.

    Raises:
        UsageError: unknown fault, with the nearest right name, or a fault of the training code.
    """
    one_of("fault", fault, FAULTS)
    mixin = FAULTS[fault].mixin
    if mixin is None:
        raise UsageError(
            f"Expected a fault of the optimizer, found {fault!r}, one of the training code. "
            'Use train = "opacus" with this fault.'
        )
    optimizer.__class__ = mixed(mixin, type(optimizer))
