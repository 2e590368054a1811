"""Bets against a trade-off curve that no mechanism under the curve wins on average, with their proof.

A bet pays e(k, b) when a score falls into cell k and the canary was out (b = 0) or in (b = 1), either with
probability 1/2. By Blackwell's theorem every mechanism under a curve is a post-processing of the curve's
own pair (P, Q) of laws, so that the mean payoff under all of them is at most
V = 1/2 integral max_k (e(k, 0) dP + e(k, 1) dQ). Payoffs divided by V are certified: it does not matter how
they were found. The best ones divide what is believed by its projection on everything that the curve allows
(Larsson, Ramdas and Ruf 2024, arXiv:2402.18810).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.linalg.lapack import dgtsv
from scipy.optimize import isotonic_regression
from scipy.special import ndtr, ndtri

from dpaudit.check import FloatArray, IntArray
from dpaudit.stats.tradeoff import EpsilonDelta, Gaussian, PrivacyProfile, TradeOff, gaussian_delta

_REACH = 8.0
_NODES = 641
_NEWTON = 25
_MERGES = 80
_ROUGHLY, _CONVERGED = 1e-4, 1e-10
_ROOT_2PI = math.sqrt(2 * math.pi)


def hockey_stick(curve: TradeOff, epsilon: FloatArray) -> FloatArray:
    """Delta of a curve at each epsilon of either sign, at most: the largest TPR - e^eps FPR.

    Exact for Gaussian curves. For curves that are the least of lines, chords between their slopes, because
    delta is convex in e^eps. For any other curve its values on a fine grid, each against the FPR before it.
    """
    slope = np.exp(np.minimum(epsilon, 700.0))
    trivial = np.maximum(1.0 - slope, 0.0)
    if isinstance(curve, Gaussian):
        return gaussian_delta(curve.mu, epsilon)
    lines = _lines(curve)
    if lines is not None:
        steep, delta = lines
        slopes = np.concatenate([[0.0], 1.0 / steep, steep])
        heights = np.concatenate([[1.0], 1.0 - (1.0 - delta) / steep, delta])
        order = np.argsort(slopes, kind="stable")
        chords: FloatArray = np.maximum(np.interp(slope, slopes[order], heights[order]), trivial)
        return chords
    fpr = np.concatenate([[0.0], np.geomspace(1e-15, 1.0, 50_000)])
    above = curve.tpr(np.append(fpr[1:], 1.0))
    return np.array([max(float(np.max(above - s * fpr)), 0.0) for s in slope])


def _lines(curve: TradeOff) -> tuple[FloatArray, FloatArray] | None:
    """Slopes e^eps and deltas of a curve that is the least of lines; None for another."""
    if isinstance(curve, EpsilonDelta):
        epsilon, delta = np.array([curve.epsilon]), np.array([curve.delta])
    elif isinstance(curve, PrivacyProfile):
        epsilon, delta = np.array(curve.epsilons), np.array(curve.deltas)
    else:
        return None
    return np.exp(np.minimum(epsilon, 700.0)), delta


def certificate(payoff: FloatArray, curve: TradeOff) -> float:
    """V, the largest mean of a payoff under the curve, up to rounding; see the module's first lines.

    Only the upper hull of the payoffs matters. Between neighbours on it the maximum changes where the
    likelihood ratio passes the slope between them, which adds that step's hockey-stick divergence. Costs k.

    Args:
        payoff: (k, 2) non-negative, for out and in.
        curve: what is allowed.
    """
    hull: list[tuple[float, float]] = []
    for out, inside in sorted(map(tuple, payoff.tolist()), key=lambda point: (-point[0], -point[1])):
        if hull and inside <= hull[-1][1]:
            continue
        while len(hull) > 1 and _below(hull[-2], hull[-1], (out, inside)):
            hull.pop()
        hull.append((out, inside))
    corner = np.array(hull)
    fall, rise = -np.diff(corner[:, 0]), np.diff(corner[:, 1])
    with np.errstate(divide="ignore"):
        steps = rise * hockey_stick(curve, np.log(fall / rise))
    return 0.5 * float(corner[0].sum() + steps.sum())


def _below(left: tuple[float, float], middle: tuple[float, float], right: tuple[float, float]) -> bool:
    """Whether the middle point is on or under the line from left to right (falling, rising)."""
    return (left[0] - middle[0]) * (right[1] - middle[1]) >= (middle[0] - right[0]) * (middle[1] - left[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The two laws of a curve on one axis: out is standard normal, in has distribution Phi(w(z)).

    Attributes:
        curve: the curve itself.
        knots: (n,) values of z, evenly spaced.
        shifted: (n,) w there; w(z) = z - mu for a Gaussian curve.
        pooled: (n,) mean of both distribution functions there.
        spline: (4, n - 1) cubic coefficients of w between the knots; None for a Gaussian curve.
    """

    curve: TradeOff
    knots: FloatArray
    shifted: FloatArray
    pooled: FloatArray
    spline: FloatArray | None

    def map(self, z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """W and its first and second derivatives; slope 1 beyond the knots."""
        if self.spline is None:
            return z + (self.shifted[0] - self.knots[0]), np.ones_like(z), np.zeros_like(z)
        inside = np.clip(z, self.knots[0], self.knots[-1])
        piece = ((inside - self.knots[0]) / (self.knots[1] - self.knots[0])).astype(np.int64)
        piece = np.minimum(piece, self.spline.shape[1] - 1)
        t, (a, b, c, d) = inside - self.knots[piece], self.spline[:, piece]
        value = ((a * t + b) * t + c) * t + d + (z - inside)
        beyond = z != inside
        first = np.where(beyond, 1.0, (3 * a * t + 2 * b) * t + c)
        return value, first, np.where(beyond, 0.0, 6 * a * t + 2 * b)


def pair(curve: TradeOff) -> Pair:
    """The pair of a curve, as a smooth function; a certificate makes good what smoothing loses."""
    if isinstance(curve, Gaussian):
        knots = np.linspace(-_REACH, _REACH + curve.mu, _NODES)
        shifted = knots - curve.mu
        spline = None
    else:
        knots = np.linspace(-_REACH, _REACH, _NODES)
        shifted = -ndtri(np.clip(curve.tpr(ndtr(-knots)), 1e-300, 1 - 1e-16))
        shifted = np.maximum.accumulate(shifted) + 1e-9 * knots
        spline = np.asarray(PchipInterpolator(knots, shifted).c)
    return Pair(
        curve=curve, knots=knots, shifted=shifted, pooled=(ndtr(knots) + ndtr(shifted)) / 2, spline=spline
    )


def cells_of(law: Pair, count: int) -> FloatArray:
    """(count, 2) probabilities of cells of equal pooled mass on the pair's axis, for out and in."""
    edges = np.interp(np.arange(1, count) / count, law.pooled, law.knots)
    value, cells, _ = _fit(np.zeros((count, 2)), law, edges)
    if value == -math.inf:
        # Laws too far apart for floating point: without the canary always below, with it always above.
        side = np.arange(count) >= count // 2
        cells = np.stack([~side / np.sum(~side), side / np.sum(side)], axis=1)
    return cells


def numeraire(belief: FloatArray, against: Pair) -> FloatArray:
    """(k, 2) logarithm of the best certified payoffs for a belief.

    The projection maximises the mean logarithm of what the curve allows: a partition of its axis, found by
    Newton steps with a tridiagonal Hessian. Neighbouring cells in which the curve could copy the belief get
    one payoff, as in isotonic regression. About 2 ms for 64 cells and a Gaussian curve, 10 ms for others.

    Args:
        belief: (k, 2) positive probabilities of the cells for out and in, each summing to 1, with a
            likelihood ratio that does not fall.
        against: the pair of the tested curve.
    """
    group: IntArray = np.arange(len(belief))
    mass = np.cumsum(belief.mean(axis=1))[:-1]
    edges = np.interp(mass, against.pooled, against.knots)
    payoff, enough = np.ones_like(belief), _ROUGHLY
    for _ in range(_MERGES):
        merged: FloatArray = np.stack([np.bincount(group, weights=belief[:, b]) for b in (0, 1)], axis=1)
        if len(merged) == 1:
            payoff = np.ones_like(belief)
            break
        ratio, edges = _project(merged, against, edges, enough)
        payoff = ratio[group]
        apart = ratio[1:, 1] > ratio[:-1, 1] * (1 + 1e-12)
        if apart.all():
            if enough == _CONVERGED:
                break
            enough = _CONVERGED
            continue
        level = isotonic_regression(ratio[:, 1], weights=merged[:, 1] / ratio[:, 1]).x
        apart = np.diff(level) > 1e-12 * level[1:]
        edges = edges[apart]
        group = np.concatenate([[0], np.cumsum(apart)])[group]
    result: FloatArray = np.log(payoff) - math.log(certificate(payoff, against.curve))
    return result


def _project(
    belief: FloatArray, against: Pair, edges: FloatArray, enough: float
) -> tuple[FloatArray, FloatArray]:
    """(k, 2) belief over the nearest that a partition of the pair gives, and the (k - 1,) partition."""
    value, allowed, ends = _fit(belief, against, edges)
    if value == -math.inf:
        # A curve so far out that its masses underflow: bet nothing.
        return np.ones_like(belief), edges
    for _ in range(_NEWTON):
        step, gain = _newton_step(belief, allowed, edges, ends)
        length = 1.0
        while True:
            there, moved, reached = _fit(belief, against, edges + length * step)
            if there >= value or length < 1e-9:
                break
            length /= 2
        if there < value:
            break
        edges, value, allowed, ends = edges + length * step, there, moved, reached
        if gain < enough:
            break
    return belief / allowed, edges


_Mapped = tuple[FloatArray, FloatArray, FloatArray]
"""Edges on the axis of the law with the canary, and two derivatives there."""


def _fit(belief: FloatArray, against: Pair, edges: FloatArray) -> tuple[float, FloatArray, _Mapped]:
    """Mean logarithm of what a partition allows, -inf for none, the (k, 2) probabilities, mapped edges."""
    mapped = against.map(edges)
    if np.any(edges[1:] <= edges[:-1]):
        return -math.inf, belief, mapped
    allowed = np.empty((edges.size + 1, 2))
    for side, ends in enumerate((edges, mapped[0])):
        allowed[:, side] = _masses(np.concatenate([[-np.inf], ends, [np.inf]]))
    if allowed.min() <= 0:
        return -math.inf, belief, mapped
    return float(np.sum(belief * np.log(allowed))), allowed, mapped


def _masses(ends: FloatArray) -> FloatArray:
    """Standard normal probabilities between ends, in whichever tail has the digits."""
    low, high = ends[:-1], ends[1:]
    result: FloatArray = np.where(low > 0, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))
    return result


def _newton_step(
    belief: FloatArray, allowed: FloatArray, edges: FloatArray, mapped: _Mapped
) -> tuple[FloatArray, float]:
    """(k - 1,) ascent step and the gain that it promises."""
    w, first, second = mapped
    density = np.stack([np.exp(-edges * edges / 2), np.exp(-w * w / 2) * first], axis=1) / _ROOT_2PI
    bend = np.stack([-edges, np.divide(second, first) - w * first], axis=1) * density
    ratio = belief / allowed
    pull, weight = ratio[:-1] - ratio[1:], ratio / allowed
    gradient = np.sum(density * pull, axis=1)
    diagonal = np.sum(bend * pull - density**2 * (weight[:-1] + weight[1:]), axis=1)
    beside = np.sum(density[:-1] * density[1:] * weight[1:-1], axis=1)
    step = -dgtsv(beside, diagonal, beside, gradient)[3] if edges.size > 1 else -gradient / diagonal
    gain = float(gradient @ step)
    if gain < 0:
        # Not concave here, for a curve that is not Gaussian: follow the gradient instead.
        step = gradient / np.maximum(np.abs(diagonal), 1e-12)
        gain = float(gradient @ step)
    return step, gain
