import numpy as np
import pytest
from scipy.stats import norm

from dpaudit.accounting import EpsilonDeltaFamily, GaussianFamily, LedgerFamily
from dpaudit.claim import Adjacency, Phase
from dpaudit.errors import UsageError
from dpaudit.evidence import Access, KnownNull
from dpaudit.stats import known_null, ranks
from dpaudit.stats.tradeoff import Gaussian, gaussian_epsilon, gaussian_mu

FAMILY = GaussianFamily(mu=gaussian_mu(4.0, 1e-5), delta=1e-5, claimed_epsilon=4.0)
NO_CLAIM = GaussianFamily(mu=1.0, delta=1e-5)
STEPS = LedgerFamily(
    ledger=(
        Phase(noise_multiplier=1.0, sample_rate=1.0, steps=20),
        Phase(noise_multiplier=2.0, sample_rate=1.0, steps=20),
    ),
    delta=1e-5,
    claimed_epsilon=40.0,
)


def ranked(mu, n, n_references=999, seed=0):
    """P-values of optimal attacks on a mu-GDP mechanism."""
    rng = np.random.default_rng(seed)
    beaten_by = rng.binomial(n_references, norm.sf(rng.normal(mu, 1, n)))
    return (1 + beaten_by) / (n_references + 1)


def evidence(p_values, *, n_references=999, unit="run", **more):
    return KnownNull(
        p_values=np.asarray(p_values, dtype=np.float64),
        n_references=n_references,
        unit=unit,
        source="test",
        access=Access.STEP,
        **more,
    )


def naive_fixed(p_values, n_references, alpha, delta):
    """Least Gaussian epsilon not rejected: steps of mu, and the sum's law by repeated convolution."""
    width = 4e-3
    counts = np.arange(1, n_references + 2) / (n_references + 1)
    score = norm.isf(np.minimum(counts, 1 - 0.5 / (n_references + 1)))
    # Whole multiples of the width, rounded up.
    cell = np.ceil(score / width - 1e-9).astype(int)
    observed = sum(score[round(p * (n_references + 1)) - 1] for p in p_values)
    kept = 0.0
    for mu in np.arange(0.0, 4.0, 0.02):
        atoms = np.zeros(cell.max() - cell.min() + 1)
        np.add.at(atoms, cell - cell.min(), np.diff(Gaussian(mu=mu).tpr(counts), prepend=0.0))
        law = np.ones(1)
        for _ in p_values:
            law = np.convolve(law, atoms)
        value = (np.arange(law.size) + cell.min() * len(p_values)) * width
        if law[value >= observed - 1e-9].sum() > alpha:
            break
        kept = mu
    return gaussian_epsilon(kept, delta)


@pytest.mark.parametrize("p_values", [[0.05, 0.05, 0.1], [0.05] * 4, [0.3, 0.05, 0.05, 0.1, 0.05]])
def test_fixed_equals_its_naive_twin(p_values):
    fast = known_null.fixed(evidence(p_values, n_references=19), NO_CLAIM, alpha=0.05)
    slow = naive_fixed(p_values, 19, 0.05, 1e-5)
    coarse = gaussian_epsilon(gaussian_mu(slow, 1e-5) + 0.021, 1e-5)
    assert slow - 0.05 <= fast.epsilon_lower <= coarse + 0.05


def test_fixed_with_many_references_is_the_normal_test():
    p_values = ranked(1.0, 50, n_references=10**6)
    found = known_null.fixed(evidence(p_values, n_references=10**6), NO_CLAIM, alpha=0.05)
    mean = norm.isf(p_values).mean()
    assert found.epsilon_lower == pytest.approx(gaussian_epsilon(mean - 1.645 / np.sqrt(50), 1e-5), abs=0.03)


@pytest.mark.parametrize("estimator", [known_null.fixed, known_null.anytime])
def test_bound_and_p_value_say_the_same(estimator):
    for mu, refuted in [(0.9, False), (1.6, True)]:
        found = estimator(evidence(ranked(mu, 100)), FAMILY, alpha=0.05)
        assert (found.p_value <= found.alpha) == (found.epsilon_lower > found.claimed_epsilon) == refuted
        assert 0 < found.epsilon_lower < found.ceiling
        assert found.detectable > 4.0
        assert found.n_observations == 100
        assert ("anytime" in found.method) == (estimator is known_null.anytime)


