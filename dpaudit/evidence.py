"""What was observed, with the sampling design in its type: an estimator accepts one kind only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from dpaudit.claim import Adjacency
from dpaudit.likeness import Panel, Score

if TYPE_CHECKING:
    from dpaudit.check import BoolArray, FloatArray, IntArray


class Access(StrEnum):
    """What the adversary sees, strongest first."""

    LEDGER = "ledger"
    REPLAY = "replay"
    STEP = "step"
    FINAL_MODEL = "final-model"
    RELEASE = "release"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The records of one noisy step, as the data loader handed them out.

    Attributes:
        records: (b,) their numbers; empty where only the size is known.
        size: b.
        n_records: how many records there are.
        sample_rate: with which each is said to enter the step.
        period: steps in one pass over the data; 0 where unknown.
        where: the loader, in words.
        public: why the batch is known to anybody; else empty.
        accounted: rate that an accountant was told of for this step; 0 where it was told of none.
    """

    records: IntArray
    size: int
    n_records: int
    sample_rate: float
    period: int
    where: str
    public: str = ""
    accounted: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownNull:
    """Ranks of inserted canaries among references that were never inserted.

    Without the canary each p-value is (super-)uniform, given everything before it.

    Attributes:
        p_values: (n,) `(1 + #{reference score >= canary score}) / (K + 1)`, in observation order.
        n_references: K, which caps how extreme one p-value can be.
        unit: "step" (tested against the mechanism of one step, composed afterwards) or
            "run" (tested against the whole claim).
        cluster: (n,) run of each observation when several share one run, else None (independent).
        phase: (n,) index into the claim's ledger for steps; None means phase 0.
        source: the attack that produced it.
        access: what that attack saw.
        adjacency: the neighbouring relation that the insertion realises.
    """

    p_values: FloatArray
    n_references: int
    unit: str
    source: str
    access: Access
    adjacency: Adjacency = Adjacency.ADD_REMOVE
    cluster: IntArray | None = None
    phase: IntArray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoSample:
    """Scores of independent runs with and without the canary; higher means "with".

    Attributes:
        scores_in: (n1,) scores where the canary was in.
        scores_out: (n0,) scores where it was out.
    """

    scores_in: FloatArray
    scores_out: FloatArray
    source: str
    access: Access
    adjacency: Adjacency = Adjacency.ADD_REMOVE


