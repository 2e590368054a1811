import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from dpaudit.errors import UsageError
from dpaudit.stats import ranks
from dpaudit.stats.tradeoff import EpsilonDelta, Gaussian


def naive_atoms(curve, n_references):
    """(probability, score) of every rank, one at a time."""
    atoms = []
    for rank in range(1, n_references + 2):
        upper, below = rank / (n_references + 1), (rank - 1) / (n_references + 1)
        share = curve.tpr(np.array([upper]))[0] - (curve.tpr(np.array([below]))[0] if rank > 1 else 0.0)
        score = norm.isf(min(upper, 1 - 0.5 / (n_references + 1)))
        atoms.append((share, score))
    return atoms


def naive_tail(curves, counts, n_references, total):
    """P(sum >= total) by going through all combinations of ranks."""
    laws = [naive_atoms(c, n_references) for c, k in zip(curves, counts, strict=True) for _ in range(k)]
    return sum(
        np.prod([p for p, _ in combination])
        for combination in itertools.product(*laws)
        if sum(score for _, score in combination) >= total - 1e-9
    )


CURVES = [Gaussian(mu=0.0), Gaussian(mu=1.3), EpsilonDelta(epsilon=1.0, delta=0.02)]


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("n_references", [1, 2, 9, 30])
def test_law_of_one_score(curve, n_references):
    atoms = naive_atoms(curve, n_references)
    assert ranks.probabilities(curve, n_references) == pytest.approx([p for p, _ in atoms], abs=1e-12)
    assert ranks.rank_grid(n_references).score == pytest.approx([s for _, s in atoms])
    mean = sum(p * s for p, s in atoms)
    variance = sum(p * (s - mean) ** 2 for p, s in atoms)
    assert ranks.moments(curve, n_references) == pytest.approx((mean, variance))
    rates = np.array([0.0, 0.4, 2.0])
    slow = [np.log(sum(p * np.exp(r * s) for p, s in atoms)) for r in rates]
    assert ranks.log_mgf(curve, n_references, rates) == pytest.approx(slow, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(0, 2), min_size=1, max_size=2),
    st.lists(st.integers(1, 2), min_size=2, max_size=2),
    st.integers(1, 6),
    st.data(),
)
def test_tail_of_a_sum_is_that_of_all_combinations(mus, counts, n_references, data):
    curves, counts = [Gaussian(mu=mu) for mu in mus], counts[: len(mus)]
    scores = ranks.rank_grid(n_references).score
    picked = [data.draw(st.integers(0, n_references)) for _ in range(sum(counts))]
    total = float(sum(scores[i] for i in picked))
    law = ranks.sum_law(curves, counts, n_references)
    slow = naive_tail(curves, counts, n_references, total)
    assert law.at_least(total) == pytest.approx(slow, rel=1e-6, abs=1e-12)


def test_tail_of_the_largest_sum_is_exact():
    law = ranks.sum_law([Gaussian(mu=1.0)], [5], 19)
    assert law.at_least(law.maximum) == pytest.approx(Gaussian(mu=1.0).tpr(np.array([0.05]))[0] ** 5)
    assert law.at_least(law.maximum + 1.0) == pytest.approx(1e-14)
    assert law.at_least(-1e9) == pytest.approx(1.0)


@pytest.mark.parametrize(("n", "mu"), [(15, 0.5), (40, 1.0), (400, 0.3)])
def test_tail_of_many_is_conservative_but_close(n, mu):
    rng = np.random.default_rng(n)
    atoms = ranks.probabilities(Gaussian(mu=mu), 99)
    score = ranks.rank_grid(99).score
    sums = rng.choice(score, size=(20_000, n), p=atoms / atoms.sum()).sum(axis=1)
    law = ranks.sum_law([Gaussian(mu=mu)], [n], 99)
    for level in (0.5, 0.05, 0.01):
        total = np.quantile(sums, 1 - level)
        measured = (sums >= total).mean()
        assert law.at_least(total) >= measured - 4 * np.sqrt(level / sums.size)
        assert law.at_least(total) <= measured * 1.05 + 4 * np.sqrt(level / sums.size)


@pytest.mark.parametrize("n", [1, 3, 20, 300])
@pytest.mark.parametrize("alpha", [0.2, 0.05, 1e-4])
def test_critical_total_is_the_least_that_rejects(n, alpha):
    law = ranks.sum_law([Gaussian(mu=0.4)], [n], 49)
    critical = law.critical(alpha)
    if np.isinf(critical):
        assert law.at_least(law.maximum) > alpha
    else:
        assert law.at_least(critical) <= alpha
        assert law.at_least(critical - 1.01 * law.cell) > alpha


def test_merged_ranks_only_raise_scores():
    fine = ranks.rank_grid(4095)
    assert fine.upper.size == 4096
    coarse = ranks.rank_grid(999_999)
    assert coarse.upper.size <= 4096
    assert coarse.upper[-1] == 1.0
    curve = Gaussian(mu=1.0)
    exact = np.arange(1, 1_000_001) / 1_000_000
    score = norm.isf(np.minimum(exact, 1 - 5e-7))
    mean = np.diff(curve.tpr(exact), prepend=0) @ score
    assert mean - 1e-9 <= ranks.moments(curve, 999_999)[0] <= mean + 5e-3


def test_scores_round_p_values_up_to_ranks():
    x = ranks.normal_score(np.array([0.1, 0.101, 1.0]), 9)
    assert x == pytest.approx([norm.isf(0.1), norm.isf(0.2), norm.isf(0.95)])
    assert ranks.normal_score(np.array([]), 9).size == 0


@pytest.mark.parametrize("bad", [0.0, 1.2, -0.1])
def test_impossible_p_values_are_refused(bad):
    with pytest.raises(UsageError, match=r"p_values in \(0, 1\]"):
        ranks.normal_score(np.array([0.5, bad]), 9)


def test_p_values_that_are_not_numbers_are_refused():
    with pytest.raises(UsageError, match="position 1"):
        ranks.normal_score(np.array([0.5, np.nan]), 9)
    with pytest.raises(UsageError, match="n_references=0"):
        ranks.normal_score(np.array([0.5]), 0)
