"""Attained level of certified betting when one stops at the best moment, and of split samples."""

import numpy as np
import pytest

from dpaudit.accounting import EpsilonDeltaFamily, GaussianFamily, LedgerFamily
from dpaudit.claim import Phase
from dpaudit.evidence import Access, TwoSample
from dpaudit.stats import evalues, parametric, splits
from dpaudit.stats.tradeoff import gaussian_mu

ALPHA = 0.05


@pytest.fixture(autouse=True)
def only_p_values(monkeypatch):
    searches = {evalues: "epsilon_where", parametric: "epsilon_at", splits: "epsilon_at"}
    for module, search in searches.items():
        monkeypatch.setattr(module, search, lambda *_: 0.0)
        monkeypatch.setattr(module, "detectable_epsilon", lambda *_: None)


def runs(scores_out, scores_in):
    return TwoSample(scores_in=scores_in, scores_out=scores_out, source="t", access=Access.FINAL_MODEL)


def normal(rng, n, mu, step=0.0):
    drawn = rng.normal(size=n), rng.normal(size=n) + mu
    return runs(*(np.round(s / step) * step for s in drawn)) if step else runs(*drawn)


def gaussian(epsilon):
    return GaussianFamily(mu=gaussian_mu(epsilon, 1e-5), delta=1e-5, claimed_epsilon=epsilon)


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_gaussian_claims_met_with_equality(attained, epsilon):
    rng, mu = np.random.default_rng(0), gaussian_mu(epsilon, 1e-5)
    plan = evalues.ScorePlan(centre=mu / 2, spread=1.0, mu=1.3 * mu)
    for n in (20, 200):
        drawn = [normal(rng, n, mu) for _ in range(60)]
        for name, expected in (("learned", None), ("planned", plan)):
            p = [evalues.anytime(e, gaussian(epsilon), alpha=ALPHA, plan=expected).p_value for e in drawn]
            attained(f"betting, {name}, Gaussian {epsilon}, n={n}", p, ALPHA)


def test_ties_and_no_leak(attained):
    rng = np.random.default_rng(1)
    for what, mu, step, family in (
        ("integer scores", gaussian_mu(3.0, 1e-5), 1.0, gaussian(3.0)),
        ("no leak", 0.0, 0.0, GaussianFamily(mu=1e-3, delta=1e-5, claimed_epsilon=None)),
    ):
        p = [
            evalues._invert(e.scores_out, e.scores_in, family, ALPHA, None).p_value
            for e in (normal(rng, 150, mu, step) for _ in range(60))
        ]
        attained(f"betting, {what}", p, ALPHA)


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_bare_claims_met_with_equality(attained, epsilon):
    rng = np.random.default_rng(2)
    family = EpsilonDeltaFamily(base_epsilon=epsilon, delta=0.0, claimed_epsilon=epsilon)
    p = []
    for _ in range(60):
        right = rng.random((2, 150)) < 1 / (1 + np.exp(-epsilon))
        scores = np.where(right, [[0.0], [1.0]], [[1.0], [0.0]])
        p.append(evalues.anytime(runs(scores[0], scores[1]), family, alpha=ALPHA).p_value)
    attained(f"betting, randomised response {epsilon}", p, ALPHA)
    p = [
        evalues.anytime(
            runs(rng.laplace(size=150), rng.laplace(size=150) + epsilon), family, alpha=ALPHA
        ).p_value
        for _ in range(60)
    ]
    attained(f"betting, Laplace {epsilon}", p, ALPHA)


@pytest.mark.slow
def test_ledgers_met_with_equality(attained):
    # Poisson-sampled sums, seen step by step and scored by the likelihood ratio.
    rate, sigma, steps = 0.1, 1.0, 20
    rng = np.random.default_rng(3)
    ledger = (Phase(noise_multiplier=sigma, sample_rate=rate, steps=steps),)
    family = LedgerFamily(ledger=ledger, delta=1e-5, claimed_epsilon=None)

    def score(inside):
        seen = rng.normal(0, sigma, (200, steps))
        seen += (rng.random((200, steps)) < rate) * float(inside)
        return np.log1p(rate * np.expm1((seen - 0.5) / sigma**2)).sum(axis=1)

    p = [evalues._invert(score(False), score(True), family, ALPHA, None).p_value for _ in range(100)]
    attained("betting, ledger", p, ALPHA)


@pytest.mark.slow
def test_split_samples_and_normal_scores(attained):
    rng = np.random.default_rng(4)
    for epsilon in (1.0, 4.0):
        mu = gaussian_mu(epsilon, 1e-5)
        drawn, family = [normal(rng, 100, mu) for _ in range(150)], gaussian(epsilon)
        once = [splits.split_sample(e, family, alpha=ALPHA, rng=rng) for e in drawn]
        often = [splits.multi_split(e, family, alpha=ALPHA, rng=rng, splits=9) for e in drawn[:40]]
        normal_fit = [parametric.gauss_t(e, family, alpha=ALPHA) for e in drawn]
        for name, found in (("split sample", once), ("multi split", often), ("non-central t", normal_fit)):
            attained(f"{name}, Gaussian {epsilon}", [e.p_value for e in found], ALPHA)