@dataclass(frozen=True, slots=True, kw_only=True)
class OneRun:
    """Scores of many records of one training run, each in or out by its own coin.

    Dependent through the model: it has no two-sample interpretation.

    Attributes:
        scores: (m,) higher means member.
        included: (m,) whether the record was in.
        inclusion_probability: of each record's coin, tossed independently of all others.
    """

    scores: FloatArray
    included: BoolArray
    source: str
    access: Access
    adjacency: Adjacency = Adjacency.REPLACE_ONE
    inclusion_probability: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Guesses:
    """Successes at guessing which of n equally likely candidates was used.

    Attributes:
        successes: number of right guesses.
        trials: number of games, independent or conditionally so.
        baseline: kappa = 1/n, the chance of a right guess without the release.
        unit: "step" or "run", as in `KnownNull`.
    """

    successes: int
    trials: int
    baseline: float
    unit: str
    source: str
    access: Access
    adjacency: Adjacency = Adjacency.ADD_REMOVE


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseSample:
    """Noise measured at one parameter, against the sensitivity measured there.

    Attributes:
        where: name of the parameter.
        sum_of_squares: of the noise, in units of the clipping norm squared.
        count: number of independent coordinates in it.
        claimed_std: the noise multiplier that the ledger says.
        sensitivity: largest movement by one record within it, over the clipping norm; None if not measured.
    """

    where: str
    sum_of_squares: float
    count: int
    claimed_std: float
    sensitivity: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """How far one record moved the sum that an optimizer was handed, over the clipping norm.

    Attributes:
        distance: over all parameters.
        where: the record, in words.
        within: (parameters,) of each.
    """

    distance: float
    where: str
    within: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What re-executing the optimizer step on neighbouring batches showed.

    Attributes:
        sensitivity: largest movement of the released sum by one record, over the clipping norm.
        sensitivity_where: the neighbour that moved it so far.
        noise: one sample per parameter.
        executions: how many optimizer steps were executed.
        steps: at how many training steps.
        tolerance: excess of the sensitivity over 1 that is rounding of the gradients' precision.
        law: p-values of "the noise is normal and independent" by test, on the noise of all steps.
        movement: movement of each parameter by the one record that moved the release the farthest, over the
            clipping norm; empty if not measured.
        first_contradiction: executions up to the first contradiction beyond doubt; None without one.
        part: phase of the ledger and number of steps in it, of the optimizer that was replayed, where a run
            has several; empty where it made every step.
    """

    sensitivity: float
    sensitivity_where: str
    noise: tuple[NoiseSample, ...]
    executions: int
    steps: int
    tolerance: float = 1e-3
    law: tuple[tuple[str, float], ...] = ()
    movement: tuple[float, ...] = ()
    first_contradiction: int | None = None
    part: tuple[tuple[int, int], ...] = ()
    source: str = "replay"
    access: Access = Access.REPLAY
    adjacency: Adjacency = Adjacency.ADD_REMOVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """The batches that one kind of loader handed out for T noisy steps.

    Attributes:
        records: (S,) numbers of the records, step after step; empty where only the sizes are known.
        sizes: (T,) number of records in each step.
        n_records: N, how many there are.
        sample_rate: q, with which each record is said to enter each step by a coin of its own.
        period: steps in one pass of the loader over its data; 0 where unknown.
        where: the loader, in words.
        public: why anybody can know the batches, such as "a generator seeded with 7"; else empty.
        accounted: mean rate that the accountants were told of; 0 where they were told of none.
    """

    records: IntArray
    sizes: IntArray
    n_records: int
    sample_rate: float
    period: int = 0
    where: str = "data loader"
    public: str = ""
    accounted: float = 0.0

    @property
    def promised(self) -> float:
        """The rate that a record may have: what the loader says, or more where more was accounted."""
        return min(max(self.sample_rate, self.accounted), 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Which records entered which step of one run, by loader."""

    draws: tuple[Draws, ...]
    source: str = "sampler"
    access: Access = Access.LEDGER
    adjacency: Adjacency = Adjacency.ADD_REMOVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A deterministic contradiction between what was claimed and what ran.

    Attributes:
        check: name of the check.
        where: the parameter, call or setting concerned.
        expected: in words, with the number.
        measured: in words, with the number.
        epsilon: the epsilon that follows at the claim's delta; inf if none is finite, None if unknown.
        remedy: the usual repair.
    """

    check: str
    where: str
    expected: str
    measured: str
    epsilon: float | None
    remedy: str
    source: str = "replay"
    access: Access = Access.REPLAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a user should know although it contradicts no claim by itself.

    Attributes:
        check: name of the check.
        where: the parameter, call or setting concerned.
        measured: in words, with the number.
        meaning: what follows for whoever relies on the guarantee.
    """

    check: str
    where: str
    measured: str
    meaning: str
    source: str = "replay"
    access: Access = Access.REPLAY


WRITTEN = "weights written between steps"
"""Check of a note that weights changed while no optimizer made a step."""

ADDED = "gradients changed after the release"
"""Check of a note that the underlying optimizer was given more than what was released."""

UNKNOWN = "steps without privacy on unknown data"
"""Check of a note that private weights were also trained by themselves, on data that no loader handed out."""

BLIND = ("clip not tested", "unwatched steps", WRITTEN, ADDED, UNKNOWN)
"""Checks of notes that leave a part of the guarantee unseen: silence about the rest is then inconclusive."""

CLIP_TESTED = "clip tested from the data on"
"""Check of a note that training was repeated on neighbouring data: it makes up for others."""

NOT_TRIED = "not tried"
"""Check of a note in which an attack says why it cannot be tried on a run."""

REPEATED = ("clip not tested", WRITTEN, ADDED, UNKNOWN)
"""Checks of notes that it makes up for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What one attack rebuilt of records under one condition. It describes, and tests no claim.

    Attributes:
        method: how, in words.
        condition: "as released", or "without clip and noise".
        subject: what was rebuilt, in words.
        real: whether those are records of the data.
        batch: records in the update; 0 where what was rebuilt is no record.
        scores: how near it came.
        panels: pictures, if any may be shown.
        qualitative: that nothing but looking at it says how near it came.
    """

    method: str
    condition: str
    subject: str
    real: bool
    batch: int
    scores: tuple[Score, ...]
    source: str
    access: Access
    panels: tuple[Panel, ...] = ()
    qualitative: bool = False


Evidence = KnownNull | TwoSample | OneRun | Guesses | Replay | Sampling | Finding | Note | Rebuilt
"""Every kind of evidence."""
