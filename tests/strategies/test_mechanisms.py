"""Properties of the reference mechanisms: private on all neighbours, no looser than said, sampled as said.

Statistical checks draw their seed with the example, so that a test body is a function of its
example, and reject at `RARE`: a thousand examples alarm falsely once in a million runs.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from dp_accounting.pld import privacy_loss_distribution as pld
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import chi2, kstest, laplace, norm

from dpaudit.strategies import neighbouring_answers
from dpaudit.targets.mechanisms import Exponential, Gaussian, Laplace, RandomisedResponse, gaussian_profile
from tests.laws import RARE, assert_counts_follow

ROUNDING = 1e-9
SIZE = 2000

few = settings(max_examples=40, deadline=None)
many = settings(max_examples=150, deadline=None)

epsilons = st.floats(0.01, 8.0)
deltas = st.floats(1e-9, 0.3)
sensitivities = st.floats(1e-3, 1e3)
seeds = st.integers(0, 2**32 - 1)
dimensions = st.integers(1, 6)


def hockey_stick(p, q, epsilon):
    return np.maximum(p - math.exp(epsilon) * q, 0.0).sum()


# --- privacy -------------------------------------------------------------------------------------


@many
@given(st.data(), epsilons, sensitivities)
def test_exponential_never_exceeds_its_claim(data, epsilon, sensitivity):
    pair = data.draw(neighbouring_answers(data.draw(dimensions), sensitivity=sensitivity))
    mechanism = Exponential(epsilon=epsilon, sensitivity=sensitivity)
    every = np.arange(len(pair.first))
    loss = mechanism.log_density(pair.first, every) - mechanism.log_density(pair.second, every)
    assert np.abs(loss).max() <= epsilon + ROUNDING
    # Bounded range (Durfee & Rogers 2019, arXiv:1905.04273) is what makes its profile so low.
    assert np.ptp(loss) <= epsilon + ROUNDING


@many
@given(st.data(), epsilons, st.floats(0.0, 1.0))
def test_exponential_profile_bounds_every_pair_and_is_attained(data, epsilon, fraction):
    mechanism, at = Exponential(epsilon=epsilon), fraction * epsilon * 0.99
    pair = data.draw(neighbouring_answers(data.draw(st.integers(2, 6))))
    p, q = mechanism.probabilities(pair.first), mechanism.probabilities(pair.second)
    assert hockey_stick(p, q, at) <= mechanism.privacy_profile(at) + ROUNDING
    p, q = map(mechanism.probabilities, mechanism.worst_pair(at))
    assert abs(hockey_stick(p, q, at) - mechanism.privacy_profile(at)) <= ROUNDING


@many
@given(epsilons, st.integers(2, 8), st.floats(0.0, 2.0))
def test_randomised_response_is_exactly_its_claim_for_every_pair_of_truths(epsilon, categories, fraction):
    mechanism, at = RandomisedResponse(epsilon=epsilon, categories=categories), fraction * epsilon
    rows = np.array([mechanism.probabilities(value) for value in range(categories)])
    np.testing.assert_allclose(rows.sum(axis=1), 1.0, rtol=1e-12)
    for p, q in itertools.permutations(rows, 2):
        assert abs(np.log(p / q).max() - epsilon) <= ROUNDING
        assert abs(hockey_stick(p, q, at) - mechanism.privacy_profile(at)) <= ROUNDING


@many
@given(st.data(), epsilons, sensitivities, dimensions)
def test_laplace_density_ratio_is_bounded_wherever_one_looks(data, epsilon, sensitivity, dimension):
    mechanism = Laplace(epsilon=epsilon, sensitivity=sensitivity)
    pair = data.draw(neighbouring_answers(dimension, sensitivity=sensitivity, movable=1))
    far = st.floats(-1e6, 1e6).map(lambda x: x * sensitivity)
    outputs = np.array([data.draw(st.lists(far, min_size=dimension, max_size=dimension)), pair.first])
    loss = mechanism.log_density(pair.first, outputs) - mechanism.log_density(pair.second, outputs)
    assert np.abs(loss).max() <= epsilon + 1e-6


@few
@given(epsilons, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_laplace_spends_most_when_one_answer_takes_the_whole_sensitivity(epsilon, share, fraction):
    one, rest, at = share * epsilon, (1 - share) * epsilon, fraction * epsilon

    def given_first(x: float) -> float:
        left = at - one * (abs(x - 1) - abs(x))  # in units in which the first answer moves by 1
        inner = 1 - math.exp((left - rest) / 2) if left > -rest else 1 - math.exp(left)
        return one / 2 * math.exp(-one * abs(x)) * max(0.0, inner)

    assume(one > 1e-3)
    reach = 40 / one
    split = sum(quad(given_first, a, b, limit=200)[0] for a, b in ((-reach, 0), (0, 1), (1, reach)))
    assert split <= Laplace(epsilon=epsilon).privacy_profile(at) + 1e-7


@many
@given(epsilons, deltas, sensitivities)
def test_analytic_gaussian_is_tight_at_its_claim(epsilon, delta, sensitivity):
    mechanism = Gaussian(epsilon=epsilon, delta=delta, sensitivity=sensitivity)
    assert abs(mechanism.privacy_profile(epsilon) / delta - 1) <= 1e-9
    assert abs(mechanism.exact_epsilon(delta) - epsilon) <= 1e-7


@many
@given(st.floats(0.01, 0.999), deltas)
def test_classic_gaussian_keeps_its_claim_with_more_noise_than_needed(epsilon, delta):
    classic = Gaussian(epsilon=epsilon, delta=delta, classic=True)
    assert classic.privacy_profile(epsilon) <= delta
    assert classic.sigma >= Gaussian(epsilon=epsilon, delta=delta).sigma


@few
@given(st.data(), st.floats(0.1, 4.0), deltas, dimensions)
def test_gaussian_loss_depends_on_the_distance_alone(data, epsilon, delta, dimension):
    """Privacy loss of a movement by s in any direction is affine in the output with slope s/sigma^2."""
    mechanism = Gaussian(epsilon=epsilon, delta=delta)
    move = np.random.default_rng(data.draw(seeds)).normal(size=dimension)
    move /= np.linalg.norm(move)
    along = data.draw(st.floats(-20.0, 20.0))
    outputs = np.array([along * move])
    loss = mechanism.log_density(np.zeros(dimension), outputs) - mechanism.log_density(move, outputs)
    np.testing.assert_allclose(loss, (1 - 2 * along) / (2 * mechanism.sigma**2), rtol=1e-6, atol=1e-9)


@few
@given(st.floats(0.1, 4.0), st.floats(0.0, 5.0))
def test_profiles_agree_with_an_independent_accountant(epsilon, at):
    """`dp_accounting` discretises and rounds up: never below the exact answer, and close to it."""
    gaussian = Gaussian(epsilon=epsilon, delta=1e-3)
    both = (
        (
            Laplace(epsilon=epsilon),
            pld.from_laplace_mechanism(1 / epsilon, value_discretization_interval=1e-3),
        ),
        (gaussian, pld.from_gaussian_mechanism(gaussian.sigma, value_discretization_interval=1e-3)),
    )
    for mechanism, other in both:
        excess = other.get_delta_for_epsilon(at) - mechanism.privacy_profile(at)
        assert -1e-8 <= excess <= 2e-3


# --- monotonicity and composition ----------------------------------------------------------------


@many
@given(epsilons, st.floats(1.001, 3.0), deltas, st.floats(0.0, 4.0))
def test_a_larger_claim_means_less_noise_and_less_privacy(epsilon, factor, delta, at):
    small, large = epsilon, epsilon * factor
    assert Laplace(epsilon=small).scale > Laplace(epsilon=large).scale
    assert Gaussian(epsilon=small, delta=delta).sigma > Gaussian(epsilon=large, delta=delta).sigma
    for make in (
        lambda e: Laplace(epsilon=e),
        lambda e: Exponential(epsilon=e),
        lambda e: RandomisedResponse(epsilon=e, categories=3),
        lambda e: Gaussian(epsilon=e, delta=delta),
    ):
        assert make(small).privacy_profile(at) <= make(large).privacy_profile(at) + ROUNDING
        assert make(small).exact_epsilon(delta) <= make(large).exact_epsilon(delta) + ROUNDING


@many
@given(epsilons, deltas, st.floats(0.0, 4.0), st.floats(0.0, 4.0))
def test_profiles_fall_in_epsilon_and_stay_probabilities(epsilon, delta, one, two):
    low, high = sorted((one, two))
    for mechanism in (
        Laplace(epsilon=epsilon),
        Exponential(epsilon=epsilon),
        RandomisedResponse(epsilon=epsilon, categories=4),
        Gaussian(epsilon=epsilon, delta=delta),
    ):
        assert 0.0 <= mechanism.privacy_profile(high) <= mechanism.privacy_profile(low) + 1e-15 <= 1.0
        assert mechanism.exact_epsilon(0.1) <= mechanism.exact_epsilon(0.01)
        if mechanism.delta == 0:
            assert mechanism.privacy_profile(epsilon) <= 1e-15


@many
@given(st.floats(0.05, 3.0), deltas, st.integers(1, 50))
def test_gaussian_composes_as_the_root_of_the_number_of_releases(epsilon, delta, releases):
    """n releases move a vector of n answers by sqrt(n) sensitivities: one Gaussian of mu sqrt(n)."""
    mechanism = Gaussian(epsilon=epsilon, delta=delta)
    composed = Gaussian(epsilon=epsilon, delta=delta, sensitivity=math.sqrt(releases))
    assert math.isclose(composed.sigma, mechanism.sigma * math.sqrt(releases), rel_tol=1e-9)
    mu = math.sqrt(releases) / mechanism.sigma
    assert gaussian_profile(mu, epsilon) >= delta * (1 - 1e-9)
    # Basic composition (Dwork & Roth 2014, theorem 3.16) holds, and is loose.
    assert gaussian_profile(mu, releases * epsilon) <= releases * delta + ROUNDING


@few
@given(st.floats(0.05, 2.0), st.integers(2, 3), st.integers(1, 5))
def test_randomised_response_composes_additively_at_delta_zero(epsilon, categories, releases):
    mechanism = RandomisedResponse(epsilon=epsilon, categories=categories)
    outputs = np.array(list(itertools.product(range(categories), repeat=releases)))
    zeros, ones = np.zeros(releases), np.ones(releases)
    p, q = mechanism.log_density(zeros, outputs), mechanism.log_density(ones, outputs)
    assert math.isclose(np.exp(p).sum(), 1.0, rel_tol=1e-9)
    assert math.isclose((p - q).max(), releases * epsilon, rel_tol=1e-9)
    total = hockey_stick(np.exp(p), np.exp(q), releases * epsilon * 0.5)
    assert total <= releases * mechanism.privacy_profile(epsilon * 0.5) + ROUNDING


# --- utility -------------------------------------------------------------------------------------


@many
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=8), epsilons, sensitivities, st.floats(0.0, 10.0))
def test_exponential_utility_bound(utilities, epsilon, sensitivity, slack):
    """P[u <= max - 2 sensitivity/epsilon (log k + t)] <= e^-t (Dwork & Roth 2014, theorem 3.11)."""
    chances = Exponential(epsilon=epsilon, sensitivity=sensitivity).probabilities(utilities)
    floor = max(utilities) - 2 * sensitivity / epsilon * (math.log(len(utilities)) + slack)
    assert chances[np.array(utilities) <= floor].sum() <= math.exp(-slack) + ROUNDING


@many
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=8), epsilons, st.floats(1.0, 3.0))
def test_exponential_expected_utility_grows_with_epsilon(utilities, epsilon, factor):
    means = [Exponential(epsilon=e).probabilities(utilities) @ utilities for e in (epsilon, epsilon * factor)]
    assert means[0] <= means[1] + 1e-9 * 50


@many
@given(epsilons, st.integers(2, 8), st.data())
def test_randomised_response_debiases_to_the_truth(epsilon, categories, data):
    mechanism = RandomisedResponse(epsilon=epsilon, categories=categories)
    truth = data.draw(st.integers(0, categories - 1))
    kept, lied = mechanism.probabilities(0)[0], mechanism.probabilities(0)[1]
    estimate = (mechanism.probabilities(truth) - lied) / (kept - lied)  # mean of the debiased indicators
    np.testing.assert_allclose(estimate, np.arange(categories) == truth, atol=1e-9)


@few
@given(epsilons, deltas, sensitivities, seeds)
def test_additive_noise_is_unbiased_with_the_variance_that_theory_gives(epsilon, delta, sensitivity, seed):
    rng, answer = np.random.default_rng(seed), 3.0 * sensitivity
    laplacian = Laplace(epsilon=epsilon, sensitivity=sensitivity)
    gaussian = Gaussian(epsilon=epsilon, delta=delta, sensitivity=sensitivity)
    ordinary = (gaussian.sample(answer, SIZE, rng) - answer) / gaussian.sigma
    assert abs(ordinary.sum()) / math.sqrt(SIZE) <= norm.isf(RARE / 2)
    squares = np.square(ordinary).sum()
    assert chi2.ppf(RARE / 2, SIZE) <= squares <= chi2.isf(RARE / 2, SIZE)
    # |noise|/b is a standard exponential, whose sum is half a chi-square of 2n degrees of freedom.
    magnitudes = 2 * np.abs(laplacian.sample(answer, SIZE, rng) - answer).sum() / laplacian.scale
    assert chi2.ppf(RARE / 2, 2 * SIZE) <= magnitudes <= chi2.isf(RARE / 2, 2 * SIZE)


# --- samples follow the stated law -----------------------------------------------------------------


@few
@given(st.lists(st.floats(-20, 20), min_size=1, max_size=8), epsilons, seeds)
def test_exponential_samples_follow_its_probabilities(utilities, epsilon, seed):
    mechanism = Exponential(epsilon=epsilon)
    picked = mechanism.sample(utilities, SIZE, np.random.default_rng(seed))
    counts = np.bincount(picked, minlength=len(utilities))
    assert_counts_follow(counts, mechanism.probabilities(utilities))


@few
@given(epsilons, st.integers(2, 6), seeds, st.data())
def test_randomised_response_samples_follow_its_probabilities(epsilon, categories, seed, data):
    mechanism = RandomisedResponse(epsilon=epsilon, categories=categories)
    truth = data.draw(st.lists(st.integers(0, categories - 1), min_size=1, max_size=3))
    answers = mechanism.sample(truth, SIZE, np.random.default_rng(seed))
    assert answers.shape == (SIZE, len(truth))
    for column, value in zip(answers.T, truth, strict=True):
        assert_counts_follow(np.bincount(column, minlength=categories), mechanism.probabilities(value))


@few
@given(epsilons, deltas, sensitivities, seeds)
def test_additive_noise_follows_its_distribution(epsilon, delta, sensitivity, seed):
    rng = np.random.default_rng(seed)
    laplacian = Laplace(epsilon=epsilon, sensitivity=sensitivity)
    gaussian = Gaussian(epsilon=epsilon, delta=delta, sensitivity=sensitivity)
    assert kstest(laplacian.sample(0.0, SIZE, rng) / laplacian.scale, laplace.cdf).pvalue > RARE
    assert kstest(gaussian.sample(0.0, SIZE, rng) / gaussian.sigma, norm.cdf).pvalue > RARE


@few
@given(seeds, dimensions, epsilons)
def test_coordinates_and_releases_are_independent(seed, dimension, epsilon):
    """Correlations of independent Laplace noise; one repeated draw would make them 1."""
    noise = Laplace(epsilon=epsilon).sample(np.zeros(dimension + 1), SIZE, np.random.default_rng(seed))
    signs = np.sign(noise)
    for a, b in itertools.combinations(range(dimension + 1), 2):
        assert_counts_follow(np.bincount((signs[:, a] == signs[:, b]).astype(int), minlength=2), [0.5, 0.5])
    again = np.sign(noise[1:, 0]) == np.sign(noise[:-1, 0])
    assert_counts_follow(np.bincount(again.astype(int), minlength=2), [0.5, 0.5])
