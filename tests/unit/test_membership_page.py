"""docs/membership.md: its table lists the attacks that there are, and its plan runs."""

import re
import tomllib
from pathlib import Path

import pytest

from dpaudit import registry
from dpaudit.events import RunFinished
from dpaudit.plan import parse
from dpaudit.protocols import ModelAttack
from dpaudit.record import load
from dpaudit.run import Job, run

PAGE = (Path(__file__).parents[2] / "docs/membership.md").read_text()


def test_the_table_lists_every_attack_on_final_models():
    listed = set(re.findall(r"^\| `([\w-]+)` \|", PAGE, flags=re.MULTILINE))
    built = {name: registry.build("attack", name, registry.ATTACKS, {}) for name in registry.ATTACKS}
    assert listed == {name for name, attack in built.items() if isinstance(attack, ModelAttack)}


@pytest.mark.slow
def test_the_plan_runs_and_every_attack_of_it_says_something(tmp_path):
    (quoted,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    document = tomllib.loads(quoted)
    quick = {"recipe": {"epochs": 2, "hidden": [8]}, "compute": {"engine": "inline", "device": "cpu"}}
    made = parse({**document, **quick})
    job = Job(plan=made, plan_text=quoted, plan_folder=tmp_path, out=tmp_path / "out", command="test")
    *_, last = run(job)
    assert isinstance(last, RunFinished)
    record = load(tmp_path / "out")
    asked = [row for row in record.coverage if row.attack in made.attacks]
    assert len(asked) == 12
    assert {row.status for row in asked} == {"RUN"}
    for target in record.targets:
        assert {rate.source for rate in target.rates} == set(made.attacks)
        assert {estimate.source for estimate in target.estimates} >= {"bavaria", "rmia", "lira"}
        assert [row.state for row in target.checklist if "told apart" in row.name] == ["checked"]
        assert {rate.slice for rate in target.rates} >= {"all", "canaries", "class 3", "outlier decile"}
