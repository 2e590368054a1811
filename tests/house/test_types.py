"""The type checker, the linter and the formatter have nothing to say."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_mypy_strict_is_clean():
    run("mypy")


def test_ruff_is_clean():
    run("ruff", "check", ".")


def test_every_file_is_formatted():
    run("ruff", "format", "--check", ".")
