"""Figures that other tools publish in their own tests and papers, from our functions on the same input."""

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import beta

from dpaudit.accounting import EpsilonDeltaFamily, GaussianFamily
from dpaudit.evidence import Access, OneRun, TwoSample
from dpaudit.stats import credible, one_run, two_sample
from dpaudit.stats.guessing import curve_rejects, pure_tail
from dpaudit.stats.tradeoff import Gaussian, gaussian_epsilon, gaussian_mu


def normals(mu, n):
    """The quantiles of a normal, as in jax-privacy's tests/auditing_test.py."""
    return ndtri((np.arange(n) + 0.5) / n) + mu


def frontier(inside, outside):
    """(k, 2) corners (false positives, true positives) of the hull of all thresholds."""
    at = np.concatenate([np.sort(np.concatenate([inside, outside])), [np.inf]])[::-1]
    tp = inside.size - np.searchsorted(np.sort(inside), at)
    fp = outside.size - np.searchsorted(np.sort(outside), at)
    hull = []
    for point in sorted(set(zip(fp.tolist(), tp.tolist(), strict=True))):
        while len(hull) > 1 and (hull[-1][0] - hull[-2][0]) * (point[1] - hull[-2][1]) >= (
            hull[-1][1] - hull[-2][1]
        ) * (point[0] - hull[-2][0]):
            hull.pop()
        hull.append(point)
    return np.array(hull)


def largest(rejects):
    low, high = 0.0, 40.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if rejects(middle) else (low, middle)
    return low


@pytest.mark.parametrize(
    ("shift", "published", "published_curve"),
    [(1, 1.13346, 2.164749), (2, 2.311945, 4.7218075), (4, 4.395568, 9.133752)],
)
def test_one_run_of_jax_privacy(shift, published, published_curve):
    # jax-privacy tests/auditing_test.py, test_epsilon_one_run_close: guesses "in" only, delta = 1e-6, and a
    # level of 5 % divided by the number of corners of the ROC's hull, which the same scores decide.
    n, delta = 10_000, 1e-6
    corners = frontier(normals(shift, n), normals(0, n))
    corners = corners[corners.sum(axis=1) > 0]
    made, right = corners.sum(axis=1), corners[:, 1]
    level = 0.05 / (len(corners) + 1)

    def bare(epsilon):
        return (pure_tail(epsilon, delta, canaries=2 * n, guesses=made, correct=right) <= level).any()

    def curve(epsilon):
        law = Gaussian(mu=gaussian_mu(epsilon, delta))
        levels = np.full(len(made), level)
        return curve_rejects(law, canaries=2 * n, guesses=made, correct=right, level=levels).any()

    assert largest(bare) == pytest.approx(published, abs=2e-4)
    assert largest(curve) == pytest.approx(published_curve, abs=2e-3)


@pytest.mark.parametrize(("m", "ceiling"), [(100, 3.49), (1000, 5.78), (10_000, 7.83), (100_000, 8.13)])
def test_ceilings_of_one_run(m, ceiling):
    # Steinke, Nasr and Jagielski 2023 (arXiv:2305.08846): a guesser who is always right, delta = 1e-5.
    included = np.arange(m) % 2 == 0
    evidence = OneRun(scores=included * 1.0, included=included, source="t", access=Access.FINAL_MODEL)
    family = EpsilonDeltaFamily(base_epsilon=4.0, delta=1e-5, adjacency=evidence.adjacency)
    found = one_run.epsilon_delta(evidence, family, alpha=0.05, guesses=m)
    assert found.epsilon_lower == found.ceiling == pytest.approx(ceiling, abs=0.01)


def confusion(tp, tn, fp, fn):
    return TwoSample(
        scores_in=np.repeat([1.0, 0.0], [tp, fn]),
        scores_out=np.repeat([1.0, 0.0], [fp, tn]),
        source="t",
        access=Access.FINAL_MODEL,
    )


