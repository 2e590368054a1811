"""Every command speaks JSON where it is asked to, and says nothing that only a terminal understands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from dpaudit.cli import app
from dpaudit.record import RECORD_NAME, dump
from tests.sample_record import quiet_record, sample_record

ROOT = Path(__file__).parents[2]
COMMANDS = get_command(app).commands


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, record in (("a", quiet_record()), ("b", sample_record())):
        (tmp_path / "audits" / name).mkdir(parents=True)
        (tmp_path / "audits" / name / RECORD_NAME).write_bytes(dump(record))
    return tmp_path


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"schema"}))
def test_every_command_but_the_schema_has_json(name):
    assert "--json" in {spelling for parameter in COMMANDS[name].params for spelling in parameter.opts}


QUICK = [
    ("init", "plan.toml"),
    ("schema",),
    ("gate", "audits/b"),
    ("show", "audits/b"),
    ("diff", "audits/a", "audits/b"),
    ("export", "annex", "audits/a"),
    ("trend", "audits"),
    ("report", "audits/a"),
    ("sign", "--new-key", "k"),
    ("mechanism", "--list"),
]


@pytest.mark.parametrize("command", QUICK, ids=" ".join)
def test_json_is_all_that_is_printed(command, folder):
    flag = () if command[0] == "schema" else ("--json",)
    done = CliRunner().invoke(app, [*command, *flag])
    assert done.exit_code in (0, 1), done.output
    json.loads(done.stdout)
    assert done.stderr == ""


@pytest.mark.parametrize(
    "command", [("gate", "audits/b"), ("show", "audits/b"), ("diff", "audits/a", "audits/b")]
)
def test_a_pipe_gets_no_colour_and_no_control_characters(command, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "dpaudit", *command], env=environment, capture_output=True, check=False
    )
    assert done.returncode in (0, 1) and done.stderr == b""
    assert done.stdout and not [byte for byte in done.stdout if byte < 32 and byte != 10]


def test_a_terminal_without_colour_gets_none(folder, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = CliRunner().invoke(app, ["show", "audits/b"]).output
    assert "\x1b[" in coloured and "31m" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    plain = CliRunner().invoke(app, ["show", "audits/b"]).output
    assert "31m" not in plain and "34m" not in plain
