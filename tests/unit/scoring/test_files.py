"""Readers of scores: every layout is understood, and everything else is one clear refusal."""

from __future__ import annotations

import csv
import io
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpaudit.errors import UsageError
from dpaudit.scoring import binary_columns, csv_columns
from dpaudit.scoring.assemble import assemble
from dpaudit.scoring.columns import Kind
from dpaudit.scoring.files import read
from dpaudit.scoring.ranks import mean_auc, outranked
from dpaudit.scoring.scores import AS_FOUND, Design, Reading, Rows, Scores

RNG = np.random.default_rng(20)
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LONG = "record_id,is_member,score\na,1,2.5\nb,0,1.5\nc,1,0.5\nd,0,-1\n"


def write(folder: Path, text: str | bytes, name: str = "scores.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(path: Path, reading: Reading = AS_FOUND) -> str:
    with pytest.raises(UsageError) as caught:
        read(path, reading)
    message = str(caught.value)
    assert "\n" not in message
    return message


class TestLongForm:
    def test_columns_are_read_by_name(self, tmp_path: Path) -> None:
        scores = read(write(tmp_path, "score,is_member,record_id\n2.5,1,a\n1.5,0,b\n"))
        assert scores.score.tolist() == [2.5, 1.5]
        assert scores.member.tolist() == [True, False]
        assert scores.design is Design.ONE_RUN

    @pytest.mark.parametrize(
        "text",
        [
            LONG.replace("\n", "\r\n"),
            "\ufeff" + LONG,
            LONG.replace("\n", "\n\n"),
            LONG.rstrip("\n"),
            LONG.replace(",", ";"),
            LONG.replace(",", "\t"),
            LONG.replace("a,", '"a",'),
            LONG.replace(",1,", ",true,").replace(",0,", ",FALSE,"),
            LONG.replace(",1,", ",1.0,").replace(",0,", ", 0 ,"),
        ],
    )
    def test_spellings_mean_the_same(self, tmp_path: Path, text: str) -> None:
        scores = read(write(tmp_path, text))
        assert scores.score.tolist() == [2.5, 1.5, 0.5, -1.0]
        assert scores.member.tolist() == [True, False, True, False]

    def test_quotes_after_the_first_block(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(csv_columns, "_BLOCK", 64)
        monkeypatch.setattr(csv_columns, "_CHUNK", 3)
        rows = [[f"r{i}", str(i % 2), str(i / 7)] for i in range(40)]
        rows[25][0] = 'a "quoted, name"\nof two lines'
        text = io.StringIO()
        csv.writer(text).writerows([["record_id", "is_member", "score"], *rows])
        path = write(tmp_path, text.getvalue())
        choose = lambda names: {"record_id": Kind.LABEL, "is_member": Kind.FLAG, "score": Kind.NUMBER}  # noqa: E731
        table = csv_columns.read_csv(path, choose)
        assert [table.labels["record_id"].names[i] for i in table.labels["record_id"].codes] == [
            row[0] for row in rows
        ]
        assert table.numbers["score"].tolist() == [float(row[2]) for row in rows]
        assert table.flags["is_member"].tolist() == [row[1] == "1" for row in rows]

    def test_one_row_a_model_is_independent_runs(self, tmp_path: Path) -> None:
        text = "record_id,is_member,score,model_id\na,1,2,m1\na,0,1,m2\na,1,3,m3\na,0,0,m4\n"
        scores = read(write(tmp_path, text))
        assert scores.design is Design.INDEPENDENT_RUNS
        assert scores.n_runs == 4

    def test_one_member_a_model_is_a_known_null(self, tmp_path: Path) -> None:
        rows = [f"r{i},{int(i == 0)},{9 - i},m{m}" for m in range(3) for i in range(5)]
        scores = read(write(tmp_path, "\n".join(["record_id,is_member,score,model_id", *rows])))
        assert scores.design is Design.KNOWN_NULL
        assert scores.n_runs == 3

    def test_many_members_of_many_models_are_several_runs(self, tmp_path: Path) -> None:
        rows = [f"r{i},{int(i < 2)},{9 - i},m{m}" for m in range(3) for i in range(5)]
        scores = read(write(tmp_path, "\n".join(["record_id,is_member,score,model_id", *rows])))
        assert scores.design is Design.SEVERAL_RUNS

    def test_slices_and_other_columns(self, tmp_path: Path) -> None:
        text = "record_id,is_member,score,slice,colour\na,1,2,x,red\nb,0,1,y,blue\n"
        scores = read(write(tmp_path, text))
        assert scores.slices is not None
        assert scores.slices.names == ("x", "y")
        assert "columns not used: colour" in scores.notes

    def test_many_slices_are_cut_to_the_largest(self, tmp_path: Path) -> None:
        rows = [f"r{i},{i % 2},{i % 2},s{i % 30 if i < 60 else 7}" for i in range(90)]
        scores = read(write(tmp_path, "\n".join(["record_id,is_member,score,slice", *rows])))
        assert scores.slices is not None
        assert len(scores.slices.names) == 21
        assert "s7" in scores.slices.names
        assert scores.slices.names[-1] == "other"

    def test_lower_is_member_negates(self, tmp_path: Path) -> None:
        scores = read(write(tmp_path, LONG), Reading(higher_is_member=False))
        assert scores.score.tolist() == [-2.5, -1.5, -0.5, 1.0]

    def test_users_are_averaged(self, tmp_path: Path) -> None:
        text = "record_id,is_member,score,user_id\na,1,2,u\nb,1,4,u\nc,0,1,v\nd,0,1,w\n"
        scores = read(write(tmp_path, text), Reading(unit="user"))
        assert sorted(scores.score.tolist()) == [1.0, 1.0, 3.0]
        assert scores.member.sum() == 1
        assert "4 rows averaged to 3 users" in scores.notes


class TestOneRunForm:
    def test_inclusion_probability_is_taken_from_the_column(self, tmp_path: Path) -> None:
        rows = [f"c{i},{int(i < 90)},{100 - i},0.9" for i in range(100)]
        text = "\n".join(["canary_id,included,score,inclusion_probability", *rows])
        scores = read(write(tmp_path, text))
        assert scores.design is Design.ONE_RUN
        assert scores.inclusion == 0.9

    def test_two_probabilities_are_refused(self, tmp_path: Path) -> None:
        text = "canary_id,included,score,inclusion_probability\na,1,2,0.5\nb,0,1,0.4\n"
        assert "found 0.4 to 0.5" in refusal(write(tmp_path, text))

    def test_shares_that_no_coin_explains_are_refused(self, tmp_path: Path) -> None:
        rows = [f"c{i},{int(i < 90)},{100 - i}" for i in range(100)]
        path = write(tmp_path, "\n".join(["canary_id,included,score", *rows]))
        assert "found 90" in refusal(path)
        assert read(path, Reading(inclusion=0.9)).inclusion == 0.9


class TestArrays:
    def test_matrix(self, tmp_path: Path) -> None:
        member = np.array([[1, 0, 1], [0, 1, 1]], dtype=bool)
        np.savez(tmp_path / "m.npz", scores=member + 0.5, member=member, slice=np.array(["x", "y", "x"]))
        scores = read(tmp_path / "m.npz")
        assert scores.design is Design.SEVERAL_RUNS
        assert scores.run.tolist() == [0, 0, 0, 1, 1, 1]
        assert scores.member.tolist() == member.ravel().tolist()
        assert scores.slices is not None
        assert scores.slices.codes.tolist() == [0, 1, 0, 0, 1, 0]

    def test_fortran_order_and_single_precision(self, tmp_path: Path) -> None:
        member = np.asfortranarray(np.array([[1, 0, 1], [0, 1, 1]], dtype=np.int8))
        np.savez_compressed(
            tmp_path / "m.npz", scores=np.asfortranarray(member.astype(np.float32)), member=member
        )
        assert read(tmp_path / "m.npz").member.tolist() == [True, False, True, False, True, True]

    def test_long_form_with_scalar_probability(self, tmp_path: Path) -> None:
        np.savez(
            tmp_path / "l.npz",
            canary_id=np.arange(40),
            included=np.arange(40) < 10,
            score=-np.arange(40.0),
            inclusion_probability=0.25,
        )
        scores = read(tmp_path / "l.npz")
        assert scores.inclusion == 0.25
        assert scores.member.sum() == 10

    def test_shapes_must_agree(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "m.npz", scores=np.zeros((2, 3)), member=np.zeros((3, 2), dtype=bool))
        assert "(2, 3)" in refusal(tmp_path / "m.npz")

    def test_objects_are_never_unpickled(self, tmp_path: Path) -> None:
        class Bomb:
            def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
                return (sys.exit, ("unpickled",))

        np.savez(tmp_path / "b.npz", scores=np.array([Bomb()], dtype=object), member=np.ones(1, dtype=bool))
        assert "never unpickled" in refusal(tmp_path / "b.npz")
        write(tmp_path, pickle.dumps({"score": [1.0]}), "s.pkl")
        assert "unpickled" in refusal(tmp_path / "s.pkl")

    def test_a_header_that_promises_more_than_is_there(self, tmp_path: Path) -> None:
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
        header += b" " * (64 - (len(header) + 11) % 64) + b"\n"
        body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 64
        with zipfile.ZipFile(tmp_path / "h.npz", "w") as archive:
            archive.writestr("score.npy", body)
        assert "1000000000000" in refusal(tmp_path / "h.npz")

    def test_a_zip_bomb(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(binary_columns, "MOST_BYTES", 1 << 16)
        np.savez_compressed(tmp_path / "z.npz", scores=np.zeros(1 << 17), member=np.zeros(3))
        assert (tmp_path / "z.npz").stat().st_size < 1 << 16
        assert "at most" in refusal(tmp_path / "z.npz")


class TestParquet:
    def test_without_pyarrow_the_extra_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        assert "pip install 'dpaudit[parquet]'" in refusal(write(tmp_path, b"PAR1", "s.parquet"))

    def test_long_form(self, tmp_path: Path) -> None:
        pyarrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
        from pyarrow import parquet

        columns = {"record_id": ["a", "b"], "is_member": [True, False], "score": [2.0, 1.0], "x": [1, 2]}
        parquet.write_table(pyarrow.table(columns), tmp_path / "s.parquet")
        scores = read(tmp_path / "s.parquet")
        assert scores.score.tolist() == [2.0, 1.0]
        assert "columns not used: x" in scores.notes

    @pytest.mark.parametrize(
        ("column", "values"),
        [("score", [1.0, None]), ("is_member", [True, None]), ("record_id", [["a"], ["b"]])],
    )
    def test_nulls_and_nested_values_are_refused(
        self, tmp_path: Path, column: str, values: list[Any]
    ) -> None:
        pyarrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
        from pyarrow import parquet

        columns = {"record_id": ["a", "b"], "is_member": [True, False], "score": [2.0, 1.0], column: values}
        parquet.write_table(pyarrow.table(columns), tmp_path / "s.parquet")
        refusal(tmp_path / "s.parquet")


ROWS = "record_id,is_member,score\n"
REFUSED = {
    "empty file": ("", "empty file"),
    "only a header": (ROWS, "found none"),
    "nan": (ROWS + "a,1,nan\nb,0,1\n", "found nan in data row 1"),
    "inf": (ROWS + "a,1,2\nb,0,-inf\n", "found -inf in data row 2"),
    "no members": (ROWS + "a,0,2\nb,0,1\n", "no members"),
    "no non-members": (ROWS + "a,1,2\nb,1,1\n", "no non-members"),
    "a record twice": (ROWS + "a,1,2\nb,0,1\na,0,1\n", "'a' twice"),
    "text for a number": (ROWS + "a,1,2\nb,0,high\n", "found 'high' in data row 2"),
    "text for a flag": (ROWS + "a,maybe,2\nb,0,1\n", "found 'maybe' in data row 1"),
    "a ragged row": (ROWS + "a,1,2\nb,0\n", "found 2 in data row 2"),
    "a ragged quoted row": (ROWS + '"a",1,2\nb,0,1,5\n', "found 4 in data row 2"),
    "a misspelt column": ("recordid,is_member,score\na,1,2\n", "rename 'recordid'"),
    "a missing column": ("record_id,is_member,loss\na,1,2\n", "no 'score'"),
    "a misspelt optional column": (
        "record_id,is_member,score,modelid\na,1,2,1\n",
        "did you mean 'model_id'?",
    ),
    "both forms": ("record_id,is_member,canary_id,included,score\na,1,a,1,2\n", "beside"),
    "a column twice": ("record_id,score,is_member,score\na,1,1,2\n", "'score' twice"),
    "members lower": (ROWS + "a,1,1\nb,0,2\n", "--lower-is-member"),
    "a huge header": ("x" * 70_000 + "\n", "longer one"),
    "many columns": (",".join(f"c{i}" for i in range(1_200)) + "\n", "at most 1000 columns"),
    "bytes": ("record_id,is_member,score\na,1,2\n".encode("utf-16"), "UTF-8"),
}


@pytest.mark.parametrize(("text", "expected"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_one_line(tmp_path: Path, text: str | bytes, expected: str) -> None:
    message = refusal(write(tmp_path, text))
    assert expected in message
    assert message.startswith("Expected ")


def test_a_record_twice_in_one_model_names_the_model(tmp_path: Path) -> None:
    text = "record_id,is_member,score,model_id\na,1,2,m\nb,0,1,m\na,1,2,n\na,0,1,n\n"
    assert "record 'a' of model 'n' twice" in refusal(write(tmp_path, text))


def test_a_user_on_both_sides_matters_only_where_the_unit_is_the_user(tmp_path: Path) -> None:
    path = write(tmp_path, "record_id,is_member,score,user_id\na,1,2,u\nb,0,1,u\nc,0,0,v\n")
    assert "user 'u' with 1 records in and 1 out" in refusal(path, Reading(unit="user"))
    assert read(path).unit == "record"
    assert "user_id" in refusal(write(tmp_path, LONG), Reading(unit="user"))


def test_probabilities_only_where_declared(tmp_path: Path) -> None:
    path = write(tmp_path, LONG)
    assert "found 2.5 in data row 1" in refusal(path, Reading(probabilities=True))
    read(path)


@pytest.mark.parametrize(
    ("design", "runs"), [(Design.ONE_RUN, 2), (Design.INDEPENDENT_RUNS, 2), (Design.SEVERAL_RUNS, 1)]
)
def test_a_design_that_the_rows_cannot_have(tmp_path: Path, design: Design, runs: int) -> None:
    rows = [f"r{i},{i % 2},{i % 2},m{i % runs if i > 3 else 0}" for i in range(20)]
    path = write(tmp_path, "\n".join(["record_id,is_member,score,model_id", *rows]))
    assert str(design) in refusal(path, Reading(design=design))


def test_rows_without_models_may_be_declared_independent(tmp_path: Path) -> None:
    scores = read(write(tmp_path, LONG), Reading(design=Design.INDEPENDENT_RUNS))
    assert scores.n_runs == 4


@pytest.mark.parametrize("name", ["nowhere.csv", "scores.xlsx", "scores"])
def test_other_files(tmp_path: Path, name: str) -> None:
    if "nowhere" not in name:
        write(tmp_path, LONG, name)
    refusal(tmp_path / name)


def test_unknown_layout(tmp_path: Path) -> None:
    assert "did you mean 'matrix'?" in refusal(write(tmp_path, LONG), Reading(layout="matrx"))
    assert "numpy.savez" in refusal(write(tmp_path, LONG), Reading(layout="tf-privacy"))


def test_impossible_readings() -> None:
    for wrong in ({"unit": "household"}, {"inclusion": 0.0}, {"inclusion": 1.5}):
        with pytest.raises(UsageError):
            Reading(**wrong)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(-2, 2)), min_size=1, max_size=40))
def test_ranks_agree_with_counting(rows: list[tuple[int, bool, int]]) -> None:
    run = np.array([row[0] for row in rows])
    member = np.array([row[1] for row in rows])
    score = np.array([float(row[2]) for row in rows])
    counts = outranked(score, member, run)
    pairs = above = 0.0
    for i in range(len(rows)):
        others = [score[j] for j in range(len(rows)) if run[j] == run[i] and not member[j]]
        assert counts.above[i] == sum(other > score[i] for other in others)
        assert counts.at_or_above[i] == sum(other >= score[i] for other in others)
        assert counts.total[i] == len(others)
        if member[i]:
            pairs += len(others)
            above += sum((other < score[i]) + 0.5 * (other == score[i]) for other in others)
    assert mean_auc(score, member, run) == pytest.approx(above / pairs if pairs else 0.5)


def understood_or_refused(path: Path) -> None:
    """Anything but scores or a one-line refusal is a defect."""
    try:
        scores = read(path)
    except UsageError as error:
        assert str(error).startswith("Expected ")
        return
    assert isinstance(scores, Scores)
    assert np.isfinite(scores.score).all()


@FUZZ
@given(data=st.binary(max_size=300), suffix=st.sampled_from([".csv", ".npz", ".npy", ".parquet", ".tsv"]))
def test_any_bytes(tmp_path: Path, data: bytes, suffix: str) -> None:
    understood_or_refused(write(tmp_path, data, f"fuzz{suffix}"))


CELLS = st.one_of(
    st.sampled_from(["", "0", "1", "true", "nan", "1e999", "-5", '"', "a,b", "a\nb", "\x00", "1_0", "٣"]),
    st.text(max_size=5),
)


@FUZZ
@given(
    header=st.permutations(["record_id", "is_member", "score", "model_id", "user_id", "slice"]),
    width=st.integers(2, 6),
    rows=st.lists(st.lists(CELLS, min_size=1, max_size=7), max_size=6),
    quoted=st.booleans(),
)
def test_any_cells(
    tmp_path: Path, header: list[str], width: int, rows: list[list[str]], quoted: bool
) -> None:
    text = io.StringIO()
    if quoted:
        csv.writer(text).writerows([header[:width], *rows])
    else:
        text.write("\n".join(",".join(row) for row in [header[:width], *rows]))
    path = tmp_path / "cells.csv"
    path.write_text(text.getvalue(), encoding="utf-8", errors="surrogatepass", newline="")
    understood_or_refused(path)


@FUZZ
@given(position=st.floats(0, 1), byte=st.integers(0, 255), cut=st.booleans(), compressed=st.booleans())
def test_damaged_arrays(tmp_path: Path, position: float, byte: int, cut: bool, compressed: bool) -> None:
    member = np.arange(6).reshape(2, 3) % 2 == 0
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, scores=member * 1.5, member=member)
    data = bytearray(buffer.getvalue())
    at = int(position * (len(data) - 1))
    if cut:
        del data[at:]
    else:
        data[at] = byte
    understood_or_refused(write(tmp_path, bytes(data), "damaged.npz"))


ARRAYS = st.sampled_from(
    [
        np.zeros(3),
        np.arange(3.0),
        np.array([1, 0, 1]),
        np.array([True, False, True]),
        np.array(["a", "b", "c"]),
        np.array([b"a", b"b", b"c"]),
        np.zeros((2, 3)),
        np.zeros(0),
        np.array(1.0),
        np.array([1j, 2j, 3j]),
        np.array(["2020-01-01"] * 3, dtype="datetime64[D]"),
        np.array([(1, 2.0)], dtype=[("x", int), ("y", float)]),
        np.full(3, np.nan),
    ]
)
NAMES = st.sampled_from(
    ["record_id", "is_member", "score", "canary_id", "included", "scores", "member"]
    + ["model_id", "user_id", "slice"]
    + ["inclusion_probability", "in_canary_scores", "out_canary_scores", "memberships", "other"]
    + [f"{name}_{part}" for name in ("loss", "logits", "probs", "labels") for part in ("train", "test")]
)


@FUZZ
@given(arrays=st.dictionaries(NAMES, ARRAYS, max_size=6))
def test_any_arrays(tmp_path: Path, arrays: dict[str, Any]) -> None:
    path = tmp_path / "arrays.npz"
    np.savez(path, **arrays)
    understood_or_refused(path)


def test_assembling_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="found none"):
        assemble(Rows(score=np.zeros(0), member=np.zeros(0, dtype=bool)))
