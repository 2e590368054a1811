import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from dpaudit.stats import certified
from dpaudit.stats.tradeoff import EpsilonDelta, Gaussian, PrivacyProfile

CURVES = (
    Gaussian(mu=0.8),
    EpsilonDelta(epsilon=1.2, delta=0.01),
    EpsilonDelta(epsilon=0.7, delta=0.0),
    PrivacyProfile(epsilons=(0.0, 0.5, 1.0, 2.0), deltas=(0.3, 0.15, 0.06, 0.005)),
)


class OtherGaussian:
    """A curve of a kind that nobody knows."""

    def tpr(self, fpr):
        return Gaussian(mu=0.8).tpr(fpr)


def atoms(curve, count=4000):
    """(count, 2) probabilities of pieces of the curve: a dominated pair, hence nearly the curve's own."""
    half = np.geomspace(1e-9, 0.5, count // 2)
    fpr = np.unique(np.concatenate([[0.0], half, 1 - half, [1.0]]))
    tpr = np.append(curve.tpr(fpr[:-1]), 1.0)
    pieces = np.concatenate([[[0.0, tpr[0]]], np.stack([np.diff(fpr), np.diff(tpr)], axis=1)])
    return pieces[pieces.sum(axis=1) > 0]


def naive_certificate(payoff, curve):
    """Best cell for every piece of the curve, one after the other."""
    return 0.5 * sum(max(e0 * a + e1 * b for e0, e1 in payoff) for a, b in atoms(curve))


def naive_projection(belief, curve, steps=4000):
    """Growth of the projection by multiplicative updates of a randomised partition."""
    pieces = atoms(curve, 200)
    kernel = np.full((len(belief), len(pieces)), 1 / len(belief))
    for _ in range(steps):
        allowed = kernel @ pieces
        kernel *= (belief / allowed) @ pieces.T
        kernel /= kernel.sum(axis=0)
    return float(np.sum(belief * np.log(belief / (kernel @ pieces))))


def gaussian_belief(mu, cells=6):
    edges = np.concatenate([[-np.inf], np.linspace(-1, 1, cells - 1) + mu / 2, [np.inf]])
    return np.stack([np.diff(norm.cdf(edges)), np.diff(norm.cdf(edges - mu))], axis=1)


@pytest.mark.parametrize("curve", [*CURVES, OtherGaussian()], ids=lambda c: type(c).__name__)
def test_hockey_stick_is_the_largest_gap(curve):
    fpr = np.concatenate([[0.0], np.geomspace(1e-12, 1, 20_000)])
    epsilon = np.array([-3.0, -0.4, 0.0, 0.3, 1.0, 1.5])
    gap = [np.max(curve.tpr(fpr) - math.exp(e) * fpr) for e in epsilon]
    found = certified.hockey_stick(curve, epsilon)
    assert np.all(found >= np.array(gap) - 1e-12)
    assert found == pytest.approx(gap, abs=2e-3)


@pytest.mark.parametrize("curve", CURVES, ids=lambda c: type(c).__name__)
@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), min_size=1, max_size=6))
def test_certificate_is_the_largest_mean(curve, payoff):
    payoff = np.array(payoff)
    found = certified.certificate(payoff, curve)
    naive = naive_certificate(payoff, curve)
    assert found >= naive - 1e-9
    assert found == pytest.approx(naive, rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("curve", CURVES, ids=lambda c: type(c).__name__)
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 4.0))
def test_no_post_processing_of_the_claim_wins(curve, seed, mu):
    rng = np.random.default_rng(seed)
    belief = gaussian_belief(mu)
    payoff = np.exp(certified.numeraire(belief, certified.pair(curve)))
    pieces = atoms(curve)
    # Any randomised map from what the curve shows to cells, sharp or blurred.
    kernel = rng.dirichlet(np.full(len(belief), rng.choice([0.05, 1.0])), size=len(pieces)).T
    assert 0.5 * np.sum(payoff * (kernel @ pieces)) <= 1 + 1e-9
    sharp = np.argmax(payoff @ pieces.T, axis=0)
    worst = sum(payoff[k] @ pieces[sharp == k].sum(axis=0) for k in range(len(belief)))
    assert 0.5 * worst <= 1 + 1e-9


@pytest.mark.parametrize("curve", CURVES, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("mu", [0.9, 2.0])
def test_growth_is_that_of_the_projection(curve, mu):
    belief = gaussian_belief(mu)
    growth = float(np.sum(belief * certified.numeraire(belief, certified.pair(curve))))
    assert growth == pytest.approx(naive_projection(belief, curve), abs=4e-3)


def test_nothing_is_bet_where_the_claim_explains_the_belief():
    for mu in (0.1, 0.5, 0.79):
        log_payoff = certified.numeraire(gaussian_belief(mu), certified.pair(Gaussian(mu=0.8)))
        assert log_payoff == pytest.approx(np.zeros_like(log_payoff), abs=1e-6)


def test_certificate_of_a_gaussian_bet_is_one():
    for mu_null, mu in itertools.product((0.1, 0.8, 2.0), (2.2, 4.0)):
        against = certified.pair(Gaussian(mu=mu_null))
        belief = np.maximum(gaussian_belief(mu, 64), 1e-12)
        log_payoff = certified.numeraire(belief, against)
        assert certified.certificate(np.exp(log_payoff), against.curve) == pytest.approx(1.0, abs=1e-9)
        information = np.sum(belief * log_payoff)
        assert 0.5 < information / (2 * (mu - mu_null) ** 2 / 8) <= 1.0 or mu == 4.0


def test_extreme_curves_do_not_break():
    belief = gaussian_belief(1.0)
    for curve in (Gaussian(mu=60.0), EpsilonDelta(epsilon=500.0, delta=0.0), Gaussian(mu=0.0)):
        log_payoff = certified.numeraire(belief, certified.pair(curve))
        assert np.all(np.isfinite(log_payoff))
        cells = certified.cells_of(certified.pair(curve), 8)
        assert cells.sum(axis=0) == pytest.approx([1.0, 1.0], abs=1e-6)
    assert np.sum(belief * certified.numeraire(belief, certified.pair(Gaussian(mu=0.0)))) > 0.1
