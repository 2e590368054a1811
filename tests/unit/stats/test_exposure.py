import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from dpaudit.accounting import EpsilonDeltaFamily, GaussianFamily
from dpaudit.errors import UsageError
from dpaudit.evidence import Access, KnownNull
from dpaudit.stats.exposure import within
from dpaudit.stats.tradeoff import gaussian_mu

DELTA = 1e-5


def evidence(p_values, n_references, *, unit="run", cluster=None):
    return KnownNull(
        p_values=np.asarray(p_values, dtype=np.float64),
        n_references=n_references,
        unit=unit,
        source="test",
        access=Access.FINAL_MODEL,
        cluster=cluster,
    )


def bare(epsilon=None):
    return EpsilonDeltaFamily(base_epsilon=epsilon or 1.0, delta=DELTA, claimed_epsilon=epsilon)


@given(hits=st.integers(0, 40), alpha=st.floats(0.001, 0.2))
def test_against_a_bare_claim_it_is_clopper_pearson_over_kappa(hits, alpha):
    p_values = np.where(np.arange(40) < hits, 0.01, 0.8)
    found = within(evidence(p_values, 999), bare(), 0.01, alpha=alpha)
    limit = beta.ppf(alpha, hits, 41 - hits) if hits else 0.0
    naive = max(np.log(max(limit - DELTA, 1e-300) / 0.01), 0.0)
    assert found.epsilon_lower == pytest.approx(naive, rel=2e-3, abs=1e-6)
    assert found.epsilon_lower <= naive + 1e-9


@pytest.mark.parametrize(("m", "expected"), [(10, 13.5), (1, 10.8)])
def test_secrets_that_rank_first_of_a_million(m, expected):
    found = within(evidence(np.full(m, 1e-6), 999_999), bare(), 1e-6, alpha=0.05)
    assert found.epsilon_lower == pytest.approx(expected, abs=0.05)
    assert found.ceiling == pytest.approx(found.epsilon_lower)


def test_p_value_is_that_of_the_binomial():
    claim = bare(2.0)
    found = within(evidence([0.01] * 7 + [0.5] * 23, 99), claim, 0.05, alpha=0.05)
    assert found.p_value == pytest.approx(binom.sf(6, 30, np.exp(2.0) * 0.05 + DELTA))


def test_kappa_is_rounded_down_to_whole_ranks():
    """With 9 references a kappa of 0.19 takes first ranks only, whose chance is 0.1."""
    found = within(evidence([0.1, 0.2, 0.2], 9), bare(1.0), 0.19, alpha=0.05)
    assert found.p_value == pytest.approx(binom.sf(0, 3, np.exp(1.0) * 0.1 + DELTA))


def test_detectable_is_detected_nine_times_of_ten():
    claim = GaussianFamily(mu=gaussian_mu(1.0, DELTA), delta=DELTA, claimed_epsilon=1.0)
    found = within(evidence(np.full(200, 0.5), 999), claim, 0.05, alpha=0.05)
    rng = np.random.default_rng(0)
    leaky = GaussianFamily(mu=gaussian_mu(found.detectable, DELTA), delta=DELTA)
    hit = rng.random((2000, 200)) < leaky.curve(1.0).tpr(np.array([0.05]))[0]
    caught = [
        within(evidence(np.where(row, 0.01, 0.9), 999), claim, 0.05, alpha=0.05).p_value <= 0.05
        for row in hit[:300]
    ]
    assert 0.82 <= np.mean(caught) <= 0.98


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
def test_level_at_the_worst_mechanism(epsilon):
    """The one that puts all it may on the best ranks; nominal 5 %."""
    kappa, n, rng = 0.01, 100, np.random.default_rng(1)
    hits = rng.binomial(n, np.exp(epsilon) * kappa + DELTA, 4000)
    rows = {int(h): np.where(np.arange(n) < h, kappa, 1.0) for h in np.unique(hits)}
    p_values = {
        h: within(evidence(row, 999), bare(epsilon), kappa, alpha=0.05).p_value for h, row in rows.items()
    }
    level = np.mean([p_values[int(h)] <= 0.05 for h in hits])
    print(f"ranks within kappa, eps={epsilon:g}: refuted {level:.2%} of 4000 true claims at nominal 5%")
    assert level <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)


def test_what_it_refuses():
    with pytest.raises(UsageError, match="first rank among 9"):
        within(evidence([0.1], 9), bare(), 0.05, alpha=0.05)
    with pytest.raises(UsageError, match="share a run"):
        within(evidence([0.1, 0.2], 9, cluster=np.zeros(2, np.int64)), bare(), 0.2, alpha=0.05)
    with pytest.raises(UsageError, match="share a run"):
        within(evidence([0.1, 0.2], 9, unit="step"), bare(), 0.2, alpha=0.05)


def test_no_runs_bound_nothing():
    assert within(evidence([], 9), bare(), 0.2, alpha=0.05).epsilon_lower is None
