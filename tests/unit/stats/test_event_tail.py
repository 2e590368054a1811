"""The exact test of one event: its quick bounds against a plain sum, and its level."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from dpaudit.stats import event_test
from dpaudit.stats.binomial import lower, upper
from dpaudit.stats.event_test import Counts, Line, p_value, refutes


def plain_tail(seen: float, counts: Counts, line: Line, q: float) -> float:
    """P(score at least as large as seen) at one q, outcome by outcome."""
    hits = np.arange(counts.trials + 1.0)[:, None]
    others = np.arange(counts.other_trials + 1.0)[None]
    score = event_test._score(hits, others, counts, line)
    p = min(line.slope * q + line.intercept, 1.0)
    weights = binom.pmf(hits, counts.trials, p) * binom.pmf(others, counts.other_trials, q)
    return float(weights[score >= seen * (1 - 1e-12)].sum())


@pytest.mark.parametrize(
    ("hits", "other", "epsilon"),
    [(30, 10, 0.1), (30, 10, 1.0), (12, 0, 0.1), (12, 0, 1.0), (70, 60, 0.1), (100, 80, 0.1), (25, 20, 0.1)],
)
def test_quick_bounds_enclose_the_plain_tail(hits: int, other: int, epsilon: float) -> None:
    counts = Counts(hits=hits, trials=100, other_hits=other, other_trials=100)
    line = Line(slope=math.exp(epsilon), intercept=0.0)
    seen = float(event_test._score(np.array(hits), np.array(other), counts, line))
    assert seen > 0
    low, high = float(lower(other, 100, 1e-4)), float(upper(other, 100, 1e-4))
    tails = [plain_tail(seen, counts, line, q) for q in np.linspace(low, high, 200)]
    least = event_test._some_tail(seen, counts, line, low, high)
    fine = event_test._largest_tail(seen, counts, line, low, high, event_test._FINE)
    coarse = event_test._largest_tail(seen, counts, line, low, high, event_test._COARSE)
    assert least <= max(tails) * (1 + 1e-3)
    assert max(tails) <= fine * (1 + 1e-9) and max(tails) <= coarse * (1 + 1e-9)
    assert fine <= 1.5 * max(tails)


def test_deciding_early_decides_as_the_fine_bound_does() -> None:
    rng = np.random.default_rng(0)
    line = Line(slope=math.exp(0.3), intercept=0.0)
    refuted = 0
    for _ in range(60):
        trials = int(rng.integers(50, 5000))
        q = rng.uniform(0.02, 0.6)
        counts = Counts(
            hits=int(rng.binomial(trials, min(1.0, q * math.exp(rng.uniform(0.2, 0.9))))),
            trials=trials,
            other_hits=int(rng.binomial(trials, q)),
            other_trials=trials,
        )
        seen = float(event_test._score(np.array(counts.hits), np.array(counts.other_hits), counts, line))
        alpha, missed = 0.05, 0.05 * event_test._MISSED
        low, high = (float(side(counts.other_hits, trials, missed / 2)) for side in (lower, upper))
        fine = seen > 0 and bool(
            event_test._largest_tail(seen, counts, line, low, high, event_test._FINE) <= alpha - missed
        )
        decided = refutes(counts, line, alpha)
        refuted += decided
        assert decided == fine or abs(p_value(counts, line) - alpha) < 0.05 * alpha
    assert 5 < refuted < 55


def test_level_on_the_line_itself() -> None:
    rng = np.random.default_rng(1)
    line, alpha, wrong, runs = Line(slope=math.exp(0.5), intercept=0.0), 0.05, 0, 400
    for _ in range(runs):
        counts = Counts(
            hits=int(rng.binomial(300, 0.1 * line.slope)),
            trials=300,
            other_hits=int(rng.binomial(300, 0.1)),
            other_trials=300,
        )
        wrong += refutes(counts, line, alpha)
    print(f"attained {wrong / runs:.4f} of {alpha}")
    assert binom.sf(wrong - 1, runs, alpha) > 1e-3
