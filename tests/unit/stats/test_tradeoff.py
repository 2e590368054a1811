import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from dpaudit.errors import UsageError
from dpaudit.stats.tradeoff import (
    EpsilonDelta,
    Gaussian,
    PrivacyProfile,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_mu,
)

GRID = np.concatenate([[0.0], np.geomspace(1e-9, 1, 60)])


def naive_profile(epsilons, deltas, at):
    """Least of all lines, one at a time, both directions."""
    best = np.ones_like(at)
    for epsilon, delta in zip(epsilons, deltas, strict=True):
        for i, a in enumerate(at):
            forward = np.exp(epsilon) * a + delta
            backward = 1 - np.exp(-epsilon) * (1 - delta - a)
            best[i] = min(best[i], forward, backward)
    return np.maximum(best, at)


def test_gaussian_delta_is_the_hockey_stick_integral():
    for mu, epsilon in [(0.3, 0.1), (1.0, 1.0), (1.7, 8.0), (2.0, -0.5)]:
        integral = quad(lambda x, m=mu, e=epsilon: max(norm.pdf(x - m) - np.exp(e) * norm.pdf(x), 0), -12, 14)
        assert gaussian_delta(mu, epsilon) == pytest.approx(integral[0], abs=1e-7)


def test_gaussian_delta_neither_overflows_nor_cancels():
    assert gaussian_delta(30.0, 800.0) == pytest.approx(norm.cdf(-800 / 30 + 15), rel=0.2)
    assert 0 < gaussian_delta(1.0, 25.0) < 1e-100
    assert gaussian_delta(0.0, 1.0) == 0.0
    assert gaussian_delta(np.inf, 1.0) == 1.0
    assert gaussian_delta(1.0, np.inf) == 0.0
    assert gaussian_delta([[0.5], [1.0]], [0.0, 1.0, 2.0]).shape == (2, 3)


@pytest.mark.parametrize(
    ("epsilon", "mu"), [(1, 0.2681), (2, 0.5016), (4, 0.9249), (8, 1.6660), (16, 2.9055)]
)
def test_mu_of_a_tight_claim(epsilon, mu):
    assert gaussian_mu(epsilon, 1e-5) == pytest.approx(mu, abs=6e-5)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.02, 40), st.floats(1e-9, 0.4))
def test_epsilon_and_mu_are_inverse(mu, delta):
    epsilon = gaussian_epsilon(mu, delta)
    if epsilon > 0:
        assert gaussian_mu(epsilon, delta) == pytest.approx(mu, rel=1e-6)
        assert gaussian_delta(mu, epsilon) <= delta * (1 + 1e-9)


def test_edges_of_epsilon_and_mu():
    assert gaussian_epsilon(0.0, 0.0) == 0.0
    assert gaussian_epsilon(1.0, 0.0) == np.inf
    assert gaussian_epsilon(np.inf, 0.1) == np.inf
    assert gaussian_epsilon(0.1, 0.5) == 0.0
    assert gaussian_mu(1.0, 0.0) == 0.0
    assert gaussian_mu(np.inf, 0.1) == np.inf
    with pytest.raises(UsageError, match=r"mu=-1\.0"):
        gaussian_epsilon(-1.0, 0.1)


@settings(max_examples=40, deadline=None)
@example(epsilons=[0.0, 1.0, 2.220446049250313e-16], drops=[0.5, 0.5625, *[0.5] * 6])
@given(
    st.lists(st.floats(0, 12), min_size=1, max_size=8, unique=True),
    st.lists(st.floats(1e-6, 0.6), min_size=8, max_size=8),
)
def test_profile_equals_the_least_of_all_lines_or_lies_just_above(epsilons, drops):
    # Convex profiles, as accountants give them: hockey-stick divergences of random mixtures of Gaussians.
    epsilons = sorted(epsilons)
    deltas = np.mean([gaussian_delta(3 * drop, np.array(epsilons)) for drop in drops], axis=0)
    fast = PrivacyProfile(epsilons=tuple(epsilons), deltas=tuple(deltas.tolist())).tpr(GRID)
    slow = naive_profile(epsilons, deltas, GRID)
    assert np.all(fast >= slow - 1e-12)
    assert np.allclose(fast, slow, atol=1e-9)


def test_a_profile_that_is_not_convex_errs_upwards():
    epsilons, deltas = (0.0, 1.0, 2.0, 3.0), (0.5, 0.5, 0.1, 0.09)
    fast = PrivacyProfile(epsilons=epsilons, deltas=deltas).tpr(GRID)
    assert np.all(fast >= naive_profile(epsilons, deltas, GRID) - 1e-12)


def test_profile_of_a_gaussian_is_its_curve():
    epsilons = np.linspace(0, 12, 400)
    profile = PrivacyProfile(
        epsilons=tuple(epsilons.tolist()), deltas=tuple(gaussian_delta(1.0, epsilons).tolist())
    )
    at = np.geomspace(1e-4, 1, 50)
    exact = Gaussian(mu=1.0).tpr(at)
    assert np.all(profile.tpr(at) >= exact - 1e-12)
    assert np.allclose(profile.tpr(at), exact, rtol=1e-3)


def test_negative_epsilons_say_what_the_reverse_direction_says():
    negative = PrivacyProfile(epsilons=(-1.0, 1.0), deltas=(1 - np.exp(-1.0) * (1 - 0.01), 0.01))
    positive = PrivacyProfile(epsilons=(1.0,), deltas=(0.01,))
    assert np.allclose(negative.tpr(GRID), positive.tpr(GRID))


def test_huge_epsilons_do_not_overflow():
    profile = PrivacyProfile(epsilons=(0.0, 5e3), deltas=(1.0, 0.0))
    assert profile.tpr(np.array([0.0, 0.1, 1.0])) == pytest.approx([0.0, 1.0, 1.0])


@pytest.mark.parametrize(
    "curve",
    [
        EpsilonDelta(epsilon=2.0, delta=1e-3),
        EpsilonDelta(epsilon=np.inf, delta=0.0),
        EpsilonDelta(epsilon=0.0, delta=0.0),
        Gaussian(mu=0.0),
        Gaussian(mu=1.2),
        PrivacyProfile(epsilons=(0.0, 1.0), deltas=(0.2, 0.0)),
    ],
)
def test_every_curve_is_a_curve(curve):
    tpr = curve.tpr(GRID)
    assert tpr.shape == GRID.shape
    assert np.all(np.diff(tpr) >= -1e-12)
    assert np.all((tpr >= GRID - 1e-12) & (tpr <= 1))
    assert tpr[-1] == pytest.approx(1.0)


def test_epsilon_delta_matches_its_three_lines():
    slow = naive_profile([1.5], [1e-2], GRID)
    assert np.allclose(EpsilonDelta(epsilon=1.5, delta=1e-2).tpr(GRID), slow)
