"""Membership attacks against slow twins that go record by record, as their papers put it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from dpaudit.attacks.membership.bavaria import Bavaria, _inverse_trigamma
from dpaudit.attacks.membership.calibration import AttackP, AttackR, Difficulty
from dpaudit.attacks.membership.gradient_norm import GradientNorm
from dpaudit.attacks.membership.label_only import AugmentationVote, BoundaryDistance
from dpaudit.attacks.membership.lira import Lira, LiraOffline
from dpaudit.attacks.membership.logodds import log_rest
from dpaudit.attacks.membership.loss_threshold import LossThreshold
from dpaudit.attacks.membership.quantile import Ridge
from dpaudit.attacks.membership.rmia import Rmia, RmiaOffline
from dpaudit.attacks.membership.signals import Confidence, Entropy, ModifiedEntropy
from dpaudit.protocols import View
from tests.views import world

WORLD = world(n=24, k=15, unequal=0.3)
TARGETS = WORLD.views(2, seed=1, copies=2)
SHADOWS = WORLD.views(7, seed=2, copies=2)


def probability(view: View, i: int, label: int) -> float:
    return math.exp(view.scores[i, label])


def phi(scores, label: int) -> float:
    p = [math.exp(s) for s in scores]
    return math.log(p[label]) - math.log(sum(q for c, q in enumerate(p) if c != label))


def own(view: View, i: int) -> float:
    return phi(view.scores[i], view.canaries.y[i])


def confidence(view: View, i: int, shadows: list[View]) -> float:
    return phi(view.scores[i], int(np.argmax(view.scores[i])))


def entropy(view: View, i: int, shadows: list[View]) -> float:
    return -math.log(-sum(math.exp(s) * s for s in view.scores[i]))


def modified_entropy(view: View, i: int, shadows: list[View]) -> float:
    y, total = view.canaries.y[i], 0.0
    for label in range(view.scores.shape[1]):
        p = probability(view, i, label)
        total += -(1 - p) * math.log(p) if label == y else -p * math.log(1 - p)
    return -math.log(total)


def attack_p(view: View, i: int, shadows: list[View]) -> float:
    others = [phi(s, y) for s, y in zip(view.test_scores, view.canaries.test_y, strict=True)]
    below = sum(o < own(view, i) for o in others) + sum(o == own(view, i) for o in others) / 2
    return math.log((below + 0.5) / (len(others) - below + 0.5))


def sides(i: int, shadows: list[View]) -> tuple[list[float], list[float]]:
    inside = [own(s, i) for s in shadows if s.canaries.member[i]]
    return inside, [own(s, i) for s in shadows if not s.canaries.member[i]]


def attack_r(view: View, i: int, shadows: list[View]) -> float:
    _, outside = sides(i, shadows)
    below = sum(o < own(view, i) for o in outside)
    return math.log((below + 0.5) / (len(outside) - below + 0.5))


def difficulty(view: View, i: int, shadows: list[View]) -> float:
    return own(view, i) - float(np.mean(sides(i, shadows)[1]))


def pooled(shadows: list[View], side: int) -> float:
    """The one variance that all records share."""
    squares = freedom = 0.0
    for i in range(len(shadows[0].canaries.y)):
        values = sides(i, shadows)[side]
        squares += sum((v - np.mean(values)) ** 2 for v in values)
        freedom += max(len(values) - 1, 0)
    return squares / freedom


def lira(view: View, i: int, shadows: list[View]) -> float:
    means = [float(np.mean(values)) for values in sides(i, shadows)]
    sd = [math.sqrt(pooled(shadows, side)) for side in (0, 1)]
    inside, outside = (stats.norm.logpdf(own(view, i), m, s) for m, s in zip(means, sd, strict=True))
    return float(inside - outside)


def lira_own_variance(view: View, i: int, shadows: list[View]) -> float:
    inside, outside = (
        stats.norm.logpdf(own(view, i), np.mean(v), max(np.std(v, ddof=1), 1e-4)) for v in sides(i, shadows)
    )
    return float(inside - outside)


def lira_offline(view: View, i: int, shadows: list[View]) -> float:
    z = (own(view, i) - np.mean(sides(i, shadows)[1])) / math.sqrt(pooled(shadows, 1))
    return float(stats.norm.logcdf(z) - stats.norm.logsf(z))


def answers(view: View, i: int) -> list[float]:
    return [phi(scores[i], view.canaries.y[i]) for scores in (view.scores, *view.queries)]


def lira_queries(view: View, i: int, shadows: list[View], joint: bool = True) -> float:
    total = 0.0
    for sign, inside in ((1, True), (-1, False)):
        products, freedom = np.zeros((3, 3)), 0
        for j in range(len(view.canaries.y)):
            rows = np.array([answers(s, j) for s in shadows if s.canaries.member[j] == inside])
            off = rows - rows.mean(axis=0)
            products += off.T @ off
            freedom += len(rows) - 1
        covariance = products / freedom
        covariance[np.diag_indices(3)] *= 1 + 1e-6
        if not joint:
            covariance = np.diag(np.diag(covariance))
        mean = np.mean([answers(s, i) for s in shadows if s.canaries.member[i] == inside], axis=0)
        total += sign * stats.multivariate_normal.logpdf(answers(view, i), mean, covariance)
    return float(total)


def from_out(p: float, a: float) -> float:
    return ((1 + a) * p + 1 - a) / 2


def slope(shadows: list[View]) -> float:
    """How much of the missing probability is left where a record is in."""
    missed: tuple[list[float], list[float]] = ([], [])
    for shadow in shadows:
        for i, member in enumerate(shadow.canaries.member):
            missed[int(not member)].append(1 - probability(shadow, i, shadow.canaries.y[i]))
    return min(float(np.mean(missed[0]) / np.mean(missed[1])), 1.0)


def rmia(view: View, i: int, shadows: list[View], *, offline: bool = False) -> float:
    y = view.canaries.y[i]
    inside = [probability(s, i, y) for s in shadows if s.canaries.member[i]]
    outside = [probability(s, i, y) for s in shadows if not s.canaries.member[i]]
    a = 0.3 if offline else slope(shadows)
    if offline or not inside:
        prior = from_out(float(np.mean(outside)), a)
    else:
        prior = (
            np.mean(inside) + (np.mean(outside) if outside else max(1 - (1 - np.mean(inside)) / a, 0))
        ) / 2
    ratio = probability(view, i, y) / prior
    exceeded = 0
    for z, label in enumerate(view.canaries.test_y):
        beside = from_out(float(np.mean([math.exp(s.test_scores[z, label]) for s in shadows])), a)
        exceeded += ratio / (math.exp(view.test_scores[z, label]) / beside) >= 2.0
    k = len(view.canaries.test_y)
    lead = math.log(ratio)
    return math.log((exceeded + 0.5) / (k - exceeded + 0.5)) + lead / (1 + abs(lead)) / (k + 1)


def rmia_offline(view: View, i: int, shadows: list[View]) -> float:
    return rmia(view, i, shadows, offline=True)


def vote(view: View, i: int, shadows: list[View]) -> float:
    right = sum(int(np.argmax(s[i])) == view.canaries.y[i] for s in (view.scores, *view.queries))
    return math.log((right + 0.5) / (3 - right + 0.5))


TWINS = {
    "loss": (LossThreshold(), lambda view, i, shadows: own(view, i)),
    "confidence": (Confidence(), confidence),
    "entropy": (Entropy(), entropy),
    "modified entropy": (ModifiedEntropy(), modified_entropy),
    "attack P": (AttackP(), attack_p),
    "attack R": (AttackR(), attack_r),
    "difficulty": (Difficulty(), difficulty),
    "LiRA": (Lira(), lira),
    "LiRA, own variances": (Lira(fixed_variance_below=0), lira_own_variance),
    "LiRA, three queries": (Lira(queries=3), lira_queries),
    "LiRA, independent": (Lira(queries=3, joint=False), lambda v, i, s: lira_queries(v, i, s, joint=False)),
    "LiRA offline": (LiraOffline(), lira_offline),
    "RMIA": (Rmia(), rmia),
    "RMIA offline": (RmiaOffline(), rmia_offline),
    "augmentation vote": (AugmentationVote(queries=3), vote),
    "boundary distance": (
        BoundaryDistance(directions=3),
        lambda view, i, shadows: float(np.mean(np.log(view.distances[:, i]))),
    ),
    "gradient norm": (GradientNorm(), lambda view, i, shadows: -math.log(view.gradient_norms[i])),
}


@pytest.mark.parametrize("name", TWINS)
def test_an_attack_equals_its_twin_on_every_record(name):
    attack, twin = TWINS[name]
    found = attack.scores(TARGETS, SHADOWS)
    assert found.shape == (2, 24)
    assert found.dtype == np.float64
    # A record that one side never saw, or whose own variance no two models tell, is for the other tests.
    enough = 2 if "own" in name else 1
    known = [i for i in range(24) if min(map(len, sides(i, SHADOWS))) >= enough]
    assert len(known) > 12
    slow = [[twin(view, i, SHADOWS) for i in known] for view in TARGETS]
    np.testing.assert_allclose(found[:, known], slow, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("count", [1, 2])
def test_rmia_with_one_or_two_references_takes_the_missing_side_from_the_other(count):
    found = Rmia().scores(TARGETS, SHADOWS[:count])
    slow = [[rmia(view, i, SHADOWS[:count]) for i in range(24)] for view in TARGETS]
    np.testing.assert_allclose(found, slow, rtol=1e-10, atol=1e-10)


def test_attack_p_by_class_compares_within_the_class():
    view = TARGETS[0]
    found = AttackP(by_class=True).scores([view], [])[0]
    for i, y in enumerate(view.canaries.y):
        others = [
            phi(s, label)
            for s, label in zip(view.test_scores, view.canaries.test_y, strict=True)
            if label == y
        ]
        below = sum(o < own(view, i) for o in others)
        assert found[i] == pytest.approx(math.log((below + 0.5) / (len(others) - below + 0.5)))


def student(x: float, values: list[float], centre: float, spread: float, freedom: float, s0: float) -> float:
    """Predictive density under a normal-inverse-gamma prior, one observation after another."""
    mean, weight, shape, rate = centre, s0 / spread, freedom / 2, freedom * s0 / 2
    for value in values:
        rate += weight * (value - mean) ** 2 / (2 * (weight + 1))
        mean = (weight * mean + value) / (weight + 1)
        weight, shape = weight + 1, shape + 0.5
    return float(stats.t.logpdf(x, 2 * shape, mean, math.sqrt(rate * (weight + 1) / (shape * weight))))


def moments(side: int) -> tuple[float, float]:
    """Freedom and scale of the prior of variances (Smyth 2004, section 6.2)."""
    logs, trigammas = [], []
    for i in range(24):
        values = sides(i, SHADOWS)[side]
        if len(values) > 1:
            half = (len(values) - 1) / 2
            logs.append(
                math.log(np.var(values, ddof=1)) - float(stats.loggamma(half).mean()) + math.log(half)
            )
            trigammas.append(float(stats.loggamma(half).var()))
    excess = float(np.var(logs)) - float(np.mean(trigammas))
    freedom = min(2 * _inverse_trigamma(excess), 1e4) if excess > 0 else 1e4
    return freedom, math.exp(np.mean(logs) + stats.loggamma(freedom / 2).mean() - math.log(freedom / 2))


def test_bavaria_is_the_ratio_of_the_densities_that_its_prior_predicts():
    means = [[np.mean(v) if v else math.nan for v in sides(i, SHADOWS)] for i in range(24)]
    both = np.array([m for m in means if np.isfinite(m).all()])
    expected = np.zeros((2, 24))
    for sign, side in ((1, 0), (-1, 1)):
        freedom, s0 = moments(side)
        slope, intercept = np.polyfit(both[:, 1 - side], both[:, side], 1)
        error = np.mean((both[:, side] - intercept - slope * both[:, 1 - side]) ** 2)
        counts = [[len(v) for v in sides(i, SHADOWS)] for i in range(24)]
        sampled = s0 * np.mean([1 / c[side] for c in counts if c[side]])
        spread = max(error - sampled, s0 / max(c[1 - side] for c in counts))
        for i in range(24):
            if math.isnan(means[i][1 - side]):
                continue
            values, centre = sides(i, SHADOWS)[side], intercept + slope * means[i][1 - side]
            for t, view in enumerate(TARGETS):
                expected[t, i] += sign * student(own(view, i), values, centre, spread, freedom, s0)
    known = [i for i in range(24) if np.isfinite(means[i]).all()]
    found = Bavaria().scores(TARGETS, SHADOWS)
    np.testing.assert_allclose(found[:, known], expected[:, known], rtol=1e-8, atol=1e-8)


def test_the_ridge_leaves_each_answer_out_as_if_it_had_been_fitted_without():
    rng = np.random.default_rng(0)
    design, answers_ = rng.standard_normal((30, 4)), rng.standard_normal((30, 2))
    regression = Ridge.of(design)
    _, residual = regression.predict(answers_, design)
    for column in range(2):
        errors = {}
        for penalty in np.geomspace(1e-3, 1e3, 13) * (regression.values**2).mean():
            left_out = []
            for i in range(30):
                rest = np.arange(30) != i
                # The intercept is not penalised, so that leaving one out moves it too.
                x = np.column_stack([np.ones(29), (design - design.mean(0))[rest]])
                lhs = x.T @ x + penalty * np.diag([0, 1, 1, 1, 1])
                beta = np.linalg.solve(lhs, x.T @ answers_[rest, column])
                left_out.append(answers_[i, column] - beta[0] - (design - design.mean(0))[i] @ beta[1:])
            errors[penalty] = np.array(left_out)
        best = min(errors.values(), key=lambda e: float((e**2).sum()))
        np.testing.assert_allclose(residual[:, column], best, rtol=1e-8)


def test_entropies_go_on_where_a_probability_has_no_number_any_more():
    """exp(-800) is 0: the entropy is q (1 - log q) to first order, with log q = -800."""
    scores = np.array([[-0.0, -800.0, -5000.0]])
    certain = replace(TARGETS[0], scores=np.repeat(scores, 24, axis=0))
    certain = replace(certain, canaries=replace(certain.canaries, y=np.zeros(24, dtype=np.int64)))
    assert Entropy().scores([certain], [])[0, 0] == pytest.approx(800 - math.log(801))
    # The label's term is (1 - p) (1 - p), the other's q q: both are beyond every other number.
    assert ModifiedEntropy().scores([certain], [])[0, 0] == pytest.approx(1600 - math.log(2))


def test_the_complement_of_a_probability_near_one_is_not_rounded_away():
    scores = np.array([[-1e-20, math.log(1e-20) - math.log(2), math.log(1e-20) - math.log(2)]])
    assert log_rest(scores)[0, 0] == pytest.approx(math.log(1e-20))
