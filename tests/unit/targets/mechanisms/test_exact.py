"""Exact privacy of finite laws against loops, and of noise against adaptive quadrature."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import expon, laplace

from dpaudit.targets.mechanisms import (
    NoisyMax,
    ReportNoisyMax1,
    ReportNoisyMax2,
    ReportNoisyMax3,
    finite_epsilon,
    hockey_stick,
    patterns,
)
from dpaudit.targets.mechanisms.exact import log_laplace, log_laplace_cdf, panels

P, Q = np.array([0.5, 0.25, 0.25, 0.0]), np.array([0.25, 0.25, 0.375, 0.125])


def logs(chances):
    with np.errstate(divide="ignore"):
        return np.log(chances)


def naive_hockey_stick(p, q, epsilon):
    return sum(max(0.0, a - math.exp(epsilon) * b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 0.7, 2.0])
def test_hockey_stick_matches_a_loop(epsilon):
    for p, q in ((P, Q), (Q, P)):
        assert hockey_stick(logs(p), logs(q), epsilon) == pytest.approx(naive_hockey_stick(p, q, epsilon))


def test_finite_epsilon_is_the_largest_loss_and_falls_with_delta():
    assert finite_epsilon(logs(P), logs(Q)) == finite_epsilon(logs(Q), logs(P)) == math.inf
    assert finite_epsilon(logs(P), logs(Q), 0.1) == math.inf  # mass 1/8 that the other does not have
    assert finite_epsilon(logs(P[:3]), logs(Q[:3])) == pytest.approx(math.log(2))
    for delta in (0.13, 0.2):
        found = finite_epsilon(logs(P), logs(Q), delta)
        worst = max(naive_hockey_stick(P, Q, found), naive_hockey_stick(Q, P, found))
        assert worst == pytest.approx(delta)
    assert finite_epsilon(logs(P), logs(Q), 0.25) == 0.0


def test_panels_integrate_what_has_kinks():
    nodes, weights = panels(np.array([0.0, 3.0, -1.0]), 1.0, 3.0)
    log_density = log_laplace(nodes, 1.0)
    below = log_laplace_cdf(nodes - 3.0, 0.5)
    got = np.exp(log_density + below + weights).sum()
    want = sum(
        quad(lambda x: laplace.pdf(x) * laplace.cdf(x - 3, scale=0.5), a, b, epsabs=1e-14)[0]
        for a, b in itertools.pairwise((-60, 0, 3, 60))
    )
    assert got == pytest.approx(want, rel=1e-10)


def test_laplace_logs_are_those_of_scipy_and_stay_finite_in_the_tail():
    x = np.array([-5.0, -1e-9, 0.0, 0.2, 30.0])
    np.testing.assert_allclose(log_laplace(x, 2.0), laplace.logpdf(x, scale=2.0), rtol=1e-12)
    np.testing.assert_allclose(np.exp(log_laplace_cdf(x, 2.0)), laplace.cdf(x, scale=2.0), rtol=1e-12)
    assert log_laplace_cdf(-4000.0, 2.0) == pytest.approx(-2000 - math.log(2))


@pytest.mark.parametrize(("make", "law"), [(ReportNoisyMax1, laplace), (ReportNoisyMax2, expon)])
def test_noisy_max_matches_scalar_integrals(make, law):
    answers, mechanism = [1.0, 3.0, 2.5, -4.0], make(epsilon=0.8)
    noise = law(scale=2.5)
    found = np.exp(mechanism.log_probabilities(answers))
    for i, own in enumerate(answers):
        others = [q for j, q in enumerate(answers) if j != i]

        def joint(x, own=own, others=others):
            return noise.pdf(x - own) * math.prod(noise.cdf(x - q) for q in others)

        cuts = sorted([*answers, -100.0, 120.0])
        want = sum(quad(joint, a, b, epsabs=1e-14)[0] for a, b in itertools.pairwise(cuts))
        assert found[i] == pytest.approx(want, rel=1e-9)


def permute_and_flip(answers, epsilon):
    """McKenna & Sheldon (2020, arXiv:2010.12603): each order of the candidates, each coin in turn."""
    accept = [math.exp(epsilon * (q - max(answers)) / 2) for q in answers]
    chances = [0.0] * len(answers)
    for order in itertools.permutations(range(len(answers))):
        left = 1 / math.factorial(len(answers))
        for i in order:
            chances[i] += left * accept[i]
            left *= 1 - accept[i]
    return chances


def test_exponential_noise_is_permute_and_flip():
    answers = [0.0, 1.0, -2.5, 1.0]
    found = np.exp(ReportNoisyMax2(epsilon=1.3).log_probabilities(answers))
    np.testing.assert_allclose(found, permute_and_flip(answers, 1.3), rtol=1e-10)


def test_the_tail_of_the_released_maximum_loses_a_noise_for_every_answer():
    mechanism, first, second = ReportNoisyMax3(), np.ones(5), np.zeros(5)
    noise = laplace(scale=20.0)

    def loss(v):
        return abs(5 * (noise.logcdf(v - 1) - noise.logcdf(v)))

    assert loss(10.0) < loss(-50.0) == pytest.approx(mechanism.pair_epsilon(first, second))


def test_noisy_max_with_laplace_noise_approaches_its_claim_far_behind():
    found = [NoisyMax().pair_epsilon([0.0, -far], [1.0, -far - 1]) for far in (1.0, 100.0, 2000.0)]
    assert found == sorted(found)
    assert 0.098 < found[-1] < 0.1 == NoisyMax().exact_epsilon()


@pytest.mark.parametrize("one_differs", [True, False])
@pytest.mark.parametrize("dimension", [1, 2, 5, 10])
def test_patterns_are_neighbours_in_both_orders(dimension, one_differs):
    pairs = patterns(dimension, one_differs)
    seen = {(tuple(a), tuple(b)) for a, b in pairs}
    expected = 4 if one_differs else {1: 4, 2: 14}.get(dimension, 16)
    assert len(seen) == len(pairs) == expected
    for first, second in pairs:
        moved = np.abs(first - second)
        assert first.shape == second.shape == (dimension,)
        assert moved.max() == 1
        assert not one_differs or np.count_nonzero(moved) == 1
        assert (tuple(second), tuple(first)) in seen
