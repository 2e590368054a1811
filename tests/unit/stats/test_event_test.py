"""The test of one event, its bets, the claims it tests and its power, each against its definition."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from dpaudit.errors import UsageError
from dpaudit.stats import binomial, event_bets
from dpaudit.stats.event_bets import Pairs
from dpaudit.stats.event_power import detectable
from dpaudit.stats.event_test import LEAST_P, Counts, Line, largest_refuted, p_value, refutes
from dpaudit.stats.guarantees import ApproximateDP, GaussianDP, RenyiDP, SeveralDP

QS = np.linspace(0.0, 1.0, 1001)


def counts(hits, trials, other_hits, other_trials):
    return Counts(hits=hits, trials=trials, other_hits=other_hits, other_trials=other_trials)


def line(slope, intercept=0.0):
    return Line(slope=slope, intercept=intercept)


def region(n, m, of, alpha):
    """(n + 1, m + 1) whether each outcome refutes."""
    return np.array([[refutes(counts(h, n, o, m), of, alpha) for o in range(m + 1)] for h in range(n + 1)])


def exact_size(refuted, of):
    """Largest probability of refuting where the event lies on the line, by summing over all outcomes."""
    n, m = refuted.shape[0] - 1, refuted.shape[1] - 1
    chance = of.slope * QS + of.intercept
    q, p = QS[chance >= 0], np.minimum(chance[chance >= 0], 1.0)
    hits = binom.pmf(np.arange(n + 1), n, p[:, None])
    others = binom.pmf(np.arange(m + 1), m, q[:, None])
    return float(np.einsum("qh,ho,qo->q", hits, refuted, others).max())


CASES = [
    (8, 8, 1.0, 0.0, 0.05),
    (8, 8, math.e, 0.0, 0.05),
    (9, 7, 2.0, 0.1, 0.1),
    (5, 12, 1.5, -0.1, 0.1),
    (12, 5, 3.0, -0.3, 0.2),
    (10, 10, 0.5, 0.0, 0.05),
    (7, 11, 0.3, 0.5, 0.2),
    (10, 4, 10.0, 1e-3, 0.3),
    (4, 14, 100.0, 0.0, 0.3),
    (1, 1, 1.2, 0.0, 0.4),
    (14, 2, 0.05, 0.02, 0.01),
    (6, 6, 1.0, -0.5, 0.05),
    (11, 9, 1.01, 0.3, 0.49),
]


@pytest.mark.parametrize(("n", "m", "slope", "intercept", "alpha"), CASES)
def test_its_exact_size_is_at_most_alpha_on_the_whole_line(n, m, slope, intercept, alpha):
    of = line(slope, intercept)
    refuted = region(n, m, of, alpha)
    assert exact_size(refuted, of) <= alpha
    # A smaller probability than the line allows is no likelier to refute, because of the shape of the region.
    assert np.all(np.diff(refuted.astype(int), axis=0) >= 0)
    assert np.all(np.diff(refuted.astype(int), axis=1) <= 0)


def test_it_does_refute_in_small_samples_too():
    refuted = region(8, 8, line(1.0), 0.05)
    assert refuted[8, 0]
    assert not refuted[4, 4]
    # The size is used, not given away: a test that never refutes would pass all of the above.
    assert exact_size(refuted, line(1.0)) > 0.005


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.data(),
    st.floats(-2, 4),
    st.floats(-0.3, 0.3),
    st.floats(1e-4, 0.4),
)
def test_p_values_say_what_refutes_says(n, m, data, log_slope, intercept, alpha):
    seen = counts(data.draw(st.integers(0, n)), n, data.draw(st.integers(0, m)), m)
    of = line(math.exp(log_slope), intercept)
    p = p_value(seen, of)
    assert LEAST_P <= p <= 1
    if p < alpha * 0.98:
        assert refutes(seen, of, alpha)
    if p > alpha * 1.02:
        assert not refutes(seen, of, alpha)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.data(), st.floats(1e-3, 0.3))
def test_what_refutes_a_line_refutes_every_lower_one(n, m, data, alpha):
    seen = counts(data.draw(st.integers(0, n)), n, data.draw(st.integers(0, m)), m)
    verdicts = [refutes(seen, line(math.exp(x), 1e-3), alpha) for x in np.linspace(0, 6, 25)]
    assert verdicts == sorted(verdicts, reverse=True)
    bound = largest_refuted(seen, lambda x: line(math.exp(x), 1e-3), alpha, most=300.0)
    assert verdicts == [x <= bound * (1 + 1e-4) and verdicts[0] for x in np.linspace(0, 6, 25)]


@pytest.mark.parametrize(
    ("hits", "n", "other_hits", "m"),
    [
        (30, 50, 10, 50),
        (400, 1000, 100, 1000),
        (90, 10_000, 20, 10_000),
        (5000, 10**6, 1000, 10**6),
        (500, 500, 5, 500),
        (50, 100, 400, 4000),
        (999, 1000, 300, 1000),
    ],
)
def test_its_bound_is_above_that_of_two_clopper_pearson_limits(hits, n, other_hits, m):
    """Adding variances wins wherever both counts are uncertain."""
    alpha = 0.05
    low, high = binomial.lower(hits, n, alpha / 2), binomial.upper(other_hits, m, alpha / 2)
    naive = math.log(float(low) / float(high))
    bound = largest_refuted(counts(hits, n, other_hits, m), lambda x: line(math.exp(x)), alpha, most=300.0)
    assert bound >= naive
    assert bound <= math.log((hits / n) / (other_hits / m)) + 1e-9


@pytest.mark.parametrize(("hits", "n", "m"), [(100, 100, 100), (500, 1000, 1000), (20, 10_000, 10_000)])
def test_without_other_hits_its_bound_is_above_that_of_clopper_pearson(hits, n, m):
    alpha = 0.05
    naive = math.log(float(binomial.lower(hits, n, alpha / 2)) / float(binomial.upper(0, m, alpha / 2)))
    bound = largest_refuted(counts(hits, n, 0, m), lambda x: line(math.exp(x)), alpha, most=300.0)
    assert bound >= naive


def test_extreme_counts_are_judged_like_others():
    assert not refutes(counts(0, 100, 0, 100), line(1.0), 0.05)
    assert not refutes(counts(100, 100, 100, 100), line(1.0), 0.05)
    assert refutes(counts(100, 100, 0, 100), line(1.0), 1e-6)
    assert not refutes(counts(0, 0, 0, 0), line(1.0), 0.49)
    assert not refutes(counts(5, 5, 0, 0), line(1.0), 0.49)
    assert not refutes(counts(10, 10, 0, 10), line(math.inf), 0.49)
    assert refutes(counts(10**9, 10**9, 0, 10**9), line(1e6), 1e-6)
    assert not refutes(counts(10**9, 10**9, 0, 10**9), line(1e9), 1e-6)
    many = counts(501_000_000, 10**9, 500_000_000, 10**9)
    assert refutes(many, line(1.0), 1e-9)
    assert not refutes(many, line(1.01), 0.01)
    assert p_value(counts(3, 10, 9, 10), line(1.0)) == 1.0
    assert p_value(counts(10**6, 10**6, 0, 10**6), line(1.0)) == LEAST_P
    assert not refutes(counts(24, 30, 3, 40), line(1.0), 1e-300)
    assert largest_refuted(counts(0, 10, 9, 10), lambda x: line(math.exp(x)), 0.05, most=300.0) == 0.0
    with pytest.raises(UsageError, match="Count again"):
        counts(11, 10, 0, 10)
    for bad in ({"slope": 0.0, "intercept": 0.0}, {"slope": 1.0, "intercept": math.nan}):
        with pytest.raises(UsageError):
            Line(**bad)


def exact_p_value(seen, slope):
    """Tail at each q of the grid, without an interval of q."""
    score = lambda h, o: _score(h, o, seen, slope)  # noqa: E731
    outcomes = np.arange(seen.trials + 1)[:, None], np.arange(seen.other_trials + 1)[None]
    reached = score(*outcomes) >= score(seen.hits, seen.other_hits) - 1e-9
    hits = binom.pmf(np.arange(seen.trials + 1), seen.trials, np.minimum(slope * QS, 1.0)[:, None])
    others = binom.pmf(np.arange(seen.other_trials + 1), seen.other_trials, QS[:, None])
    return np.einsum("qh,ho,qo->q", hits, reached, others)


def _score(hits, other_hits, seen, slope):
    n, m = seen.trials, seen.other_trials
    q = np.clip((hits + other_hits) / (n * slope + m), 1e-300, 1.0)
    p = np.minimum(slope * q, 1.0)
    variance = p * (1 - p) / n + slope**2 * q * (1 - q) / m
    return (hits / n - slope * other_hits / m) / np.sqrt(np.maximum(variance, 1e-300))


@pytest.mark.parametrize("slope", [1.0, 2.0, 5.0])
def test_its_p_value_is_near_that_of_the_naive_sum(slope):
    seen = counts(24, 30, 3, 40)
    alpha = p_value(seen, line(slope))
    low, high = (float(f(3, 40, alpha * 0.01)) for f in (binomial.lower, binomial.upper))
    inside = (low <= QS) & (high >= QS)
    naive = float(exact_p_value(seen, slope)[inside].max())
    assert naive <= 0.98 * alpha <= 1.35 * naive


# Bets


def looped_wealth(outcomes, of):
    """The mean over stakes of a product over pairs, one factor at a time."""
    payoffs = {(a, b): a - of.slope * b - of.intercept for a in (0, 1) for b in (0, 1)}
    worst = -min(payoffs.values())
    total = 0.0
    for stake in event_bets._STAKES:
        wealth = 1.0
        for outcome in outcomes:
            wealth *= 1.0 + stake / worst * payoffs[outcome]
        total += wealth
    return total / len(event_bets._STAKES)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), max_size=60),
    st.floats(0.05, 20),
    st.floats(-0.04, 0.9),
)
def test_wealth_is_the_product_over_pairs(outcomes, slope, intercept):
    a, b = (np.array([o[i] for o in outcomes], dtype=bool) for i in (0, 1))
    seen = event_bets.pairs(a, b)
    assert seen.total == len(outcomes)
    of = line(slope, intercept)
    assert event_bets.log_wealth(seen, of) == pytest.approx(math.log(looped_wealth(outcomes, of)), abs=1e-9)


@pytest.mark.parametrize(
    ("slope", "intercept"), [(1.0, 0.0), (math.e, 1e-5), (20.0, -0.4), (0.3, 0.6), (2.0, 0.99)]
)
def test_no_bet_gains_on_average_under_the_claim(slope, intercept):
    """Exact: all four outcomes of a pair, on a grid of allowed probabilities."""
    of = line(slope, intercept)
    for q, share in itertools.product(np.linspace(0, 1, 41), np.linspace(0, 1, 11)):
        if of.slope * q + of.intercept < 0:
            continue
        p = share * min(of.slope * q + of.intercept, 1.0)
        chances = {(1, 0): p * (1 - q), (0, 1): (1 - p) * q, (1, 1): p * q, (0, 0): (1 - p) * (1 - q)}
        mean = sum(chance * looped_wealth([o], of) for o, chance in chances.items())
        assert mean <= 1 + 1e-12


def test_wealth_where_the_line_allows_everything_or_nothing():
    full = Pairs(hit=100, other=0, both=0, neither=0)
    assert event_bets.log_wealth(full, line(1.0, 1.0)) == 0.0
    nobody = Pairs(hit=0, other=0, both=0, neither=0)
    assert event_bets.log_wealth(nobody, line(1.0)) == pytest.approx(0.0, abs=1e-12)
    assert event_bets.log_wealth(full, line(1.0)) > 20
    # An intercept so low that no outcome loses: the line is contradicted by any event, but no bet is needed.
    assert math.isfinite(event_bets.log_wealth(full, line(0.5, -2.0)))


def test_stopping_whenever_one_likes_refutes_true_claims_at_most_at_alpha():
    rng, alpha, runs, steps = np.random.default_rng(1), 0.05, 4000, 400
    for of, q in ((line(math.e), 0.2), (line(2.0, 0.05), 0.01), (line(1.0, 0.0), 0.5)):
        p = of.slope * q + of.intercept
        hit, other = rng.random((runs, steps)) < p, rng.random((runs, steps)) < q
        payoff = hit - of.slope * other - of.intercept
        worst = -min(a - of.slope * b - of.intercept for a in (0, 1) for b in (0, 1))
        grown = np.mean(
            [np.exp(np.cumsum(np.log1p(s / worst * payoff), axis=1)) for s in event_bets._STAKES], axis=0
        )
        last = event_bets.pairs(hit[0], other[0])
        assert event_bets.log_wealth(last, of) == pytest.approx(math.log(grown[0, -1]))
        stopped = np.mean(grown.max(axis=1) >= 1 / alpha)
        print(f"bets that stop at will: {stopped:.2%} of {runs} true claims refuted at {alpha:.0%}")
        assert stopped <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)


def test_largest_beaten_holds_at_all_looks():
    early, late = Pairs(hit=60, other=3, both=2, neither=35), Pairs(hit=70, other=60, both=20, neither=50)
    of = lambda x: line(math.exp(x))  # noqa: E731
    both = event_bets.largest_beaten([early, late], of, 0.01, most=300.0)
    assert both == event_bets.largest_beaten([early], of, 0.01, most=300.0) > 0.5
    assert event_bets.log_wealth(early, of(both)) >= math.log(100)
    assert event_bets.log_wealth(early, of(both * 1.01)) < math.log(100)
    assert event_bets.largest_beaten([], of, 0.01, most=300.0) == 0.0


# Claims

GRID = np.concatenate([[0.0, 1.0], np.geomspace(1e-9, 0.5, 90), 1 - np.geomspace(1e-9, 0.5, 90)])
P, Q = np.meshgrid(GRID, GRID, indexing="ij")


def hockey_stick(p, q, epsilon):
    return p - math.exp(epsilon) * q


def renyi(p, q, order):
    """Divergence of two coins by its definition, for probabilities inside (0, 1)."""
    total = p**order * q ** (1 - order) + (1 - p) ** order * (1 - q) ** (1 - order)
    return math.log(total) / (order - 1)


def allowed(claim, parameter):
    """(k, k) which (p, q) the definition of the claim allows for an event, both ways round."""
    if isinstance(claim, GaussianDP):
        return norm.cdf(norm.ppf(Q) + parameter) + 1e-15 >= P
    if isinstance(claim, RenyiDP):
        a = claim.order
        with np.errstate(all="ignore"):
            log = np.log
            one = np.logaddexp(a * log(P) + (1 - a) * log(Q), a * log(1 - P) + (1 - a) * log(1 - Q)) / (a - 1)
        one = np.where(np.isnan(one), np.inf, one)
        return np.maximum(one, one.T) <= parameter
    points = claim.points if isinstance(claim, SeveralDP) else ((1.0, claim.delta),)
    return np.all([hockey_stick(P, Q, parameter * e) <= d for e, d in points], axis=0)


CLAIMS = [
    ApproximateDP(claimed=1.0),
    ApproximateDP(claimed=0.0, delta=0.01),
    SeveralDP(points=((1.0, 1e-5), (0.2, 0.05), (3.0, 0.0))),
    GaussianDP(claimed=1.0),
    RenyiDP(claimed=0.5, order=2.0),
    RenyiDP(claimed=0.1, order=1.01),
    RenyiDP(claimed=1.0, order=32.0),
    RenyiDP(claimed=2.0, order=500.0),
    RenyiDP(claimed=8.0, order=10_000.0),
]
PARAMETERS = [0.0, 1e-6, 0.01, 0.3, 1.0, 3.0, 10.0, 50.0]
PLACES = [0.0, 1e-15, 1e-9, 1e-4, 0.02, 0.3, 0.5, 0.9, 0.9999, 1.0]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.words())
def test_every_line_lies_above_all_that_the_claim_allows(claim):
    for parameter, at in itertools.product(PARAMETERS, PLACES):
        of = claim.line(parameter, at)
        excess = np.where(allowed(claim, parameter), P - (of.slope * Q + of.intercept), -1.0)
        worst = np.unravel_index(int(np.argmax(excess)), excess.shape)
        scale = max(1.0, abs(of.intercept), of.slope * Q[worst])
        assert excess[worst] <= 1e-9 * scale, (parameter, at, P[worst], Q[worst], of)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.words())
def test_every_line_touches_what_the_claim_allows_and_least_is_its_inverse(claim):
    for parameter, at in itertools.product((0.05, 0.5, 2.0), (1e-6, 1e-3, 0.1, 0.4)):
        of = claim.line(parameter, at)
        p = of.slope * at + of.intercept
        if not at < p < 1 - 1e-6:
            continue
        assert float(claim.least(p, at)) == pytest.approx(parameter, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.words())
def test_least_rises_with_p_and_falls_with_q(claim):
    with np.errstate(invalid="ignore"):
        least = np.clip(claim.least(P, Q), -1e6, 1e6)
    order = np.argsort(GRID)
    assert not np.isnan(least).any()
    assert np.all(np.diff(least[order], axis=0) >= -1e-9)
    assert np.all(np.diff(least[:, order], axis=1) <= 1e-9)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999), st.floats(1.05, 20))
def test_renyi_takes_the_larger_of_both_directions(p, q, order):
    both = max(renyi(p, q, order), renyi(q, p, order))
    claim = RenyiDP(claimed=1.0, order=order)
    assert abs(float(claim.least(p, q))) == pytest.approx(both, rel=1e-6, abs=1e-9)


def test_impossible_claims_are_refused():
    for make in (
        lambda: ApproximateDP(claimed=-1.0),
        lambda: ApproximateDP(claimed=math.inf),
        lambda: ApproximateDP(claimed=1.0, delta=1.0),
        lambda: SeveralDP(points=()),
        lambda: SeveralDP(points=((0.0, 0.1),)),
        lambda: GaussianDP(claimed=0.0),
        lambda: GaussianDP(claimed=math.nan),
        lambda: RenyiDP(claimed=1.0, order=1.0),
        lambda: RenyiDP(claimed=0.0, order=2.0),
    ):
        with pytest.raises(UsageError, match="Expected"):
            make()


def test_words_name_the_claim():
    assert [claim.words() for claim in CLAIMS[:5]] == [
        "1-DP",
        "(0, 0.01)-DP",
        "(1, 1e-05)-DP and (0.2, 0.05)-DP and (3, 0)-DP",
        "1-GDP",
        "(2, 0.5)-RDP",
    ]


# Power


@pytest.mark.slow
@pytest.mark.parametrize(
    ("claim", "q", "trials"),
    [
        (ApproximateDP(claimed=1.0), 0.1, 2000),
        (ApproximateDP(claimed=0.5), 0.005, 20_000),
        (ApproximateDP(claimed=1.0, delta=0.01), 0.05, 5000),
        (GaussianDP(claimed=1.0), 0.1, 3000),
        (RenyiDP(claimed=0.5, order=4.0), 0.1, 3000),
    ],
    ids=lambda value: value.words() if hasattr(value, "words") else str(value),
)
def test_what_is_called_detectable_is_detected_nine_times_in_ten(claim, q, trials):
    rng, alpha, reps = np.random.default_rng(2), 0.01, 4000
    others = round(q * trials)
    seen = counts(others, trials, others, trials)
    at = (others + 0.5) / (trials + 1.0)
    found = detectable(claim, seen, at, alpha, trials=trials)
    assert found is not None and found > claim.claimed
    worst = claim.line(found, at)
    p = worst.slope * at + worst.intercept
    of = claim.line(claim.claimed, at)
    hits, other_hits = rng.binomial(trials, p, reps), rng.binomial(trials, at, reps)
    knots = np.unique(np.quantile(other_hits, [0.0, 0.02, 0.25, 0.5, 0.75, 0.98, 1.0]).astype(int))
    least = np.interp(other_hits, knots, [_least_hits(int(o), trials, of, alpha) for o in knots])
    power = np.mean(hits >= least)
    print(f"{claim.words()}: detectable {found:.3g} is detected with probability {power:.3f}")
    assert 0.85 <= power <= 0.95


def _least_hits(other_hits, trials, of, alpha):
    """Least number of hits that refutes, by bisection."""
    low, high = 0, trials + 1
    while high - low > 1:
        middle = (low + high) // 2
        fits = refutes(counts(middle, trials, other_hits, trials), of, alpha)
        low, high = (low, middle) if fits else (middle, high)
    return high


def test_nothing_is_detectable_where_the_claim_is_beyond_the_outputs():
    seen = counts(0, 50, 0, 50)
    assert detectable(ApproximateDP(claimed=8.0), seen, 0.01, 0.01, trials=50) is None
