"""Properties of the benchmark's mechanisms, on neighbours that Hypothesis finds.

Privacy is enumerated or integrated, never estimated. Samples are compared with the exact law, at a
level (`tests.laws.RARE`) at which a false alarm is never seen; their seed is part of the example.
"""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, laplace

from dpaudit.strategies import neighbouring_answers, neighbouring_arrays, neighbouring_lists, numbers
from dpaudit.targets.mechanisms import (
    RAPPOR,
    SVT1,
    SVT2,
    SVT3,
    SVT4,
    SVT5,
    SVT6,
    Exponential,
    Geometric,
    GradientStep,
    NoisyHist,
    NoisyMax,
    NumericalSVT,
    OneTimeRAPPOR,
    PartialSum,
    PrefixSum,
    ReportNoisyMax2,
    ReportNoisyMax3,
    TruncatedGeometric,
    finite_epsilon,
    hockey_stick,
)
from dpaudit.targets.mechanisms.planted import CAP, GRID, HalfScale, SoundSum
from tests.laws import RARE, assert_counts_follow, assert_rows_follow

ROUNDING = 1e-9
SIZE = 2000

few = settings(max_examples=20, deadline=None)
many = settings(max_examples=50, deadline=None)

epsilons = st.floats(0.02, 4.0)
seeds = st.integers(0, 2**32 - 1)
dimensions = st.integers(2, 5)
cutoffs = st.integers(1, 3)
answers = st.lists(st.floats(-20, 20), min_size=2, max_size=5)


# --- privacy -------------------------------------------------------------------------------------


@many
@given(st.data(), epsilons, dimensions, cutoffs)
def test_sound_sparse_vectors_never_exceed_their_claim_nor_broken_ones_their_limit(data, epsilon, d, cutoff):
    pair = data.draw(neighbouring_answers(d))
    threshold = data.draw(st.floats(-3.0, 3.0))
    for make in (SVT1, SVT2, SVT4, NumericalSVT):
        mechanism = make(epsilon=epsilon, cutoff=cutoff, threshold=threshold, dimension=d)
        lost = mechanism.pair_epsilon(pair.first, pair.second)
        assert lost <= mechanism.epsilon_limit + ROUNDING
        if make is not SVT4:
            assert lost <= epsilon + ROUNDING
    unending = SVT6(epsilon=epsilon, threshold=threshold, dimension=d)
    assert unending.pair_epsilon(pair.first, pair.second) <= unending.epsilon_limit + ROUNDING


@many
@given(st.data(), epsilons, cutoffs)
def test_sparse_vectors_on_sums_of_records_lose_a_threshold_and_no_more(data, epsilon, cutoff):
    pair = data.draw(neighbouring_lists(numbers(0.0, 1.0), max_size=6))
    every = [make(epsilon=epsilon, cutoff=cutoff, queries="sum", dimension=3) for make in (SVT1, SVT2, SVT4)]
    every += [make(epsilon=epsilon, queries="sum", dimension=3) for make in (SVT5, SVT6)]
    for mechanism in every:
        assert mechanism.epsilon_limit <= epsilon * (1 + ROUNDING)
        # What a sum of floats loses by rounding moves the answers by as little.
        assert mechanism.pair_epsilon(pair.first, pair.second) <= mechanism.epsilon_limit + ROUNDING


@many
@given(st.data(), epsilons, dimensions)
def test_the_index_of_a_noisy_maximum_never_exceeds_its_claim_nor_the_value_its_limit(data, epsilon, d):
    pair = data.draw(neighbouring_answers(d))
    for noise in ("laplace", "exponential"):
        mechanism = NoisyMax(epsilon=epsilon, noise=noise, dimension=d)
        assert mechanism.pair_epsilon(pair.first, pair.second) <= epsilon + ROUNDING
    value = ReportNoisyMax3(epsilon=epsilon, dimension=d)
    assert value.pair_epsilon(pair.first, pair.second) <= value.exact_epsilon() + ROUNDING


