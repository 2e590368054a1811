"""From the update of a batch back to its records: read off, or searched for until their update agrees.

All functions take k updates at once and have no loop over them.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from dpaudit.check import FloatArray
from dpaudit.matcher import GradientMatcher
from dpaudit.protocols import RowArray

_DROPS = (3 / 8, 5 / 8, 7 / 8)


def labels_of(seen: RowArray, batch: int, matcher: GradientMatcher, low: float, high: float) -> RowArray:
    """Labels of the records of each update, as (k, batch, classes) ones and zeros.

    The gradient of the last layer's bias sums p - 1[label] over the records: for one record only its label
    is negative (Zhao, Mopuri and Bilen 2020, arXiv:2001.02610). For more, the most negative class is taken
    out, one record after another, with the probabilities that the model gives to grey records.

    Args:
        seen: (k, d) updates, of unclipped length as far as that can be had.
        batch: records in each.
        matcher: the model.
        low: smallest value of a record.
        high: largest value.
    """
    assert matcher.head is not None
    left = -seen[:, matcher.head].reshape(len(seen), matcher.classes, -1).sum(axis=2)
    grey = np.full((1, *matcher.shape), (low + high) / 2, dtype=np.float32)
    usual = matcher.probabilities(grey)[0]
    ones = np.eye(matcher.classes, dtype=np.float32)
    found = []
    for _ in range(batch):
        found.append(ones[left.argmax(axis=1)])
        left = left - (found[-1] - usual)
    return np.stack(found, axis=1)


def read_off(seen: RowArray, matcher: GradientMatcher) -> RowArray:
    """Records that a dense first layer gives away, for updates of one record: (k, 1, *shape), no search.

    Each neuron's weights have the gradient b x where its bias has b: with exact updates their quotient is the
    record itself, as long as one record alone excites the neuron (Phong et al. 2017, doi:10.1007/978-981-10-
    5487-7_9). Over the neurons of a noisy update, b . W / b . b is the least-squares record.
    """
    weights, biases = _first_layer(seen, matcher)
    found = np.einsum("kn,knd->kd", biases, weights) / np.maximum(np.square(biases).sum(1), 1e-30)[:, None]
    return np.asarray(found.reshape(len(seen), 1, *matcher.shape), dtype=np.float32)


def of_each_neuron(seen: RowArray, matcher: GradientMatcher) -> RowArray:
    """The quotient of every neuron, (k, neurons, *shape): a record where that one alone excites it."""
    weights, biases = _first_layer(seen, matcher)
    safe = np.where(np.abs(biases) > 1e-12, biases, np.inf)
    quotients = weights / safe[:, :, None]
    return np.asarray(quotients.reshape(len(seen), -1, *matcher.shape), dtype=np.float32)


def _first_layer(seen: RowArray, matcher: GradientMatcher) -> tuple[RowArray, RowArray]:
    assert matcher.dense is not None
    weight, bias, width, inputs = matcher.dense
    weights = seen[:, weight : weight + width * inputs].reshape(len(seen), width, inputs)
    return weights, seen[:, bias : bias + width]


def by_angle(
    seen: RowArray,
    start: RowArray,
    labels: RowArray,
    matcher: GradientMatcher,
    *,
    clip: RowArray,
    low: float,
    high: float,
    iterations: int,
    smoothness: float,
    picture: tuple[int, ...] = (),
) -> tuple[RowArray, FloatArray]:
    """Records whose update points where the one that was seen points (Geiping et al. 2020, arXiv:2003.14053).

    1 - cosine plus total variation, by Adam on signs of gradients with a falling step, inside the box of
    values. Costs `iterations` calls of `matcher.match`.

    Args:
        seen: (k, d) updates.
        start: (k, b, *shape) where the search sets out.
        labels: (k, b, classes).
        matcher: the model.
        clip: (k,) norm to which each record's gradient was clipped; inf for none.
        low: smallest value of a record.
        high: largest value.
        iterations: steps of the search.
        smoothness: weight of the total variation of pictures.
        picture: (channels, h, w) of a record that is one; empty for others, which are not smoothed.

    Returns:
        (k, b, *shape) records, and (k,) how far their updates are from those seen.
    """
    x: RowArray = start.astype(np.float32)
    first: FloatArray = np.zeros(start.shape)
    second: FloatArray = np.zeros(start.shape)
    rate = 0.1 * (high - low)
    drops = {int(share * iterations) for share in _DROPS}
    for i in range(iterations):
        rate *= 0.1 if i in drops else 1.0
        _, slope, _ = matcher.match(x, labels, seen, clip=clip, cosine=True)
        if picture:
            shown = x.reshape(*x.shape[:2], *picture)
            slope = np.asarray(slope + smoothness * _variation(shown).reshape(x.shape), dtype=np.float32)
        slope = np.sign(slope)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * np.square(slope)
        step = first / (1 - 0.9 ** (i + 1)) / (np.sqrt(second / (1 - 0.999 ** (i + 1))) + 1e-8)
        x = np.asarray(np.clip(x - rate * step, low, high), dtype=np.float32)
    apart, _, _ = matcher.match(x, labels, seen, clip=clip, cosine=True)
    return x, np.asarray(apart, dtype=np.float64)


def _variation(x: RowArray) -> RowArray:
    """Slope of the mean absolute difference of neighbouring pixels, over the last two axes."""
    slope = np.zeros_like(x)
    down, right = np.sign(np.diff(x, axis=-2)), np.sign(np.diff(x, axis=-1))
    slope[..., 1:, :] += down
    slope[..., :-1, :] -= down
    slope[..., :, 1:] += right
    slope[..., :, :-1] -= right
    return np.asarray(slope / (x.shape[-1] * x.shape[-2]), dtype=np.float32)


def by_distance(
    seen: RowArray, start: RowArray, matcher: GradientMatcher, *, iterations: int
) -> tuple[RowArray, FloatArray]:
    """Records and soft labels whose update is the one seen (DLG: Zhu, Liu and Han 2019, arXiv:1906.08935).

    Squared distance, by L-BFGS over all updates together: their distances add up, and each depends on its own
    records alone. No label is known beforehand, no box and no smoothness.

    Args:
        seen: (k, d) updates.
        start: (k, b, *shape).
        matcher: the model.
        iterations: of L-BFGS; each costs one or a few calls of `matcher.match`.

    Returns:
        (k, b, *shape) records, and (k,) how far their updates are from those seen.
    """
    k, b = start.shape[:2]
    cut = start.size
    clip = np.full(k, np.inf, dtype=np.float32)
    scale = np.maximum(np.square(seen.astype(np.float64)).sum(axis=1), 1e-30)

    def split(point: FloatArray) -> tuple[RowArray, RowArray]:
        logits = point[cut:].reshape(k, b, matcher.classes)
        raised = np.exp(logits - logits.max(axis=2, keepdims=True))
        labels = raised / raised.sum(axis=2, keepdims=True)
        return point[:cut].reshape(start.shape).astype(np.float32), labels.astype(np.float32)

    def objective(point: FloatArray) -> tuple[float, FloatArray]:
        x, labels = split(point)
        apart, slope, by_label = matcher.match(x, labels, seen, clip=clip, cosine=False)
        by_logit = labels * (by_label - (labels * by_label).sum(axis=2, keepdims=True))
        of = scale.reshape(-1, 1, 1)
        flat = (slope.reshape(k, b, -1) / of).reshape(-1), (by_logit / of).reshape(-1)
        return float((apart / scale).sum()), np.concatenate(flat).astype(np.float64)

    origin = np.concatenate([start.reshape(-1), np.zeros(k * b * matcher.classes)]).astype(np.float64)
    found = minimize(objective, origin, jac=True, method="L-BFGS-B", options={"maxiter": iterations})
    x, labels = split(found.x)
    apart, _, _ = matcher.match(x, labels, seen, clip=clip, cosine=False)
    return x, np.asarray(apart / scale, dtype=np.float64)
