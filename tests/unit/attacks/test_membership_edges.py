"""Membership attacks where data end: ties, saturation, one shadow, none, and records without classes."""

from dataclasses import replace

import numpy as np
import pytest

from dpaudit.asking import Asked, Asks
from dpaudit.attacks.membership.quantile import QuantileRegression
from dpaudit.protocols import ModelAttack
from dpaudit.registry import ATTACKS, build
from tests.views import likelihoods, world

WORLD = world(n=50, k=40)
TARGETS, SHADOWS = WORLD.views(2, seed=1, copies=8), WORLD.views(6, seed=2, copies=8)
SMALL = {"boundary-distance": {"directions": 3}}
NAMES = [
    name
    for name, place in ATTACKS.items()
    # Others score final models too, such as a sensitive column's, and read other outputs.
    if place.startswith("dpaudit.attacks.membership.")
    and isinstance(build("attack", name, ATTACKS, SMALL.get(name, {})), ModelAttack)
]
CLASSES_ONLY = {"confidence", "entropy", "modified-entropy", "augmentation-vote", "boundary-distance"}


def attack(name: str, **options) -> ModelAttack:
    return build("attack", name, ATTACKS, {**SMALL.get(name, {}), **options})


def test_there_are_all_of_them():
    assert len(NAMES) == 16


@pytest.mark.parametrize("name", NAMES)
def test_scores_do_not_depend_on_who_was_in_the_target(name):
    """The adversary does not see it: an attack that peeked would be perfect, and worthless."""
    blind = replace(TARGETS[0], canaries=replace(TARGETS[0].canaries, member=~TARGETS[0].canaries.member))
    seen, unseen = attack(name).scores([TARGETS[0]], SHADOWS), attack(name).scores([blind], SHADOWS)
    assert np.isfinite(seen).any()
    np.testing.assert_array_equal(seen, unseen)


@pytest.mark.parametrize("name", NAMES)
def test_a_target_is_scored_alike_alone_and_among_others(name):
    together = attack(name).scores(TARGETS, SHADOWS)
    if name == "bavaria":
        assert np.isfinite(together).all()
    for row, view in zip(together, TARGETS, strict=True):
        np.testing.assert_allclose(attack(name).scores([view], SHADOWS)[0], row, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_members_score_higher_where_being_in_moves_the_log_odds_by_much(name):
    if name in {"confidence", "entropy"}:
        pytest.skip("they do not see the label, which random classes here make decisive")
    leaky = world(n=400, k=100, shift=4.0)
    (target,), shadows = leaky.views(1, seed=3, copies=8), leaky.views(8, seed=4, copies=8)
    scores = attack(name).scores([target], shadows)[0]
    member = target.canaries.member
    assert np.nanmean(scores[member]) > np.nanmean(scores[~member])


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_knows_everything_still_orders_its_records(name):
    """Probabilities that round to 1 would tie; in logarithms they do not."""
    sure = world(n=50, k=40)
    sure = replace(sure, hardness=sure.hardness + 60.0, population=sure.population + 60.0)
    scores = attack(name).scores(sure.views(1, seed=1, copies=8), sure.views(6, seed=2, copies=8))
    finite = scores[np.isfinite(scores)]
    assert finite.size > 40
    # Shares of a count tie by nature, RMIA compares probabilities, and distances end at a hundred.
    coarse = {"attack-p", "attack-r", "augmentation-vote", "rmia", "rmia-offline", "boundary-distance"}
    if name not in coarse:
        assert len(np.unique(finite)) == finite.size


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_model_gives_constant_scores_or_none(name):
    if name in {"boundary-distance", "gradient-norm", "quantile-regression"}:
        pytest.skip("they read something else than the constant")
    flat = [
        replace(
            view,
            scores=np.full(view.scores.shape, np.log(0.25)),
            test_scores=np.full(view.test_scores.shape, np.log(0.25)),
            queries=np.full(view.queries.shape, np.log(0.25)),
        )
        for view in (*TARGETS, *SHADOWS)
    ]
    scores = attack(name).scores(flat[:1], flat[1:])[0]
    finite = scores[np.isfinite(scores)]
    if name == "augmentation-vote":  # The first class is "predicted": right for those who have it.
        assert len(np.unique(finite)) == 2
    elif name in {"attack-r", "attack-p"}:  # All are tied, which counts half.
        assert np.all(finite == 0.0)
    elif name in {"lira", "bavaria"}:  # How much is known of a record differs.
        assert np.ptp(finite) < 2.0
    else:
        assert np.ptp(finite) < 1e-9


@pytest.mark.parametrize("name", [n for n in NAMES if attack(n).shadows])
def test_one_shadow_is_enough_or_the_attack_says_that_it_is_not(name):
    leaky = world(n=400, k=100, shift=4.0)
    (target,), (shadow,) = leaky.views(1, seed=3), leaky.views(1, seed=4)
    scores = attack(name).scores([target], [shadow])[0]
    inside, member = shadow.canaries.member, target.canaries.member
    if name == "lira":
        assert np.isnan(scores).all()
    elif name in {"rmia", "bavaria"}:
        assert np.isfinite(scores).all()
        for side in (inside, ~inside):
            assert scores[side & member].mean() > scores[side & ~member].mean()
    else:
        assert np.array_equal(np.isnan(scores), inside)


@pytest.mark.parametrize("name", NAMES)
def test_records_with_one_likelihood_have_scores_unless_classes_are_the_point(name):
    single = [likelihoods(view) for view in (*TARGETS, *SHADOWS)]
    scores = attack(name).scores(single[:2], single[2:])
    assert scores.shape == (2, 50)
    assert np.isnan(scores).all() == (name in CLASSES_ONLY)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_not_asked_of_a_model_is_unknown_and_not_guessed(name):
    bare = [
        replace(
            view,
            queries=np.zeros((0, 0, 0)),
            distances=np.zeros((0, 0)),
            gradient_norms=np.zeros(0),
            test_scores=np.zeros((0, 0)),
        )
        for view in (*TARGETS, *SHADOWS)
    ]
    made = attack(name)
    needs = isinstance(made, Asks) and made.asked != Asked()
    unknown = np.isnan(made.scores(bare[:1], bare[1:])).all()
    assert unknown == (needs or name in {"attack-p", "quantile-regression"})


def test_too_small_a_population_teaches_nothing():
    few = world(n=50, k=12)
    assert np.isnan(QuantileRegression().scores(few.views(1), [])).all()


def test_quantile_regression_learns_what_is_hard_about_a_record():
    """Log-odds that follow the features are expected, and what is left over is what being in adds."""
    rng = np.random.default_rng(5)
    base = world(n=600, k=400, shift=1.5)
    slope = 3 * rng.standard_normal(5)
    told = replace(base, hardness=base.pool.x @ slope, population=base.pool.test_x @ slope)
    (target,) = told.views(1, seed=6)
    scores = QuantileRegression().scores([target], [])[0]
    residual = (target.canaries.member * 1.5) + 0.0
    assert np.corrcoef(scores, told.hardness)[0, 1] < 0.3
    assert np.corrcoef(scores, residual)[0, 1] > 0.4
