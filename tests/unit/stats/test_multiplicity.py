import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from dpaudit.errors import UsageError
from dpaudit.stats.inversion import told
from dpaudit.stats.multiplicity import holm, spend, split


def naive_holm(p_values, weights, alpha):
    """Names rejected by stepping down: the most significant per weight against its share of what is left."""
    left = dict(p_values)
    rejected = set()
    while left:
        total = sum(weights[name] for name in left)
        name = min(left, key=lambda n: left[n] / weights[n])
        if left[name] > alpha * weights[name] / total:
            break
        rejected.add(name)
        del left[name]
    return rejected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 0.2), st.floats(0.1, 5)), min_size=1, max_size=7), st.floats(0.01, 0.3)
)
def test_adjusted_p_values_reject_what_stepping_down_rejects(pairs, alpha):
    p_values = {f"t{i}": p for i, (p, _) in enumerate(pairs)}
    weights = {f"t{i}": w for i, (_, w) in enumerate(pairs)}
    adjusted = holm(p_values, weights)
    near = any(abs(value - alpha) < 1e-9 for value in adjusted.values())
    if not near:
        assert {n for n, value in adjusted.items() if value <= alpha} == naive_holm(p_values, weights, alpha)


def test_no_p_value_is_told_as_zero():
    assert [told(p) for p in (0.0, 1e-300, 1e-12, 0.0123)] == ["< 1e-12", "< 1e-12", "= 1e-12", "= 0.012"]


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.03, "c": 0.02}) == pytest.approx({"a": 0.03, "b": 0.04, "c": 0.04})
    assert holm({}) == {}
    assert list(holm({"b": 0.5, "a": 0.1})) == ["b", "a"]


def test_a_weight_of_zero_never_rejects():
    assert holm({"a": 0.01, "b": 1e-6}, {"a": 1.0, "b": 0.0})["b"] == 1.0


def test_split_spends_alpha_once():
    shares = split(0.05, {"a": 3.0, "b": 1.0})
    assert shares == pytest.approx({"a": 0.0375, "b": 0.0125})


def test_refusals():
    with pytest.raises(UsageError, match=r"alpha=0\.0"):
        split(0.0, {"a": 1.0})
    with pytest.raises(UsageError, match="weights"):
        split(0.05, {"a": -1.0})
    with pytest.raises(UsageError, match="positive sum"):
        split(0.05, {"a": 0.0})
    with pytest.raises(UsageError, match="same tests"):
        holm({"a": 0.1}, {"b": 1.0})
    with pytest.raises(UsageError, match=r"p_values\['a'\]=1\.5"):
        holm({"a": 1.5})


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("looks", [1, 2, 5, 50])
def test_looks_spend_all_of_alpha_and_no_more(looks, early):
    shares = spend(0.05, looks, early=early)
    assert shares.shape == (looks,)
    assert (shares > 0).all()
    assert shares.sum() == pytest.approx(0.05)


def test_saving_for_the_last_look_spends_little_before():
    assert spend(0.05, 5, early=False)[0] < 1e-4 < spend(0.05, 5)[0]


def test_false_alarms_over_all_looks_at_one_growing_sample():
    rng, shares = np.random.default_rng(0), spend(0.05, 5)
    sums = rng.normal(size=(20_000, 5)).cumsum(axis=1) / np.sqrt(np.arange(1, 6))
    level = np.mean((norm.sf(sums) <= shares).any(axis=1))
    print(
        f"five looks: {level:.2%} false alarms at nominal 5%; all at 5% each: "
        f"{np.mean((norm.sf(sums) <= 0.05).any(axis=1)):.2%}"
    )
    assert level <= 0.05
    with pytest.raises(UsageError):
        spend(0.05, 0)