@many
@given(st.data(), st.integers(1, 8), st.integers(1, 4))
def test_geosample_never_exceeds_its_claim_for_any_count_and_attains_it(data, n, k):
    mechanism = TruncatedGeometric(n=n, k=k)
    count = data.draw(st.integers(0, n - 1))
    assert mechanism.pair_epsilon(count, count + 1) <= mechanism.epsilon + ROUNDING
    assert mechanism.exact_epsilon() >= mechanism.epsilon - ROUNDING


@many
@given(st.data(), epsilons, st.integers(1, 4))
def test_geometric_loss_is_bounded_for_every_output(data, epsilon, sensitivity):
    mechanism = Geometric(epsilon=epsilon, sensitivity=sensitivity)
    at, step = data.draw(st.integers(-50, 50)), data.draw(st.integers(-sensitivity, sensitivity))
    outputs = np.array(data.draw(st.lists(st.integers(-1000, 1000), min_size=1, max_size=20)))[:, None]
    loss = mechanism.log_density([at], outputs) - mechanism.log_density([at + step], outputs)
    assert np.abs(loss).max() <= epsilon + ROUNDING


@many
@given(st.integers(-1000, 1000), st.integers(-1000, 1000), st.floats(0.05, 0.99), st.integers(1, 5))
def test_rappor_never_exceeds_its_claim_for_any_two_values(one, two, f, hashes):
    for mechanism in (RAPPOR(f=f, hashes=hashes), OneTimeRAPPOR(f=f, hashes=hashes)):
        assert mechanism.pair_epsilon(one, two) <= mechanism.epsilon + ROUNDING


@many
@given(neighbouring_lists(numbers(0.0, CAP), max_size=40))
def test_the_control_sum_moves_by_one_cap_at_most_whatever_the_records(pair):
    """In integers, and by no more than the noise is made for: its loss is its rate times the distance."""
    totals = [SoundSum().total(records) for records in (pair.first, pair.second)]
    assert all(total == round(total) for total in totals)
    assert abs(totals[0] - totals[1]) * GRID <= CAP
    assert np.isfinite(SoundSum().sample(pair.first, 3, np.random.default_rng(0))).all()


@many
@given(neighbouring_arrays(st.floats(-1e3, 1e3) | st.just(math.nan), columns=3, max_size=8))
def test_a_gradient_step_moves_by_one_norm_where_each_row_is_clipped(pair):
    for clips in ("record", "batch"):
        step = GradientStep(clips=clips)
        moved = np.linalg.norm(step.total(pair.first) - step.total(pair.second))
        assert moved <= step.sensitivity * (1 + ROUNDING)


@many
@given(st.data(), epsilons, st.floats(0.0, 1.0))
def test_the_epsilon_of_a_pair_inverts_its_profile(data, epsilon, fraction):
    pair = data.draw(neighbouring_answers(data.draw(dimensions)))
    mechanism = NoisyMax(epsilon=epsilon)
    p, q = (mechanism.log_probabilities(answers) for answers in (pair.first, pair.second))
    at = fraction * finite_epsilon(p, q)
    delta = max(hockey_stick(p, q, at), hockey_stick(q, p, at))
    found = finite_epsilon(p, q, delta)
    assert found <= at + ROUNDING
    assert max(hockey_stick(p, q, found), hockey_stick(q, p, found)) <= delta + 1e-12


# --- unsound ones ----------------------------------------------------------------------------------


