"""docs/membership.md: its table lists the attacks that there are, and its plan runs."""

import re
import tomllib
from pathlib import Path

import pytest

from dpaudit import registry
from dpaudit.asking import Game, Guessing
from dpaudit.events import RunFinished
from dpaudit.plan import parse
from dpaudit.protocols import ModelAttack
from dpaudit.record import AuditRecord, load
from dpaudit.run import Job, run

PAGE = (Path(__file__).parents[2] / "docs/membership.md").read_text()


def test_the_table_lists_every_attack_on_final_models():
    listed = set(re.findall(r"^\| `([\w-]+)` \|", PAGE, flags=re.MULTILINE))
    built = {name: registry.build("attack", name, registry.ATTACKS, {}) for name in registry.ATTACKS}
    of_members = {name: attack for name, attack in built.items() if not isinstance(attack, Guessing)}
    assert listed == {name for name, attack in of_members.items() if isinstance(attack, (ModelAttack, Game))}


def finished(document: dict, folder: Path) -> AuditRecord:
    quick = {"recipe": {"epochs": 2, "hidden": [8]}, "compute": {"engine": "inline", "device": "cpu"}}
    job = Job(
        plan=parse({**document, **quick}), plan_text="", plan_folder=folder, out=folder / "out", command="t"
    )
    *_, last = run(job)
    assert isinstance(last, RunFinished)
    return load(folder / "out")


@pytest.mark.slow
def test_a_run_asks_its_models_what_its_attacks_want_to_know(tmp_path):
    wanting = {
        "augmentation-vote": {"queries": 3},
        "boundary-distance": {"directions": 1},
        "gradient-norm": {},
    }
    found = finished({"targets": [{"name": "plain", "train": "plain"}], "attacks": wanting}, tmp_path)
    assert {row.attack: row.status for row in found.coverage if row.attack in wanting} == dict.fromkeys(
        wanting, "RUN"
    )


def plans() -> list[dict]:
    return [
        tomllib.loads(b) for b in re.findall(r"^```toml\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    ]


@pytest.mark.slow
def test_the_game_is_played(tmp_path):
    document = next(plan for plan in plans() if "worst-case" in plan["attacks"])
    document["attacks"]["worst-case"]["models"] = 8
    (target,) = finished(document, tmp_path).targets
    assert [(e.source, e.n_observations) for e in target.estimates] == [("worst-case", 8)]


@pytest.mark.slow
def test_the_plan_runs_and_every_attack_of_it_says_something(tmp_path):
    document = next(plan for plan in plans() if "gradient-norm" in plan["attacks"])
    made, record = parse(document), finished(document, tmp_path)
    asked = [row for row in record.coverage if row.attack in made.attacks]
    assert len(asked) == 12
    assert {row.status for row in asked} == {"RUN"}
    for target in record.targets:
        assert {rate.source for rate in target.rates} == set(made.attacks)
        assert {estimate.source for estimate in target.estimates} >= {"bavaria", "rmia", "lira"}
        assert [row.state for row in target.checklist if "told apart" in row.name] == ["checked"]
        assert {rate.slice for rate in target.rates} >= {"all", "canaries", "class 3", "outlier decile"}
