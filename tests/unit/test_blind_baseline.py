"""A classifier that never sees the model: silent on random splits, loud on ordered ones."""

from dataclasses import replace

import numpy as np
import pytest

from dpaudit.blind_baseline import blind_baseline
from dpaudit.canary import Canaries
from dpaudit.membership import told_apart


def records(n: int, member, seed: int = 0) -> Canaries:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 6))
    return Canaries(
        x=x,
        y=rng.integers(0, 3, n),
        member=np.asarray(member, dtype=np.bool_),
        canary=np.zeros(n, dtype=np.bool_),
        test_x=x[:1],
        test_y=np.zeros(1, dtype=np.int64),
    )


def halves(n: int, seed: int = 0):
    member = np.zeros(n, dtype=np.bool_)
    member[np.random.default_rng([seed, 1]).permutation(n)[: n // 2]] = True
    return member


def test_records_that_were_collected_later_are_recognised():
    """A feature that drifts with time, and a split by time."""
    found = records(600, np.arange(600) < 300)
    drifted = replace(found, x=found.x + np.linspace(0.0, 2.0, 600)[:, None] * [1, 0, 0, 0, 0, 0])
    baseline = blind_baseline(drifted)
    assert baseline.p_value < 1e-6
    assert baseline.lower > 0.55
    row = told_apart(drifted)
    assert row.state == "contradicted"
    assert "told apart without the model" in row.detail


def test_a_split_that_only_trees_can_see_is_recognised_too():
    """Members have the smaller second feature in size: no line tells them."""
    found = records(800, np.zeros(800))
    member = np.abs(found.x[:, 1]) < np.median(np.abs(found.x[:, 1]))
    assert blind_baseline(replace(found, member=member)).p_value < 1e-6


def test_a_split_by_label_is_recognised():
    found = records(600, np.zeros(600))
    assert blind_baseline(replace(found, member=found.y == 0)).p_value < 1e-6


def test_a_random_split_is_not():
    row = told_apart(records(600, halves(600)))
    assert row.state == "checked"
    assert "300 held out" in row.detail


@pytest.mark.parametrize("member", [np.arange(70) < 35, np.zeros(200), np.arange(200) < 30])
def test_too_few_records_say_nothing(member):
    found = records(len(member), member)
    assert blind_baseline(found) is None
    assert told_apart(found) is None


def test_records_that_are_all_alike_are_no_alarm():
    same = replace(records(200, halves(200)), x=np.zeros((200, 2)), y=np.zeros(200, dtype=np.int64))
    assert blind_baseline(same).p_value > 0.01
