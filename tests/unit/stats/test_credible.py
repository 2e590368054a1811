import math

import numpy as np
import pytest

from dpaudit.accounting import EpsilonDeltaFamily, GaussianFamily
from dpaudit.errors import UsageError
from dpaudit.evidence import Access, TwoSample
from dpaudit.stats import credible, two_sample
from dpaudit.stats.tradeoff import gaussian_mu

BARE = EpsilonDeltaFamily(base_epsilon=4.0, delta=1e-5, claimed_epsilon=4.0)


def counted(hit, n1, false, n0):
    return TwoSample(
        scores_in=np.repeat([1.0, 0.0], [hit, n1 - hit]),
        scores_out=np.repeat([1.0, 0.0], [false, n0 - false]),
        source="t",
        access=Access.FINAL_MODEL,
    )


def naive_quantile(hit, n1, false, n0, delta, alpha):
    """Draw both rates from their posteriors and take the quantile of epsilon."""
    rng = np.random.default_rng(0)
    fpr = rng.beta(0.5 + false, 0.5 + n0 - false, 400_000)
    fnr = rng.beta(0.5 + n1 - hit, 0.5 + hit, 400_000)
    forward = np.log(np.maximum(1 - fnr - delta, 1e-300) / fpr)
    backward = np.log(np.maximum(1 - fpr - delta, 1e-300) / fnr)
    return np.quantile(np.maximum(np.maximum(forward, backward), 0.0), alpha)


@pytest.mark.parametrize(
    "counts", [(30, 50, 2, 50), (10, 500, 0, 500), (499, 500, 300, 500), (5, 9, 1, 30), (20, 20, 0, 20)]
)
def test_bound_is_the_quantile_of_the_posterior(counts):
    found = credible.joint_beta(counted(*counts), BARE, 0.5, alpha=0.05)
    assert found.epsilon_lower == pytest.approx(naive_quantile(*counts, 1e-5, 0.05), abs=0.02)


def test_it_promises_less_and_says_more():
    evidence = counted(30, 100, 1, 100)
    believed = credible.joint_beta(evidence, BARE, 0.5, alpha=0.05)
    tested = two_sample.at_threshold(evidence, BARE, 0.5, alpha=0.05)
    assert believed.epsilon_lower > tested.epsilon_lower
    assert not believed.guarantee and tested.guarantee
    assert believed.p_value is None
    assert "credible, not a guarantee" in believed.method
    assert believed.ceiling > believed.epsilon_lower


def test_no_difference_is_no_bound():
    assert credible.joint_beta(counted(50, 100, 50, 100), BARE, 0.5, alpha=0.05).epsilon_lower < 0.1


def test_curves_are_asked_about_directly():
    gaussian = GaussianFamily(mu=gaussian_mu(4.0, 1e-5), delta=1e-5, claimed_epsilon=4.0)
    evidence = counted(60, 100, 5, 100)
    assert (
        credible.joint_beta(evidence, gaussian, 0.5, alpha=0.05).epsilon_lower
        > credible.joint_beta(evidence, BARE, 0.5, alpha=0.05).epsilon_lower
    )


def test_missing_runs_and_impossible_priors():
    assert credible.joint_beta(counted(0, 0, 0, 0), BARE, 0.5, alpha=0.05).epsilon_lower is None
    with pytest.raises(UsageError, match="both kinds"):
        credible.joint_beta(counted(0, 0, 1, 5), BARE, 0.5, alpha=0.05)
    with pytest.raises(UsageError, match=r"prior=0\.0"):
        credible.joint_beta(counted(1, 2, 1, 2), BARE, 0.5, alpha=0.05, prior=0.0)
    assert math.isfinite(credible.joint_beta(counted(1, 1, 0, 1), BARE, 0.5, alpha=0.05).epsilon_lower)
