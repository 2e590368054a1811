import numpy as np
import pytest
from scipy.stats import norm

from dpaudit.accounting import GaussianFamily, LedgerFamily
from dpaudit.claim import Phase
from dpaudit.errors import UsageError
from dpaudit.stats.power import expected_bound, observations_needed
from dpaudit.stats.ranks import sum_law
from dpaudit.stats.tradeoff import Gaussian, gaussian_epsilon, gaussian_mu


def claimed(epsilon):
    return GaussianFamily(mu=gaussian_mu(epsilon, 1e-5), delta=1e-5, claimed_epsilon=epsilon)


@pytest.mark.parametrize(
    ("epsilon", "halves", "ranked"), [(1, 629, 158), (2, 192, 48), (4, 63, 16), (8, 23, 6)]
)
def test_observations_that_show_twice_the_claim(epsilon, halves, ranked):
    def needed(half):
        return observations_needed(
            claimed(epsilon), 2.0 * epsilon, alpha=0.05, n_references=10**5, halves=half
        )

    assert needed(False) == pytest.approx(ranked, abs=1)
    assert needed(True) == pytest.approx(halves, rel=0.02)


@pytest.mark.parametrize("n_references", [19, 999])
def test_that_many_observations_have_that_power(n_references):
    family = claimed(4.0)
    n = observations_needed(family, 7.0, alpha=0.05, n_references=n_references)
    truth = Gaussian(mu=gaussian_mu(7.0, 1e-5))
    critical = sum_law([family.curve(1.0)], [n], n_references).critical(0.05)
    assert sum_law([truth], [n], n_references).at_least(critical) == pytest.approx(0.9, abs=0.04)


def test_no_number_refutes_what_holds():
    assert observations_needed(claimed(4.0), 4.0, alpha=0.05, n_references=999) is None
    assert observations_needed(claimed(4.0), 2.0, alpha=0.05, n_references=999) is None


def test_expected_bound_is_the_normal_formula_with_many_references():
    found = expected_bound(claimed(8.0), 100, alpha=0.05, n_references=10**6)
    assert found == pytest.approx(
        gaussian_epsilon(gaussian_mu(8.0, 1e-5) + norm.ppf(0.05) / 10, 1e-5), abs=0.05
    )
    assert expected_bound(claimed(8.0), 100, alpha=0.05, n_references=999, epsilon=12.0) > 8.0


def test_steps_of_a_ledger():
    ledger = (Phase(noise_multiplier=1.0, sample_rate=0.5, steps=20),)
    plain = LedgerFamily(ledger=ledger, delta=1e-5)
    family = LedgerFamily(ledger=ledger, delta=1e-5, claimed_epsilon=plain.epsilon(1.0))
    n = observations_needed(family, plain.epsilon(0.8), alpha=0.05, n_references=9999, unit="step")
    gap = 1 / 0.8 - 1
    assert n == pytest.approx(((1.645 + 1.2816) / gap) ** 2, rel=0.05)
    bound = expected_bound(family, 400, alpha=0.05, n_references=9999, unit="step")
    assert 0.85 * family.claimed_epsilon < bound < family.claimed_epsilon


def test_refusals():
    with pytest.raises(UsageError, match="claimed_epsilon=None"):
        observations_needed(GaussianFamily(mu=1.0, delta=1e-5), 2.0, alpha=0.05, n_references=9)
    with pytest.raises(UsageError, match="'epoch'"):
        expected_bound(claimed(1.0), 9, alpha=0.05, n_references=9, unit="epoch")
    with pytest.raises(UsageError, match="n=0"):
        expected_bound(claimed(1.0), 0, alpha=0.05, n_references=9)
    assert np.isfinite(expected_bound(claimed(1.0), 1, alpha=0.05, n_references=9))
