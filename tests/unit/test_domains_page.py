"""docs/domains.md: its code runs, its forms are read, and its tables list every word there is."""

import inspect
import re
from pathlib import Path

import pytest

from dpaudit import strategies
from dpaudit.domain_forms import CONTAINERS, ELEMENTS
from dpaudit.domains import parse

PAGE = (Path(__file__).parents[2] / "docs/domains.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
WORDS = re.findall(r"^\| `(\w+)\((.*?)\)` \|", PAGE, flags=re.MULTILINE)
DATA_SETS, ELEMENT_ROWS = PAGE.split("## Data sets")[1].split("## Elements")
FORMS = re.findall(r"^\| `(\w+\(.*?\))` \|", DATA_SETS, flags=re.MULTILINE)
PARTS = re.findall(r"^\| `(\w+\(.*?\))` \|", ELEMENT_ROWS.partition("## ")[0], flags=re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_runs_as_it_stands(block):
    exec(block, {"__name__": "page"})


def test_no_block_is_of_a_kind_that_is_not_run():
    assert set(re.findall(r"^```(\w*)$", PAGE, flags=re.MULTILINE)) == {"python", ""}
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize("form", [form for form in FORMS if not form.startswith("frame")])
def test_a_form_of_the_table_is_read(form):
    assert parse(form).patterns


@pytest.mark.parametrize("part", PARTS)
def test_an_element_of_the_table_is_read(part):
    assert parse(f"list({part})").patterns


def test_the_tables_list_every_word_and_no_other():
    assert {form.partition("(")[0] for form in FORMS} == set(CONTAINERS)
    assert {part.partition("(")[0] for part in PARTS} == set(ELEMENTS)


def test_the_strategies_named_exist_with_these_arguments():
    named = re.findall(r"`(neighbouring\w*)\(([\w, .]*)\)`", PAGE)
    assert {name for name, _ in named} == {n for n in strategies.__all__ if n.startswith("neighbouring")}
    for name, arguments in named:
        right = set(inspect.signature(getattr(strategies, name)).parameters)
        assert {each for each in arguments.split(", ") if each != "..."} <= right
