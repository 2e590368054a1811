"""Figures as files: every one of the page, the same bytes for the same record, readable without the page."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from dpaudit.cli import app
from dpaudit.record import RECORD_NAME, AuditRecord, dump
from dpaudit.reports import figure_files, figures
from tests.sample_record import quiet_record


def one_target() -> AuditRecord:
    """One target, and of its curves those of one figure: what is drawn costs time."""
    record = quiet_record()
    kept = tuple(curve for curve in record.targets[0].curves if curve.kind == "anytime")
    return replace(record, targets=(replace(record.targets[0], curves=kept, rates=()),))


@pytest.fixture(scope="module")
def written() -> dict[str, bytes]:
    return figure_files.render(one_target(), ("svg", "png", "pdf"))


def test_every_figure_of_the_page_is_written_in_every_format(written: dict[str, bytes]) -> None:
    record = one_target()
    drawn = figures.draw(record, record.targets[0], "target-1")
    assert len(drawn) >= 2
    for format_ in ("svg", "png", "pdf"):
        assert len([name for name in written if name.endswith(f".{format_}")]) == len(drawn)
    assert "private-anytime.svg" in written


def test_files_are_what_their_names_say_and_name_no_time(written: dict[str, bytes]) -> None:
    for name, content in written.items():
        if name.endswith(".svg"):
            assert ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
            assert b"<text" in content and b"dc:date" not in content
        elif name.endswith(".png"):
            assert content.startswith(b"\x89PNG")
            assert int.from_bytes(content[16:20], "big") == 420 * figure_files.DOTS_PER_INCH // 72
        else:
            assert content.startswith(b"%PDF")
            assert b"CreationDate" not in content and b"/Type3" not in content


def test_the_same_record_gives_the_same_bytes(written: dict[str, bytes]) -> None:
    assert figure_files.render(one_target(), ("svg", "png", "pdf")) == written


def test_targets_that_are_spelt_alike_keep_their_own_files() -> None:
    record = one_target()
    twins = tuple(replace(record.targets[0], name=name) for name in ("a/b", "a b", "../.."))
    names = set(figure_files.render(replace(record, targets=twins)))
    assert len(names) == 3 * len(figures.draw(record, record.targets[0], "t"))
    assert {"a-b-anytime.svg", "a-b-anytime-2.svg", "target-anytime.svg"} <= names
    assert all(re.fullmatch(r"[\w-]+\.svg", name) for name in names)


def test_the_command_writes_them_and_knows_its_formats(tmp_path: Path) -> None:
    (tmp_path / RECORD_NAME).write_bytes(dump(one_target()))
    folder = tmp_path / "figures"
    done = CliRunner().invoke(app, ["report", str(tmp_path), "--figures", str(folder), "--format", "svg,png"])
    assert done.exit_code == 0, done.output
    assert {path.suffix for path in folder.iterdir()} == {".svg", ".png"}
    wrong = CliRunner().invoke(app, ["report", str(tmp_path), "--format", "gif"])
    assert "Expected --format to be a known name, found 'gif'" in str(wrong.exception)