def test_the_example_of_privacy_estimates():
    # README of privacy-estimates (arXiv:2206.05199): TP 487, TN 1, FP 512, FN 0, delta 1e-5, one-sided 5 %:
    # Clopper-Pearson 0.000, joint beta 0.145. Their posterior also counts a test that is worse than chance,
    # turned around; ours takes the direction of scores as declared and shows 0.
    given = confusion(487, 1, 512, 0)
    family = EpsilonDeltaFamily(base_epsilon=10.0, delta=1e-5)
    assert two_sample.at_threshold(given, family, 0.5, alpha=0.05).epsilon_lower == 0.0
    assert credible.joint_beta(given, family, 0.5, alpha=0.05).epsilon_lower == 0.0
    rng = np.random.default_rng(0)
    fnr, fpr = rng.beta(0.5, 487.5, 400_000), rng.beta(512.5, 1.5, 400_000)
    rates = [(1 - fnr, fpr), (1 - fpr, fnr), (fnr, 1 - fpr), (fpr, 1 - fnr)]
    logs = [np.log(np.maximum(a - 1e-5, 1e-300)) - np.log(np.maximum(b, 1e-300)) for a, b in rates]
    assert np.quantile(np.max(logs, axis=0), 0.05) == pytest.approx(0.145, abs=0.01)


@pytest.mark.parametrize(
    ("threshold", "n_in", "ratio"), [(0.0, 100, 1.5), (0.5, 1000, 0.5), (1.0, 1000, 1.0)]
)
def test_clopper_pearson_of_jax_privacy_promises_one_direction(threshold, n_in, ratio):
    # tests/auditing_test.py, test_epsilon_clopper_pearson_explicit: alpha / 2 for each rate and "in" only.
    # Ours spends half of that on the other direction, so that it reaches theirs at twice the level.
    inside, outside = normals(1, n_in), normals(0, int(n_in * ratio))
    fn, fp = (inside < threshold).sum(), (outside >= threshold).sum()
    tpr = beta.ppf(0.05, n_in - fn, fn + 1)
    fpr = beta.ppf(0.95, fp + 1, outside.size - fp)
    theirs = max(0.0, float(np.log(tpr / fpr)))
    given = TwoSample(scores_in=inside, scores_out=outside, source="t", access=Access.FINAL_MODEL)
    family = EpsilonDeltaFamily(base_epsilon=1.0, delta=0.0)
    ours = two_sample.at_threshold(given, family, np.nextafter(threshold, -1), alpha=0.2)
    assert ours.epsilon_lower >= theirs - 1e-3
    stricter = two_sample.at_threshold(given, family, np.nextafter(threshold, -1), alpha=0.1)
    assert stricter.epsilon_lower <= ours.epsilon_lower


@pytest.mark.parametrize("mu", [1.0, 3.0])
def test_gaussian_scores_of_jax_privacy(mu):
    # tests/auditing_test.py, test_epsilon_from_gdp_tight: within 5 % of the truth at delta = 5e-2 and 10 %.
    # Ours is that close too, and stays below the truth.
    rng, delta, n = np.random.default_rng(0xBAD5EED), 5e-2, 500_000
    given = TwoSample(
        scores_in=rng.normal(mu, 1, n), scores_out=rng.normal(0, 1, n), source="t", access=Access.FINAL_MODEL
    )
    true = gaussian_epsilon(mu, delta)
    found = two_sample.grid(given, GaussianFamily(mu=mu, delta=delta), alpha=0.1)
    assert 0.95 * true <= found.epsilon_lower <= true


def test_gaussian_conversion_of_dp_accounting():
    # mu of a tight claim of 8 at 1e-5, and the epsilon of mu = 1 at 5e-2 that jax-privacy's GDP test uses.
    assert gaussian_mu(8.0, 1e-5) == pytest.approx(1.6660, abs=1e-4)
    from dp_accounting import get_epsilon_gaussian

    assert gaussian_epsilon(1.0, 5e-2) == pytest.approx(get_epsilon_gaussian(1.0, 5e-2), rel=1e-6)
