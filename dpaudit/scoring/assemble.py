"""From rows as found to scores fit for estimators: every check that rows can fail, and what they settle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.stats import binomtest

from dpaudit.check import BoolArray, IntArray
from dpaudit.errors import UsageError
from dpaudit.scoring.columns import Labels
from dpaudit.scoring.draws import independent_draws
from dpaudit.scoring.ranks import mean_auc
from dpaudit.scoring.scores import AS_FOUND, DESIGN_WORDS, Design, Reading, Rows, Scores

_IMPLAUSIBLE = 1e-9
_MOST_SLICES = 20
_TOO_MANY_FOR_COINS = 20


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
        if 2 * int(rows.member.sum()) == rows.member.size:
            notes += ("exactly half of the records are in; one-run lines suppose a coin for each of them",)
    cluster, joined = _settle_draws(rows, run, design, reading.drawn_anew, name)
    notes += joined
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
        record=replace(rows.user, codes=key % len(rows.user.names)),
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


def _settle_draws(
    rows: Rows, run: IntArray, design: Design, anew: bool, name: str
) -> tuple[IntArray, tuple[str, ...]]:
    """(n,) number of the draw that each row belongs to, and what was joined."""
    if rows.record is None or design not in (Design.KNOWN_NULL, Design.SEVERAL_RUNS):
        return run, ()
    draws = independent_draws(run, rows.record.codes, rows.member, anew=anew)
    if draws.unequal:
        raise UsageError(
            f"Expected every record of {name} to have the same chance to be in a run, found some that are in "
            "far oftener than others. Score only records that were drawn at random, and leave out those "
            "that are always in or always out."
        )
    if anew and draws.alike:
        raise UsageError(
            f"Expected members of {name} that were drawn anew for each run, found runs that agree beyond "
            "chance. Leave out --drawn-anew."
        )
    count, runs = int(draws.cluster.max()) + 1, int(run.max()) + 1
    if count == runs:
        return run, ()
    note = (
        f"{runs:,} runs count as {count:,} draw{'s' if count > 1 else ''}, because the same records went in "
        "again, or the others"
    )
    if not anew:
        note += "; give different records different names, or declare --drawn-anew if chance repeated them"
    return draws.cluster[run], (note,)


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
