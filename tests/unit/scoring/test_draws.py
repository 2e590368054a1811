"""Runs that share a draw of their members are told from who was in: none missed, and none made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpaudit.bound import bound
from dpaudit.check import BoolArray
from dpaudit.errors import UsageError
from dpaudit.scoring.draws import Draws, independent_draws
from dpaudit.scoring.files import read
from dpaudit.scoring.scores import Reading
from dpaudit.verdict import Status


def draws_of(inside: BoolArray, **options: Any) -> Draws:
    runs, records = inside.shape
    run, record = np.repeat(np.arange(runs), records), np.tile(np.arange(records), runs)
    return independent_draws(run, record, inside.ravel(), **options)


def halves(runs: int, records: int, rng: np.random.Generator) -> BoolArray:
    inside = np.zeros((runs, records), dtype=np.bool_)
    for row in inside:
        row[rng.permutation(records)[: records // 2]] = True
    return inside


@given(
    runs=st.integers(1, 12),
    records=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_same_and_complementary_members_are_joined(runs: int, records: int, seed: int) -> None:
    """Against a naive twin that compares all pairs of sets and follows chains."""
    inside = np.random.default_rng(seed).random((runs, records)) < 0.5
    naive = np.arange(runs)
    for a in range(runs):
        for b in range(a):
            if (inside[a] == inside[b]).all() or (inside[a] != inside[b]).all():
                naive[naive == naive[a]] = naive[b]
    found = draws_of(inside).cluster
    for a in range(runs):
        for b in range(a):
            assert (found[a] == found[b]) == (naive[a] == naive[b])


@pytest.mark.parametrize("records", [10, 100, 1000])
def test_independent_draws_stay_apart(records: int) -> None:
    rng = np.random.default_rng(1)
    joined = 0
    for inside in (
        halves(40, records, rng),
        rng.random((40, records)) < 0.5,
        rng.random((40, records)) < 0.1,
    ):
        found = draws_of(inside, anew=True)
        joined += found.alike + found.unequal
        assert np.unique(found.cluster).size == 40
    assert not joined


def test_one_canary_of_a_pool_drawn_anew_many_times() -> None:
    """With 20 candidates and 100 runs canaries repeat by chance, which is no agreement beyond it."""
    member = np.random.default_rng(2).integers(0, 20, 100)
    inside = member[:, None] == np.arange(20)
    assert np.unique(draws_of(inside, anew=True).cluster).size == 100
    assert np.unique(draws_of(inside).cluster).size <= 20


def test_nearly_the_same_members_are_one_draw() -> None:
    """A fixed split of which each run leaves out a tenth."""
    rng = np.random.default_rng(3)
    inside = (np.arange(400) < 200) ^ (rng.random((6, 400)) < 0.1)
    found = draws_of(inside)
    assert np.unique(found.cluster).size == 1
    assert found.alike
    assert not found.repeated


def test_some_records_that_are_always_in_are_told() -> None:
    """No pair of runs gives it away, all of them together do."""
    rng = np.random.default_rng(4)
    inside = rng.random((30, 500)) < 0.5
    assert not draws_of(inside).unequal
    inside[:, :60] = True
    found = draws_of(inside)
    assert found.unequal


def write(path: Path, rows: list[tuple[str, int, float, int]]) -> Path:
    path.write_text(
        "record_id,is_member,score,model_id\n" + "\n".join(",".join(map(str, row)) for row in rows) + "\n"
    )
    return path


def canaries(rng: np.random.Generator, name: str, *, shift: float) -> list[tuple[str, int, float, int]]:
    rows = []
    for run in range(30):
        rows.append((name.format(run=run), 1, float(rng.normal() + shift), run))
        rows += [(f"r{run}-{i}", 0, float(rng.normal()), run) for i in range(50)]
    return rows


def test_one_odd_canary_in_every_run_accuses_nobody(tmp_path: Path) -> None:
    """It outranks its references without having been in: one draw, however many runs repeat it."""
    rows = canaries(np.random.default_rng(5), "canary", shift=6.0)
    result = bound(write(tmp_path / "one.csv", rows), epsilon=0.5)
    assert result.verdict.status is Status.INCONCLUSIVE
    assert any("only one independent draw" in each.why for each in result.refused)
    assert any("30 runs count as 1 draw" in note for note in result.scores.notes)


def test_canaries_drawn_anew_are_draws_of_their_own(tmp_path: Path) -> None:
    rows = canaries(np.random.default_rng(5), "canary-{run}", shift=6.0)
    result = bound(write(tmp_path / "own.csv", rows), epsilon=0.5)
    assert result.verdict.status is Status.REFUTED


def test_a_fixed_split_of_several_runs_accuses_nobody(tmp_path: Path) -> None:
    """Members that are easier records than the others, in each run: scores differ without any leak."""
    rng = np.random.default_rng(6)
    rows = [
        (f"{i}", int(i < 40), float(rng.normal() + 2.0 * (i < 40)), run)
        for run in range(10)
        for i in range(80)
    ]
    result = bound(write(tmp_path / "split.csv", rows), epsilon=1.0)
    assert result.verdict.status is Status.INCONCLUSIVE


def test_records_that_are_always_in_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    rows = [
        (f"{i}", int(i < 100 or rng.random() < 0.5), float(rng.normal()), run)
        for run in range(20)
        for i in range(400)
    ]
    path = write(tmp_path / "always.csv", rows)
    with pytest.raises(UsageError, match="same chance to be in"):
        read(path, Reading(higher_is_member=True))


def test_declared_anew_is_not_believed_against_the_odds(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    rows = [(f"{i}", int(i < 100), float(rng.normal()), run) for run in range(5) for i in range(200)]
    with pytest.raises(UsageError, match="--drawn-anew"):
        read(write(tmp_path / "anew.csv", rows), Reading(higher_is_member=True, drawn_anew=True))
