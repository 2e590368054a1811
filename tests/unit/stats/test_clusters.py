import numpy as np
import pytest
from scipy.stats import norm, t

from dpaudit.accounting import GaussianFamily
from dpaudit.errors import UsageError
from dpaudit.evidence import Access, KnownNull
from dpaudit.stats import ranks
from dpaudit.stats.clusters import _FRACTIONS, _SHARES, clustered, clustered_betting
from dpaudit.stats.tradeoff import gaussian_mu

FAMILY = GaussianFamily(mu=gaussian_mu(8.0, 1e-5), delta=1e-5, claimed_epsilon=8.0)
BOTH = pytest.mark.parametrize("estimator", [clustered, clustered_betting])


def runs(mu, n_runs, each, *, n_references=999, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(mu, 1, n_runs * each)
    return (1 + rng.binomial(n_references, norm.sf(scores))) / (n_references + 1)


def evidence(p_values, cluster, *, n_references=999, unit="run"):
    return KnownNull(
        p_values=np.asarray(p_values, dtype=np.float64),
        n_references=n_references,
        unit=unit,
        source="test",
        access=Access.FINAL_MODEL,
        cluster=None if cluster is None else np.asarray(cluster),
    )


def test_t_interval_equals_its_naive_twin():
    p_values, cluster = runs(1.9, 4, 10), np.repeat([7, 3, 9, 1], 10)
    score = {j / 1000: norm.isf(min(j / 1000, 0.9995)) for j in range(1, 1001)}
    means = [np.mean([score[round(p, 3)] for p in p_values[cluster == run]]) for run in (7, 3, 9, 1)]
    error = np.std(means, ddof=1) / 2
    allowed = ranks.moments(FAMILY.curve(1.0), 999)[0]
    found = clustered(evidence(p_values, cluster), FAMILY, alpha=0.05)
    assert found.p_value == pytest.approx(t.sf((np.mean(means) - allowed) / error, 3), rel=1e-6)
    limit = np.mean(means) - t.ppf(0.95, 3) * error
    at_bound = ranks.moments(FAMILY.curve(FAMILY.scale_for(found.epsilon_lower)), 999)[0]
    assert at_bound == pytest.approx(limit, abs=2e-3)


def naive_wealth(p_values, cluster, n_references, curve):
    """Average of constant bets, one score, one bet and one run at a time."""
    grid = np.arange(1, n_references + 2)
    atoms = np.diff(curve.tpr(grid / (n_references + 1)), prepend=0.0)
    cap = norm.isf(1 / (n_references + 1))
    last = {max(1, int(share * (n_references + 1) + 1e-9)) for share in _SHARES}

    def bounded(rank, which):
        if which == 0:
            return min(max(norm.isf(min(rank, n_references + 0.5) / (n_references + 1)) / cap, 0.0), 1.0)
        return float(rank <= which)

    wealths = []
    for which in [*last, 0]:
        allowed = sum(a * bounded(r, which) for a, r in zip(atoms, grid, strict=True))
        for fraction in _FRACTIONS:
            wealth = 1.0
            for run in np.unique(cluster):
                of_run = [bounded(round(p * (n_references + 1)), which) for p in p_values[cluster == run]]
                wealth *= 1 + fraction * (np.mean(of_run) / allowed - 1)
            wealths.append(wealth)
    return np.mean(wealths)


@pytest.mark.parametrize("n_references", [19, 199])
def test_betting_equals_its_naive_twin(n_references):
    p_values = runs(2.2, 5, 8, n_references=n_references)
    cluster = np.repeat(np.arange(5), 8)
    wealth = naive_wealth(p_values, cluster, n_references, FAMILY.curve(1.0))
    found = clustered_betting(evidence(p_values, cluster, n_references=n_references), FAMILY, alpha=0.05)
    assert found.p_value == pytest.approx(min(1.0, 1 / wealth), rel=1e-9)


@BOTH
def test_order_of_runs_and_names_do_not_matter(estimator):
    p_values, cluster = runs(1.7, 6, 5), np.repeat(np.arange(6), 5)
    order = np.random.default_rng(1).permutation(30)
    first = estimator(evidence(p_values, cluster), FAMILY, alpha=0.05)
    second = estimator(evidence(p_values[order], 100 - 3 * cluster[order]), FAMILY, alpha=0.05)
    assert first.epsilon_lower == pytest.approx(second.epsilon_lower)
    assert first.p_value == pytest.approx(second.p_value)


@BOTH
def test_many_canaries_sharpen_the_bound_and_leaks_are_refuted(estimator):
    found = estimator(evidence(runs(1.666, 10, 100), np.repeat(np.arange(10), 100)), FAMILY, alpha=0.05)
    assert 5.5 < found.epsilon_lower < 8.3
    assert found.epsilon_lower < found.ceiling
    assert found.detectable > 8.0
    leak = estimator(evidence(runs(2.6, 10, 100), np.repeat(np.arange(10), 100)), FAMILY, alpha=0.05)
    assert leak.p_value < 0.05
    assert leak.epsilon_lower > leak.claimed_epsilon


@BOTH
def test_all_at_the_cap_reach_the_ceiling_and_worst_ranks_nothing(estimator):
    cluster = np.repeat(np.arange(3), 4)
    best = estimator(evidence([0.001] * 12, cluster), FAMILY, alpha=0.05)
    assert best.epsilon_lower == pytest.approx(best.ceiling)
    assert np.isfinite(best.epsilon_lower)
    worst = estimator(evidence([1.0] * 12, cluster), FAMILY, alpha=0.05)
    assert worst.epsilon_lower == 0.0
    assert worst.p_value > 0.9


@BOTH
def test_nothing_observed_is_not_zero(estimator):
    found = estimator(evidence([], []), FAMILY, alpha=0.05)
    assert (found.epsilon_lower, found.p_value, found.ceiling) == (None, None, 0.0)


def test_one_run_has_no_t_interval():
    found = clustered(evidence([0.001] * 9, [0] * 9), FAMILY, alpha=0.05)
    assert found.epsilon_lower is None
    assert found.n_observations == 9
    assert clustered_betting(evidence([0.001] * 9, [0] * 9), FAMILY, alpha=0.05).epsilon_lower > 0


@BOTH
def test_without_cluster_each_observation_is_a_run(estimator):
    p_values = runs(1.666, 12, 1)
    named = estimator(evidence(p_values, np.arange(12)), FAMILY, alpha=0.05)
    assert estimator(evidence(p_values, None), FAMILY, alpha=0.05) == named


@BOTH
def test_one_reference_is_enough_to_not_fail(estimator):
    found = estimator(evidence([0.5, 1.0, 0.5, 0.5], [0, 0, 1, 1], n_references=1), FAMILY, alpha=0.05)
    assert found.epsilon_lower == 0.0


@BOTH
def test_refusals(estimator):
    with pytest.raises(UsageError, match="'step'"):
        estimator(evidence([0.1, 0.2], [0, 1], unit="step"), FAMILY, alpha=0.05)
    with pytest.raises(UsageError, match=r"shape \(2,\)"):
        estimator(evidence([0.1, 0.2], [0]), FAMILY, alpha=0.05)