@pytest.mark.parametrize("estimator", [known_null.fixed, known_null.anytime])
def test_nothing_observed_is_not_zero(estimator):
    found = estimator(evidence([]), FAMILY, alpha=0.05)
    assert found.epsilon_lower is None
    assert found.p_value is None
    assert found.detectable is None
    assert found.ceiling == 0.0


@pytest.mark.parametrize("estimator", [known_null.fixed, known_null.anytime])
@pytest.mark.parametrize("n_references", [1, 2, 19])
def test_worst_ranks_bound_nothing_and_best_ranks_reach_the_ceiling(estimator, n_references):
    worst = estimator(evidence([1.0] * 20, n_references=n_references), FAMILY, alpha=0.05)
    assert worst.epsilon_lower == 0.0
    assert worst.p_value == pytest.approx(1.0)
    best = estimator(evidence([1 / (n_references + 1)] * 20, n_references=n_references), FAMILY, alpha=0.05)
    assert best.epsilon_lower == pytest.approx(best.ceiling)
    assert best.epsilon_lower > 0


@pytest.mark.parametrize("estimator", [known_null.fixed, known_null.anytime])
def test_without_a_claim_there_is_a_bound_but_no_test(estimator):
    found = estimator(evidence(ranked(2.0, 50)), NO_CLAIM, alpha=0.05)
    assert found.epsilon_lower > 0
    assert (found.p_value, found.claimed_epsilon, found.detectable) == (None, None, None)


def test_ceiling_of_one_observation_is_its_exact_likelihood():
    found = known_null.fixed(evidence([0.001]), NO_CLAIM, alpha=0.05)
    mu = norm.ppf(0.05) - norm.ppf(0.001)
    assert found.ceiling == pytest.approx(gaussian_epsilon(mu, 1e-5), rel=0.01)


def test_epsilon_delta_alone_gives_the_exposure_bound():
    # All m of m at rank 1 of K: eps >= log((alpha^(1/m) - delta) (K + 1)).
    family = EpsilonDeltaFamily(base_epsilon=1.0, delta=1e-5)
    found = known_null.fixed(evidence([1e-3] * 10), family, alpha=0.05)
    assert found.epsilon_lower == pytest.approx(np.log((0.05**0.1 - 1e-5) * 1000), abs=0.01)


def test_steps_are_tested_against_their_own_phase():
    n = 40
    phase = np.repeat([0, 1], n)
    means = np.array([1.0, 0.5])[phase]
    right = evidence(ranked(means, 2 * n), unit="step", phase=phase)
    swapped = evidence(ranked(means[::-1], 2 * n), unit="step", phase=phase)
    total = ranks.normal_score(right.p_values, 999).sum()
    law = ranks.sum_law([Gaussian(mu=0.5), Gaussian(mu=1.0)], [n, n], 999)
    exact = LedgerFamily(ledger=STEPS.ledger, delta=1e-5, claimed_epsilon=STEPS.epsilon(1.0))
    found = known_null.fixed(right, exact, alpha=0.05)
    assert found.p_value == pytest.approx(law.at_least(total), rel=1e-6)
    assert found.epsilon_lower < found.claimed_epsilon
    assert known_null.fixed(swapped, exact, alpha=0.05).p_value != found.p_value


def test_a_ledger_whose_noise_was_smaller_is_refuted():
    exact = LedgerFamily(ledger=STEPS.ledger[:1], delta=1e-5, claimed_epsilon=STEPS.epsilon(1.0))
    exact = LedgerFamily(ledger=STEPS.ledger[:1], delta=1e-5, claimed_epsilon=exact.epsilon(1.0))
    found = known_null.fixed(evidence(ranked(1 / 0.6, 100), unit="step"), exact, alpha=0.05)
    assert found.p_value < 1e-3
    assert found.claimed_epsilon < found.epsilon_lower < exact.epsilon(0.6)


def naive_log_wealth(x, n_references, curve):
    """Mixture martingale, one observation and one rate at a time."""
    weights, rates = np.exp(known_null._log_weights()), known_null._RATES
    atoms, score = ranks.probabilities(curve, n_references), ranks.rank_grid(n_references).score
    path, factors = [], np.ones(rates.size)
    for value in x:
        for j, rate in enumerate(rates):
            factors[j] *= np.exp(rate * value) / sum(atoms * np.exp(rate * score))
        path.append(np.log(sum(weights * factors)))
    return np.array(path)


