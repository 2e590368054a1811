"""The exact privacy of every mechanism of the benchmark, and that each does what its name promises."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dpaudit.errors import UsageError
from dpaudit.registry import MECHANISMS, build
from dpaudit.targets.mechanisms import (
    SVT1,
    SVT2,
    SVT4,
    SVT5,
    Exponential,
    GradientStepBatchClip,
    Laplace,
    LaplaceParallel,
    NoisyHist1,
    NumericalSVT,
    OneTimeRAPPOR,
    PrefixSum,
    ReportNoisyMax1,
    ReportNoisyMax2,
    ReportNoisyMax3,
    ReportNoisyMax4,
    TruncatedGeometric,
    epsilon_over,
    patterns,
)

SOUND = {
    *("laplace", "gaussian", "geometric", "truncated-geometric", "exponential", "noisy-max-1", "noisy-max-2"),
    *("randomised-response", "rappor", "one-time-rappor", "svt-1", "svt-2", "numerical-svt", "free-gap-svt"),
    *("noisy-hist-1", "laplace-parallel", "mean-0", "gradient-step", "planted-control"),
    # Answers that all move alike are matched by shifting the threshold alone.
    *("svt-1-sum", "svt-2-sum", "svt-4-sum", "svt-5-sum", "svt-6-sum", "svt-1-reveal", "svt-2-reveal"),
}
UNKNOWN = {"mean-2", "svt-34-parallel", "svt-4-reveal", "svt-6-reveal", "svt-3-reveal"}
"""Unsound, and no closed form says by how much."""


def made(name):
    return build("mechanism", name, MECHANISMS, {})


def data_for(mechanism):
    """One data set of the mechanism's domain."""
    kind, _, rest = mechanism.domain.partition("(")
    if kind == "answers":
        return np.ones(int(rest.split(",")[0].rstrip(")")))
    return {"value": 1, "list": [0.25, 0.75, 1.0], "array": np.ones((4, 3))}[kind]


# The patterns' figures to five digits; None where the supremum over patterns is not enumerated.
@pytest.mark.parametrize(
    ("mechanism", "pairs", "expected"),
    [
        (ReportNoisyMax1(), patterns(5), 0.09461),
        (ReportNoisyMax2(), patterns(5), 0.10000),
        (ReportNoisyMax3(), patterns(5), 0.25),
        (ReportNoisyMax4(), patterns(5), math.inf),
        (SVT1(), patterns(10), 0.08853),
        (SVT2(), patterns(10), 0.08823),
        (SVT4(), patterns(10), 0.17247),
        (SVT5(), patterns(10), math.inf),
        (PrefixSum(), patterns(10), 1.0),
        (TruncatedGeometric(), [(c, c + 1) for c in range(5)], 0.11778),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "epsilon") else None,
)
def test_patterns_reach_the_published_figures(mechanism, pairs, expected):
    found = epsilon_over(mechanism, pairs)
    assert found == pytest.approx(expected, abs=1e-5)
    assert found <= mechanism.exact_epsilon() + 1e-12


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("laplace", 0.1),
        ("geometric", 0.1),
        ("noisy-hist-1", 0.1),
        ("noisy-hist-2", 10.0),
        ("laplace-parallel", 0.1),
        ("prefix-sum", 1.0),
        ("partial-sum", 0.2),
        ("noisy-max-3", 0.25),
        ("svt-4", 0.175),
        ("svt-3", 0.5),
        ("svt-6", 0.5),
        ("gap-svt", 0.25),
        ("svt-5", math.inf),
        ("svt-5-reveal", math.inf),
        ("mean-1", math.inf),
        ("planted-int8", 255.0),
        ("planted-half-scale", 2.0),
    ],
)
def test_suprema_over_all_neighbours(name, expected):
    assert made(name).exact_epsilon() == pytest.approx(expected, rel=1e-12)


def test_svt5_has_an_outcome_that_one_neighbour_alone_allows():
    mechanism, first, second = SVT5(), np.array([2.0] * 5 + [0.0] * 5), np.ones(10)
    p, q = (np.exp(mechanism.log_probabilities(answers)) for answers in (first, second))
    (alone,) = np.flatnonzero((q == 0) & (p > 0))
    assert p[alone] == pytest.approx(-math.expm1(-0.05), rel=1e-12)  # 0.04877
    assert SVT5().outcomes(first)[alone].tolist() == [1] * 5 + [0] * 5


def test_numerical_svt_and_rappor_stay_below_their_bounds():
    assert 0.08 < epsilon_over(NumericalSVT(), patterns(10)) < NumericalSVT().epsilon
    assert made("rappor").epsilon == pytest.approx(0.4001, abs=1e-4)
    assert OneTimeRAPPOR().epsilon == pytest.approx(0.8007, abs=1e-4)
    for mechanism in (made("rappor"), OneTimeRAPPOR()):
        assert 0.5 * mechanism.epsilon < mechanism.exact_epsilon() <= mechanism.epsilon + 1e-12


