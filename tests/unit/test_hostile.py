"""Files that somebody made to do harm: one line each, no traceback, no flood of memory, nothing obeyed."""

import copy
import io
import json
import os
import random
import re
import sys
import time
import tracemalloc
import zipfile
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from dpaudit import plan as plans
from dpaudit.cli import main
from dpaudit.documents import contents, json_of, toml_of
from dpaudit.errors import DpauditError, UsageError, one_line
from dpaudit.gate import evaluate
from dpaudit.policy import Policy, load_policy, parse_policy
from dpaudit.record import RECORD_NAME, dump, load
from dpaudit.reports import html, jsonview, junit, markdown, sarif, text
from dpaudit.scoring.files import read
from dpaudit.store import Store
from tests.sample_record import sample_record

LIMITS = parse_policy("[gate]\nauc = 0.7\nepsilon_lower = 3\ntpr_at_fpr_0.01 = 0.03\n", Path("dpaudit.toml"))
HTML = "<img src=x onerror=alert(1)>\"'--></style>]]>"
TERMINAL = "\x1b]0;owned\x07\x1b[2J\u202e\n::error::x"
VALUES = (
    None, True, 0, -1, 2**62, 10**400, 1e308, -1e308, 5e-324, "NaN", "Infinity", "-Infinity", HTML, TERMINAL,
    "", "\x00", "\ud800", "word " * 3_000, [], {}, [[]], [1], {"a": HTML}, "1", 1.5, [["[" * 9]],
)  # fmt: skip
BASE = json.loads(dump(sample_record()))


