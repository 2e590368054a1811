"""Attained level and power of the rank audits on data whose epsilon is known exactly."""

import numpy as np
import pytest
from scipy.stats import norm

from dpaudit.accounting import GaussianFamily, LedgerFamily
from dpaudit.claim import Phase
from dpaudit.evidence import Access, KnownNull
from dpaudit.stats import clusters, known_null, ranks
from dpaudit.stats.inversion import epsilon_at
from dpaudit.stats.tradeoff import Gaussian, gaussian_mu

ALPHA = 0.05
EPSILONS = pytest.mark.parametrize("epsilon", [1.0, 4.0, 8.0])


def claimed(epsilon):
    return GaussianFamily(mu=gaussian_mu(epsilon, 1e-5), delta=1e-5, claimed_epsilon=epsilon)


def evidence(p_values, n_references, *, cluster=None, unit="run"):
    return KnownNull(
        p_values=p_values,
        n_references=n_references,
        unit=unit,
        source="calibration",
        access=Access.STEP,
        cluster=cluster,
    )


@EPSILONS
@pytest.mark.parametrize(("n", "n_references"), [(3, 99), (30, 99), (100, 999)])
def test_fixed(attained, ranked, epsilon, n, n_references):
    # One critical value for all repetitions; the law is exact, so that the level must also be near alpha.
    rng, family = np.random.default_rng(n), claimed(epsilon)
    law = ranks.sum_law([family.curve(family.claimed_scale)], [n], n_references)
    drawn = ranked(rng, family.mu, (8000, n), n_references)
    sums = ranks.normal_score(drawn.ravel(), n_references).reshape(drawn.shape).sum(axis=1)
    p_values = np.array([law.at_least(total) for total in sums])
    level = attained(f"rank sum, eps={epsilon:g}, n={n}, K={n_references}", p_values, ALPHA)
    assert level > 0.6 * ALPHA
    first = known_null.fixed(evidence(drawn[0], n_references), family, alpha=ALPHA)
    assert first.p_value == pytest.approx(p_values[0], rel=1e-6)


def test_fixed_on_data_without_any_leak(only_tests, attained, ranked):
    rng, family = np.random.default_rng(2), claimed(0.05)
    drawn = ranked(rng, 0.0, (400, 30), 199)
    p_values = [known_null.fixed(evidence(row, 199), family, alpha=ALPHA).p_value for row in drawn]
    attained("rank sum, no leak, eps=0.05", p_values, ALPHA)


@EPSILONS
def test_anytime_at_every_moment(only_tests, attained, ranked, epsilon):
    rng, family = np.random.default_rng(3), claimed(epsilon)
    drawn = ranked(rng, family.mu, (300, 300), 999)
    p_values = [known_null.anytime(evidence(row, 999), family, alpha=ALPHA).p_value for row in drawn]
    attained(f"martingale over 300 moments, eps={epsilon:g}", p_values, ALPHA)


def test_dependence_between_steps_that_the_theorem_covers(only_tests, attained):
    # Inserts with full strength only while behind: dependent steps, each still bounded given the past.
    rng, family = np.random.default_rng(4), claimed(4.0)
    p_values = []
    for _ in range(300):
        total, row = 0.0, []
        for _ in range(60):
            score = rng.normal(family.mu if total < 3.0 else 0.0)
            total += score - family.mu
            row.append((1 + rng.binomial(999, norm.sf(score))) / 1000)
        p_values.append(known_null.fixed(evidence(np.array(row), 999), family, alpha=ALPHA).p_value)
    attained("rank sum, adversary who rests while ahead", p_values, ALPHA)


