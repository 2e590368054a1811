"""The page on shadow models: its code runs, its plan is accepted."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from dpaudit.plan import parse
from dpaudit.targets.ensemble.stack import _MIXING, _STATELESS
from dpaudit.targets.recipe import OPTIMIZERS, SCHEDULES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/shadows.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_every_block_is_of_a_kind_that_is_checked():
    assert set(re.findall(r"^```(\w*)$", PAGE, flags=re.MULTILINE)[::2]) == {"python", "toml"}


def test_the_code_runs_and_the_models_are_stacked(capsys):
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(block, names)
    assert capsys.readouterr().out == "stacked\n"
    assert names["scores"].shape == (16, 1797, 10)
    # Better than guessing one of ten classes: it is the recipe that was trained.
    assert (names["scores"].argmax(-1) == names["y"]).mean() > 0.4
    assert np.isfinite(names["scores"]).all() and not names["one"].training


def test_the_plan_is_accepted():
    (plan,) = blocks("toml")
    assert parse(tomllib.loads(plan)).shadows == 64


def test_what_the_page_names_is_known():
    for name in (*OPTIMIZERS, *SCHEDULES):
        assert name in PAGE.lower()
    known = {kind.__name__ for kind in _STATELESS}
    assert {"ReLU", "Tanh", "GELU", "Sigmoid", "SiLU", "ELU", "Flatten", "MaxPool2d", "AvgPool2d"} <= known
    assert any("BatchNorm" in kind.__name__ for kind in _MIXING)


def test_the_page_is_linked():
    assert "docs/shadows.md" in (ROOT / "README.md").read_text()
