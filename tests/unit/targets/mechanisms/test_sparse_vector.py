"""The sparse vector technique against scalar integrals, its limits, and the coding of what it releases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import laplace

from dpaudit.targets.mechanisms import (
    SVT1,
    SVT2,
    SVT3,
    SVT4,
    SVT5,
    SVT6,
    FreeGapSVT,
    GapSVT,
    NumericalSVT,
    SVT34Parallel,
    epsilon_over,
)
from dpaudit.targets.mechanisms.sparse_vector import SVT4Reveal, SVT4Sum, SVT6Reveal
from dpaudit.targets.mechanisms.threshold_law import flag_rows

ANSWERS = [0.3, 2.0, -1.0, 0.3]


def density(x, scale):
    return math.exp(-abs(x) / scale) / (2 * scale)


def cumulative(x, scale):
    return math.exp(x / scale) / 2 if x < 0 else 1 - math.exp(-x / scale) / 2


def integral(integrand, kinks, reach):
    """Over the line, cut at the kinks; slow, and made of scipy's adaptive quadrature alone."""
    cuts = sorted({*kinks, min(kinks) - reach, max(kinks) + reach})
    return sum(
        quad(integrand, a, b, epsabs=0, epsrel=1e-11, limit=200)[0] for a, b in itertools.pairwise(cuts)
    )


def naive_chance(mechanism, answers, row):
    """P[row], one integral over rho for each stretch between refreshments."""
    stretches, current = [], []
    for q, code in zip(answers, row, strict=True):
        if code >= 0:
            current.append((q - mechanism.threshold, code))
        if code == 1 and mechanism.refresh:
            stretches.append(current)
            current = []
    total = 1.0
    for stretch in [*stretches, current]:

        def joint(rho, stretch=stretch):
            chance = density(rho, mechanism.threshold_scale)
            for lead, code in stretch:
                chance *= cumulative(lead - rho if code else rho - lead, mechanism.answer_scale)
            return chance

        kinks = [0.0, *(lead for lead, _ in stretch)]
        total *= integral(joint, kinks, 40 * mechanism.threshold_scale) if stretch else 1.0
    return total


@pytest.mark.parametrize(
    "mechanism",
    [SVT1(epsilon=2.0), SVT2(epsilon=3.0, cutoff=2), SVT4(epsilon=1.0, cutoff=2), SVT6(epsilon=2.0)],
    ids=lambda m: f"{m.cutoff}{m.refresh}",
)
def test_probabilities_match_scalar_integrals(mechanism):
    rows, found = mechanism.outcomes(ANSWERS), np.exp(mechanism.log_probabilities(ANSWERS))
    for row, chance in list(zip(rows, found, strict=True))[::2]:
        assert chance == pytest.approx(naive_chance(mechanism, ANSWERS, row), rel=1e-9)
    assert found.sum() == pytest.approx(1.0, rel=1e-12)


def test_probabilities_without_noise_on_answers_are_intervals_of_the_threshold():
    mechanism = SVT5(epsilon=1.0)
    found = np.exp(mechanism.log_probabilities(ANSWERS))
    for row, chance in zip(mechanism.outcomes(ANSWERS), found, strict=True):
        leads = np.array(ANSWERS) - 1.0
        low = max([-math.inf, *leads[row == 0]])
        high = min([math.inf, *leads[row == 1]])
        law = laplace(scale=2.0)
        assert chance == pytest.approx(max(0.0, law.cdf(high) - law.cdf(low)), abs=1e-15)
    assert found.sum() == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize(("answers", "cutoff"), [(4, None), (4, 1), (4, 2), (5, 9)])
def test_rows_of_flags_are_all_that_a_loop_can_say(answers, cutoff):
    def said(flags):
        row, tops = [], 0
        for flag in flags:
            row.append(-1 if tops == cutoff else flag)
            tops += row[-1] == 1
        return tuple(row)

    expected = {said(flags) for flags in itertools.product((0, 1), repeat=answers)}
    rows = flag_rows(answers, cutoff)
    assert {tuple(row) for row in rows.tolist()} == expected
    assert len(rows) == len(expected)


