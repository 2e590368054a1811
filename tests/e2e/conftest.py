"""The command line without a process of its own, which would spend seconds on its imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dpaudit.cli import main

Typed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Type `dpaudit ...` in a folder; an exception that is no exit goes through and fails the test."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("COLUMNS", "200")

    def ended(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["dpaudit", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return subprocess.CompletedProcess(arguments, stop.value.code, *capsys.readouterr())

    return ended
