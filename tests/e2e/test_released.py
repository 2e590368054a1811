"""A model that is trained already: rates without a draw, a bound with one, errors for what cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dpaudit.errors import UsageError
from dpaudit.plan import parse
from dpaudit.record import AuditRecord, load
from dpaudit.run import Job, run
from dpaudit.verdict import Status

MODULE = """
import numpy as np

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(600, 3)), RNG.integers(0, 2, 600)
KNOWN = {row.tobytes() for row in X[:300].astype(np.float32)}


def members():
    return X[:300], Y[:300]


def others():
    return X[300:], Y[300:]


def overlapping():
    return X[280:], Y[280:]


class Remembers:
    # A look-up table of its training set: the worst that a model can be.

    def __call__(self, x):
        import torch

        known = torch.tensor([row.tobytes() in KNOWN for row in x.numpy()])
        sure = torch.where(known, 9.0, 0.0)
        labels = torch.tensor([Y[(X.astype(np.float32) == row).all(1)].max() for row in x.numpy()])
        return torch.nn.functional.one_hot(labels, 2) * sure[:, None]


def load():
    return Remembers()


def fit(x, y, *, seed, device):
    return Remembers()


def nothing():
    return None
"""


def audited(
    folder: Path, *, train: str = "load", attacks: dict[str, object] | None = None, **data: object
) -> AuditRecord:
    module = f"released_{folder.name}"
    (folder / f"{module}.py").write_text(MODULE)
    names = {key: f"{module}:{value}" for key, value in data.items() if key != "drawn"}
    document = {
        "data": {"source": f"{module}:members", "non_members": f"{module}:others", **data, **names},
        "compute": {"engine": "inline", "device": "cpu"},
        "targets": [
            {
                "name": "released",
                "role": "audited",
                "train": f"{module}:{train}",
                "trained": train != "fit",
                "claim": {"epsilon": 0.5},
            }
        ],
        "attacks": attacks or {"loss-threshold": {}},
    }
    plan = parse(document, "a test")
    out = folder / "audit"
    list(run(Job(plan=plan, plan_text="", plan_folder=folder, out=out, command="")))
    record = load(out)
    shutil.rmtree(out)
    return record


def test_without_a_draw_the_rates_stand_and_nothing_is_bounded(tmp_path: Path) -> None:
    record = audited(tmp_path)
    (target,) = record.targets
    assert record.status == Status.INCONCLUSIVE and "data.drawn" in target.verdict.reason
    assert all(not estimate.guarantee for estimate in target.estimates)
    assert next(r.value for r in target.rates if r.name == "auc" and r.slice == "all") == 1.0
    assert any("Audit the training function" in row.detail for row in target.checklist)


def test_several_runs_of_which_the_first_was_not_drawn_give_no_guarantee(tmp_path: Path) -> None:
    attacks: dict[str, object] = {"loss-threshold": {"design": "runs"}, "lira": {"shadows": 4}}
    (target,) = audited(tmp_path, train="fit", attacks=attacks).targets
    assert {estimate.source for estimate in target.estimates} == {"loss-threshold", "lira"}
    assert not any(estimate.guarantee for estimate in target.estimates)


def test_with_a_draw_a_model_that_remembers_is_refuted(tmp_path: Path) -> None:
    record = audited(tmp_path, drawn=True)
    assert record.status == Status.REFUTED
    (estimate,) = record.targets[0].estimates
    assert estimate.guarantee and estimate.epsilon_lower is not None and estimate.epsilon_lower > 2


def test_records_on_both_sides_and_models_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no record on both sides, found 20"):
        audited(tmp_path, non_members="overlapping")
    lost = audited(tmp_path, train="nothing")
    assert lost.exit_code == 4 and "return a model" in lost.trials[0].error


@pytest.mark.parametrize(
    ("data", "words"),
    [({}, "non_members"), ({"non_members": "a:b", "canaries": 5}, "canaries"), ({"drawn": True}, "drawn")],
)
def test_impossible_plans_are_refused(data: dict[str, object], words: str) -> None:
    target = {"name": "t", "role": "audited", "train": "a:b", "trained": True}
    with pytest.raises(UsageError, match=words):
        parse({"data": data, "targets": [target], "attacks": {"lira": {}}}, "a test")
