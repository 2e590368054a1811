"""Does a sample follow the law it is said to follow: at a level at which a false alarm is never seen."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import beta, binom

RARE = 1e-9


def assert_counts_follow(counts, probabilities):
    """Exact two-sided binomial test of every cell, Bonferroni over the cells."""
    n, level = counts.sum(), RARE / (2 * len(counts))
    assert (binom.cdf(counts, n, probabilities) >= level).all()
    assert (binom.sf(counts - 1, n, probabilities) >= level).all()


def assert_rows_follow(outputs, rows, log_probabilities):
    """The same for outputs (n, d) that are among `rows` (k, d), one of which is each cell."""
    index = {tuple(row): i for i, row in enumerate(np.asarray(rows).tolist())}
    kinds, counted = np.unique(outputs, axis=0, return_counts=True)
    counts = np.zeros(len(index), dtype=int)
    for kind, count in zip(kinds.tolist(), counted, strict=True):
        counts[index[tuple(kind)]] = count
    assert_counts_follow(counts, np.exp(log_probabilities))


def refuted(first, second, event):
    """Lower bound on epsilon at level `RARE` from one event, stated beforehand, on (n,) outputs each."""
    often, seldom = np.count_nonzero(event(first)), np.count_nonzero(event(second))
    p = beta.ppf(RARE / 2, often, len(first) - often + 1) if often else 0.0
    q = beta.isf(RARE / 2, seldom + 1, len(second) - seldom) if seldom < len(second) else 1.0
    return math.log(p / q) if p else -math.inf