def places(value, path=()):
    """Paths of everything in a document, of long lists the first three items."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [] if not path else [path]
    for key, item in list(items)[: 3 if isinstance(value, list) else None]:
        found += places(item, (*path, key))
    return found


PLACES = places(BASE)


def changed(changes):
    """A real record with some values replaced."""
    document = copy.deepcopy(BASE)
    for path, value in changes:
        inner = document
        for key in path[:-1]:
            found = isinstance(inner, dict) and key in inner
            found |= isinstance(inner, list) and isinstance(key, int) and key < len(inner)
            inner = inner[key] if found else {}
        if isinstance(inner, dict) or (isinstance(inner, list) and isinstance(path[-1], int) and inner):
            inner[path[-1] if isinstance(inner, dict) else 0] = copy.deepcopy(value)
    return json.dumps(document).encode()


def shown(record):
    """Everything that is written about a record, except the page."""
    gate = evaluate(record, LIMITS, today=date(2025, 11, 3))
    console = Console(file=io.StringIO(), width=120)
    text.print_summary(record, console, gate)
    terminal = console.file.getvalue()
    tables = sarif.render(record, gate, "audits/a/record.json"), jsonview.render(record, gate)
    return terminal, markdown.render(record, gate), junit.render(record, gate), *tables


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(VALUES)), min_size=1, max_size=4))
def test_a_changed_record_is_refused_in_one_line_or_shown_and_not_obeyed(tmp_path, changes):
    (tmp_path / RECORD_NAME).write_bytes(changed(changes))
    try:
        record = load(tmp_path)
        terminal, page, xml, findings, summary = shown(record)
    except UsageError as error:
        assert "\n" not in str(error)
        return
    assert "\x1b" not in terminal and "\x07" not in terminal
    outside_of_code = re.sub(r"`[^`]*`", "", page)
    assert "<img" not in outside_of_code and "\x1b" not in outside_of_code
    ElementTree.fromstring(xml)
    assert json.loads(findings)["version"] == "2.1.0" and json.loads(summary)
    for written in (terminal, page, xml, findings, summary):
        written.encode()


def everywhere(value, hostile):
    """A document with a hostile text in place of every text that no type restricts, keys included."""
    if isinstance(value, dict):
        return {key: everywhere(item, hostile) for key, item in value.items()}
    if isinstance(value, list):
        return [everywhere(item, hostile) for item in value]
    return hostile if isinstance(value, str) else value


FREE = {
    "title", "reason", "name", "description", "source", "method", "detail", "where", "expected",
    "measured", "remedy", "check", "slice", "error", "key", "target", "attack", "command", "device",
    "engine", "created", "platform", "python", "plan_toml", "decided_by", "accountant", "unit",
    "dpaudit_version", "data_sha256", "weights_sha256", "canary_commitment", "assumptions",
}  # fmt: skip


def poisoned(value, hostile):
    if isinstance(value, dict):
        return {
            key: everywhere(item, hostile)
            if key in FREE and isinstance(item, str | list)
            else poisoned(item, hostile)
            for key, item in value.items()
        }
    return [poisoned(item, hostile) for item in value] if isinstance(value, list) else value


@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_labels_and_paths_are_text_in_every_report(tmp_path):
    hostile = f"{HTML}{TERMINAL}{{{{ 7 * 191 }}}}{{% include '/etc/passwd' %}}"
    document = poisoned(BASE, hostile)
    for index, target in enumerate(document["targets"]):
        target["name"] = f"{hostile} {index}"
    (tmp_path / RECORD_NAME).write_bytes(json.dumps(document).encode())
    record = load(tmp_path)
    assert record.title == hostile
    page = html.render(record, evaluate(record, Policy(), today=date(2025, 11, 3)))
    terminal, markdown_page, xml, *_ = shown(record)
    assert "<img" not in page + re.sub(r"`[^`]*`", "", markdown_page)
    assert "1337" not in page + markdown_page + xml and "root:" not in page
    assert "\x1b" not in terminal + xml
    assert not re.search(r"^::", terminal + markdown_page, re.MULTILINE)
    assert {case.get("name") for case in ElementTree.fromstring(xml).iter("testcase")}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[" * 100_000, "64 levels"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "64 levels"),
        (b"9" * 5_000, "5000 digits"),
        (b"-9223372036854775809", "64 bits"),
        (b'"\\ud800"', "surrogates"),
        (b'{"\\udfff": 1}', "surrogates"),
        (b"\xff", "decode"),
        (b"", "Expecting value"),
    ],
)
def test_json_is_bounded(data, words):
    with pytest.raises(ValueError, match=words):
        json_of(data)


def test_json_within_the_bounds_is_what_it_says():
    inside = {"a": [1, -(2**63), 2**63 - 1, 1.5, None, True, "\N{SNOWMAN}\N{GRINNING FACE}"]}
    assert json_of(json.dumps(inside).encode()) == inside
    assert json_of(b"[" * 64 + b"]" * 64) is not None


TOML = ("a = " + "[" * 100_000, "a = " + "9" * 5_000, f"a = {2**63}", "a" + ".a" * 3_000 + " = 1")


@pytest.mark.parametrize("document", TOML)
def test_toml_is_bounded_wherever_it_is_read(tmp_path, document):
    with pytest.raises(ValueError):
        toml_of(document)
    (tmp_path / "file.toml").write_text(f"[gate]\n{document}\n")
    for reading in (plans.read, load_policy):
        with pytest.raises(UsageError, match="to be TOML, found"):
            reading(tmp_path / "file.toml")
    assert plans.read(None, [f"title={document}"])[0].title == document


def test_what_is_no_file_and_what_is_too_large_is_not_read(tmp_path):
    (tmp_path / "large").write_bytes(b"12345")
    assert contents(tmp_path / "large", 5) == b"12345"
    with pytest.raises(ValueError, match="more than 4 bytes"):
        contents(tmp_path / "large", 4)
    with pytest.raises(FileNotFoundError):
        contents(tmp_path / "nothing")
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(ValueError, match="no file"):
            contents(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes of POSIX")
def test_a_record_that_is_a_pipe_nobody_writes_to_hangs_nothing(tmp_path):
    os.mkfifo(tmp_path / RECORD_NAME)
    with pytest.raises(UsageError, match="no file"):
        load(tmp_path)


def bomb(size):
    """An npz of zeros, a thousandth of what it unpacks to."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("score.npy", "w") as file,
    ):
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": (size // 8,)}
        )
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def npz_bomb():
    return bomb(300 << 20)


def held(action):
    """Bytes that Python and numpy held at most while it ran."""
    tracemalloc.start()
    try:
        action()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def test_a_small_archive_that_would_fill_the_memory_is_not_unpacked(tmp_path, npz_bomb):
    assert len(npz_bomb) < 1 << 21
    (tmp_path / "scores.npz").write_bytes(npz_bomb)

    def refused():
        with pytest.raises(UsageError, match="that unpack to 314,572"):
            read(tmp_path / "scores.npz")

    assert held(refused) < 1 << 24


