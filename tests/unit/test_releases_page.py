"""The page on release mechanisms runs as it is written."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from dpaudit.attacks.event_search.features import FEATURES
from dpaudit.mechanism import GaussianDP, RenyiDP, SeveralDP
from dpaudit.mechanism_cli import load
from dpaudit.targets.releases.calls import call_of

PAGE = (Path(__file__).parents[2] / "docs/releases.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_example_runs_and_its_test_passes(capsys):
    (block,) = blocks("python")
    names: dict[str, object] = {}
    exec(block, names)
    assert capsys.readouterr().out.startswith("NOT REFUTED 0.")
    names["test_noisy_count"]()


@pytest.mark.parametrize("line", [line for block in blocks("text") for line in block.splitlines()])
def test_every_named_mechanism_is_one(line):
    name = line.split()[2]
    if "/" in name and find_spec(name.split("/")[0]) is None:
        pytest.skip(f"{name} needs the extra of its library")
    assert load(name).epsilon > 0


def test_the_claims_shown_in_python_are_claims():
    shown = re.findall(r"`guarantee=(\w+DP\(.*?\))` \|", PAGE)
    known = {"SeveralDP": SeveralDP, "GaussianDP": GaussianDP, "RenyiDP": RenyiDP, "mu": 0.5}
    assert len(shown) == 4
    for text in shown:
        assert eval(text, known).claimed > 0


def test_the_forms_shown_are_called():
    forms = re.findall(r"`f\((.*?)\)`", PAGE.split("## Functions")[1].split("## Claims")[0])
    assert len(forms) == 6
    for form in forms:
        made = eval(f"lambda {form.replace(': torch.Generator', '')}: 0")
        assert call_of(made).many == ("size" in form)


def test_the_families_of_events_that_the_page_names_exist():
    named = {"kind", "is nan", "equals", "number", "sum", "norm", "maximum", "half contrast", "difference"}
    named |= {"low bit", "negative zero", "records put out"}
    assert named <= set(FEATURES)
