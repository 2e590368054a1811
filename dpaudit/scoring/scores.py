"""Membership scores that were made elsewhere: what they are, and from what sampling design they came."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dpaudit.check import BoolArray, FloatArray, IntArray, in_range
from dpaudit.errors import UsageError
from dpaudit.scoring.columns import Labels


class Design(StrEnum):
    """How the scores were sampled; it decides which estimators are valid."""

    INDEPENDENT_RUNS = "independent-runs"
    KNOWN_NULL = "known-null"
    SEVERAL_RUNS = "several-runs"
    ONE_RUN = "one-run"


DESIGN_WORDS = {
    Design.INDEPENDENT_RUNS: "every score is of a run of its own",
    Design.KNOWN_NULL: "each run has one canary among records that it never saw",
    Design.SEVERAL_RUNS: "several runs, each with many records that were in and many that were out",
    Design.ONE_RUN: "one run, each record in or out by its own coin",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a file of scores does not say of itself. Everything is declared before the scores are looked at.

    Attributes:
        layout: "auto", "long", "matrix", "tf-privacy", "jax-privacy" or "privacy-meter".
        design: None where the file tells it: by models, and by how many of their rows were in.
        higher_is_member: None takes higher for member, and refuses scores that say otherwise.
        probabilities: the scores are probabilities of membership.
        unit: "record", or "user" to take all rows of a user as one.
        inclusion: probability with which each record of a one-run design went in.
        drawn_anew: members were drawn anew for each run, also where the same ones went in again.
    """

    layout: str = "auto"
    design: Design | None = None
    higher_is_member: bool | None = None
    probabilities: bool = False
    unit: str = "record"
    inclusion: float | None = None
    drawn_anew: bool = False

    def __post_init__(self) -> None:
        """Refuse an unknown unit and an impossible probability."""
        if self.unit not in ("record", "user"):
            raise UsageError(
                f"Expected unit to be 'record' or 'user', found {self.unit!r}. Name one of them."
            )
        if self.inclusion is not None:
            in_range("inclusion_probability", self.inclusion, 0.0, 1.0, open_low=True, open_high=True)


AS_FOUND = Reading()
"""Nothing is declared: the file speaks for itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Scores as found, one row each, before anything is made of them.

    Attributes:
        score: (n,) in the file's own direction.
        member: (n,) whether the record was in that model's training set.
        record: names of the records, one name for one record in all runs; None where each row is a record
            of its own.
        model: the model that gave the score; None for one model.
        user: whose record it is.
        slice: group of records for the disclosure report.
    """

    score: FloatArray
    member: BoolArray
    record: Labels | None = None
    model: Labels | None = None
    user: Labels | None = None
    slice: Labels | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores fit for estimators: finite, of both classes, higher for members, of one known design.

    Attributes:
        score: (n,) higher means member.
        member: (n,) whether the unit was in.
        run: (n,) index of the run, from 0.
        cluster: (n,) index of the independent draw; differs from `run` where runs share one.
        design: see `Design`.
        inclusion: probability with which each unit went in.
        unit: "record" or "user".
        slices: group of each score, where the file has groups.
        name: of the file.
        sha256: of the file.
        notes: what was done to the file's rows, for the report.
    """

    score: FloatArray
    member: BoolArray
    run: IntArray
    cluster: IntArray
    design: Design
    inclusion: float = 0.5
    unit: str = "record"
    slices: Labels | None = None
    name: str = "scores"
    sha256: str = ""
    notes: tuple[str, ...] = ()

    @property
    def n_runs(self) -> int:
        """Number of runs."""
        return int(self.run.max()) + 1

    def described(self) -> str:
        """Number of scores, members and runs, and the design, in one line."""
        n, inside, runs = self.score.size, int(self.member.sum()), self.n_runs
        of = "1 run" if runs == 1 else f"{runs:,} runs"
        return f"{n:,} scores of {of}, {inside:,} in and {n - inside:,} out ({DESIGN_WORDS[self.design]})"