def test_gaussian_and_exponential_are_as_claimed():
    assert made("gaussian").exact_epsilon(1e-5) == pytest.approx(1.0)
    exponential = made("exponential")
    assert epsilon_over(exponential, patterns(5)) < 1.0
    # Two candidates far apart approach it.
    assert exponential.pair_epsilon([0, 30], [1, 29]) == pytest.approx(1.0, abs=1e-6)


def test_a_gradient_step_that_clips_the_sum_is_twice_as_sensitive():
    step = GradientStepBatchClip()
    assert step.exact_epsilon(1e-5) > 2.1
    assert step.exact_epsilon() == math.inf
    one, two = step.total([[1.0, 0.0, 0.0]]), step.total([[1.0, 0.0, 0.0], [-9.0, 0.0, 0.0]])
    assert np.linalg.norm(one - two) == pytest.approx(2.0)


@pytest.mark.parametrize("name", MECHANISMS)
def test_what_is_called_sound_is_within_its_claim_and_what_is_not_is_beyond(name):
    mechanism = made(name)
    delta = mechanism.delta
    exact = mechanism.exact_epsilon(delta) if hasattr(mechanism, "exact_epsilon") else None
    if name in UNKNOWN:
        assert exact is None and mechanism.epsilon_limit > mechanism.epsilon
    elif name in SOUND:
        limit = mechanism.epsilon_limit if exact is None else exact
        assert limit <= mechanism.epsilon * (1 + 1e-9)
    elif exact is None:
        assert mechanism.epsilon_limit > mechanism.epsilon
    else:
        assert exact > mechanism.epsilon * 1.2


@pytest.mark.parametrize("name", MECHANISMS)
def test_every_mechanism_releases_as_many_as_asked_and_the_same_from_the_same_generator(name):
    mechanism = made(name)
    data = data_for(mechanism)
    draws = [mechanism.sample(data, 5, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert all(len(draw) == 5 for draw in draws)
    np.testing.assert_array_equal(draws[0], draws[1])
    assert mechanism.sample(data, 0, np.random.default_rng(0)).shape == (0, *draws[0].shape[1:])
    assert 0 < mechanism.epsilon < math.inf and 0 <= mechanism.delta < 1
    many = mechanism.sample(data, 400, np.random.default_rng(2))
    assert len({row.tobytes() for row in many}) > 1


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("laplace", "answers(1, movable=1)"),
        ("noisy-hist-1", "answers(5, movable=1)"),
        ("svt-4", "answers(10)"),
        ("svt-4-sum", "list(float(0, 1))"),
        ("exponential", "answers(5)"),
        ("truncated-geometric", "value(int(0, 5), step=1)"),
        ("rappor", "value(int(-10, 10))"),
        ("gradient-step", "array(float(-10, 10), columns=3)"),
        ("planted-control", "list(float(0, 10))"),
    ],
)
def test_a_domain_says_who_are_neighbours(name, domain):
    assert made(name).domain == domain


def test_a_domain_says_how_far_neighbours_are_where_that_is_not_one():
    assert Laplace(sensitivity=2.5, dimension=3).domain == "answers(3, sensitivity=2.5, movable=1)"
    assert Exponential(sensitivity=2.0).domain == "answers(5, sensitivity=2.0)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SVT1(epsilon=0.0), r"Expected epsilon=0.0"),
        (lambda: SVT1(cutoff=0), r"Expected cutoff=0 in \[1"),
        (lambda: SVT1(queries="summ"), r"did you mean 'sum'"),
        (lambda: NoisyHist1(epsilon=math.nan), r"Expected epsilon=nan"),
        (lambda: TruncatedGeometric(n=40), r"found n=40, k=3"),
        (lambda: TruncatedGeometric().probabilities(6), r"count in \[0, 5\], found \[6\]"),
        (lambda: made("rappor").sample([1, 2], 1, np.random.default_rng(0)), r"found 2 of them"),
        (lambda: made("svt-3").pair_epsilon(np.ones(3), np.zeros(3)), r"found 'noisy'. Use epsilon_limit"),
        (lambda: made("noisy-max-3").log_probabilities(np.ones(3)), r"found 'value'"),
        (lambda: LaplaceParallel().exact_epsilon(0.1), r"Expected delta=0.1"),
        (lambda: epsilon_over(SVT1(), []), r"at least one pair"),
        (lambda: made("gradient-step").total(np.ones((2, 2))), r"shape \(n, 3\), found \(2, 2\)"),
    ],
)
def test_what_cannot_be_is_refused_by_value(make, message):
    with pytest.raises(UsageError, match=message):
        make()