@pytest.mark.parametrize("correlation", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("estimator", [clusters.clustered, clusters.clustered_betting])
@pytest.mark.parametrize(("n_runs", "each"), [(3, 50), (8, 50)])
def test_many_canaries_in_few_runs(only_tests, attained, estimator, correlation, n_runs, each):
    rng, family = np.random.default_rng(5), claimed(8.0)
    cluster = np.repeat(np.arange(n_runs), each)
    p_values = []
    for _ in range(400):
        shared = np.sqrt(correlation) * rng.normal(size=(n_runs, 1))
        own = np.sqrt(1 - correlation) * rng.normal(size=(n_runs, each))
        beaten = rng.binomial(999, norm.sf(family.mu + shared + own)).ravel()
        given = evidence((1 + beaten) / 1000, 999, cluster=cluster)
        p_values.append(estimator(given, family, alpha=ALPHA).p_value)
    attained(f"{estimator.__name__}, {n_runs} runs of {each}, rho={correlation}", p_values, ALPHA)


@pytest.mark.parametrize(("n", "published"), [(10, 4.97), (100, 6.99)])
def test_the_published_row_of_a_claim_of_8(n, published, ranked):
    # The bound rises with the sum, so that the median bound is the bound of the median sum.
    rng, family, n_references = np.random.default_rng(6), claimed(8.0), 10_000
    sums = ranks.normal_score(ranked(rng, family.mu, 4000 * n, n_references), n_references)
    total = float(np.median(sums.reshape(4000, n).sum(axis=1)))
    bound = epsilon_at(
        lambda s: ranks.sum_law([family.curve(s)], [n], n_references).at_least(total), family, ALPHA
    )
    print(f"eps=8, n={n}: median bound {bound:.2f}, published {published}")
    # 300 repetitions stand behind the published figures; the exact law is a little above the normal one.
    assert published - 0.05 < bound < published + 0.2


@pytest.mark.parametrize("estimator", [known_null.fixed, known_null.anytime])
def test_power_at_what_is_called_detectable(estimator, ranked, attained):
    rng, family = np.random.default_rng(7), claimed(4.0)
    design = estimator(evidence(ranked(rng, family.mu, 50, 999), 999), family, alpha=ALPHA)
    truth = family.mu / family.scale_for(design.detectable)
    drawn = ranked(rng, truth, (300, 50), 999)
    scores = ranks.normal_score(drawn.ravel(), 999).reshape(drawn.shape)
    if estimator is known_null.fixed:
        critical = ranks.sum_law([Gaussian(mu=family.mu)], [50], 999).critical(ALPHA)
        caught = np.mean(scores.sum(axis=1) >= critical)
    else:
        zeros, every = np.zeros(50, dtype=np.int64), np.arange(1, 51)
        caught = np.mean(
            [
                known_null._log_wealth(
                    known_null._Scores(x=row, group=zeros, means=(), n_references=999), family, 1.0, every
                ).max()
                >= -np.log(ALPHA)
                for row in scores
            ]
        )
    print(f"{estimator.__name__}: detectable {design.detectable:.2f} at a claim of 4, caught {caught:.1%}")
    assert 0.85 < caught < 0.97


def test_a_known_fault_is_caught_while_training(ranked):
    # Noise at 0.7 of what the ledger says, canary in every step.
    ledger = (Phase(noise_multiplier=1.0, sample_rate=0.02, steps=500),)
    family = LedgerFamily(ledger=ledger, delta=1e-5, claimed_epsilon=2.7735)
    rng, stopped = np.random.default_rng(8), []
    every = np.arange(1, 501)
    for _ in range(40):
        x = ranks.normal_score(ranked(rng, 1 / 0.7, 500, 999), 999)
        given = known_null._Scores(x=x, group=np.zeros(500, np.int64), means=(1.0,), n_references=999)
        beyond = np.flatnonzero(known_null._log_wealth(given, family, 1.0, every) >= -np.log(ALPHA))
        stopped.append(beyond[0] + 1 if beyond.size else np.inf)
    print(f"noise at 0.7: refuted after {np.median(stopped):g} steps (median), {np.max(stopped):g} (worst)")
    assert np.max(stopped) < 300


def test_runs_of_subsampled_training_against_the_curve_of_their_ledger(attained):
    # The optimal attack on 500 Poisson-sampled steps: the sum of the steps' log-likelihood ratios.
    q, sigma, steps, n, n_references = 0.02, 1.0, 500, 10, 199
    ledger = (Phase(noise_multiplier=sigma, sample_rate=q, steps=steps),)
    family = LedgerFamily(ledger=ledger, delta=1e-5, claimed_epsilon=2.7735)
    rng = np.random.default_rng(9)

    def attack(runs, inserted):
        seen = rng.normal(0, sigma, (runs, steps)) + (rng.random((runs, steps)) < q) * inserted
        return np.log1p(q * np.expm1((2 * seen - 1) / (2 * sigma**2))).sum(axis=1)

    outside = np.sort(attack(20_000, 0.0))
    inside = attack(1000 * n, 1.0)
    beaten_with = 1 - np.searchsorted(outside, inside) / outside.size
    drawn = (1 + rng.binomial(n_references, beaten_with)).reshape(1000, n) / (n_references + 1)
    law = ranks.sum_law([family.curve(1.0)], [n], n_references)
    sums = ranks.normal_score(drawn.ravel(), n_references).reshape(drawn.shape).sum(axis=1)
    level = attained("rank sum, subsampled ledger, n=10", [law.at_least(total) for total in sums], ALPHA)
    assert level > 0.4 * ALPHA
