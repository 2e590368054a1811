"""Imports flow in one direction, every module has its place, and one alone names attacks and targets."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = "from importlinter.cli import lint_imports as lint; exit(lint(no_cache=True, no_logo=True))"
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
# Tools beside the flow: they may use any noun, and nothing in the flow may use them.
BESIDE = {"__main__", "testing", "pytest_plugin"}


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, "-c", LINT], cwd=root, env=environment, capture_output=True, text=True, check=False
    )


def test_the_contracts_hold():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path):
    for name in ("dpaudit", "attacks", "targets", "reports"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("dpaudit/gate.py", "import torch"),
        ("dpaudit/claim.py", "import dpaudit.record"),
        ("attacks/__init__.py", "import dpaudit.targets.models"),
        ("reports/view.py", "import dpaudit.run"),
    ],
)
def test_the_contracts_find_an_import_that_goes_the_wrong_way(copy, file, line):
    path = copy / file
    path.write_text(path.read_text() + f"\n\ndef planted() -> None:\n    {line}\n")
    done = lint(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout


def modules() -> set[str]:
    """First part below `dpaudit` of every module of the package."""
    return {p.stem for p in (ROOT / "dpaudit").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}


def test_every_module_has_its_place_in_the_layers():
    layers = next(contract["layers"] for contract in CONTRACTS if contract["type"] == "layers")
    placed = {
        name.strip().removeprefix("dpaudit.")
        for layer in layers
        for name in layer.replace("|", ":").split(":")
    }
    assert modules() - placed - BESIDE - {"__init__"} == set()


def strings(path: Path) -> set[str]:
    return {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value
    }


def test_only_the_registry_names_attacks_and_targets():
    naming = {
        path.name
        for path in (ROOT / "dpaudit").rglob("*.py")
        for text in strings(path)
        if text.startswith(("dpaudit.attacks.", "dpaudit.targets."))
    }
    assert naming == {"registry.py"}
