import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from dpaudit.errors import UsageError
from dpaudit.evidence import Access, OneRun
from dpaudit.stats import guessing
from dpaudit.stats.tradeoff import EpsilonDelta, Gaussian, PrivacyProfile


def naive_pure_tail(m, r, v, eps, delta):
    """Appendix D of arXiv:2305.08846, word for word."""
    q = 1 / (1 + math.exp(-eps))
    beta = scipy.stats.binom.sf(v - 1, r, q)
    alpha = 0.0
    total = 0.0
    for i in range(1, v + 1):
        total = total + scipy.stats.binom.pmf(v - i, r, q)
        if total > i * alpha:
            alpha = total / i
    return min(beta + alpha * delta * 2 * m, 1.0)


def naive_rejects(fbar_inverse, m, guesses, correct, tau, k=2):
    """Algorithm 3 of arXiv:2410.22235, down to 0 without stopping early."""
    h = [0.0] * (correct + 1)
    r = [0.0] * (correct + 1)
    r[correct] = tau * correct / m
    h[correct] = tau * (guesses - correct) / m
    for i in range(correct - 1, -1, -1):
        if r[i + 1] >= 1:
            return True
        h[i] = max(h[i + 1], (k - 1) * fbar_inverse(r[i + 1]))
        r[i] = r[i + 1] + i / (guesses - i) * (h[i] - h[i + 1])
    return r[0] + h[0] > guesses / m