@few
@given(epsilons, st.integers(6, 10))
def test_what_is_broken_is_broken_at_every_epsilon_beyond_the_claim(epsilon, d):
    for mechanism in (
        SVT3(epsilon=epsilon, dimension=d),
        SVT4(epsilon=epsilon, dimension=d),
        SVT5(epsilon=epsilon, dimension=d),
        SVT6(epsilon=epsilon, dimension=d if d % 2 == 0 else d + 1),
        ReportNoisyMax3(epsilon=epsilon, dimension=d),
        PrefixSum(epsilon=epsilon, dimension=d),
        PartialSum(epsilon=epsilon, scale=1 / (2 * epsilon)),
        NoisyHist(epsilon=epsilon, scale=0.5 / epsilon),
        HalfScale(epsilon=epsilon),
    ):
        assert mechanism.exact_epsilon() > mechanism.epsilon * 1.5
    half = np.repeat([1.0, -1.0], [d // 2, d - d // 2])
    assert SVT5(epsilon=epsilon, threshold=0.0).pair_epsilon(half, np.zeros(d)) == math.inf
    far = np.where(np.arange(d) == d - 1, -60 / epsilon, 60 / epsilon)
    assert SVT4(epsilon=epsilon, threshold=0.0).pair_epsilon(far, far - np.sign(far)) > epsilon * 1.5


# --- monotonicity and composition ------------------------------------------------------------------


@many
@given(epsilons, st.floats(1.01, 3.0), st.floats(0.0, 0.2), cutoffs)
def test_a_larger_claim_means_less_privacy(epsilon, factor, delta, cutoff):
    for make in (
        lambda e: Geometric(epsilon=e),
        lambda e: Exponential(epsilon=e),
        lambda e: NoisyHist(epsilon=e, scale=1 / e),
    ):
        assert make(epsilon).exact_epsilon(delta) <= make(epsilon * factor).exact_epsilon(delta) + ROUNDING
    for make in (SVT1, SVT2, SVT3, SVT4, NumericalSVT):
        one, two = (make(epsilon=e, cutoff=cutoff).epsilon_limit for e in (epsilon, epsilon * factor))
        assert math.isclose(two, one * factor, rel_tol=1e-12)


@few
@given(st.data(), epsilons, epsilons)
def test_independent_releases_lose_the_sum_at_most_and_exactly_when_repeated(data, one, two):
    pair = data.draw(neighbouring_answers(3))
    laws = [
        [mechanism.log_probabilities(answers) for answers in (pair.first, pair.second)]
        for mechanism in (ReportNoisyMax2(epsilon=one), SVT1(epsilon=two))
    ]
    joint = [np.add.outer(a, b).ravel() for a, b in zip(*laws, strict=True)]
    each = [finite_epsilon(*law) for law in laws]
    assert finite_epsilon(*joint) <= sum(each) + ROUNDING
    twice = [np.add.outer(a, a).ravel() for a in laws[0]]
    assert math.isclose(finite_epsilon(*twice), 2 * each[0], rel_tol=1e-9, abs_tol=1e-12)
    # Basic composition at delta > 0 (Dwork & Roth 2014, theorem 3.16).
    half = each[0] / 2
    assert hockey_stick(*twice, 2 * half) <= 2 * hockey_stick(*laws[0], half) + ROUNDING


# --- utility ---------------------------------------------------------------------------------------


@many
@given(answers, epsilons)
def test_exponential_noise_selects_no_worse_than_the_exponential_mechanism(values, epsilon):
    """McKenna & Sheldon (2020, arXiv:2010.12603): permute-and-flip is never worse."""
    flip = np.exp(ReportNoisyMax2(epsilon=epsilon).log_probabilities(values))
    assert flip @ values >= Exponential(epsilon=epsilon).probabilities(values) @ values - 1e-8


@many
@given(st.integers(2, 6), epsilons, st.floats(0.01, 0.9))
def test_above_threshold_is_accurate_as_its_theorem_says(d, epsilon, beta):
    """All answers alpha away are told rightly but for probability beta (Dwork & Roth 2014, theorem 3.24)."""
    alpha = 8 * (math.log(d) + math.log(2 / beta)) / epsilon
    mechanism = SVT1(epsilon=epsilon, threshold=0.0)
    values = np.append(np.full(d - 1, -alpha), alpha)
    rows, chances = mechanism.outcomes(values), np.exp(mechanism.log_probabilities(values))
    right = (rows == np.append(np.zeros(d - 1), 1)).all(axis=1)
    assert chances[right].sum() >= 1 - beta


@few
@given(seeds, epsilons, st.integers(1, 3))
def test_noise_on_integers_and_sums_is_unbiased(seed, epsilon, sensitivity):
    rng = np.random.default_rng(seed)
    mechanism = Geometric(epsilon=epsilon, sensitivity=sensitivity)
    ratio = mechanism.ratio
    deviation = math.sqrt(2 * ratio / (1 - ratio) ** 2 / SIZE)
    assert abs(mechanism.sample(7, SIZE, rng).mean() - 7) <= 7 * deviation + ROUNDING
    sums = PrefixSum(epsilon=epsilon).sample([1.0, 2.0, 3.0], SIZE, rng).mean(axis=0)
    deviations = np.sqrt(2 * np.arange(1, 4) / epsilon**2 / SIZE)
    assert (np.abs(sums - [1, 3, 6]) <= 7 * deviations).all()


# --- samples follow the exact law ------------------------------------------------------------------


@few
@given(answers, epsilons, cutoffs, seeds)
def test_flags_follow_their_law(values, epsilon, cutoff, seed):
    rng = np.random.default_rng(seed)
    every = [make(epsilon=epsilon, cutoff=cutoff) for make in (SVT1, SVT2, SVT4)]
    for mechanism in (*every, SVT5(epsilon=epsilon), SVT6(epsilon=epsilon)):
        law = mechanism.log_probabilities(values)
        assert_rows_follow(mechanism.sample(values, SIZE, rng), mechanism.outcomes(values), law)


@few
@given(answers, epsilons, cutoffs, seeds)
def test_fresh_numbers_stand_as_flags_do_and_are_noise_of_their_own(values, epsilon, cutoff, seed):
    mechanism = NumericalSVT(epsilon=epsilon, cutoff=cutoff)
    released = mechanism.sample(values, SIZE, np.random.default_rng(seed))
    codes = np.where(np.isnan(released), -1, np.isfinite(released).astype(int))
    assert_rows_follow(codes, mechanism.outcomes(values), mechanism.log_probabilities(values))
    noise = (released - np.array(values))[np.isfinite(released)] / mechanism.value_scale
    assert noise.size < 5 or kstest(noise, laplace.cdf).pvalue > RARE


@few
@given(answers, epsilons, seeds)
def test_selections_and_maxima_follow_their_law(values, epsilon, seed):
    rng = np.random.default_rng(seed)
    for noise in ("laplace", "exponential"):
        mechanism = NoisyMax(epsilon=epsilon, noise=noise)
        counts = np.bincount(mechanism.sample(values, SIZE, rng), minlength=len(values))
        chances = np.exp(mechanism.log_probabilities(values))
        assert_counts_follow(counts, np.clip(chances / chances.sum(), 0.0, 1.0))
    value = ReportNoisyMax3(epsilon=epsilon)

    def cdf(x):
        return np.prod([laplace.cdf(x - q, scale=value.scale) for q in values], axis=0)

    assert kstest(value.sample(values, SIZE, rng), cdf).pvalue > RARE


@few
@given(st.integers(0, 5), st.integers(-20, 20), epsilons, seeds)
def test_integers_and_bits_follow_their_law(count, value, epsilon, seed):
    rng = np.random.default_rng(seed)
    geosample = TruncatedGeometric()
    drawn = np.bincount(geosample.sample(count, SIZE, rng), minlength=6)
    assert_counts_follow(drawn, geosample.probabilities(count))
    geometric = Geometric(epsilon=epsilon)
    inside = np.clip(geometric.sample(value, SIZE, rng) - value, -3, 3)
    law = np.exp(geometric.log_density([0], np.arange(-2, 3)[:, None]))
    tail = (1 - law.sum()) / 2
    assert_counts_follow(np.bincount(inside + 3, minlength=7), [tail, *law, tail])
    for mechanism in (RAPPOR(), OneTimeRAPPOR()):
        ones = mechanism.sample(value, SIZE, rng).sum(axis=0)
        for total, bit in zip(ones, mechanism.filter(value), strict=True):
            chance = mechanism.chances[bit]
            assert_counts_follow(np.array([SIZE - total, total]), [1 - chance, chance])
