"""Modules and functions that one can read at a sitting, nothing left to do, and no way to unpickle."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE_LINES = 350
FUNCTION_LINES = 60
FILES = sorted(
    path for room in ("dpaudit", "attacks", "targets", "reports") for path in (ROOT / room).rglob("*.py")
)
PICKLES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
SAFE = {("torch", "load"): ("weights_only", True), ("np", "load"): ("allow_pickle", False)}
SAFE[("numpy", "load")] = SAFE[("np", "load")]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


every_file = pytest.mark.parametrize("path", FILES, ids=named)


def test_there_are_modules_to_look_at():
    assert len(FILES) > 40


@every_file
def test_no_module_is_longer_than_can_be_read(path):
    assert len(path.read_text().splitlines()) <= MODULE_LINES


@every_file
def test_no_function_is_longer_than_a_screen(path):
    functions = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef))
    # The signature of a command is the table of its options: of those the body alone is counted.
    command = path.stem.endswith("cli")
    lengths = {f.name: f.end_lineno - (f.body[0] if command else f).lineno + 1 for f in functions}
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES} == {}


def test_the_map_of_targets_names_each_module_once():
    text = ast.get_docstring(ast.parse((ROOT / "targets" / "__init__.py").read_text())) or ""
    named_there = re.findall(r"`(\w+)`", text)
    every = {path.stem for path in (ROOT / "targets").glob("[!_]*") if path.suffix == ".py" or path.is_dir()}
    assert sorted(named_there) == sorted(every)


@every_file
def test_nothing_is_left_to_do(path):
    assert re.findall(r"\b(?:TODO|FIXME|XXX|HACK)\b", path.read_text()) == []


def offences(source: str) -> list[str]:
    """Imports of a pickling module, and loads that would unpickle."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.partition(".")[0] in PICKLES]
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").partition(".")[0]
            found += [node.module] if module in PICKLES else []
            found += [f"{module}.load" for alias in node.names if (module, alias.name) in SAFE]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            if (owner, node.func.attr) in SAFE:
                name, value = SAFE[(owner, node.func.attr)]
                given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
                found += [] if given.get(name) is value else [f"{owner}.load without {name}={value}"]
    return found


@every_file
def test_nothing_is_ever_unpickled(path):
    assert offences(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, cloudpickle",
        "def f():\n    from joblib import load",
        "import torch\ntorch.load(f)",
        "import torch\ntorch.load(f, weights_only=False)",
        "import torch\nflag = True\ntorch.load(f, weights_only=flag)",
        "import numpy as np\nnp.load(f)",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "from numpy import load",
    ],
)
def test_the_search_for_unpickling_finds_it(source):
    assert offences(source) != []


@pytest.mark.parametrize(
    "source", ["torch.load(f, weights_only=True)", "np.load(f, allow_pickle=False)", "json.load(f)"]
)
def test_the_search_for_unpickling_leaves_safe_loads_alone(source):
    assert offences(source) == []
