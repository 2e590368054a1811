"""Reference mechanisms against slow scalar twins and published numbers."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from dpaudit.errors import UsageError
from dpaudit.targets.mechanisms import (
    ExactMechanism,
    Exponential,
    Gaussian,
    Laplace,
    RandomisedResponse,
    gaussian_profile,
)

EVERY = (
    Laplace(epsilon=0.7, sensitivity=3.0),
    Gaussian(epsilon=0.7, delta=1e-5, sensitivity=3.0),
    Gaussian(epsilon=0.7, delta=1e-5, classic=True),
    Exponential(epsilon=0.7, sensitivity=3.0),
    RandomisedResponse(epsilon=0.7, categories=5),
)


def naive_exponential(utilities: list[float], epsilon: float, sensitivity: float) -> list[float]:
    weights = [math.exp(epsilon * u / (2 * sensitivity)) for u in utilities]
    return [w / sum(weights) for w in weights]


def naive_response(value: int, epsilon: float, categories: int) -> list[float]:
    total = math.exp(epsilon) + categories - 1
    return [(math.exp(epsilon) if i == value else 1.0) / total for i in range(categories)]


def naive_hockey_stick(p: list[float], q: list[float], epsilon: float) -> float:
    return sum(max(0.0, a - math.exp(epsilon) * b) for a, b in zip(p, q, strict=True))


def naive_delta(density, centre: float, epsilon: float, reach: float) -> float:
    """Hockey-stick divergence of a density and its shift by `centre`, integrated on a fine grid."""

    def excess(x: float) -> float:
        return max(0.0, density(x) - math.exp(epsilon) * density(x - centre))

    return quad(excess, -reach, reach, points=[0.0, centre / 2, centre], limit=500)[0]


@pytest.mark.parametrize("mechanism", EVERY, ids=repr)
def test_every_mechanism_meets_the_protocol(mechanism):
    assert isinstance(mechanism, ExactMechanism)
    first, second = mechanism.worst_pair()
    assert first.shape == second.shape
    rng = np.random.default_rng(0)
    assert mechanism.sample(first, 7, rng).shape[0] == 7
    assert mechanism.sample(first, 0, rng).shape[0] == 0


@pytest.mark.parametrize("mechanism", EVERY, ids=repr)
def test_equal_generators_release_equal_outputs(mechanism):
    data, _ = mechanism.worst_pair()
    draws = [mechanism.sample(data, 50, np.random.default_rng(3)) for _ in range(2)]
    np.testing.assert_array_equal(*draws)


def test_exponential_probabilities_match_a_scalar_loop():
    utilities = [0.0, 1.0, -2.5, 1.0, 4.0]
    got = Exponential(epsilon=1.3, sensitivity=0.5).probabilities(utilities)
    np.testing.assert_allclose(got, naive_exponential(utilities, 1.3, 0.5), rtol=1e-13)


def test_exponential_survives_utilities_that_overflow_a_naive_exponential():
    got = Exponential(epsilon=2.0).probabilities([1e6, 1e6 - 1.0, -1e308, 0.0])
    np.testing.assert_allclose(got, [math.e / (math.e + 1), 1 / (math.e + 1), 0.0, 0.0], rtol=1e-12)


@pytest.mark.parametrize("categories", [2, 3, 10])
def test_randomised_response_matches_a_scalar_loop(categories):
    mechanism = RandomisedResponse(epsilon=0.9, categories=categories)
    for value in range(categories):
        np.testing.assert_allclose(
            mechanism.probabilities(value), naive_response(value, 0.9, categories), rtol=1e-13
        )


def test_randomised_response_of_a_vector_multiplies_its_coordinates():
    mechanism = RandomisedResponse(epsilon=0.9, categories=3)
    got = mechanism.log_density([0, 2], [[0, 2], [1, 2], [1, 1]])
    single = [naive_response(0, 0.9, 3), naive_response(2, 0.9, 3)]
    want = [math.log(single[0][a] * single[1][b]) for a, b in ([0, 2], [1, 2], [1, 1])]
    np.testing.assert_allclose(got, want, rtol=1e-13)


def test_laplace_density_and_profile_match_direct_integration():
    mechanism = Laplace(epsilon=1.2, sensitivity=2.0)
    scale = 2.0 / 1.2

    def density(x: float) -> float:
        return math.exp(-abs(x) / scale) / (2 * scale)

    for x in (-3.0, 0.0, 1.7):
        assert mechanism.log_density([0.0], [[x]])[0] == pytest.approx(math.log(density(x)))
    for epsilon in (0.0, 0.4, 1.0, 1.2, 2.0):
        want = naive_delta(density, 2.0, epsilon, 60.0)
        assert mechanism.privacy_profile(epsilon) == pytest.approx(want, abs=1e-8)


def test_gaussian_density_and_profile_match_direct_integration():
    mechanism = Gaussian(epsilon=1.0, delta=1e-3, sensitivity=2.0)

    def density(x: float) -> float:
        return float(norm.pdf(x, scale=mechanism.sigma))

    assert mechanism.log_density([1.0, 0.0], [[0.5, 2.0]])[0] == pytest.approx(
        math.log(density(-0.5)) + math.log(density(2.0))
    )
    for epsilon in (0.0, 0.5, 1.0, 1.5):
        want = naive_delta(density, 2.0, epsilon, 12 * mechanism.sigma)
        assert mechanism.privacy_profile(epsilon) == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize(
    ("epsilon", "mu"), [(1.0, 0.2681), (2.0, 0.5016), (4.0, 0.9249), (8.0, 1.6660), (16.0, 2.9055)]
)
def test_gaussian_noise_is_the_tabulated_one(epsilon, mu):
    assert 1 / Gaussian(epsilon=epsilon, delta=1e-5).sigma == pytest.approx(mu, abs=6e-5)


def test_classic_noise_is_the_textbook_formula_and_larger():
    classic = Gaussian(epsilon=0.5, delta=1e-5, classic=True)
    assert classic.sigma == pytest.approx(math.sqrt(2 * math.log(1.25e5)) / 0.5)
    assert classic.sigma > Gaussian(epsilon=0.5, delta=1e-5).sigma
    assert classic.exact_epsilon(1e-5) < 0.5


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(20.0, 2.6647067053654976e-86), (36.0, 6.7231899231030299e-278)]
)
def test_gaussian_profile_keeps_its_digits_in_the_tail(epsilon, delta):
    # The right sides are the same formula at 60 digits (mpmath); plain doubles return 0 or worse.
    assert gaussian_profile(1.0, epsilon) == pytest.approx(delta, rel=1e-9)
    assert gaussian_profile(1.0, math.inf) == 0.0


@pytest.mark.parametrize("at", [0.0, 0.1, 0.5, 0.69])
def test_exponential_profile_is_attained_by_its_worst_pair_and_not_exceeded(at):
    mechanism = Exponential(epsilon=0.7, sensitivity=3.0)
    first, second = mechanism.worst_pair(at)
    assert np.abs(second - first).max() <= 3.0 * (1 + 1e-12)
    p, q = (naive_exponential(list(u), 0.7, 3.0) for u in (first, second))
    reached = max(naive_hockey_stick(p, q, at), naive_hockey_stick(q, p, at))
    assert reached == pytest.approx(mechanism.privacy_profile(at), rel=1e-9)

    rng = random.Random(1)
    for _ in range(500):
        base = [rng.uniform(-30, 30) for _ in range(rng.randint(2, 6))]
        moved = [u + rng.choice((-3.0, 0.0, 3.0)) for u in base]
        p, q = (naive_exponential(u, 0.7, 3.0) for u in (base, moved))
        assert naive_hockey_stick(p, q, at) <= mechanism.privacy_profile(at) + 1e-12


def test_randomised_response_profile_is_the_hockey_stick_of_its_worst_pair():
    mechanism = RandomisedResponse(epsilon=0.9, categories=4)
    p, q = naive_response(0, 0.9, 4), naive_response(1, 0.9, 4)
    for epsilon in (0.0, 0.3, 0.9, 1.5):
        assert mechanism.privacy_profile(epsilon) == pytest.approx(
            naive_hockey_stick(p, q, epsilon), abs=1e-15
        )


@pytest.mark.parametrize("mechanism", EVERY, ids=repr)
def test_exact_epsilon_inverts_the_profile(mechanism):
    for epsilon in (0.05, 0.3, 0.69):
        assert mechanism.exact_epsilon(mechanism.privacy_profile(epsilon)) == pytest.approx(epsilon, rel=1e-9)
    assert mechanism.exact_epsilon(0.99) == 0.0


def test_exact_epsilon_at_delta_zero_is_the_claim_or_infinite():
    for mechanism in EVERY:
        want = math.inf if isinstance(mechanism, Gaussian) else mechanism.epsilon
        assert mechanism.exact_epsilon(0.0) == pytest.approx(want)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Laplace(epsilon=0.0), r"Expected epsilon=0.0 in \(0.0, inf\)"),
        (lambda: Laplace(epsilon=math.nan), r"Expected epsilon=nan"),
        (lambda: Exponential(epsilon=1.0, sensitivity=-1.0), r"Expected sensitivity=-1.0"),
        (lambda: Gaussian(epsilon=1.0, delta=0.0), r"Expected delta=0.0 in \(0.0, 1.0\)"),
        (lambda: Gaussian(epsilon=1.5, delta=1e-5, classic=True), r"epsilon=1.5 .* leave `classic` False"),
        (lambda: RandomisedResponse(epsilon=1.0, categories=1), r"Expected categories=1 in \[2"),
        (lambda: Laplace(epsilon=1.0).privacy_profile(-1.0), r"Expected epsilon=-1.0"),
        (lambda: Laplace(epsilon=1.0).exact_epsilon(1.0), r"Expected delta=1.0"),
    ],
)
def test_impossible_settings_are_refused_by_value(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_impossible_data_are_refused_by_value():
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match="found nan at position 1"):
        Laplace(epsilon=1.0).sample([0.0, math.nan], 1, rng)
    with pytest.raises(UsageError, match=r"found 3.0"):
        RandomisedResponse(epsilon=1.0, categories=3).sample([0, 3], 1, rng)
    with pytest.raises(UsageError, match=r"found 0.5"):
        RandomisedResponse(epsilon=1.0).sample([0.5], 1, rng)
    with pytest.raises(UsageError, match=r"shape \(2, 2\)"):
        Exponential(epsilon=1.0).probabilities([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(UsageError, match=r"shape \(size, \*\(2,\)\), found \(3, 1\)"):
        Laplace(epsilon=1.0).log_density([0.0, 0.0], [[1.0], [2.0], [3.0]])
