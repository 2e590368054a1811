"""Attained level of the one-run audits, and what maximising over the number of guesses does to it."""

import numpy as np
import pytest

from dpaudit.accounting import EpsilonDeltaFamily, GaussianFamily
from dpaudit.claim import Adjacency
from dpaudit.evidence import Access, Guesses, OneRun
from dpaudit.stats import one_run
from dpaudit.stats.guessing import pure_tail, right_guesses
from dpaudit.stats.tradeoff import gaussian_mu

ALPHA = 0.05
REPLACE = Adjacency.REPLACE_ONE


@pytest.fixture(autouse=True)
def only_p_values(monkeypatch):
    monkeypatch.setattr(one_run, "epsilon_at", lambda *_: 0.0)
    monkeypatch.setattr(one_run, "detectable_epsilon", lambda *_: None)
    monkeypatch.setattr(one_run, "_detectable", lambda *_: None)


def run(scores, inside):
    return OneRun(scores=scores, included=inside, source="t", access=Access.FINAL_MODEL)


def randomised_response(rng, m, epsilon):
    inside = rng.random(m) < 0.5
    right = rng.random(m) < 1 / (1 + np.exp(-epsilon))
    return run(np.where(inside == right, 1.0, 0.0) + 1e-6 * rng.random(m), inside)


def normal(rng, m, mu, step=0.0):
    inside = rng.random(m) < 0.5
    scores = rng.normal(size=m) + mu * inside
    return run(np.round(scores / step) * step if step else scores, inside)


def gaussian(epsilon):
    return GaussianFamily(
        mu=gaussian_mu(epsilon, 1e-5), delta=1e-5, adjacency=REPLACE, claimed_epsilon=epsilon
    )


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 3.0])
def test_pure_claims_met_with_equality(attained, epsilon):
    rng = np.random.default_rng(0)
    family = EpsilonDeltaFamily(
        base_epsilon=max(epsilon, 1e-9), delta=0.0, adjacency=REPLACE, claimed_epsilon=epsilon
    )
    for m in (40, 1000):
        for guesses in (m, None):
            p = [
                one_run.epsilon_delta(
                    randomised_response(rng, m, epsilon), family, alpha=ALPHA, guesses=guesses
                ).p_value
                for _ in range(400)
            ]
            attained(f"one run, randomised response {epsilon}, m={m}, guesses {guesses or 'grid'}", p, ALPHA)


@pytest.mark.parametrize("step", [0.0, 1.0])
def test_gaussian_claims_met_with_equality(attained, step):
    rng = np.random.default_rng(1)
    ties = " with ties" if step else ""
    for epsilon in (1.0, 8.0):
        mu = gaussian_mu(epsilon, 1e-5)
        for m in (50, 1000):
            drawn = [normal(rng, m, mu, step) for _ in range(100)]
            for estimator in (one_run.f_dp, one_run.epsilon_delta):
                p = [estimator(e, gaussian(epsilon), alpha=ALPHA).p_value for e in drawn]
                attained(f"one run, {estimator.__name__}, Gaussian {epsilon}, m={m}{ties}", p, ALPHA)


def test_scores_that_know_nothing(attained):
    rng = np.random.default_rng(2)
    # A family needs a positive mu; this one allows nothing that could be seen.
    family = GaussianFamily(mu=1e-3, delta=1e-5, adjacency=REPLACE, claimed_epsilon=3e-3)
    for estimator in (one_run.f_dp, one_run.epsilon_delta):
        p = [estimator(normal(rng, 300, 0.0), family, alpha=ALPHA).p_value for _ in range(300)]
        attained(f"one run, {estimator.__name__}, no leak", p, ALPHA)


def test_all_coins_leaking_at_once(attained):
    # (0, delta)-DP in the worst way: nothing, or rarely everything. Guesses are as dependent as can be.
    rng = np.random.default_rng(3)
    delta = 0.04
    family = EpsilonDeltaFamily(base_epsilon=1e-9, delta=delta, adjacency=REPLACE, claimed_epsilon=0.0)
    for estimator in (one_run.f_dp, one_run.epsilon_delta):
        p = []
        for _ in range(400):
            inside = rng.random(60) < 0.5
            scores = inside.astype(float) if rng.random() < delta else rng.random(60)
            p.append(estimator(run(scores, inside), family, alpha=ALPHA, guesses=40).p_value)
        attained(f"one run, {estimator.__name__}, everything with probability {delta}", p, ALPHA)


def test_choices_among_many(attained):
    rng = np.random.default_rng(4)
    mu, k = gaussian_mu(4.0, 1e-5), 8
    p = []
    for _ in range(150):
        scores = rng.normal(size=(200, k))
        scores[:, 0] += mu
        right = int(np.count_nonzero(scores.argmax(axis=1) == 0))
        games = Guesses(
            successes=right,
            trials=200,
            baseline=1 / k,
            unit="run",
            source="t",
            access=Access.FINAL_MODEL,
            adjacency=REPLACE,
        )
        # One of k differs from another in two places: twice the distance of one being in or out.
        family = GaussianFamily(mu=mu * 2**0.5, delta=1e-5, adjacency=REPLACE, claimed_epsilon=None)
        p.append(
            one_run._invert(
                one_run._curve_test(family, 200, k),
                family,
                one_run.GuessPlan(guesses=(200,), shares=(1.0,)),
                np.array([right]),
                ALPHA,
            ).p_value
        )
        assert one_run.choices(games, family, alpha=ALPHA).n_observations == 200
    attained("one run, choices among 8", p, ALPHA)


def test_maximising_over_the_number_of_guesses_breaks_the_level():
    rng = np.random.default_rng(5)
    m, refuted = 500, []
    guesses = np.arange(10, m + 1, 5)
    for _ in range(300):
        correct = right_guesses(randomised_response(rng, m, 1.0), guesses)
        refuted.append(pure_tail(1.0, 0.0, canaries=m, guesses=guesses, correct=correct).min() <= ALPHA)
    print(f"one run, best of all numbers of guesses: refuted {np.mean(refuted):.1%} at nominal {ALPHA:.0%}")
    assert np.mean(refuted) > 2 * ALPHA