def test_a_trial_that_would_fill_the_memory_is_set_aside(tmp_path, npz_bomb):
    store = Store(tmp_path)
    store.path("key").parent.mkdir()
    store.path("key").write_bytes(npz_bomb)
    assert held(lambda: store.load("key")) < 1 << 24
    assert store.path("key").with_suffix(".damaged").exists()


def test_a_shared_text_in_parquet_is_not_unpacked_for_every_row(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = 200_000
    label = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * 100_000]))
    columns = {"record_id": label, "is_member": np.arange(rows) % 2, "score": np.zeros(rows)}
    # Without Arrow's own schema a reader sees plain text: 20 GB of it.
    parquet.write_table(pa.table(columns), tmp_path / "scores.parquet", store_schema=False)
    assert (tmp_path / "scores.parquet").stat().st_size < 100_000
    before = pa.total_allocated_bytes()
    with pytest.raises(UsageError, match="short texts, found one of 100,000 characters"):
        read(tmp_path / "scores.parquet")
    assert pa.default_memory_pool().max_memory() - before < 1 << 30


def test_the_line_of_an_error_is_one_line_that_a_terminal_does_not_obey(tmp_path, monkeypatch, capsys):
    (tmp_path / "scores.csv").write_text(f"a\x1b[2Jb,{'c' * 9_000}\n1,2\n")
    monkeypatch.setattr("sys.argv", ["dpaudit", "bound", str(tmp_path / "scores.csv")])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr().err
    assert ended.value.code == 2
    assert shown.count("\n") == 1 and "\x1b" not in shown and len(shown) < 2_100
    assert one_line("a\n b\t\x07\ud800") == "a b \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("command", ["show", "report", "gate"])
def test_no_code_that_a_record_names_is_imported(tmp_path, monkeypatch, command):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')\n")
    plan = {
        "gate": {"auc": 0.7},
        "targets": [{"name": "a", "train": "evil:fit"}],
        "data": {"source": "evil:load"},
    }
    toml = '[gate]\nauc = 0.9\n[[targets]]\nname = "a"\ntrain = "evil:fit"\n'
    document = {**copy.deepcopy(BASE), "plan": plan, "plan_toml": toml}
    (tmp_path / RECORD_NAME).write_bytes(json.dumps(document).encode())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.argv", ["dpaudit", command, "."])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, 1)
    assert "evil" not in sys.modules


TOKENS = (
    b"nan", b"inf", b'"', b"\x00", b"\xff", b",", b"\n", b"\r", b"9" * 400, b"\xef\xbb\xbf", b";", b"\x1b[2J",
    b"|O", b"<U999999999", b"(99999999999,)", b"\xff\xff\xff\x7f", b"score",
)  # fmt: skip


def real_files(folder):
    """A file of scores of each kind."""
    rng = np.random.default_rng(0)
    member = np.arange(60) % 2
    rows = {"record_id": np.arange(60), "is_member": member, "score": rng.normal(size=60) + member}
    lines = [",".join(rows), *(",".join(map(str, row)) for row in zip(*rows.values(), strict=True))]
    (folder / "a.csv").write_text("\n".join(lines))
    np.savez_compressed(folder / "b.npz", scores=rng.normal(size=(4, 9)), member=rng.random((4, 9)) < 0.5)
    np.savez(folder / "c.npz", **rows)
    np.save(folder / "d.npy", rng.normal(size=9))
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        return
    parquet.write_table(pa.table(rows), folder / "e.parquet")


def mutated(data, rng):
    """Bits flipped, tokens put in, stretches cut out."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at:at] = rng.choice(TOKENS)
        elif kind == 2:
            data[at : at + rng.choice((1, 4, 30))] = rng.choice(TOKENS)
        else:
            del data[at : at + rng.choice((1, 8, 2_000))]
    return bytes(data)


@pytest.mark.filterwarnings("ignore:Reading")
def test_mutated_files_of_scores_are_read_or_refused_in_one_line(tmp_path):
    real_files(tmp_path)
    files, rng, ends = sorted(tmp_path.iterdir()), random.Random(7), {"read": 0, "refused": 0}
    for number in range(400):
        original = files[number % len(files)]
        path = tmp_path / f"mutated{original.suffix}"
        path.write_bytes(mutated(original.read_bytes(), rng))
        start = time.monotonic()
        try:
            read(path)
            ends["read"] += 1
        except DpauditError as error:
            assert "\n" not in one_line(str(error))
            ends["refused"] += 1
        assert time.monotonic() - start < 20, number
    assert min(ends.values()) > 5, ends
