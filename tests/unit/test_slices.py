"""Slices: who is reported apart, at what level, and what becomes of those that are too small."""

from dataclasses import replace

import numpy as np
import pytest

from dpaudit.membership import USERS, curves, ran, rates
from dpaudit.plan import AuditPlan, parse
from dpaudit.protocols import View
from dpaudit.registry import ATTACKS, build
from dpaudit.reports.tables import rate_status
from dpaudit.slices import fine, of_users, shares, wide
from tests.views import likelihoods, log_probabilities, world

ATTACK = build("attack", "loss-threshold", ATTACKS, {})


def plan(*names: str) -> AuditPlan:
    return parse(
        {"targets": [{"name": "t", "train": "plain"}], "attacks": {n: {} for n in names or ("lira",)}}
    )


@pytest.fixture
def view() -> View:
    made = world(n=800, k=20, shift=2.0)
    ward = np.arange(800) % 3
    pool = replace(
        made.pool,
        canary=np.arange(800) < 100,
        groups={"ward": np.array(["a", "b", "c"])[ward], "user": np.arange(800) // 8},
    )
    return replace(made, pool=pool, hardness=made.hardness - (ward == 1)).view(0)


def test_every_kind_of_slice_is_there_and_only_natural_records_are_in_it(view):
    found = fine(view)
    assert [n for n in found if n.startswith("class")] == [f"class {i}" for i in range(4)]
    assert {"rightly classified", "wrongly classified", "outlier decile", "ward a", "ward b", "ward c"} < set(
        found
    )
    assert not any("user" in name for name in found)
    assert not any((mask & view.canaries.canary).any() for mask in found.values())
    for group in (("rightly classified", "wrongly classified"), ("ward a", "ward b", "ward c")):
        assert sum(found[name].sum() for name in group) == 700


def test_outliers_are_the_tenth_farthest_from_their_class_and_no_model_is_asked(view):
    outlying = fine(view)["outlier decile"]
    assert outlying.sum() == 70
    other = replace(view, scores=view.scores[::-1])
    assert np.array_equal(fine(other)["outlier decile"], outlying)
    x, y, natural = view.canaries.x, view.canaries.y, ~view.canaries.canary
    x = x / x[natural].std(axis=0)
    far = [
        np.linalg.norm(x[i] - x[natural & (y == y[i])].mean(axis=0)) if natural[i] else -1 for i in range(800)
    ]
    assert set(np.flatnonzero(outlying)) == set(np.argsort(far)[-70:])


def test_the_shares_of_alpha_add_up_to_one_and_wide_slices_keep_half(view):
    main, others = wide(view.canaries), fine(view)
    share = shares(main, others)
    assert sum(share.values()) == pytest.approx(1.0)
    assert sum(share[name] for name in main) == pytest.approx(0.5)
    assert shares(main, {}) == dict.fromkeys(main, 1 / 3)


def test_rates_are_of_their_slice_and_their_levels_add_up_to_that_of_the_attack(view):
    scores = ATTACK.scores([view], [])[0]
    found = list(rates(ATTACK, scores, view, plan("lira", "rmia")))
    areas = {rate.slice: rate for rate in found if rate.name == "auc"}
    assert set(areas) == set(wide(view.canaries)) | set(fine(view)) | {USERS}
    assert sum(rate.alpha for rate in areas.values()) == pytest.approx(0.05 / 2)
    for name, mask in (wide(view.canaries) | fine(view)).items():
        inside, outside = scores[mask & view.canaries.member], scores[mask & ~view.canaries.member]
        assert np.isnan(areas[name].value) == (min(len(inside), len(outside)) < 20)
        if not np.isnan(areas[name].value):
            by_hand = (inside[:, None] > outside).mean() + (inside[:, None] == outside).mean() / 2
            assert areas[name].value == pytest.approx(by_hand)
        assert areas[name].fine == (name not in ("all", "canaries", "natural records"))
    assert {rate.name for rate in found if rate.fine} == {"auc", "tpr_at_fpr_0.1"}


def test_a_slice_of_fewer_than_twenty_has_a_row_and_no_number(view):
    ward = np.where(np.arange(800) < 790, "large", "small")
    canaries = replace(view.canaries, groups={"ward": ward})
    view = replace(view, canaries=canaries)
    (small,) = [r for r in rates(ATTACK, view.scores[:, 0], view, plan()) if r.slice == "ward small"]
    assert np.isnan(small.value)
    assert (small.lower, small.upper, small.n, rate_status(small)) == (None, None, 10, "TOO FEW")


def test_a_user_has_the_mean_of_the_records_that_were_in_and_of_those_that_were_not(view):
    scores = ATTACK.scores([view], [])[0]
    scores[200] = np.nan
    value, inside = of_users(scores, view.canaries)
    user, member = view.canaries.groups["user"], view.canaries.member
    known = np.isfinite(scores) & ~view.canaries.canary
    expected = []
    for side in (True, False):
        theirs = [scores[known & (user == u) & (member == side)] for u in range(100)]
        expected.append([values.mean() for values in theirs if values.size])
    np.testing.assert_allclose(value, np.concatenate(expected))
    assert inside.sum() == len(expected[0])


def test_means_over_users_tell_more_than_single_records(view):
    scores = ATTACK.scores([view], [])[0]
    areas = {r.slice: r.value for r in rates(ATTACK, scores, view, plan()) if r.name == "auc"}
    assert areas[USERS] > areas["natural records"] + 0.05


def test_an_attack_that_cannot_say_has_no_rates_and_no_curves(view):
    unknown = np.full(800, np.nan)
    assert list(rates(ATTACK, unknown, view, plan())) == []
    assert list(curves(ATTACK, unknown, view, 0.05)) == []


@pytest.mark.parametrize(
    ("name", "single", "status", "reason"),
    [
        ("loss-threshold", True, "RUN", "1 models"),
        ("entropy", True, "NOT APPLICABLE", "one likelihood a record"),
        ("augmentation-vote", True, "NOT APPLICABLE", "sequence of tokens"),
        ("gradient-norm", True, "NOT APPLICABLE", "no torch module"),
        ("lira", False, "NOT RUN", "too few shadow models"),
        ("attack-p", False, "NOT APPLICABLE", "population"),
    ],
)
def test_coverage_says_why_an_attack_did_not_run(view, name, single, status, reason):
    seen = replace(view, gradient_norms=np.zeros(0), test_scores=np.zeros((0, 0)))
    attack = build("attack", name, ATTACKS, {})
    found = ran(attack, {0: likelihoods(view) if single and name != "gradient-norm" else seen})
    assert found[0] == status
    assert reason in found[1]


def test_many_classes_are_cut_to_the_largest_fifty():
    made = world(n=1200, k=20)
    y = np.minimum(np.arange(1200) // 20, 59)
    rng = np.random.default_rng(0)
    view = made.view(0)
    view = replace(
        view,
        canaries=replace(view.canaries, y=np.r_[y[:1190], np.zeros(10, dtype=np.int64)]),
        scores=log_probabilities(rng.standard_normal(1200), y, rng, classes=60),
    )
    named = [name for name in fine(view) if name.startswith("class")]
    assert len(named) == 50
    assert "class 0" in named
