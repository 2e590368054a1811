import numpy as np
import pytest
from scipy.stats import nct

from dpaudit.accounting import EpsilonDeltaFamily, GaussianFamily
from dpaudit.errors import UsageError
from dpaudit.evidence import Access, TwoSample
from dpaudit.stats import parametric
from dpaudit.stats.tradeoff import EpsilonDelta, Gaussian, gaussian_epsilon, gaussian_mu

GAUSSIAN = GaussianFamily(mu=gaussian_mu(4.0, 1e-5), delta=1e-5, claimed_epsilon=4.0)


def runs(scores_in, scores_out):
    return TwoSample(
        scores_in=np.asarray(scores_in, float),
        scores_out=np.asarray(scores_out, float),
        source="t",
        access=Access.FINAL_MODEL,
    )


def gaussian_runs(n1, n0, mu, seed=0):
    rng = np.random.default_rng(seed)
    return runs(3 + 2 * (rng.normal(size=n1) + mu), 3 + 2 * rng.normal(size=n0))


def naive_mu(evidence, alpha):
    """Bisect the distance for which the t statistic of the textbook is just significant."""
    a, b = evidence.scores_in, evidence.scores_out
    n1, n0 = len(a), len(b)
    s2 = (sum((x - a.mean()) ** 2 for x in a) + sum((x - b.mean()) ** 2 for x in b)) / (n1 + n0 - 2)
    unit = (n1 * n0 / (n1 + n0)) ** 0.5
    t = (a.mean() - b.mean()) / s2**0.5 * unit
    low, high = 0.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if nct.sf(t, n1 + n0 - 2, middle * unit) < alpha else (low, middle)
    return low


@pytest.mark.parametrize(("n1", "n0"), [(10, 10), (40, 15), (500, 500)])
def test_bound_inverts_the_non_central_t(n1, n0):
    evidence = gaussian_runs(n1, n0, 2.0)
    found = parametric.gauss_t(evidence, GAUSSIAN, alpha=0.05)
    assert found.epsilon_lower == pytest.approx(gaussian_epsilon(naive_mu(evidence, 0.05), 1e-5), rel=2e-3)
    assert not found.guarantee


def test_level_is_exact_on_normal_scores():
    mu = gaussian_mu(4.0, 1e-5)
    over = [
        parametric.gauss_t(gaussian_runs(12, 12, mu, seed), GAUSSIAN, alpha=0.2).p_value <= 0.2
        for seed in range(250)
    ]
    assert np.mean(over) == pytest.approx(0.2, abs=0.08)


def test_largest_mu_is_that_of_the_tightest_gaussian():
    assert parametric.largest_mu(Gaussian(mu=0.7)) == 0.7
    for epsilon in (0.5, 1.0, 4.0):
        assert parametric.largest_mu(EpsilonDelta(epsilon=epsilon, delta=1e-5)) == pytest.approx(
            gaussian_mu(epsilon, 1e-5), rel=2e-3
        )


def test_every_family_gives_the_same_epsilon_to_normal_scores():
    bare = EpsilonDeltaFamily(base_epsilon=4.0, delta=1e-5, claimed_epsilon=4.0)
    evidence = gaussian_runs(200, 200, 1.0)
    assert parametric.gauss_t(evidence, bare, alpha=0.05).epsilon_lower == pytest.approx(
        parametric.gauss_t(evidence, GAUSSIAN, alpha=0.05).epsilon_lower, rel=0.01
    )


def test_odd_scores_are_named_in_the_assumptions():
    rng = np.random.default_rng(0)
    fine = parametric.gauss_t(gaussian_runs(300, 300, 1.0), GAUSSIAN, alpha=0.05)
    odd = parametric.gauss_t(runs(rng.standard_cauchy(300), rng.normal(size=300)), GAUSSIAN, alpha=0.05)

    def p_of(estimate):
        return float(estimate.assumptions[1].split("p = ")[1].split(",")[0])

    assert p_of(fine) > 0.01 > p_of(odd)


def test_anderson_darling_has_its_level():
    rng = np.random.default_rng(0)
    p = np.array([parametric.anderson_darling(rng.normal(size=40)) for _ in range(2000)])
    for level in (0.05, 0.2, 0.5):
        assert np.mean(p <= level) == pytest.approx(level, abs=0.03)
    assert parametric.anderson_darling(np.exp(rng.normal(size=200))) < 1e-6
    assert parametric.anderson_darling(np.arange(5.0)) == 1.0


def test_detectable_is_caught_nine_times_in_ten():
    design = parametric.gauss_t(gaussian_runs(30, 30, 0.0), GAUSSIAN, alpha=0.05)
    truth = gaussian_mu(design.detectable, 1e-5)
    caught = [
        parametric.gauss_t(gaussian_runs(30, 30, truth, seed), GAUSSIAN, alpha=0.05).p_value <= 0.05
        for seed in range(100)
    ]
    assert np.mean(caught) == pytest.approx(0.9, abs=0.1)


def test_few_constant_and_missing_runs():
    for evidence in (runs([1.0], [0.0]), runs(np.ones(20), np.zeros(20)), runs([], [])):
        assert parametric.gauss_t(evidence, GAUSSIAN, alpha=0.05).epsilon_lower is None
    pure = EpsilonDeltaFamily(base_epsilon=4.0, delta=0.0, claimed_epsilon=4.0)
    with pytest.raises(UsageError, match=r"delta=0\.0"):
        parametric.gauss_t(gaussian_runs(9, 9, 1.0), pure, alpha=0.05)
    with pytest.raises(UsageError, match="both kinds"):
        parametric.gauss_t(runs([], np.ones(3)), GAUSSIAN, alpha=0.05)
    assert parametric.gauss_t(runs([1.0, 2.0], [0.0, 0.5]), GAUSSIAN, alpha=0.05).epsilon_lower >= 0.0
