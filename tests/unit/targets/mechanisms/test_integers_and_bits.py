"""Geometric noise, GeoSample and RAPPOR against loops over their definitions."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from dpaudit.errors import UsageError
from dpaudit.targets.mechanisms import (
    RAPPOR,
    ExactMechanism,
    Geometric,
    LaplaceParallel,
    OneTimeRAPPOR,
    PrefixSum,
    TruncatedGeometric,
)
from dpaudit.targets.mechanisms.discrete import two_sided_geometric


def geometric_law(epsilon, sensitivity, reach=4000):
    """P[noise = k] by summing the weights exp(-epsilon |k| / s)."""
    weights = {k: math.exp(-epsilon * abs(k) / sensitivity) for k in range(-reach, reach + 1)}
    total = math.fsum(weights.values())
    return {k: w / total for k, w in weights.items()}


@pytest.mark.parametrize(("epsilon", "sensitivity"), [(0.1, 1), (0.7, 3), (2.0, 4)])
def test_geometric_noise_matches_its_weights(epsilon, sensitivity):
    mechanism = Geometric(epsilon=epsilon, sensitivity=sensitivity)
    law = geometric_law(epsilon, sensitivity)
    for k in (-7, 0, 1, 30):
        assert math.exp(mechanism.log_density([5], [[5 + k]])[0]) == pytest.approx(law[k], rel=1e-9)
    for at in np.array([0.0, 0.3, 0.7, 0.99]) * epsilon:
        want = math.fsum(max(0.0, p - math.exp(at) * law.get(k - sensitivity, 0.0)) for k, p in law.items())
        assert mechanism.privacy_profile(at) == pytest.approx(want, rel=1e-6, abs=1e-12)
        if want > 1e-9:
            assert mechanism.exact_epsilon(mechanism.privacy_profile(at)) == pytest.approx(at, abs=1e-9)
    assert mechanism.privacy_profile(epsilon) == 0.0
    assert mechanism.exact_epsilon() == epsilon
    assert isinstance(mechanism, ExactMechanism)


def test_geometric_refuses_what_is_no_integer():
    with pytest.raises(UsageError, match=r"integers, found 0.5"):
        Geometric().sample([0.5], 1, np.random.default_rng(0))


def test_two_sided_geometric_noise_is_even_in_law():
    noise = two_sided_geometric(0.5, (200_000,), np.random.default_rng(0))
    ratio = math.exp(-0.5)
    variance = 2 * ratio / (1 - ratio) ** 2
    assert abs(noise.mean()) < 6 * math.sqrt(variance / noise.size)
    assert noise.var() == pytest.approx(variance, rel=0.03)


@pytest.mark.parametrize(("n", "k"), [(5, 3), (1, 1), (4, 2)])
def test_geosample_is_the_truncated_geometric_law(n, k):
    """Its probabilities fall by 2^k / (2^k + 1) from the count, and the rest is piled on the ends."""
    ratio = Fraction(2**k, 2**k + 1)
    centre = (1 - ratio) / (1 + ratio)
    mechanism = TruncatedGeometric(n=n, k=k)
    for count in range(n + 1):
        law = [centre * ratio ** abs(z - count) for z in range(n + 1)]
        law[0] = ratio**count / (1 + ratio)
        law[n] = ratio ** (n - count) / (1 + ratio)
        np.testing.assert_allclose(mechanism.probabilities(count), [float(p) for p in law], rtol=1e-12)
    assert mechanism.exact_epsilon() == pytest.approx(math.log1p(2.0**-k))
    assert mechanism.sample(1, 3, np.random.default_rng(0)).shape == (3,)
    assert mechanism.sample([1], 3, np.random.default_rng(0)).shape == (3, 1)


def naive_reports(mechanism, value):
    """Probability of every report, bit by bit: permanent response, then the instantaneous one."""
    chances = {}
    bits = mechanism.filter(value)
    for report in itertools.product((0, 1), repeat=mechanism.bits):
        total = 1.0
        for bit, said in zip(bits, report, strict=True):
            one = 0.0
            for permanent in (0, 1):
                kept = (1 - mechanism.f) * (bit == permanent) + mechanism.f / 2
                one += kept * (mechanism.q if permanent else mechanism.p)
            total *= one if said else 1 - one
        chances[report] = total
    return chances


@pytest.mark.parametrize("make", [RAPPOR, OneTimeRAPPOR])
def test_rappor_matches_a_loop_over_reports(make):
    mechanism = make(hashes=2, bits=7)
    first, second = naive_reports(mechanism, 1), naive_reports(mechanism, 3)
    outputs = np.array(list(first))
    np.testing.assert_allclose(np.exp(mechanism.log_density(1, outputs)), list(first.values()), rtol=1e-10)
    want = max(abs(math.log(first[r] / second[r])) for r in first)
    assert want > 0
    assert mechanism.pair_epsilon(1, 3) == pytest.approx(want)
    at = want / 2
    delta = max(
        sum(max(0.0, p[r] - math.exp(at) * q[r]) for r in p) for p, q in ((first, second), (second, first))
    )
    assert mechanism.pair_epsilon(1, 3, delta) == pytest.approx(at, rel=1e-6)


def test_rappor_without_noise_has_no_privacy():
    assert OneTimeRAPPOR(f=0.0).epsilon == OneTimeRAPPOR(f=0.0).exact_epsilon() == math.inf


def test_independent_releases_lose_the_sum_and_no_more():
    mechanism = LaplaceParallel()
    rng = np.random.default_rng(0)
    beyond, ordinary = np.full((1, 20), 90.0), mechanism.sample([0.0], 500, rng)
    losses = [
        mechanism.log_density([0.0], outputs) - mechanism.log_density([1.0], outputs)
        for outputs in (beyond, ordinary)
    ]
    assert abs(losses[0][0]) == pytest.approx(mechanism.exact_epsilon())
    assert np.abs(losses[1]).max() < mechanism.epsilon


def test_prefix_sums_lose_an_epsilon_for_every_answer_that_moves():
    mechanism, first, second = PrefixSum(dimension=3), np.zeros(3), np.ones(3)
    outputs = np.array([[50.0, 100.0, 150.0], [0.3, -2.0, 4.0]])
    losses = np.abs(mechanism.log_density(first, outputs) - mechanism.log_density(second, outputs))
    assert losses[1] < losses[0] == pytest.approx(mechanism.exact_epsilon())
    assert mechanism.pair_epsilon(first, second) == pytest.approx(0.3)
    assert PrefixSum(movable=1).exact_epsilon() == pytest.approx(0.1)
    assert PrefixSum(movable=1).domain == "answers(10, movable=1)"
