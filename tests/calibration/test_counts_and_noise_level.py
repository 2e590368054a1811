"""Attained level and power of the binomial, order-statistic and chi-square audits."""

import numpy as np
import pytest
from scipy.stats import binom

from dpaudit.accounting import EpsilonDeltaFamily, GaussianFamily, LedgerFamily
from dpaudit.claim import Phase
from dpaudit.evidence import Access, Guesses, NoiseSample, Replay, TwoSample
from dpaudit.stats import noise, reconstruction, two_sample
from dpaudit.stats.tradeoff import gaussian_mu

ALPHA = 0.05
LEDGER = (Phase(noise_multiplier=1.0, sample_rate=0.02, steps=500),)
COUNTS = (30, 500, 20_000)


def claimed(epsilon):
    return GaussianFamily(mu=gaussian_mu(epsilon, 1e-5), delta=1e-5, claimed_epsilon=epsilon)


@pytest.mark.parametrize("epsilon", [1.0, 4.0, 8.0])
@pytest.mark.parametrize("n", [20, 400])
def test_order_statistic_grid(only_tests, attained, epsilon, n):
    rng, family = np.random.default_rng(n), claimed(epsilon)
    p_values = [
        two_sample.grid(
            TwoSample(
                scores_in=rng.normal(family.mu, 1, n),
                scores_out=rng.normal(0, 1, n),
                source="calibration",
                access=Access.FINAL_MODEL,
            ),
            family,
            alpha=ALPHA,
        ).p_value
        for _ in range(100)
    ]
    attained(f"order-statistic grid, eps={epsilon:g}, {n} a side", p_values, ALPHA)


def test_order_statistic_grid_at_the_worst_mechanism_of_epsilon_delta(only_tests, attained):
    # Randomised response attains (epsilon, 0) at its only threshold: scores are ties throughout.
    rng, epsilon = np.random.default_rng(1), 1.0
    family = EpsilonDeltaFamily(base_epsilon=epsilon, delta=1e-5, claimed_epsilon=epsilon)
    honest = 1 / (1 + np.exp(-epsilon))
    p_values = [
        two_sample.grid(
            TwoSample(
                scores_in=(rng.random(300) < honest).astype(float),
                scores_out=(rng.random(300) >= honest).astype(float),
                source="calibration",
                access=Access.FINAL_MODEL,
            ),
            family,
            alpha=ALPHA,
        ).p_value
        for _ in range(200)
    ]
    attained("order-statistic grid, randomised response, eps=1", p_values, ALPHA)


@pytest.mark.parametrize("epsilon", [1.0, 4.0, 8.0])
@pytest.mark.parametrize(("games", "baseline"), [(30, 0.1), (200, 0.01)])
def test_games(only_tests, epsilon, games, baseline):
    family = claimed(epsilon)
    limit = reconstruction.success_limit(family, baseline)
    level = 0.0
    for right in range(games + 1):
        given = Guesses(
            successes=right,
            trials=games,
            baseline=baseline,
            unit="run",
            source="calibration",
            access=Access.STEP,
        )
        if reconstruction.guesses(given, family, alpha=ALPHA).p_value <= ALPHA:
            level += binom.pmf(right, games, limit)
    print(f"right guesses, eps={epsilon:g}, {games} games at {baseline}: level {level:.2%} (exact)")
    assert level <= ALPHA


def measured(rng, ratios, sensitivity=1.0):
    return Replay(
        sensitivity=sensitivity,
        sensitivity_where="calibration",
        noise=tuple(
            NoiseSample(where=f"p{i}", sum_of_squares=ratio**2 * rng.chisquare(n), count=n, claimed_std=1.0)
            for i, (ratio, n) in enumerate(zip(ratios, COUNTS, strict=True))
        ),
        executions=1,
        steps=1,
    )


@pytest.mark.parametrize("sensitivity", [1.0, 1.0001])
def test_measured_noise(only_tests, attained, sensitivity):
    rng = np.random.default_rng(2)
    family = LedgerFamily(ledger=LEDGER, delta=1e-5, claimed_epsilon=2.7735)
    p_values = [
        noise.replay(measured(rng, (1, 1, 1), sensitivity), family, alpha=ALPHA).p_value for _ in range(2000)
    ]
    level = attained(f"measured noise, sensitivity {sensitivity}", p_values, ALPHA)
    assert level > 0.5 * ALPHA


def test_measured_noise_at_what_is_called_detectable(attained):
    rng = np.random.default_rng(3)
    family = LedgerFamily(ledger=LEDGER, delta=1e-5, claimed_epsilon=2.7735)
    design = noise.replay(measured(rng, (1, 1, 1)), family, alpha=ALPHA)
    ratio = family.scale_for(design.detectable)
    values = []
    for _ in range(300):
        evidence = measured(rng, (ratio, ratio, ratio))
        squares, counts = noise._ratios(evidence)
        values.append(2 * noise.gammainc(counts.sum() / 2, squares.sum() / 2))
    caught = np.mean(np.array(values) <= ALPHA)
    print(f"measured noise: detectable {design.detectable:.3f} at a claim of 2.774, caught {caught:.1%}")
    assert 0.82 < caught < 0.97
