"""Two runs under the same releases, made by hand: equal ones pass, each kind of difference is named."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from opacus import PrivacyEngine
from torch.utils.data import DataLoader, TensorDataset

from dpaudit.targets.observe import observe
from dpaudit.targets.post_processing import compare
from dpaudit.targets.script import _NOBODY
from dpaudit.targets.transcript import Moment, Transcript

RNG = np.random.default_rng(0)
RELEASED = RNG.standard_normal((3, 8)).astype(np.float32)
ROWS = RNG.standard_normal((2, 4)).astype(np.float32)


def moment(i, **changes):
    records = np.array([i, 9], dtype=np.int64)
    same = Moment(
        settings=(1.0, 1.0, 0.1, 0.5),
        weights=f"w{i}",
        inputs="x",
        records=records,
        rows=ROWS,
        released=RELEASED[i],
        clip=1.0,
        precision=1e-7,
        random="r",
    )
    return replace(same, **changes)


def run(changes=None, items=None, result="same", steps=3):
    made = Transcript(steps=[moment(i, **(changes or {}).get(i, {})) for i in range(steps)])
    made.items = {number: "" for number in (0, 1, 2, 9)} | (items or {})
    made.result = {"weight": result}
    return made


def shifted(by):
    return RELEASED[0] + np.float32(by) / np.float32(np.sqrt(8))


def checks(other, **more):
    return [finding.check for finding in compare(run(), other, "another", **more)]


def test_equal_runs_pass():
    assert checks(run()) == []


def test_a_record_may_change_its_own_batch_by_two_norms_and_its_own_gradient():
    rows = ROWS.copy()
    rows[0] += 5
    changed = {0: {"inputs": "y", "rows": rows, "released": shifted(1.9)}}
    assert checks(run(changed, {0: "another"})) == []


@pytest.mark.parametrize(
    ("other", "check"),
    [
        (run({1: {"weights": "other"}}), "weights come from releases alone"),
        (run({2: {"settings": (1.0, 1.0, 0.2, 0.5)}}), "control flow"),
        (run(steps=2), "control flow"),
        (run({1: {"inputs": "y"}}, {0: "another"}), "preprocessing"),
        (run({}, {0: "other", 1: "other", 2: "other"}), "preprocessing"),
        (run({}, {0: "other", 1: "other"}), "unit of privacy"),
        (run({0: {"rows": ROWS * 1.1}}, {0: "another"}), "one record, one gradient"),
        (run({0: {"released": shifted(2.1)}}, {0: "another"}), "sensitivity"),
        (run({1: {"released": RELEASED[1] + 0.1}}, {0: "another"}), "sensitivity"),
        (run(result="other"), "what is released comes from releases alone"),
    ],
)
def test_each_difference_is_named(other, check):
    assert check in checks(other)


def test_a_record_that_is_left_out_moves_a_release_by_one_norm():
    rows, records = ROWS[1:], np.array([9], dtype=np.int64)
    within = run({0: {"released": shifted(0.99), "rows": rows, "records": records}})
    beyond = run({0: {"released": shifted(1.2), "rows": rows, "records": records}})
    assert checks(within, left_out=frozenset({0})) == []
    assert checks(beyond, left_out=frozenset({0})) == ["sensitivity"]


def test_a_clipping_norm_that_is_private_itself_may_differ():
    assert checks(run({0: {"settings": (1.0, 0.9, 0.1, 0.5), "released": shifted(9)}}, {0: "another"})) == []


def test_an_adaptive_norm_is_taken_down_as_the_step_begins_with_it():
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(60, 4), torch.randint(0, 2, (60,)))
    network, transcript, norms = torch.nn.Linear(4, 2), Transcript(), []
    with observe((), _NOBODY, np.random.default_rng(0), transcript=transcript):
        model, optimizer, loader = PrivacyEngine().make_private(
            module=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
            data_loader=DataLoader(data, batch_size=10),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            clipping="adaptive",
            target_unclipped_quantile=0.5,
            clipbound_learning_rate=0.5,
            max_clipbound=10.0,
            min_clipbound=0.1,
            unclipped_num_std=2.0,
        )
        for features, labels in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(features), labels).backward()
            norms.append(float(optimizer.max_grad_norm))
            optimizer.step()
    assert len(set(norms)) > 1
    assert [step.clip for step in transcript.steps] == norms
    assert [step.settings[1] for step in transcript.steps] == norms


def test_releases_under_different_noise_are_not_compared():
    assert checks(run({0: {"released": shifted(9), "random": "other"}}, {0: "another"})) == []
