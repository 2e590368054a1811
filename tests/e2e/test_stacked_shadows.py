"""Shadow models of an audit are trained as stacks, and everything else about the audit stays as it was."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpaudit.events import RunStarted, TrialFinished, TrialLost
from dpaudit.plan import parse, read
from dpaudit.record import load
from dpaudit.run import Job, run
from dpaudit.store import Store
from dpaudit.targets.ensemble import shadows

FAST = (
    "recipe.epochs=2",
    "attacks.lira.shadows=3",
    "data.canaries=40",
    'compute.engine="inline"',
    "attacks.step-canary.references=100",
    "attacks.step-canary.replays=1",
    "attacks.gradient-inversion.iterations=5",
)
SHADOWS = 3


@pytest.fixture
def stacks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Models in each stack that is trained."""
    sizes: list[int] = []
    real = shadows.train_ensemble

    def counted(recipe: Any, x: Any, y: Any, member: Any, *arguments: Any) -> Any:
        sizes.append(len(member))
        return real(recipe, x, y, member, *arguments)

    monkeypatch.setattr(shadows, "train_ensemble", counted)
    return sizes


def audit(folder: Path, plan: Any) -> tuple[list[Any], Path]:
    out = folder / "audit"
    job = Job(plan=plan, plan_text="", plan_folder=folder, out=out, command="")
    return list(run(job)), out


def plain_plan() -> Any:
    """The default plan with models alone that nobody claims anything of, which is judged at once."""
    plan, _ = read(None, FAST)
    cheap = {name: attack for name, attack in plan.attacks.items() if name in ("lira", "loss-threshold")}
    (plain,) = (target for target in plan.targets if target.name == "plain")
    audited = plain.model_copy(update={"role": "audited"})
    return plan.model_copy(update={"attacks": cheap, "targets": (audited,)})


@pytest.mark.slow
def test_shadows_of_the_default_plan_are_stacked_but_for_the_fault(tmp_path: Path, stacks: list[int]) -> None:
    events, out = audit(tmp_path, read(None, FAST)[0])
    assert stacks == [SHADOWS, SHADOWS]
    started = next(event for event in events if isinstance(event, RunStarted))
    finished = Counter(event.target for event in events if isinstance(event, TrialFinished))
    assert started.trials == 3 * (SHADOWS + 1)
    assert finished == dict.fromkeys(("private", "plain", "broken"), SHADOWS + 1)
    assert not [event for event in events if isinstance(event, TrialLost)]
    trials = load(out).trials
    assert [trial.status for trial in trials] == ["finished"] * 12
    assert all(trial.seconds > 0 for trial in trials)
    facts = {trial.key: Store(out).load(trial.key) for trial in trials}
    assert len({found["weights_sha256"] for found in facts.values()}) == 12
    private = [facts[trial.key] for trial in trials if trial.target == "private"]
    observed, shadow = private[0]["ledger"], private[1]["ledger"]
    assert shadow == observed and private[1]["claim"] is None
    assert private[0]["n_parameters"] == private[1]["n_parameters"]
    # Better than one of ten classes. The audited model is none to compare with: canaries rode on its steps.
    assert min(found["test_accuracy"] for found in private[1:]) > 0.2


def test_what_is_on_disk_is_not_trained_again_and_what_is_lost_comes_back_equal(
    tmp_path: Path, stacks: list[int]
) -> None:
    _, out = audit(tmp_path, plain_plan())
    trials = load(out).trials
    gone = next(trial for trial in trials if trial.target == "plain" and trial.kind == "shadow")
    before = Store(out).load(gone.key)
    assert before is not None
    Store(out).path(gone.key).unlink()
    stacks.clear()
    events, _ = audit(tmp_path, plain_plan())
    assert stacks == [1]
    assert [e.key for e in events if isinstance(e, TrialFinished) and not e.cached] == [gone.key]
    after = Store(out).load(gone.key)
    assert after is not None and np.allclose(before["scores"], after["scores"], atol=1e-3)


OWN = """
from torch import nn
from dpaudit.targets.recipe import Recipe

def network():
    return nn.Sequential(nn.Linear(64, 8), nn.Tanh(), {layer}nn.Linear(8, 10))

recipe = Recipe(
    model=network, optimizer="{optimizer}", learning_rate={rate}, epochs=2, noise_multiplier={noise}
)
"""


def own_plan(train: str) -> Any:
    return parse(
        {
            "data": {"canaries": 20},
            "compute": {"engine": "inline"},
            "targets": [{"name": "own", "train": train}],
            "attacks": {"lira": {"shadows": SHADOWS}},
        }
    )


def own_module(folder: Path, name: str, **settings: Any) -> str:
    settings = {"layer": "", "rate": 0.01, "noise": 1.0, "optimizer": "adam", **settings}
    (folder / f"{name}.py").write_text(OWN.format(**settings))
    sys.modules.pop(name, None)
    return f"{name}:recipe"


@pytest.mark.slow
def test_a_recipe_of_ones_own_is_audited_by_the_real_loop_and_its_shadows_are_stacked(
    tmp_path: Path, stacks: list[int]
) -> None:
    _, out = audit(tmp_path, own_plan(own_module(tmp_path, "own_recipe")))
    record = load(out)
    assert stacks == [SHADOWS] and len(record.trials) == SHADOWS + 1
    (target,) = record.targets
    assert target.claim is not None and target.claim.source.startswith("opacus")


def test_another_recipe_in_the_same_file_makes_other_trials(tmp_path: Path, stacks: list[int]) -> None:
    _, out = audit(tmp_path, own_plan(own_module(tmp_path, "own_plain", noise=None)))
    keys = {trial.key for trial in load(out).trials}
    own_plain = own_module(tmp_path, "own_plain", noise=None, rate=0.02)
    audit(tmp_path, own_plan(own_plain))
    assert stacks == [SHADOWS, SHADOWS]
    assert not keys & {trial.key for trial in load(out).trials}


def test_a_recipe_that_cannot_be_stacked_has_its_shadows_all_the_same(
    tmp_path: Path, stacks: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    train = own_module(tmp_path, "own_batchnorm", layer="nn.BatchNorm1d(8), ", noise=None)
    _, out = audit(tmp_path, own_plan(train))
    assert [trial.status for trial in load(out).trials] == ["finished"] * (SHADOWS + 1)
    assert "BatchNorm1d mixes the records" in caplog.text


def test_models_that_diverge_are_lost_and_the_others_of_their_stack_are_not(tmp_path: Path) -> None:
    train = own_module(tmp_path, "own_divergent", noise=None, rate=1e38, optimizer="sgd")
    events, out = audit(tmp_path, own_plan(train))
    lost = {event.key: event.error for event in events if isinstance(event, TrialLost)}
    shadows = [trial for trial in load(out).trials if trial.kind == "shadow"]
    assert {trial.key for trial in shadows if trial.status == "lost"} == lost.keys() & {
        t.key for t in shadows
    }
    gone = [trial for trial in shadows if trial.key in lost]
    assert gone and all(f"{len(gone)} of {SHADOWS} shadow models" in trial.error for trial in gone)
    for trial in shadows:
        facts = Store(out).load(trial.key)
        assert (facts is None) == (trial.key in lost)
        assert facts is None or np.isfinite(facts["scores"]).all()