def test_anytime_equals_its_naive_twin():
    p_values = ranked(1.4, 30, n_references=99)
    x = ranks.normal_score(p_values, 99)
    path = naive_log_wealth(x, 99, FAMILY.curve(FAMILY.claimed_scale))
    found = known_null.anytime(evidence(p_values, n_references=99), FAMILY, alpha=0.05)
    assert found.p_value == pytest.approx(min(1.0, np.exp(-path.max())), rel=1e-9)
    at_bound = FAMILY.scale_for(found.epsilon_lower)
    wealth = naive_log_wealth(x, 99, FAMILY.curve(at_bound)).max()
    assert wealth == pytest.approx(-np.log(0.05), abs=0.05)


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("mu", [0.0, 0.6, 1.3])
def test_no_moment_that_is_left_out_has_more_wealth(groups, mu):
    rng = np.random.default_rng(groups)
    n, means = 3000, tuple(np.linspace(0.5, 1.5, groups))
    # Two phases one after the other; of three the observations are mixed.
    group = rng.integers(0, groups, n) if groups > 2 else np.sort(rng.integers(0, groups, n))
    for x in (rng.normal(mu, 1, n), np.sort(rng.normal(mu, 1, n)), np.full(n, mu)):
        scores = known_null._Scores(x=x, group=group, means=means, n_references=999)
        looks = known_null._looks(scores)
        for scale in (0.4, 1.0, 2.5):
            every = known_null._log_wealth(scores, FAMILY, scale, np.arange(1, n + 1)).max()
            assert known_null._log_wealth(scores, FAMILY, scale, looks).max() == pytest.approx(
                every, rel=1e-9
            )
        assert groups > 2 or looks.size < 200


def test_trajectory_never_falls_and_ends_at_the_estimate():
    given = evidence(ranked(1.6, 400))
    path = known_null.trajectory(given, FAMILY, alpha=0.05)
    found = known_null.anytime(given, FAMILY, alpha=0.05)
    assert path.n.size == path.epsilon.size <= 160
    assert path.n[0] == 1
    assert path.n[-1] == 400
    assert np.all(np.diff(path.epsilon) >= 0)
    assert path.epsilon[-1] == pytest.approx(found.epsilon_lower, rel=0.02)
    x = ranks.normal_score(given.p_values, 999)
    wealth = naive_log_wealth(x, 999, FAMILY.curve(FAMILY.claimed_scale))
    assert path.first_rejection == 1 + int(np.argmax(wealth >= -np.log(0.05)))


def test_trajectory_of_nothing_and_of_an_unbroken_claim():
    empty = known_null.trajectory(evidence([]), FAMILY, alpha=0.05)
    assert (empty.n.size, empty.epsilon.size, empty.first_rejection) == (0, 0, None)
    calm = known_null.trajectory(evidence(ranked(0.0, 50)), FAMILY, alpha=0.05)
    assert calm.first_rejection is None
    assert np.all(calm.epsilon == 0.0)


def test_refusals():
    with pytest.raises(UsageError, match="`clustered`"):
        known_null.fixed(evidence([0.1, 0.1], cluster=np.array([0, 0])), FAMILY, alpha=0.05)
    with pytest.raises(UsageError, match=r"alpha=0\.7"):
        known_null.fixed(evidence([0.1]), FAMILY, alpha=0.7)
    with pytest.raises(UsageError, match="replace-one"):
        known_null.fixed(evidence([0.1], adjacency=Adjacency.REPLACE_ONE), FAMILY, alpha=0.05)
    with pytest.raises(UsageError, match="bare"):
        known_null.fixed(evidence([0.1], unit="step"), FAMILY, alpha=0.05)
    with pytest.raises(UsageError, match="'epoch'"):
        known_null.fixed(evidence([0.1], unit="epoch"), FAMILY, alpha=0.05)
    with pytest.raises(UsageError, match="phase indices"):
        known_null.fixed(evidence([0.1], unit="step", phase=np.array([7])), STEPS, alpha=0.05)