def naive_top(scores, guesses):
    """How many of the guesses say "in": the share of scores above the middle of the quartiles."""
    falling = sorted(scores, reverse=True)
    middle = (falling[len(falling) // 4] + falling[3 * len(falling) // 4]) / 2
    share = sum(x > middle for x in falling) / len(falling)
    return round(guesses * min(max(share, 0.25), 0.75) + 1e-9)


def naive_worst_order(scores, included, guesses):
    """Least number of right guesses over every way to order ties."""
    top = naive_top(scores, guesses)
    right = []
    for order in itertools.permutations(range(len(scores))):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
            called_in, called_out = order[:top], order[len(order) - (guesses - top) :]
            right.append(sum(included[i] for i in called_in) + sum(not included[i] for i in called_out))
    return min(right)


def one_run(scores, included):
    return OneRun(
        scores=np.asarray(scores, float), included=np.asarray(included), source="t", access=Access.FINAL_MODEL
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.floats(0, 6), st.sampled_from([0.0, 1e-6, 1e-3, 0.02]), st.data())
def test_pure_tail_is_the_published_loop(guesses, epsilon, delta, data):
    correct = data.draw(st.integers(0, guesses))
    canaries = guesses + data.draw(st.integers(0, 40))
    found = guessing.pure_tail(
        epsilon, delta, canaries=canaries, guesses=np.array([guesses]), correct=np.array([correct])
    )
    assert found[0] == pytest.approx(naive_pure_tail(canaries, guesses, correct, epsilon, delta), rel=1e-6)


@pytest.mark.parametrize("guesses, correct", [(4000, 2300), (4000, 3999), (4000, 2000)])
def test_pure_tail_is_the_published_loop_for_many_guesses(guesses, correct):
    found = guessing.pure_tail(
        0.3, 1e-5, canaries=9000, guesses=np.array([guesses]), correct=np.array([correct])
    )
    assert found[0] == pytest.approx(naive_pure_tail(9000, guesses, correct, 0.3, 1e-5), rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.floats(0, 4), st.floats(0.001, 0.4), st.sampled_from([2, 3, 10]), st.data())
def test_curve_rejects_is_the_published_recursion(guesses, mu, level, options, data):
    correct = data.draw(st.integers(0, guesses))
    canaries = guesses + data.draw(st.integers(0, 40))
    found = guessing.curve_rejects(
        Gaussian(mu=mu),
        canaries=canaries,
        guesses=np.array([guesses]),
        correct=np.array([correct]),
        level=np.array([level]),
        options=options,
    )[0]

    def inverse(x):
        return scipy.stats.norm.cdf(scipy.stats.norm.ppf(x) - mu)

    # Where the mass is exactly everything, rounding decides.
    just = [
        naive_rejects(inverse, canaries, guesses, correct, level * (1 + nudge), options)
        for nudge in (-1e-9, 1e-9)
    ]
    assert found in just


def test_the_walk_ends_at_no_right_guess():
    # The last step moves mass to wrong guesses alone, and here it is that which is too much.
    arguments = {"canaries": 2, "guesses": np.array([2]), "correct": np.array([2]), "level": np.array([0.25])}
    assert guessing.curve_rejects(Gaussian(mu=0.5), **arguments, options=3)[0]


def test_elements_of_one_call_do_not_touch_one_another():
    guesses, correct = np.array([50, 20, 20, 90, 1]), np.array([44, 20, 0, 50, 1])
    level = np.array([0.05, 0.01, 0.3, 0.2, 0.4])
    together = guessing.curve_rejects(
        Gaussian(mu=0.5), canaries=100, guesses=guesses, correct=correct, level=level
    )
    alone = [
        guessing.curve_rejects(
            Gaussian(mu=0.5),
            canaries=100,
            guesses=guesses[[i]],
            correct=correct[[i]],
            level=level[[i]],
        )[0]
        for i in range(guesses.size)
    ]
    assert together.tolist() == alone
    assert any(alone) and not all(alone)


@pytest.mark.parametrize("epsilon, delta", [(0.0, 0.0), (1.0, 0.0), (1.0, 0.05), (2.5, 0.001)])
@pytest.mark.parametrize("guesses, correct", [(6, 6), (8, 6), (8, 5)])
def test_no_law_of_right_guesses_that_the_claim_allows_exceeds_the_tail(epsilon, delta, guesses, correct):
    """The largest tail subject to what the theorem says of every tail event, as a linear program."""
    m = guesses + 3
    i = np.arange(guesses + 1)
    rows, limits = [], []
    for start in range(1, guesses + 1):
        right = np.where(i >= start, i, 0) / m
        wrong = np.where(i >= start - 1, guesses - i, 0) / m
        rows += [right - math.exp(epsilon) * wrong, right - math.exp(-epsilon) * wrong]
        limits += [delta, 1 - math.exp(-epsilon) * (1 - delta)]
    program = linprog(
        -(i >= correct).astype(float), A_ub=rows, b_ub=limits, A_eq=[np.ones(guesses + 1)], b_eq=[1.0]
    )
    found = guessing.curve_tail(
        EpsilonDelta(epsilon=epsilon, delta=delta),
        canaries=m,
        guesses=np.array([guesses]),
        correct=np.array([correct]),
    )[0]
    assert found >= -program.fun - 1e-9
    assert found <= -program.fun * 1.01 + 1e-3


def test_coin_flips_have_nearly_the_binomial_tail():
    # Under perfect privacy the curve bound knows nothing of independence and still is not far off.
    found = guessing.curve_tail(
        Gaussian(mu=0.0), canaries=30, guesses=np.array([30, 30]), correct=np.array([30, 0])
    )
    assert found[0] == pytest.approx(0.5**30 * 2, abs=2e-9)
    assert found[1] == 1.0


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.floats(0.05, 3))
def test_more_right_guesses_and_more_privacy_are_less_likely(guesses, mu):
    made, right = np.full(guesses + 1, guesses), np.arange(guesses + 1)
    loose = guessing.curve_tail(Gaussian(mu=mu), canaries=guesses + 5, guesses=made, correct=right)
    strict = guessing.curve_tail(Gaussian(mu=mu * 0.7), canaries=guesses + 5, guesses=made, correct=right)
    assert np.all(np.diff(loose) <= 1e-12)
    assert np.all(strict <= loose * 1.01)


def test_least_fpr_inverts_every_kind_of_curve():
    fpr = np.geomspace(1e-4, 0.9, 50)
    for curve in (
        Gaussian(mu=1.0),
        EpsilonDelta(epsilon=1.0, delta=0.01),
        PrivacyProfile(epsilons=(0.0, 1.0, 2.0), deltas=(0.3, 0.1, 0.01)),
    ):
        back = guessing.least_fpr(curve, curve.tpr(fpr))
        assert np.all(back <= fpr + 1e-12)
        assert np.all(curve.tpr(back + 1e-9) >= curve.tpr(fpr) - 1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6), st.data())
