import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from dpaudit.errors import UsageError
from dpaudit.stats import roc as room


def halves(inside, outside):
    scores = np.concatenate([inside, outside]).astype(np.float64)
    return scores, np.arange(scores.size) < len(inside)


def naive_roc(scores, member):
    """Operating points by counting at every distinct threshold."""
    points = [(0.0, 0.0)]
    for threshold in sorted(set(scores.tolist()), reverse=True):
        called = scores >= threshold
        points.append((float(np.mean(called[~member])), float(np.mean(called[member]))))
    return points


def naive_auc(inside, outside):
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in inside for b in outside]
    return float(np.mean(wins))


def naive_delong(inside, outside):
    """Variance of the area from the two sets of placements, by double loops."""
    above = [naive_auc([a], outside) for a in inside]
    below = [naive_auc(inside, [b]) for b in outside]
    return np.var(above, ddof=1) / len(inside) + np.var(below, ddof=1) / len(outside)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=12), st.lists(st.integers(0, 5), min_size=1, max_size=12)
)
def test_roc_and_area_equal_counting(inside, outside):
    scores, member = halves(inside, outside)
    points = room.roc(scores, member)
    assert np.allclose(np.stack([points.fpr, points.tpr], axis=1), naive_roc(scores, member))
    value, low, high = room.auc(scores, member, alpha=0.05)
    assert value == pytest.approx(naive_auc(inside, outside))
    assert 0 <= low <= value <= high <= 1
    assert np.trapezoid(points.tpr, points.fpr) == pytest.approx(value)


def test_interval_of_the_area_is_delongs():
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(1, 1, 40), rng.normal(0, 1, 60)
    value, low, high = room.auc(*halves(inside, outside), alpha=0.05)
    width = 1.96 * np.sqrt(naive_delong(inside, outside)) / (value * (1 - value))
    logit = np.log(value / (1 - value))
    assert (low, high) == pytest.approx(
        (1 / (1 + np.exp(width - logit)), 1 / (1 + np.exp(-width - logit))), rel=1e-4
    )


def test_interval_of_the_area_covers():
    rng = np.random.default_rng(1)
    truth = 0.7602499389
    covered = 0
    for _ in range(300):
        _, low, high = room.auc(*halves(rng.normal(1, 1, 30), rng.normal(0, 1, 30)), alpha=0.1)
        covered += low <= truth <= high
    print(f"DeLong interval at nominal 90 %: covers {covered / 300:.1%}")
    assert covered / 300 > 0.84


def test_complete_separation_is_not_certainty():
    value, low, high = room.auc(*halves([3, 4, 5], [0, 1, 2]), alpha=0.05)
    assert (value, high) == (1.0, 1.0)
    assert low < 0.5
    assert room.auc(*halves([1], [0]), alpha=0.05)[1] < 0.1


def test_tpr_at_fpr_is_exact_given_the_threshold():
    rng = np.random.default_rng(2)
    inside, outside = rng.normal(2, 1, 200), rng.normal(0, 1, 1000)
    scores, member = halves(inside, outside)
    value, low, high = room.tpr_at_fpr(scores, member, 0.01, alpha=0.05)
    threshold = np.sort(outside)[::-1][10]
    hits = int(np.sum(inside > threshold))
    assert value == hits / 200
    assert binom.sf(hits - 1, 200, low) == pytest.approx(0.025)
    assert binom.cdf(hits, 200, high) == pytest.approx(0.025)


def test_small_fprs_need_enough_non_members():
    scores, member = halves(np.arange(50.0), np.arange(999.0))
    assert room.smallest_fpr(999) == pytest.approx(10 / 999)
    assert room.tpr_at_fpr(scores, member, 0.01, alpha=0.05) is None
    assert room.tpr_at_fpr(scores, member, 0.02, alpha=0.05) is not None
    assert room.smallest_fpr(0) == 1.0


def test_tied_non_members_are_taken_together():
    scores, member = halves([5.0] * 10, [5.0] * 20 + [0.0] * 80)
    assert room.tpr_at_fpr(scores, member, 0.1, alpha=0.05)[0] == 0.0
    assert room.tpr_at_fpr(scores, member, 0.2, alpha=0.05)[0] == 1.0


def test_balanced_accuracy_is_the_best_threshold():
    scores, member = halves([2, 3, 1, 5], [0, 1, 2, 0])
    best = max((np.mean(scores[member] >= t) + np.mean(scores[~member] < t)) / 2 for t in [*scores, 9.0])
    value, low, high = room.balanced_accuracy(scores, member, alpha=0.05)
    assert value == pytest.approx(best)
    assert 0 <= low < value < high <= 1


def test_rows_of_a_report():
    rng = np.random.default_rng(3)
    scores, member = halves(rng.normal(1, 1, 100), rng.normal(0, 1, 200))
    scores[5] = np.nan
    rows = room.rates(scores, member, source="loss", alpha=0.05, slice="canaries")
    assert [row.name for row in rows] == ["auc", "balanced_accuracy", "tpr_at_fpr_0.1"]
    assert all(row.lower <= row.value <= row.upper for row in rows)
    assert {(row.n, row.slice, row.source) for row in rows} == {(299, "canaries", "loss")}
    assert room.rates(scores, np.ones_like(member), source="loss", alpha=0.05) == ()


def test_figures_are_thinned_and_consistent():
    rng = np.random.default_rng(4)
    scores, member = halves(rng.normal(1, 1, 4000), rng.normal(0, 1, 6000))
    shown = room.band(scores, member, alpha=0.05)
    assert shown.fpr.size <= 160
    assert np.all(np.diff(shown.fpr) >= 0)
    assert np.all((shown.lower <= shown.tpr) & (shown.tpr <= shown.upper))
    assert (shown.tpr[-1], shown.fpr[-1]) == (1.0, 1.0)
    histogram = room.histogram(scores, member, bins=30)
    width = histogram.centre[1] - histogram.centre[0]
    assert histogram.inside.sum() * width == pytest.approx(1.0)
    assert histogram.outside.sum() * width == pytest.approx(1.0)


def test_histogram_of_one_value_and_of_infinities():
    assert room.histogram(*halves([1.0], [1.0])).inside.size == 60
    assert np.isfinite(room.histogram(*halves([np.inf, 1.0], [0.0, -np.inf])).inside).all()


def test_refusals():
    with pytest.raises(UsageError, match="0 and 2"):
        room.roc(np.array([1.0, 2.0]), np.array([False, False]))
    with pytest.raises(UsageError, match=r"\(2,\), \(3,\)"):
        room.roc(np.zeros(2), np.zeros(3, dtype=bool))
