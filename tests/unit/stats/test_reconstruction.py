import numpy as np
import pytest
from scipy.stats import binom, norm

from dpaudit.accounting import EpsilonDeltaFamily, GaussianFamily, LedgerFamily
from dpaudit.claim import Adjacency, Phase
from dpaudit.errors import UsageError
from dpaudit.evidence import Access, Guesses
from dpaudit.stats.binomial import lower
from dpaudit.stats.reconstruction import guesses, success_interval, success_limit
from dpaudit.stats.tradeoff import gaussian_epsilon, gaussian_mu

FAMILY = GaussianFamily(mu=gaussian_mu(4.0, 1e-5), delta=1e-5, claimed_epsilon=4.0)


def games(successes, trials, baseline=0.1, *, unit="run", adjacency=Adjacency.ADD_REMOVE):
    return Guesses(
        successes=successes,
        trials=trials,
        baseline=baseline,
        unit=unit,
        source="test",
        access=Access.STEP,
        adjacency=adjacency,
    )


@pytest.mark.parametrize(
    ("epsilon", "limits"),
    [(1, (0.155, 0.0198, 0.0024)), (4, (0.361, 0.0805, 0.0152)), (8, (0.650, 0.2545, 0.0772))],
)
def test_limits_of_gaussian_claims(epsilon, limits):
    family = GaussianFamily(mu=gaussian_mu(epsilon, 1e-5), delta=1e-5)
    found = [success_limit(family, baseline) for baseline in (0.1, 0.01, 0.001)]
    assert found == pytest.approx(limits, rel=0.02)


def test_limits_of_a_subsampled_ledger():
    ledger = (Phase(noise_multiplier=1.0, sample_rate=0.02, steps=500),)
    family = LedgerFamily(ledger=ledger, delta=1e-5)
    assert success_limit(family, 0.1) == pytest.approx(0.2434, rel=5e-3)
    assert success_limit(family, 0.01) == pytest.approx(0.0431, rel=5e-3)
    assert success_limit(family, 0.001) == pytest.approx(0.0069, rel=1e-2)
    assert success_limit(family, 0.1, "step") == pytest.approx(norm.cdf(norm.ppf(0.1) + 1))


def test_the_limit_is_the_claims_unless_a_scale_is_given():
    family = GaussianFamily(mu=1.0, delta=1e-5, claimed_epsilon=gaussian_epsilon(2.0, 1e-5))
    assert success_limit(family, 0.1) == pytest.approx(norm.cdf(norm.ppf(0.1) + 2.0))
    assert success_limit(family, 0.1, scale=1.0) == pytest.approx(norm.cdf(norm.ppf(0.1) + 1.0))


def test_bound_equals_the_closed_form():
    found = guesses(games(50, 100), FAMILY, alpha=0.05)
    mu = norm.ppf(lower(50, 100, 0.05)) - norm.ppf(0.1)
    assert found.epsilon_lower == pytest.approx(gaussian_epsilon(mu, 1e-5), rel=2e-3)
    limit = norm.cdf(norm.ppf(0.1) + FAMILY.mu)
    assert found.p_value == pytest.approx(sum(binom.pmf(k, 100, limit) for k in range(50, 101)))


def test_bound_without_a_shape_equals_the_closed_form():
    family = EpsilonDeltaFamily(base_epsilon=2.0, delta=1e-3, claimed_epsilon=2.0)
    found = guesses(games(40, 50, 0.01), family, alpha=0.05)
    assert found.epsilon_lower == pytest.approx(np.log((lower(40, 50, 0.05) - 1e-3) / 0.01), rel=2e-3)


def test_detectable_is_detected_nine_times_in_ten():
    found = guesses(games(5, 60), FAMILY, alpha=0.05)
    limit = success_limit(FAMILY, 0.1)
    needed = next(k for k in range(61) if binom.sf(k - 1, 60, limit) <= 0.05)
    truth = success_limit(FAMILY, 0.1, scale=FAMILY.scale_for(found.detectable))
    assert binom.sf(needed - 1, 60, truth) == pytest.approx(0.9, abs=5e-3)


def test_extremes():
    none = guesses(games(0, 30), FAMILY, alpha=0.05)
    assert (none.epsilon_lower, none.p_value) == (0.0, 1.0)
    every = guesses(games(30, 30), FAMILY, alpha=0.05)
    assert every.epsilon_lower == pytest.approx(every.ceiling)
    single = guesses(games(1, 1), FAMILY, alpha=0.05)
    assert single.detectable is None


def test_no_games_are_not_zero():
    found = guesses(games(0, 0), FAMILY, alpha=0.05)
    assert (found.epsilon_lower, found.p_value, found.ceiling, found.detectable) == (None, None, 0.0, None)
    assert success_interval(games(0, 0), alpha=0.05) == (None, None)


def test_interval_is_clopper_pearson():
    low, high = success_interval(games(3, 10), alpha=0.1)
    assert binom.sf(2, 10, low) == pytest.approx(0.05)
    assert binom.cdf(3, 10, high) == pytest.approx(0.05)


def test_refusals():
    with pytest.raises(UsageError, match=r"baseline=1\.0"):
        guesses(games(1, 2, 1.0), FAMILY, alpha=0.05)
    with pytest.raises(UsageError, match="successes=3"):
        guesses(games(3, 2), FAMILY, alpha=0.05)
    with pytest.raises(UsageError, match="replace-one"):
        guesses(games(1, 2, adjacency=Adjacency.REPLACE_ONE), FAMILY, alpha=0.05)
    with pytest.raises(UsageError, match="'game'"):
        guesses(games(1, 2, unit="game"), FAMILY, alpha=0.05)


def test_limits_agree_with_the_largest_likelihood_ratios_of_simulated_runs():
    """Hayes et al. 2023, algorithm 1: draw runs without the record, keep the kappa most telling ones."""
    rng, q, sigma, steps, runs = np.random.default_rng(0), 0.02, 1.0, 500, 40_000
    log_ratio = np.zeros(runs, dtype=np.float32)
    for _ in range(steps):
        noise = rng.standard_normal(runs, dtype=np.float32)
        log_ratio += np.log1p(q * np.expm1((2 * sigma * noise - 1) / (2 * sigma**2)))
    ratio = np.sort(np.exp(log_ratio.astype(float)))[::-1]
    family = LedgerFamily(ledger=(Phase(noise_multiplier=sigma, sample_rate=q, steps=steps),), delta=1e-5)
    for kappa, tolerance in ((0.1, 0.015), (0.01, 0.05), (0.001, 0.15)):
        simulated = ratio[: round(kappa * runs)].sum() / runs
        assert success_limit(family, kappa) == pytest.approx(simulated, rel=tolerance)