def far_pair(mechanism, distance):
    """Answers far on the wrong side of what is to be said of them, and each moved 1 back."""
    d = mechanism.dimension
    tops = min(d // 2 if mechanism.cutoff is None else mechanism.cutoff, d)
    runs = tops if mechanism.refresh else 1
    above = np.zeros(d, dtype=bool)
    for part in np.array_split(np.arange(d), runs):
        above[part[-(tops // runs) :]] = True
    first = np.where(above, -distance, distance)
    return first, first + np.where(above, 1.0, -1.0)


@pytest.mark.parametrize(
    "mechanism",
    [
        SVT1(),
        SVT1(dimension=4, cutoff=1),
        SVT2(),
        SVT2(cutoff=2),
        SVT4(),
        SVT4(cutoff=2),
        SVT6(),
        SVT6(dimension=2),
        SVT6(dimension=3),
        NumericalSVT(),
    ],
    ids=lambda m: f"d={m.dimension},c={m.cutoff},rho={m.threshold_scale:g},nu={m.answer_scale:g}",
)
def test_the_supremum_is_approached_by_answers_far_from_the_threshold_and_by_none_passed(mechanism):
    near, far = (mechanism.pair_epsilon(*far_pair(mechanism, distance)) for distance in (1.0, 800.0))
    assert near <= mechanism.epsilon_limit + 1e-12
    if mechanism.exact_epsilon() is None:
        assert far < mechanism.epsilon_limit * 0.999
    else:
        assert far == pytest.approx(mechanism.exact_epsilon(), rel=1e-3)
    assert far <= mechanism.epsilon_limit + 1e-9


@pytest.mark.parametrize("mechanism", [SVT3(dimension=4), GapSVT(dimension=4)], ids=["svt3", "gap"])
def test_released_comparisons_lose_a_nu_for_every_answer(mechanism):
    """Density of three below and then a number v far below, by scalar integrals: d / answer_scale."""

    def joint_density(answer, v):
        def joint(rho):
            below = cumulative(rho + mechanism.threshold - answer, mechanism.answer_scale)
            return density(rho, mechanism.threshold_scale) * below**3

        top = v - mechanism.threshold
        rest = quad(joint, top - 40 * mechanism.threshold_scale, top, epsabs=0, limit=200)[0]
        return rest * density(v - answer, mechanism.answer_scale)

    lost = [abs(math.log(joint_density(1.0, v) / joint_density(2.0, v))) for v in (5.0, -400.0)]
    assert lost[0] < lost[1] == pytest.approx(mechanism.exact_epsilon(), rel=1e-6)


def test_the_parallel_claim_is_broken_by_its_parts():
    """Independent parts lose the sum; of SVT3 the supremum is reached where all answers fall together."""
    parallel, first, second = SVT34Parallel(), np.ones(10), np.zeros(10)
    three, four = parallel.parts
    lost = three.exact_epsilon() + four.pair_epsilon(first, second)
    assert parallel.epsilon < lost < parallel.epsilon_limit


@pytest.mark.parametrize(("make", "least"), [(SVT4Reveal, 0.17), (SVT6Reveal, 0.14)])
def test_revealing_records_breaks_what_their_sum_does_not(make, least):
    pairs = [([1.0, 0.0], [1.0]), ([0.0, 1.0], [0.0]), ([1.0], [])]
    mechanism = make()
    assert mechanism.epsilon * 1.4 < least < epsilon_over(mechanism, pairs) <= mechanism.epsilon_limit
    assert epsilon_over(SVT4Sum(), pairs) <= SVT4Sum().epsilon_limit < SVT4Sum().epsilon


def test_queries_of_records_clip_and_answer_whatever_they_are_given():
    assert SVT4Sum().answers([0.5, 7.0, math.nan, -math.inf]).tolist() == [1.5] * 10
    assert SVT4Reveal().answers([0.2, 0.5, 3.0]).tolist() == [1.0] * 9 + [0.5]
    assert SVT4Reveal().answers([]).tolist() == [0.0] * 10
    assert SVT4Reveal().domain == "list(float(0, 1))"


@pytest.mark.parametrize("mechanism", [SVT3(cutoff=2), NumericalSVT(), FreeGapSVT(cutoff=2)], ids=str)
def test_numbers_stand_where_flags_would_and_codes_where_they_would_not(mechanism):
    released = mechanism.sample(np.ones(6), 3000, np.random.default_rng(0))
    stopped, below = np.isnan(released), released == -math.inf
    tops = np.isfinite(released)
    assert (stopped | below | tops).all() and stopped.any() and below.any()
    np.testing.assert_array_equal(stopped, tops.cumsum(axis=1) - tops >= 2)
    if mechanism.releases == "gap":
        assert released[tops].min() >= 0
