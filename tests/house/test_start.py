"""What only reads a record or prints help starts without the heavy libraries."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dpaudit.record import RECORD_NAME, dump
from tests.sample_record import sample_record

ROOT = Path(__file__).parents[2]
TRAINING = {"torch", "opacus", "sklearn"}
HEAVY = TRAINING | {"scipy", "matplotlib", "dp_accounting"}
COMMAND = """
import sys
from dpaudit.cli import main
sys.argv = ["dpaudit", {arguments}]
try:
    main()
finally:
    print("LOADED", *sys.modules)
"""


def loaded(code: str, folder: Path) -> set[str]:
    """Top-level modules that a fresh interpreter has after `code`, whatever its exit code."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return set(done.stdout.rpartition("LOADED")[2].split())


@pytest.mark.parametrize(
    "module", ["dpaudit", "dpaudit.gate", "dpaudit.cli", "dpaudit.record", "dpaudit.reports.text"]
)
def test_importing_what_reads_a_record_loads_nothing_heavy(module, tmp_path):
    found = loaded(f"import sys, {module}; print('LOADED', *sys.modules)", tmp_path)
    assert module in found
    assert found & HEAVY == set()


COMMANDS = [
    ("--help",),
    ("--version",),
    ("run", "--help"),
    ("gate", "--help"),
    ("init", "plan.toml"),
    ("schema",),
    ("gate", "."),
    ("gate", ".", "--junit", "junit.xml", "--json"),
    ("gate", ".", "--sarif", "gate.sarif", "--baseline", "b.json", "--ratchet"),
    ("show", "."),
    ("diff", ".", "."),
    ("export", "annex", "."),
    ("verify", ".", "--trust", "none.pub"),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_command_that_trains_nothing_loads_nothing_heavy(arguments, tmp_path):
    (tmp_path / RECORD_NAME).write_bytes(dump(sample_record()))
    found = loaded(COMMAND.format(arguments=", ".join(map(repr, arguments))), tmp_path)
    assert "dpaudit.cli" in found
    assert found & HEAVY == set()


def test_writing_the_report_needs_matplotlib_and_no_training_library(tmp_path):
    (tmp_path / RECORD_NAME).write_bytes(dump(sample_record()))
    found = loaded(COMMAND.format(arguments="'report', '.'"), tmp_path)
    assert (tmp_path / "report.html").stat().st_size > 0
    assert "matplotlib" in found
    assert found & TRAINING == set()
