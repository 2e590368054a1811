"""How well shares are told apart on outputs that were drawn in pairs under common random numbers.

Where a mechanism draws the same noise for both data sets, an event that happens on the one mostly happens
on the other, and only the outputs on which it does not say which is likelier. The difference of two shares
then varies less than that of independent samples (Law & Kelton 2000, section 11.2), and a small leak in a
rare event shows on a fraction of the outputs. Where the noise is not the same, the counts show that too.
"""

from __future__ import annotations

import numpy as np

from dpaudit.check import FloatArray, IntArray


def spread(ours: IntArray, theirs: IntArray, both: IntArray, trials: int) -> FloatArray:
    """Standard deviation of the difference of two shares, as a multiple of that of independent samples.

    Some one where nothing is shared, less where the same noise was drawn, and up to the root of 2 where one
    happens when the other does not. A pair on which only one happened is added, for none may have been luck.

    Args:
        ours: how often an event happened on the first data set.
        theirs: on the second.
        both: in how many pairs on both.
        trials: number of pairs.
    """
    p, q = ours / trials, theirs / trials
    paired = ours + theirs - 2.0 * both + 1.0 - trials * (p - q) ** 2
    independent = trials * (p * (1.0 - p) + q * (1.0 - q)) + 1.0
    result: FloatArray = np.sqrt(np.clip(paired / independent, 0.0, 2.0))
    return result


def shares(
    ours: IntArray, theirs: IntArray, both: IntArray, trials: int, draws: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """(draws, k) probabilities on both data sets, as the pairs leave them open (Dirichlet, Jeffreys)."""
    neither = trials - ours - theirs + both
    cells = np.stack([both, ours - both, theirs - both, neither], axis=-1)
    weights = rng.standard_gamma(cells + 0.5, (draws, *cells.shape))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights[..., 0] + weights[..., 1], weights[..., 0] + weights[..., 2]


def lower_and_upper(first: IntArray, second: IntArray, missing: int) -> tuple[IntArray, IntArray]:
    """Of each pair of codes the smaller and the larger; `missing`, which is above all codes, where one is.

    Both codes of a pair are above a threshold if the smaller is, and at most at it if the larger is.
    """
    upper = np.maximum(first, second)
    return np.where(upper == missing, upper, np.minimum(first, second)), upper
