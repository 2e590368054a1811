"""False refutations of true claims about mechanisms, with the choice of pair and event included."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from dpaudit.attacks.event_search.events import Event
from dpaudit.attacks.event_search.features import Feature
from dpaudit.attacks.event_search.selection import Choice, Learn
from dpaudit.claim import Adjacency
from dpaudit.mechanism import confirmation
from dpaudit.mechanism.confirmation import confirm
from dpaudit.mechanism.pairs import Screen
from dpaudit.stats.event_test import Counts, largest_refuted
from dpaudit.stats.guarantees import ApproximateDP, GaussianDP, RenyiDP, SeveralDP
from dpaudit.strategies import Neighbours
from dpaudit.targets.mechanisms.discrete import two_sided_geometric
from dpaudit.targets.releases.calls import call_of
from dpaudit.targets.releases.drawing import InlineDrawer

ALPHA = 0.2
"""Large, so that the attained level is measured by few repetitions."""
SIGMA = 2.0


class Geometric:
    """Exactly 1-DP, with equality in both tails: the discrete Laplace mechanism."""

    def sample(self, data, size, rng):
        return sum(data) + two_sided_geometric(1.0, (size,), rng)


class Response:
    """Exactly 1-DP: each bit is told truly with probability e / (1 + e)."""

    def sample(self, data, size, rng):
        true = rng.random((size, 1)) < math.e / (1 + math.e)
        return np.where(true, np.array(data[:1] or [0]), 1 - np.array(data[:1] or [0]))


class Rounded:
    """A normal variable around the sum, rounded: post-processing of what is exactly 1/SIGMA-GDP."""

    def sample(self, data, size, rng):
        return np.round(sum(data) + SIGMA * rng.normal(size=size), 1)


class Shaken:
    """With probability 0.05 the datum itself, otherwise exactly 1-DP: (1, 0.05)-DP and no better."""

    def sample(self, data, size, rng):
        total = sum(data) + two_sided_geometric(1.0, (size,), rng)
        return np.where(rng.random(size) < 0.05, 1000.0 + sum(data), total)


def delta_of(epsilon, mu):
    """Of a Gaussian mechanism (Balle & Wang 2018, arXiv:1805.06530)."""
    return norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)


MU = 1 / SIGMA
CURVE = tuple((e, float(delta_of(e, MU))) for e in (0.5, 0.1, 1.0, 1.5))
CASES = {
    "geometric": (Geometric(), ApproximateDP(claimed=1.0), 1.0),
    "randomised response": (Response(), ApproximateDP(claimed=1.0), 1.0),
    "approximate": (Shaken(), ApproximateDP(claimed=1.0, delta=0.05), 1.0),
    "rounded Gaussian, one point": (Rounded(), ApproximateDP(claimed=0.5, delta=delta_of(0.5, MU)), 0.5),
    "rounded Gaussian, several points": (Rounded(), SeveralDP(points=CURVE), 1.0),
    "rounded Gaussian, GDP": (Rounded(), GaussianDP(claimed=MU), MU),
    "rounded Gaussian, Renyi of order 2": (
        Rounded(),
        RenyiDP(claimed=2 * MU**2 / 2, order=2.0),
        2 * MU**2 / 2,
    ),
    "rounded Gaussian, Renyi of order 8": (
        Rounded(),
        RenyiDP(claimed=8 * MU**2 / 2, order=8.0),
        8 * MU**2 / 2,
    ),
}
PAIRS = [
    Neighbours(first=first, second=second, index=0, adjacency=Adjacency.ADD_REMOVE)
    for first, second in (([], [1]), ([1], [0]))
]


def confirmed(mechanism, claim, seed, *, stop_early, chosen=600, fresh=600, alpha=ALPHA):
    """The worst of two pairs by some outputs, its event by others, the test by fresh ones."""
    screen = Screen(drawer=InlineDrawer(call=call_of(mechanism)), guarantee=claim, size=chosen, root=seed)
    looked = [screen.look(pair) for pair in PAIRS]
    found = max((each for each in looked if each.choice is not None), key=lambda each: each.rated)
    found = screen.rate(
        found, screen.samples(found, 3, chosen), learn=Learn.LINEAR if seed % 8 == 0 else Learn.NOTHING
    )
    return confirm(found, screen, size=fresh, alpha=alpha, stop_early=stop_early, progress=lambda *_: None)


@pytest.fixture
def only_the_test(monkeypatch):
    """Leave out bounds and power, whose cost is that of a hundred tests."""
    for name in ("largest_refuted", "largest_beaten", "p_value"):
        monkeypatch.setattr(confirmation, name, lambda *_, **__: 0.0)
    monkeypatch.setattr(confirmation, "detectable", lambda *_, **__: None)


RUNS = [(name, False) for name in CASES]
RUNS += [(name, True) for name in ("geometric", "approximate", "rounded Gaussian, GDP")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stop_early"), RUNS)
def test_true_claims_are_refuted_at_most_at_alpha(name, stop_early, only_the_test):
    mechanism, claim, _ = CASES[name]
    runs = 40
    found = [confirmed(mechanism, claim, seed, stop_early=stop_early) for seed in range(runs)]
    refuted = np.mean([each.refuted for each in found])
    how = "bets and exact test" if stop_early else "exact test"
    print(f"{name}, {how}: refuted {refuted:.1%} of {runs} true claims at {ALPHA:.0%}")
    assert refuted <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)


class Fourfold:
    """Exactly 1-DP, with equality in four events that exclude one another, and in their complement."""

    def sample(self, data, size, rng):
        rare = (math.e - 1) / (4 * (math.e**2 - 1))
        each = rare * math.e if data else rare
        return rng.choice(5, p=[*[each] * 4, 1 - 4 * each], size=size).astype(float)


def _four_events(seed, *, stop_early):
    """Each of the four is likelier with the record, by exactly e."""
    mechanism = InlineDrawer(call=call_of(Fourfold()))
    screen = Screen(drawer=mechanism, guarantee=ApproximateDP(claimed=1.0), size=100, root=seed)
    pair = PAIRS[0]
    said = Counts(hits=180, trials=1000, other_hits=67, other_trials=1000)
    values = [Feature(name="equals", constants=(float(i),)) for i in range(4)]
    events = [Event(feature=value, above=True, threshold=0.5) for value in values]
    choices = [Choice(event=event, swapped=True, rated=1.0, counts=said) for event in events]
    tried = replace(screen.look(pair), choice=replace(choices[0], beside=tuple(choices[1:])))
    quiet = {"stop_early": stop_early, "progress": lambda *_: None}
    return confirm(tried, screen, size=1000, alpha=ALPHA, **quiet)


@pytest.mark.slow
@pytest.mark.parametrize("stop_early", [False, True])
def test_several_events_on_the_same_outputs_share_alpha(stop_early, only_the_test, monkeypatch):
    runs = 60
    shared = np.mean([_four_events(seed, stop_early=stop_early).refuted for seed in range(runs)])
    monkeypatch.setattr(confirmation, "_shares", lambda events, alpha: (alpha,) * events)
    naive = np.mean([_four_events(seed, stop_early=stop_early).refuted for seed in range(runs)])
    print(
        f"four events at once: refuted {shared:.1%} of {runs} true claims at {ALPHA:.0%}; naively {naive:.1%}"
    )
    allowed = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)
    assert shared <= allowed < naive


@pytest.mark.slow
@pytest.mark.parametrize(
    ("claim", "q"),
    [(GaussianDP(claimed=MU), 0.02), (GaussianDP(claimed=3.0), 0.05), (CASES["geometric"][1], 0.1)],
)
def test_bounds_are_above_the_truth_at_most_at_alpha(claim, q):
    """The event lies on the claimed curve itself; the line of a bound is chosen at a wrong guess of q."""
    rng, runs, n = np.random.default_rng(1), 40, 300
    of = claim.line(claim.claimed, q)
    above = 0
    for _ in range(runs):
        hits, other_hits = rng.binomial(n, of.slope * q + of.intercept), rng.binomial(n, q)
        at = (rng.binomial(n, q) + 0.5) / (n + 1)
        counts = Counts(hits=int(hits), trials=n, other_hits=int(other_hits), other_trials=n)
        bound = largest_refuted(counts, lambda x: claim.line(x, at), ALPHA, most=claim.most, tolerance=0.03)  # noqa: B023
        above += bound > claim.claimed
    print(f"{claim.words()} at q={q}: bound above the truth in {above} of {runs} at {ALPHA:.0%}")
    assert above / runs <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mechanism", "claim", "truth"),
    [
        (Geometric(), ApproximateDP(claimed=0.5), 1.0),
        (Response(), ApproximateDP(claimed=0.5), 1.0),
        (Rounded(), GaussianDP(claimed=MU / 2), MU),
    ],
)
def test_claims_of_half_the_truth_are_refuted(mechanism, claim, truth, only_the_test, monkeypatch):
    """Known privacy: power and a bound that is near the truth, and below it."""
    found = [
        confirmed(mechanism, claim, seed, stop_early=True, chosen=1000, fresh=4000, alpha=0.01)
        for seed in range(8)
    ]
    print(f"{claim.words()} of what has {truth:g}: refuted {sum(each.refuted for each in found)} of 8")
    assert all(each.refuted for each in found)
    monkeypatch.undo()
    full = confirmed(mechanism, claim, 0, stop_early=False, chosen=1000, fresh=10_000, alpha=0.01)
    print(f"bound {full.lower:.3g} of {truth:g}")
    assert full.refuted
    assert 0.75 * truth <= full.lower <= truth