def test_ties_count_as_in_their_worst_order(pairs, data):
    scores, included = [p[0] for p in pairs], [p[1] for p in pairs]
    guesses = data.draw(st.integers(1, len(pairs)))
    found = guessing.right_guesses(one_run(scores, included), np.array([guesses]))[0]
    worst = naive_worst_order(scores, included, guesses)
    assert found <= worst
    if len(set(scores)) > 1:
        # One group at both edges is counted at its worst on either side.
        top = naive_top(scores, guesses)
        edges = {sorted(scores)[-max(top, 1)], sorted(scores)[max(guesses - top - 1, 0)]}
        assert found == worst or len(edges) == 1 or guesses > len(scores) - 2


def test_ties_broken_at_random_are_right_half_of_the_time():
    evidence = one_run(np.zeros(400), np.arange(400) < 200)
    counts = [
        guessing.right_guesses(evidence, np.array([200]), rng=np.random.default_rng(i))[0] for i in range(50)
    ]
    assert abs(np.mean(counts) - 100) < 5
    assert guessing.right_guesses(evidence, np.array([200]))[0] == 0


def test_position_breaks_no_ties():
    included = np.array([True] * 5 + [False] * 5)
    assert guessing.right_guesses(one_run(np.zeros(10), included), np.array([4]))[0] == 0


def test_scores_of_two_values_are_all_told_by_value():
    included = np.array([True] * 7 + [False] * 5)
    evidence = one_run(included * 1.0, included)
    assert guessing.right_guesses(evidence, np.array([12]))[0] == 12


def test_counts_without_ties_are_those_at_both_ends():
    evidence = one_run([5, 4, 3, 2, 1, 0], [True, True, False, True, False, False])
    assert guessing.right_guesses(evidence, np.array([1, 2, 3, 4, 6])).tolist() == [1, 2, 3, 4, 4]


@given(st.integers(1, 10**6))
def test_default_plan_depends_on_the_number_alone_and_spends_all(canaries):
    plan = guessing.guess_plan(canaries)
    assert sum(plan.shares) == pytest.approx(1.0)
    assert all(1 <= n <= canaries for n in plan.guesses)
    assert list(plan.guesses) == sorted(set(plan.guesses))


def test_given_numbers_share_evenly_and_impossible_ones_are_refused():
    assert guessing.guess_plan(100, [10, 50, 10]).shares == (0.5, 0.5)
    assert guessing.guess_plan(100, 30) == guessing.GuessPlan(guesses=(30,), shares=(1.0,))
    for wrong in (0, 101, [5, 200]):
        with pytest.raises(UsageError, match="guesses="):
            guessing.guess_plan(100, wrong)
    with pytest.raises(UsageError, match="found \\(\\)"):
        guessing.guess_plan(100, [])


def test_accuracy_of_the_best_guesser_is_that_of_two_normals():
    rng = np.random.default_rng(0)
    inside = rng.random(200_000) < 0.5
    evidence = one_run(rng.normal(size=inside.size) + 1.3 * inside, inside)
    made = np.array([2_000, 50_000, 200_000])
    expected = guessing.right_guesses(evidence, made) / made
    found = guessing.accuracy_allowed(Gaussian(mu=1.3), canaries=inside.size, guesses=made)
    assert found == pytest.approx(expected, abs=0.01)
