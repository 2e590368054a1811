"""docs/extraction.md says what is there: the spaces of the formats, the plans, and a source of one's own."""

import re
import tomllib
from math import prod
from pathlib import Path

import numpy as np
import pytest

from dpaudit import plan
from dpaudit.secret import Format, Secrets
from dpaudit.targets.language.texts import FORMATS, decode

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/extraction.md").read_text()


def test_the_table_of_formats_has_every_format_with_its_space_and_a_secret_of_it():
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \| ([\dx^, ]+) \|$", PAGE, flags=re.MULTILINE)
    assert {name for name, _, _ in rows} == set(FORMATS)
    for name, shown, space in rows:
        factors = [term.strip().replace(",", "") for term in space.split("x")]
        size = prod(10 ** int(f.removeprefix("10^")) if f.startswith("10^") else int(f) for f in factors)
        assert size == FORMATS[name].size
        rest = shown
        for slot in FORMATS[name].slots:
            (first,) = [text for text in map(decode, slot) if rest.startswith(text)]
            rest = rest[len(first) :]
        assert rest == ""


def test_the_example_and_the_adapted_model_are_plans():
    example, _ = plan.read(ROOT / "examples/language.toml")
    assert example.data.canary_kind == "secret" and [t.role for t in example.targets] == [
        "audited",
        "control",
    ]
    (block,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    document = tomllib.loads(block)
    assert plan.parse({**document, "attacks": {"extraction": {}}}).targets[0].train == "language-model-lora"


def test_the_source_of_ones_own_is_made_as_shown():
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    room: dict = {}
    exec(block, room)
    assert isinstance(room["PIN"], Format) and room["PIN"].size == 10**6
    room["my_texts"] = lambda: (np.zeros((4, 9)), np.arange(4) % 2, np.array([1, 2, -1, 3]))
    *_, secrets = room["load"]()
    assert isinstance(secrets, Secrets) and secrets.kind.tolist() == [0, 0, -1, 0]


@pytest.mark.parametrize("link", re.findall(r"`((?:docs|examples)/[\w./-]+)`", PAGE))
def test_every_file_that_the_page_names_is_there(link):
    assert (ROOT / link).exists()
