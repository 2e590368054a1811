import numpy as np
import pytest
from scipy.stats import beta, binom

from dpaudit.accounting import EpsilonDeltaFamily, GaussianFamily
from dpaudit.claim import Adjacency
from dpaudit.errors import UsageError
from dpaudit.evidence import Access, TwoSample
from dpaudit.stats.binomial import lower, upper
from dpaudit.stats.tradeoff import gaussian_mu
from dpaudit.stats.two_sample import at_threshold, grid, order_statistics

GAUSSIAN = GaussianFamily(mu=gaussian_mu(4.0, 1e-5), delta=1e-5, claimed_epsilon=4.0)
BARE = EpsilonDeltaFamily(base_epsilon=4.0, delta=1e-5, claimed_epsilon=4.0)
FAMILIES = pytest.mark.parametrize("family", [GAUSSIAN, BARE])


def scores(inside, outside, *, adjacency=Adjacency.ADD_REMOVE):
    return TwoSample(
        scores_in=np.asarray(inside, dtype=np.float64),
        scores_out=np.asarray(outside, dtype=np.float64),
        source="test",
        access=Access.FINAL_MODEL,
        adjacency=adjacency,
    )


def drawn(mu, n1, n0, seed=0):
    rng = np.random.default_rng(seed)
    return scores(rng.normal(mu, 1, n1), rng.normal(0, 1, n0))


def naive_limits(inside, outside, alpha):
    """(TPR at least, FPR at most) at each order statistic of both directions, by loops."""
    limits = []
    for caught, free in [(inside, outside), ([-x for x in outside], [-x for x in inside])]:
        ordered = sorted(free, reverse=True)
        ks = [0]
        k = 1
        while k <= len(free) / 2:
            ks.append(k)
            k *= 2
        for k in ks:
            hits = sum(x > ordered[k] for x in caught)
            each = alpha / 2 / len(ks) / 2
            limits.append((float(lower(hits, len(caught), each)), beta.ppf(1 - each, k + 1, len(free) - k)))
    return limits


def naive_epsilon(limits, delta):
    """Each pair of limits tells "in" by log(TPR / FPR) and "out" by log(TNR / FNR)."""
    pairs = [*limits, *((1 - f, 1 - t) for t, f in limits)]
    return max(0.0, *(np.log(max(t - delta, 1e-300) / f) for t, f in pairs))


@pytest.mark.parametrize(("n1", "n0"), [(30, 40), (64, 16), (5, 1)])
def test_grid_equals_its_naive_twin(n1, n0):
    given = drawn(3.0, n1, n0)
    limits = naive_limits(given.scores_in.tolist(), given.scores_out.tolist(), 0.05)
    found = grid(given, BARE, alpha=0.05)
    assert found.epsilon_lower == pytest.approx(naive_epsilon(limits, 1e-5), rel=2e-3, abs=2e-3)


def test_p_value_is_the_least_level_that_refutes():
    given = drawn(1.7, 200, 200)
    found = grid(given, GAUSSIAN, alpha=0.05)
    for factor, refuted in [(1.05, True), (0.95, False)]:
        limits = naive_limits(given.scores_in.tolist(), given.scores_out.tolist(), found.p_value * factor)
        beyond = any(t > GAUSSIAN.curve(1.0).tpr(np.array([f]))[0] for t, f in limits)
        assert beyond == refuted


@FAMILIES
def test_bound_and_p_value_say_the_same(family):
    for mu in (0.9, 4.0):
        found = grid(drawn(mu, 400, 400), family, alpha=0.05)
        assert (found.p_value <= 0.05) == (found.epsilon_lower > found.claimed_epsilon)
        assert found.epsilon_lower <= found.ceiling


@FAMILIES
def test_perfect_separation_reaches_the_ceiling(family):
    found = grid(scores(np.arange(100.0) + 200, np.arange(100.0)), family, alpha=0.05)
    assert found.epsilon_lower == pytest.approx(found.ceiling)
    reverse = grid(scores(np.arange(100.0), np.arange(100.0) + 200), family, alpha=0.05)
    assert reverse.epsilon_lower == 0.0


@FAMILIES
def test_ties_show_nothing(family):
    found = grid(scores(np.zeros(100), np.zeros(100)), family, alpha=0.05)
    assert (found.epsilon_lower, found.p_value) == (0.0, 1.0)


def test_both_directions_count():
    # Half the OUT runs lie below everything: only "out" can be told.
    rng = np.random.default_rng(0)
    outside = np.concatenate([rng.normal(0, 1, 500), np.full(500, -50.0)])
    found = grid(scores(rng.normal(0, 1, 1000), outside), BARE, alpha=0.05)
    assert found.epsilon_lower > 3.5


@FAMILIES
@pytest.mark.parametrize("counts", [(0, 5), (5, 0), (0, 0)])
def test_an_empty_side_is_not_zero(family, counts):
    for found in (
        grid(drawn(1.0, *counts), family, alpha=0.05),
        at_threshold(drawn(1.0, *counts), family, 0.0, alpha=0.05),
    ):
        assert (found.epsilon_lower, found.p_value, found.ceiling) == (None, None, 0.0)


def test_one_run_a_side_is_enough_to_not_fail():
    found = grid(scores([1.0], [0.0]), GAUSSIAN, alpha=0.05)
    assert found.epsilon_lower == 0.0
    assert found.detectable is None


def test_detectable_is_detected_about_nine_times_in_ten():
    design = grid(drawn(1.0, 300, 300), GAUSSIAN, alpha=0.05)
    truth = GAUSSIAN.mu / GAUSSIAN.scale_for(design.detectable)
    caught = 0
    for seed in range(100):
        given = drawn(truth, 300, 300, seed)
        limits = np.array(naive_limits(given.scores_in.tolist(), given.scores_out.tolist(), 0.05))
        caught += bool(np.any(limits[:, 0] > GAUSSIAN.curve(1.0).tpr(limits[:, 1])))
    print(f"detectable at power 0.9 by one threshold: detected {caught} %")
    assert caught > 80


def test_fixed_threshold_is_clopper_pearson():
    given = drawn(3.0, 100, 80)
    found = at_threshold(given, BARE, 1.5, alpha=0.05)
    hit, false = (given.scores_in > 1.5).sum(), (given.scores_out > 1.5).sum()
    limits = [
        (float(lower(hit, 100, 0.0125)), float(upper(false, 80, 0.0125))),
        (float(lower(80 - false, 80, 0.0125)), float(upper(100 - hit, 100, 0.0125))),
    ]
    assert found.epsilon_lower == pytest.approx(naive_epsilon(limits, 1e-5), rel=2e-3)
    assert "1.5" in found.method


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 100])
def test_order_statistics_are_fixed_by_the_number_alone(n):
    ks = order_statistics(n)
    assert ks[0] == 0
    assert ks[-1] < n
    assert np.all(np.diff(ks) > 0)
    # The share beyond the (k + 1)-th largest of n uniforms is Beta(k + 1, n - k).
    for k in ks:
        assert beta.cdf(0.3, k + 1, n - k) == pytest.approx(binom.sf(k, n, 0.3))


def test_refusals():
    with pytest.raises(UsageError, match="scores_out to be finite"):
        grid(scores([1.0], [np.nan]), BARE, alpha=0.05)
    with pytest.raises(UsageError, match="replace-one"):
        grid(scores([1.0], [0.0], adjacency=Adjacency.REPLACE_ONE), BARE, alpha=0.05)
