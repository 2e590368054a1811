"""A small network from weights to the record that they were trained on, fitted in closed form.

One hidden unit stands at each model whose record is known, and answers by its distance in weights; the layer
behind it is ridge regression (Broomhead and Lowe 1988, Complex Systems 2). Its width and its penalty are
those with the least error where each model in turn is left out. A linear layer without hidden units is among
the choices. The reconstructor of Balle, Cherubin and Hayes 2022 (arXiv:2201.04845) is trained by gradients.
"""

from __future__ import annotations

import numpy as np

from dpaudit.check import FloatArray

_WIDTHS = (0.0, 0.1, 0.3, 1.0, 3.0)
"""Of a unit, as multiples of one over the median squared distance; 0 for the linear layer."""
_PENALTIES = np.geomspace(1e-4, 1e3, 15)
"""Of the ridge, as multiples of the kernel's mean eigenvalue; the last one leaves the mean of the records."""


def rebuild(known: FloatArray, records: FloatArray, weights: FloatArray) -> FloatArray:
    """Records that models were trained on, as learned from models whose records are known.

    Args:
        known: (S, p) weights of those; rows that are not finite are left out.
        records: (S, d) what each was trained on beside what all share.
        weights: (M, p) of the others; where they are not finite, the mean record is returned.

    Returns:
        (M, d). Costs S (S + M) p, and five decompositions of (S, S).
    """
    usable = np.isfinite(known).all(axis=1)
    known, records = known[usable], records[usable]
    finite = np.isfinite(weights).all(axis=1)
    typical = records.mean(axis=0)
    found = np.tile(typical, (len(weights), 1))
    if len(known) > 2 and finite.any():
        learned, asked = _standardised(known, weights[finite])
        found[finite] += _fitted(learned, records - typical, asked)
    return found


def _standardised(known: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Both in deviations of the known; a weight that hardly moves is not blown up."""
    mean, spread = known.mean(axis=0), known.std(axis=0)
    scale = spread + 0.1 * float(np.median(spread)) + 1e-12
    return (known - mean) / scale, (weights - mean) / scale


def _fitted(known: FloatArray, wanted: FloatArray, asked: FloatArray) -> FloatArray:
    """(M, d) from centred (S, d), by the width and penalty whose left-out error is least."""
    size = (known**2).sum(axis=1)
    inner, across = known @ known.T, asked @ known.T
    apart = np.maximum(size[:, None] + size - 2 * inner, 0.0)
    far = np.maximum((asked**2).sum(axis=1)[:, None] + size - 2 * across, 0.0)
    usual = max(float(np.median(apart)), 1e-300)
    best, found = np.inf, np.zeros((len(asked), wanted.shape[1]))
    for width in _WIDTHS:
        near = np.exp(-width * apart / usual) if width else inner
        other = np.exp(-width * far / usual) if width else across
        centre = near.mean(axis=0)
        other = other - other.mean(axis=1, keepdims=True) - centre + centre.mean()
        error, layer = _ridge(near - centre - centre[:, None] + centre.mean(), wanted)
        if error < best:
            best, found = error, other @ layer
    return found


def _ridge(kernel: FloatArray, wanted: FloatArray) -> tuple[float, FloatArray]:
    """Mean squared left-out error and dual weights (S, d) of the best penalty, for a centred kernel."""
    values, vectors = np.linalg.eigh(kernel)
    rotated, squares = vectors.T @ wanted, vectors**2
    best, chosen = np.inf, np.zeros_like(wanted)
    for penalty in _PENALTIES * max(float(values.mean()), 1e-300):
        shrunk = 1.0 / (np.maximum(values, 0.0) + penalty)
        layer = (vectors * shrunk) @ rotated
        # The mean is fitted without a penalty: its direction takes no part in what a left-out row loses.
        kept = squares @ shrunk - 1.0 / (len(kernel) * penalty)
        error = float(np.mean((layer / np.maximum(kept, 1e-300)[:, None]) ** 2))
        if error < best:
            best, chosen = error, layer
    return best, chosen
