"""The page on scale: its blocks print what it shows, its formula holds, and its options are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from typer.main import get_command

from dpaudit.cli import app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/scale.md").read_text()
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_block_prints_what_stands_below_it(capsys):
    blocks, names, shown = FENCE.findall(PAGE), dict[str, Any](), 0
    for (kind, body), (_, below) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if kind == "python":
            exec(body, names)
            assert capsys.readouterr().out == below
            shown += 1
    assert shown == 2
    assert {kind for kind, _ in blocks} == {"console", "python", "text"}


def test_a_trial_that_begins_again_takes_as_long_as_the_page_says():
    rng, rate, length = np.random.default_rng(0), 0.4, 2.0
    times = []
    for _ in range(20_000):
        spent = 0.0
        while (gap := rng.exponential(1 / rate)) < length:
            spent += gap
        times.append(spent + length)
    assert abs(np.mean(times) - np.expm1(rate * length) / rate) < 4 * np.std(times) / np.sqrt(len(times))


def test_the_command_of_the_page_has_these_options():
    (command,) = (body for kind, body in FENCE.findall(PAGE) if kind == "console")
    words = shlex.split(command.removeprefix("$ "))
    known = {name for option in get_command(app).commands["plan"].params for name in option.opts}
    assert {word for word in words if word.startswith("--")} <= known
    assert {word for word in re.findall(r"`(--[a-z-]+)", PAGE)} <= known


def test_the_page_is_linked():
    assert "docs/scale.md" in (ROOT / "README.md").read_text()
    assert "scale.md" in (ROOT / "mkdocs.yml").read_text()
