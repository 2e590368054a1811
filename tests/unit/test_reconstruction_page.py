"""The page about games of reconstruction: its plan is accepted, and its prospects are told by size."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from dpaudit.asking import Guessing, LineUp
from dpaudit.measure import weights
from dpaudit.plan import parse
from dpaudit.plan_prospects import of_plan
from dpaudit.trial import attacks_of

PAGE = (Path(__file__).parents[2] / "docs" / "reconstruction_games.md").read_text()
(PLAN,) = (
    tomllib.loads(b) for b in re.findall(r"^```toml\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
)


def test_the_plan_is_accepted_and_its_tests_share_the_weight_of_their_attack() -> None:
    plan = parse(PLAN)
    attacks = attacks_of(plan)
    assert isinstance(attacks["line-up"], LineUp) and isinstance(attacks["attribute-inference"], Guessing)
    shares = weights(plan)
    for name in attacks:
        own = [share for test, share in shares.items() if test.partition(",")[0] == name]
        assert abs(sum(own) - plan.attacks[name].weight) < 1e-12
    assert len(shares) == 3 + 2 + 2 + 1


def test_every_attack_of_the_page_is_in_its_table() -> None:
    listed = set(re.findall(r"^\| `([\w-]+)` \|", PAGE, flags=re.MULTILINE))
    assert listed == set(PLAN["attacks"])


def test_prospects_are_told_for_each_number_of_candidates(tmp_path: Path) -> None:
    document = {**PLAN, "attacks": {name: PLAN["attacks"][name] for name in ("prior-aware", "line-up")}}
    document["recipe"] = {"hidden": [8], "epochs": 3, "batch_size": 64}
    document["data"] = {"source": "breast-cancer", "canaries": 0}
    ((_, prospects),) = of_plan(parse(document), tmp_path).values()
    names = [f"prior-aware, 1 of {n}" for n in (10, 100, 1000)] + [f"line-up, 1 of {n}" for n in (10, 100)]
    assert sorted(each.name for each in prospects) == sorted(names)
    assert sum(each.alpha for each in prospects) <= 0.05 + 1e-12
    assert {each.observations for each in prospects if each.name.startswith("line-up")} == {"96 games"}
