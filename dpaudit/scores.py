"""Membership scores that were made elsewhere: what they are, and from what sampling design they came."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from scipy.stats import binomtest

from dpaudit.check import BoolArray, FloatArray, IntArray, in_range
from dpaudit.columns import Labels
from dpaudit.errors import UsageError
from dpaudit.score_ranks import mean_auc

_IMPLAUSIBLE = 1e-9
_MOST_SLICES = 20
_TOO_MANY_FOR_COINS = 20


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
    """

    layout: str = "auto"
    design: Design | None = None
    higher_is_member: bool | None = None
    probabilities: bool = False
    unit: str = "record"
    inclusion: float | None = None

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
        record: names of the records; None where the file names none.
        model: the model that gave the score; None for one model.
        user: whose record it is.
        slice: group of records for the disclosure report.
        cluster: (models,) independent draw that each model belongs to; None where each is its own.
    """

    score: FloatArray
    member: BoolArray
    record: Labels | None = None
    model: Labels | None = None
    user: Labels | None = None
    slice: Labels | None = None
    cluster: IntArray | None = None


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


def assemble(rows: Rows, reading: Reading = AS_FOUND, *, name: str = "scores", sha256: str = "") -> Scores:
    """Check rows and settle their unit, direction and design.

    Raises:
        UsageError: values that are not finite, or no probabilities where they are declared; a record twice in
            one model; one class missing; a user on both sides; a direction that is not declared and looks
            wrong; a design that the rows cannot have; or inclusions that its probability cannot explain.
    """
    _check_values(rows, reading, name)
    _check_duplicates(rows, name)
    notes: tuple[str, ...] = ()
    if reading.unit == "user":
        before = rows.score.size
        rows = _by_user(rows, name)
        notes += (f"{before:,} rows averaged to {rows.score.size:,} users",)
    run = np.zeros(rows.score.size, np.int64) if rows.model is None else rows.model.codes
    design = _settle_design(rows, run, reading.design, name)
    if design is Design.INDEPENDENT_RUNS:
        run = np.arange(rows.score.size)
    higher = _settle_direction(rows, run, design, reading.higher_is_member, name)
    if not higher:
        notes += ("scores negated, because lower was declared to mean member",)
    inclusion = 0.5 if reading.inclusion is None else reading.inclusion
    if design is Design.ONE_RUN:
        _check_inclusion(rows.member, inclusion, name)
    cluster = run if rows.cluster is None else rows.cluster[run]
    if rows.cluster is not None and np.unique(rows.cluster).size < rows.cluster.size:
        notes += ("runs whose members were drawn together count as one draw",)
    return Scores(
        score=rows.score if higher else -rows.score,
        member=rows.member,
        run=run,
        cluster=cluster,
        design=design,
        inclusion=inclusion,
        unit=reading.unit,
        slices=_largest_slices(rows.slice),
        name=name,
        sha256=sha256,
        notes=notes,
    )


def _check_values(rows: Rows, reading: Reading, name: str) -> None:
    n, inside = rows.score.size, int(rows.member.sum())
    if n == 0:
        raise UsageError(f"Expected scores in {name}, found none. Write the scores again.")
    bad = np.flatnonzero(~np.isfinite(rows.score))
    if bad.size:
        raise UsageError(
            f"Expected finite scores in {name}, found {rows.score[bad[0]]} in data row {bad[0] + 1} "
            f"({bad.size} of {n} rows). Remove or repair them."
        )
    if inside in (0, n):
        there, missing = ("members", "non-members") if inside else ("non-members", "members")
        raise UsageError(
            f"Expected scores of members and of non-members in {name}, found {n} {there} and no {missing}. "
            "Score both."
        )
    if reading.probabilities:
        bad = np.flatnonzero((rows.score < 0) | (rows.score > 1))
        if bad.size:
            raise UsageError(
                f"Expected probabilities in [0, 1] in {name}, found {rows.score[bad[0]]:g} in data row "
                f"{bad[0] + 1} ({bad.size} of {n} rows). Repair them, or do not declare them as such."
            )


def _check_duplicates(rows: Rows, name: str) -> None:
    if rows.record is None:
        return
    key = rows.record.codes
    if rows.model is not None:
        key = key + rows.model.codes * len(rows.record.names)
    order = np.argsort(key, kind="stable")
    double = np.flatnonzero(np.diff(key[order]) == 0)
    if double.size:
        row = int(order[double[0] + 1])
        record = rows.record.names[rows.record.codes[row]]
        model = "" if rows.model is None else f" of model {rows.model.names[rows.model.codes[row]]!r}"
        raise UsageError(
            f"Expected each record once a model in {name}, found record {record!r}{model} twice, the second "
            f"time in data row {row + 1} ({double.size} repeats). Average them, or name their runs in a "
            "column model_id."
        )


def _by_user(rows: Rows, name: str) -> Rows:
    """One row for each user and model, with the mean score."""
    if rows.user is None:
        raise UsageError(f"Expected a column user_id in {name} for the unit 'user', found none. Add it.")
    model = np.zeros(rows.score.size, np.int64) if rows.model is None else rows.model.codes
    key, group = np.unique(model * len(rows.user.names) + rows.user.codes, return_inverse=True)
    count = np.bincount(group)
    inside = np.bincount(group, weights=rows.member)
    both = np.flatnonzero((inside > 0) & (inside < count))
    if both.size:
        user = rows.user.names[int(key[both[0]] % len(rows.user.names))]
        n_in, n = int(inside[both[0]]), int(count[both[0]])
        raise UsageError(
            f"Expected every user of {name} on one side, found user {user!r} with {n_in} records in and "
            f"{n - n_in} out ({both.size} such users). Draw whole users, or claim per record."
        )
    of = key // len(rows.user.names)
    first = np.unique(group, return_index=True)[1]
    return replace(
        rows,
        score=np.bincount(group, weights=rows.score) / count,
        member=inside > 0,
        record=None,
        model=None if rows.model is None else replace(rows.model, codes=of),
        user=None,
        slice=None if rows.slice is None else replace(rows.slice, codes=rows.slice.codes[first]),
    )


def _settle_design(rows: Rows, run: IntArray, declared: Design | None, name: str) -> Design:
    size, inside = np.bincount(run), np.bincount(run, weights=rows.member)
    alone = bool((size <= 1).all()) and size.size > 1
    one_each = bool(((inside == 1) & (size > 1)).all())
    # Of a single small run, one member may as well be what coins came to.
    clearly_one = one_each and (size.size > 1 or size[0] >= _TOO_MANY_FOR_COINS)
    found = (
        Design.INDEPENDENT_RUNS
        if alone
        else Design.KNOWN_NULL
        if clearly_one
        else Design.ONE_RUN
        if size.size == 1
        else Design.SEVERAL_RUNS
    )
    if declared is None or declared is found:
        return found
    possible = {
        # Without a column model_id nothing says that the rows share a run.
        Design.INDEPENDENT_RUNS: rows.model is None,
        Design.ONE_RUN: size.size == 1,
        Design.SEVERAL_RUNS: size.size > 1 and not alone,
        Design.KNOWN_NULL: one_each,
    }
    if not possible[declared]:
        raise UsageError(
            f"Expected {name} to have the design {declared} ({DESIGN_WORDS[declared]}), found {found}: "
            f"{size.size} models of {size.min()} to {size.max()} rows, {inside.min():.0f} to "
            f"{inside.max():.0f} of them in. Name the runs in a column model_id, or leave the design out."
        )
    return declared


def _settle_direction(rows: Rows, run: IntArray, design: Design, declared: bool | None, name: str) -> bool:
    if declared is not None:
        return declared
    within = np.zeros_like(run) if design is Design.INDEPENDENT_RUNS else run
    area = mean_auc(rows.score, rows.member, within)
    if area < 0.5:
        raise UsageError(
            f"Expected higher scores for members in {name}, found an AUC of {area:.4f} and no direction "
            "declared. Declare --lower-is-member if the scores are losses, or --higher-is-member if they are "
            "not: by what they are, and not by this result."
        )
    return True


def _check_inclusion(member: BoolArray, inclusion: float, name: str) -> None:
    n, inside = member.size, int(member.sum())
    if binomtest(inside, n, inclusion).pvalue < _IMPLAUSIBLE:
        raise UsageError(
            f"Expected about {n * inclusion:,.0f} of {n:,} records of {name} in, at inclusion probability "
            f"{inclusion:g}, found {inside:,}. State the probability with which each record went in "
            "(--inclusion-probability)."
        )


def _largest_slices(labels: Labels | None) -> Labels | None:
    """The 20 largest groups by name; the rest go together as "other"."""
    if labels is None or len(labels.names) <= _MOST_SLICES:
        return labels
    largest = np.sort(np.argsort(-np.bincount(labels.codes), kind="stable")[:_MOST_SLICES])
    code = np.full(len(labels.names), _MOST_SLICES, np.int64)
    code[largest] = np.arange(_MOST_SLICES)
    return Labels(codes=code[labels.codes], names=(*(labels.names[i] for i in largest), "other"))
