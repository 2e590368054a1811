"""Which membership attack is strongest is known where the log-odds are Gaussian: theory is the judge."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr

from dpaudit.attacks.membership.bavaria import Bavaria
from dpaudit.attacks.membership.calibration import AttackR, Difficulty
from dpaudit.attacks.membership.lira import Lira, LiraOffline
from dpaudit.attacks.membership.loss_threshold import LossThreshold
from dpaudit.attacks.membership.rmia import Rmia
from dpaudit.protocols import ModelAttack, View
from dpaudit.stats import roc
from tests.views import World, world

MANY = 64


def area(attack: ModelAttack, targets: list[View], shadows: list[View]) -> float:
    """Mean AUC over the targets, over the records that the attack can score."""
    scores = attack.scores(targets, shadows)
    found = []
    for row, view in zip(scores, targets, strict=True):
        known = np.isfinite(row)
        found.append(roc.auc(row[known], view.canaries.member[known], alpha=0.05)[0])
    return float(np.mean(found))


@pytest.fixture(scope="module")
def gaussian() -> tuple[World, list[View], list[View]]:
    made = world(n=2000, k=300, shift=1.0)
    return made, made.views(4, seed=1, copies=4), made.views(MANY, seed=2, copies=4)


def test_with_many_shadows_the_likelihood_ratios_reach_the_optimum(gaussian):
    """Equal variances and a shift of 1: the ratio is linear, and its AUC is Phi(1 / sqrt 2)."""
    _, targets, shadows = gaussian
    optimum = ndtr(1 / np.sqrt(2))
    for attack in (Lira(), Bavaria(), Difficulty()):
        assert area(attack, targets, shadows) == pytest.approx(optimum, abs=0.02), attack.name
    assert area(LossThreshold(), targets, shadows) < optimum - 0.08


def test_the_ratio_of_unequal_variances_needs_both_sides():
    unequal = world(n=2000, k=300, shift=1.0, unequal=0.8)
    targets, shadows = unequal.views(4, seed=1), unequal.views(MANY, seed=2)
    # The ratio's AUC where the spread of record i is s_i: that of the mixture over all s_i, by simulation.
    rng = np.random.default_rng(0)
    s = unequal.spread
    draws = rng.standard_normal((400, len(s)))
    inside, outside = (1 / s + draws) / s - 0.5 / s**2, draws[::-1] / s - 0.5 / s**2
    optimum = roc.auc(
        np.concatenate([inside.ravel()[::40], outside.ravel()[::40]]),
        np.repeat([True, False], inside.size // 40),
        alpha=0.05,
    )[0]
    own = area(Lira(), targets, shadows)
    assert own == pytest.approx(optimum, abs=0.03)
    assert area(Bavaria(), targets, shadows) == pytest.approx(optimum, abs=0.03)
    assert own > area(Lira(fixed_variance_below=1000), targets, shadows) + 0.01
    assert own > area(Difficulty(), targets, shadows) + 0.01


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_with_few_shadows_bavaria_is_never_behind_lira(gaussian, count):
    _, targets, shadows = gaussian
    bavaria = area(Bavaria(), targets, shadows[:count])
    assert bavaria > area(LossThreshold(), targets, shadows) - 0.01
    if count > 1:
        assert bavaria > area(Lira(), targets, shadows[:count]) - 0.005


@pytest.mark.parametrize("count", [1, 2, 4])
def test_with_few_references_rmia_beats_attack_r(gaussian, count):
    _, targets, shadows = gaussian
    assert area(Rmia(), targets, shadows[:count]) > area(AttackR(), targets, shadows[:count]) + 0.01


def test_queries_that_add_noise_of_their_own_are_averaged_out():
    """Five answers about a record whose model-to-model spread they share say more than one alone, jointly."""
    made = replace(world(n=2000, k=50, shift=1.0), blur=1.0)
    targets, shadows = made.views(4, seed=1, copies=4), made.views(MANY, seed=2, copies=4)
    # One answer has a variance of 2, the mean of five one of 1.2. Online, the means of each answer are
    # estimated apart, in and out, which costs a part of that.
    one, five = ndtr(1 / np.sqrt(4)), ndtr(1 / np.sqrt(2.4))
    assert area(Lira(), targets, shadows) == pytest.approx(one, abs=0.02)
    assert one + 0.01 < area(Lira(queries=5), targets, shadows) < five
    assert area(LiraOffline(), targets, shadows) == pytest.approx(one, abs=0.02)
    assert area(LiraOffline(queries=5), targets, shadows) == pytest.approx(five, abs=0.02)


def test_without_a_leak_nothing_is_found():
    silent = world(n=2000, k=300, shift=0.0)
    targets, shadows = silent.views(4, seed=1, copies=4), silent.views(8, seed=2, copies=4)
    for attack in (Lira(), Lira(queries=5), LiraOffline(), Bavaria(), Rmia(), AttackR(), Difficulty()):
        assert area(attack, targets, shadows) == pytest.approx(0.5, abs=0.025), attack.name
