"""A table without names: counted as a loop would, matched exactly, and compared with noisy counts of it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom
from typer.testing import CliRunner

from dpaudit.cli import app
from dpaudit.errors import UsageError
from dpaudit.linkage.audit import Asked, audit
from dpaudit.linkage.classes import classes_of
from dpaudit.linkage.columns import Source, combined, keys, read, times
from dpaudit.linkage.disclosure import from_noisy_counts, from_table, halves
from dpaudit.linkage.register import match
from dpaudit.record import load
from dpaudit.scoring.columns import Labels

RNG = np.random.default_rng(0)
PEOPLE = [
    (f"n{i}", f"{RNG.integers(30):02d}", f"19{RNG.integers(10, 60)}", "mf"[RNG.integers(2)])
    for i in range(900)
]
ROWS = [(p, b, s, f"d{RNG.integers(4)}", n) for n, p, b, s in (PEOPLE[i] for i in RNG.permutation(900)[:600])]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(tmp_path / "table.csv", ("postcode", "birth", "sex", "diagnosis", "who"), ROWS)
    write(tmp_path / "register.csv", ("name", "postcode", "birth", "sex"), PEOPLE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    path.write_text("\n".join([",".join(header), *(",".join(row) for row in rows)]) + "\n")


def asked(**more: object) -> Asked:
    given = {"table": Path("table.csv"), "quasi": ("postcode", "birth", "sex"), **more}
    return Asked(**given)  # type: ignore[arg-type]


def test_classes_are_those_of_a_loop() -> None:
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for row in ROWS:
        groups[row[:3]].append(row[3])
    columns = {name: _codes([row[i] for row in ROWS]) for i, name in enumerate(("p", "b", "s"))}
    found = classes_of(columns, _codes([row[3] for row in ROWS]))
    sizes = [len(group) for group in groups.values()]
    assert (found.records, found.classes, found.smallest) == (600, len(groups), min(sizes))
    assert found.alone == sizes.count(1)
    assert found.diversity == min(len(set(group)) for group in groups.values())
    assert found.known == sum(len(group) for group in groups.values() if len(set(group)) == 1)
    by_two = Counter((row[0], row[2]) for row in ROWS)
    assert found.without["b"] == sum(count == 1 for count in by_two.values())
    assert sum(count for _, _, count in found.sizes) == 600
    assert found.sizes[1][2] == 2 * sizes.count(2)


def test_many_wide_columns_do_not_overflow() -> None:
    columns = [RNG.integers(0, 10**6, 500) for _ in range(6)]
    columns[0][1], columns[5][:2] = columns[0][0], 7
    for column in columns:
        column[1] = column[0]
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    assert len(np.unique(combined(columns))) == len(set(rows)) == 499
    assert sorted(times(keys(columns)).tolist()) == sorted(Counter(rows).values())


def test_matches_are_those_of_a_loop(folder: Path) -> None:
    quasi = ("postcode", "birth", "sex")
    found = match(
        read(Path("table.csv"), [*quasi, "who"]),
        read(Path("register.csv"), [*quasi, "name"]),
        quasi,
        identity="name",
        truth="who",
    )
    register = defaultdict(list)
    for name, *rest in PEOPLE:
        register[tuple(rest)].append(name)
    hits = [(register.get(row[:3], []), row[4]) for row in ROWS]
    assert found.one == sum(len(names) == 1 for names, _ in hits)
    assert found.none == sum(not names for names, _ in hits) == 0
    assert found.right == sum(names == [who] for names, who in hits) == found.one > 100
    assert found.lucky == pytest.approx(sum(names.count(who) / len(names) for names, who in hits))
    assert found.unique == sum(len(names) == 1 for names in register.values())


def test_wrong_names_are_counted_as_wrong() -> None:
    table = _source(q=["a", "b", "c", "d"], who=["x", "y", "z", "w"])
    register = _source(q=["a", "b", "b", "c"], name=["x", "y", "v", "nobody"])
    found = match(table, register, ("q",), identity="name", truth="who")
    assert (found.none, found.one, found.several, found.right) == (1, 2, 1, 1)
    assert found.lucky == pytest.approx(1 + 0.5)


def test_the_interval_is_exact_and_the_record_has_no_row_in_it(folder: Path) -> None:
    result = audit(asked(sensitive="diagnosis", register=Path("register.csv"), identity="name", truth="who"))
    rates = {(rate.name, rate.slice): rate for rate in result.record.targets[0].rates}
    named = rates["reidentification_success", "all records"]
    assert named.lower is not None and named.upper is not None and result.found.matches is not None
    right = result.found.matches.right
    assert binom.sf(right - 1, 600, named.lower) == pytest.approx(named.alpha / 2)
    assert binom.cdf(right, 600, named.upper) == pytest.approx(named.alpha / 2)
    text = repr(result.record)
    assert not any(row[4] + "'" in text for row in ROWS) and "1923" not in text
    assert "Removing names is not enough" in result.record.reason


def test_a_table_tells_of_its_people_and_noisy_counts_hardly() -> None:
    rng = np.random.default_rng(1)
    n = 6000
    quasi = {"a": rng.integers(0, 40, n), "b": rng.integers(0, 40, n)}
    sensitive = rng.integers(0, 3, n)
    inside = halves(n, rng)
    raw = from_table(quasi, sensitive, inside)
    assert raw.right_in / raw.people_in > 0.6 > 0.4 > raw.right_out / raw.people_out
    gaps = []
    for _ in range(30):
        noisy = from_noisy_counts(quasi, sensitive, inside, 0.5, rng)
        assert noisy is not None
        gaps.append(noisy.right_in / noisy.people_in - noisy.right_out / noisy.people_out)
    # Of guesses that nobody could improve on without the release, epsilon 1/2 allows 1/3 (e^0.5 - 1) more.
    assert max(gaps) < (np.exp(0.5) - 1) / 3 and np.mean(gaps) < 0.1


def test_noisy_counts_learn_what_is_true_of_everybody() -> None:
    rng = np.random.default_rng(2)
    first = rng.integers(0, 5, 4000)
    sensitive = np.where(rng.random(4000) < 0.9, first % 3, rng.integers(0, 3, 4000))
    inside = halves(4000, rng)
    noisy = from_noisy_counts({"a": first}, sensitive, inside, 1.0, rng)
    assert noisy is not None and noisy.right_out / noisy.people_out > 0.85


def test_the_command_counts_writes_and_judges(folder: Path) -> None:
    line = ["linkage", "table.csv", "--quasi", "postcode,birth,sex", "--out", "here"]
    done = CliRunner().invoke(app, [*line, "--sensitive", "diagnosis", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["classes"]["records"] == 600 and len(document["guessed"]) == 2
    assert load(Path("here")).status == "INCONCLUSIVE" and Path("here/report.html").is_file()
    assert "k-anonymity" in Path("here/report.html").read_text()
    done = CliRunner().invoke(app, [*line, "--k", "5"])
    assert done.exit_code == 1 and "at least 5 records in every class" in " ".join(done.output.split())
    done = CliRunner().invoke(app, [*line, "--k", "1"])
    assert done.exit_code == 0 and load(Path("here")).status == "NOT REFUTED"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"quasi": ("postcod", "sex")}, "did you mean 'postcode'"),
        ({"quasi": ()}, "Name them with --quasi"),
        ({"quasi": ("sex", "sex")}, "found 'sex' twice"),
        ({"table": Path("nowhere.csv")}, "no such file"),
        ({"register": Path("register.csv")}, "--register and --identity together"),
        ({"truth": "who"}, "Expected --register beside --truth"),
        ({"epsilon": 0.0}, "epsilon=0.0"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, more: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        audit(asked(**more))


def test_parquet_is_read_alike(folder: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {name: [row[i] for row in ROWS] for i, name in enumerate(("postcode", "birth", "sex"))}
    parquet.write_table(arrow.table(columns), "table.parquet")
    one, other = audit(asked()), audit(asked(table=Path("table.parquet")))
    assert one.found.classes == other.found.classes


def _codes(values: list[str]) -> np.ndarray:
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _source(**columns: list[str]) -> Source:
    labels = {}
    for name, values in columns.items():
        names = tuple(dict.fromkeys(values))
        labels[name] = Labels(codes=np.array([names.index(v) for v in values]), names=names)
    return Source(path=Path("x"), columns=labels, sha256="")
