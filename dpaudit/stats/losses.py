"""Privacy-loss distributions as arrays: what dp-accounting does value by value, done at once.

The laws are dp-accounting's own (Doroshenko et al. 2022, arXiv:2207.04380); only its loops over grid points
are replaced, which are most of what a search over noise scales costs (ten times the rest). Its distributions
are read by their private fields, hence the upper limit on its version; tests hold every figure against it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from dp_accounting.pld import pld_pmf
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss
from scipy.fft import irfft, next_fast_len, rfft

from dpaudit.check import FloatArray
from dpaudit.claim import Adjacency

_CHERNOFF = np.array([-20.0, -12.0, -8.0, -5.0, -3.0, -2.0, -1.0, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0])
_LOST = 1e-15
_RISE = 1e-12
_OVERFLOWS, _LARGEST_EXPONENT = 30.0, 700.0


@lru_cache(maxsize=8)
def step(sigma: float, rate: float, adjacency: Adjacency, width: float) -> PrivacyLossDistribution:
    """Loss of one Poisson-sampled Gaussian step, discretised upwards on a grid of the given width.

    Args:
        sigma: noise multiplier, positive.
        rate: in (0, 1).
        adjacency: neighbouring relation.
        width: of the grid; cost and size grow with one over it.
    """
    if adjacency is Adjacency.REPLACE_ONE:
        return PrivacyLossDistribution(_pmf(sigma, rate, AdjacencyType.REPLACE, width))
    return PrivacyLossDistribution(
        _pmf(sigma, rate, AdjacencyType.REMOVE, width), _pmf(sigma, rate, AdjacencyType.ADD, width)
    )


def _pmf(sigma: float, rate: float, kind: AdjacencyType, width: float) -> pld_pmf.PLDPmf:
    law = GaussianPrivacyLoss(sigma, sampling_prob=rate, adjacency_type=kind)
    bounds = law.connect_dots_bounds()
    low, high = math.floor(bounds.epsilon_lower / width), math.ceil(bounds.epsilon_upper / width)
    epsilon = np.arange(low, high + 1) * width
    certain = np.zeros_like(epsilon)
    reached = np.ones(epsilon.shape, dtype=np.bool_)
    if kind is AdjacencyType.REMOVE:
        reached = epsilon > math.log1p(-rate)
        certain = np.where(reached, 0.0, -np.expm1(np.minimum(epsilon, 0.0)))
    elif kind is AdjacencyType.ADD:
        reached = epsilon < -math.log1p(-rate)
    inside = epsilon[reached]
    x = _score_of_loss(inside, sigma, rate, kind)
    delta = certain
    delta[reached] = law.mu_upper_cdf(x) - np.exp(inside + law.mu_lower_log_cdf(x))
    return _connected(width, low, np.clip(delta, 0.0, 1.0))


def _connected(width: float, low: int, delta: FloatArray) -> pld_pmf.DensePLDPmf:
    """Masses at losses `low * width` and on that give these deltas there (Doroshenko et al., Algorithm 1).

    The same arithmetic as the library's, which goes through a dictionary of every grid point.

    Raises:
        ValueError: deltas that rise, which no mechanism has.
    """
    if delta.size == 1:
        return pld_pmf.DensePLDPmf(width, low, 1 - delta, float(delta[0]), True)
    if (np.diff(delta) > _RISE).any():
        raise ValueError("Expected deltas that do not rise with epsilon. Use a coarser grid.")
    delta = np.minimum.accumulate(delta)
    fall = np.diff(delta)
    mass = np.zeros_like(delta)
    mass[0] = 1 - delta[0] + fall[0] / math.expm1(width)
    mass[1:-1] = (fall[1:] - fall[:-1] * math.exp(width)) / math.expm1(width)
    mass[-1] = fall[-1] / math.expm1(-width)
    return pld_pmf.DensePLDPmf(width, low, np.maximum(0.0, mass), float(delta[-1]), True)


def _score_of_loss(loss: FloatArray, sigma: float, rate: float, kind: AdjacencyType) -> FloatArray:
    """Largest noisy value at which the loss is at least the given one; in logarithms against overflow."""
    if kind is AdjacencyType.REMOVE:
        result: FloatArray = -0.5 - sigma**2 * _unsampled(loss, rate)
    elif kind is AdjacencyType.ADD:
        result = 0.5 + sigma**2 * _unsampled(-loss, rate)
    else:
        # The quadratic in exp(-x / sigma^2) that makes the ratio of the two mixtures equal exp(loss).
        half = np.abs(loss) / 2
        alpha = 0.5 / sigma**2 + math.log1p(-rate) - math.log(rate)
        with np.errstate(divide="ignore", over="ignore"):
            size = alpha + half + np.log(-np.expm1(-2 * half)) - math.log(2)
            far = np.where(size > _OVERFLOWS, size + math.log(2), np.arcsinh(np.exp(size)))
        result = -(sigma**2) * (np.sign(loss) * far + loss / 2)
    return result


def _unsampled(loss: FloatArray, rate: float) -> FloatArray:
    """log(1 + (exp(loss) - 1) / rate): the loss without sampling that gives this one with it."""
    small = np.log1p(np.expm1(np.minimum(loss, 1.0)) / rate)
    large = loss - math.log(rate) + np.log1p(-(1 - rate) * np.exp(-np.maximum(loss, 1.0)))
    result: FloatArray = np.where(loss > 1.0, large, small)
    return result


def repeated(distribution: PrivacyLossDistribution, times: int) -> PrivacyLossDistribution:
    """Loss of so many steps of the same kind, by one real Fourier transform per direction.

    Chernoff bounds say which losses to keep; the 1e-15 beyond them counts as an infinite loss.
    """
    return PrivacyLossDistribution(*(_repeated(pmf, times) for pmf in _directions(distribution)))


def _repeated(pmf: pld_pmf.DensePLDPmf, times: int) -> pld_pmf.DensePLDPmf:
    mass = np.asarray(pmf._probs)
    cells = np.arange(mass.size)
    low, high = 0, (mass.size - 1) * times
    for rate in _CHERNOFF / mass.size:
        bound = (times * math.log(float(mass @ np.exp(rate * cells))) + math.log(2 / _LOST)) / rate
        low, high = (max(low, math.floor(bound)), high) if rate < 0 else (low, min(high, math.ceil(bound)))
    length = next_fast_len(max(high - low + 1, mass.size), real=True)
    composed = irfft(rfft(mass, length) ** times, length)
    kept = np.roll(composed, -low)[: high - low + 1]
    beyond = _LOST - math.expm1(times * math.log1p(-pmf._infinity_mass))
    return pld_pmf.DensePLDPmf(
        pmf._discretization, pmf._lower_loss * times + low, kept, beyond, pmf._pessimistic_estimate
    )


def deltas(distribution: PrivacyLossDistribution, epsilons: FloatArray) -> FloatArray:
    """(k,) delta at each of (k,) non-negative epsilons, the larger of both directions. Costs cells + k."""
    result: FloatArray = np.max([_deltas(pmf, epsilons) for pmf in _directions(distribution)], axis=0)
    return result


def epsilon(distribution: PrivacyLossDistribution, delta: float) -> float:
    """Least epsilon >= 0 at a delta, the larger of both directions; inf for none. Costs cells."""
    return max(_epsilon(pmf, delta) for pmf in _directions(distribution))


def _directions(distribution: PrivacyLossDistribution) -> list[pld_pmf.DensePLDPmf]:
    first = distribution._pmf_remove.to_dense_pmf()
    return [first] if distribution._symmetric else [first, distribution._pmf_add.to_dense_pmf()]


def _masses(pmf: pld_pmf.DensePLDPmf) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(n,) positive losses ascending, and (n + 1,) mass from each on: with the canary, and without."""
    losses = (np.arange(pmf.size) + pmf._lower_loss) * pmf._discretization
    positive = losses > 0
    losses, probability = losses[positive], np.asarray(pmf._probs)[positive]
    with_it = np.concatenate([np.cumsum(probability[::-1])[::-1], [0.0]]) + pmf._infinity_mass
    without = np.concatenate([np.cumsum((probability * np.exp(-losses))[::-1])[::-1], [0.0]])
    return losses, with_it, without


def _deltas(pmf: pld_pmf.DensePLDPmf, epsilons: FloatArray) -> FloatArray:
    losses, with_it, without = _masses(pmf)
    at = np.searchsorted(losses, epsilons, side="right")
    with np.errstate(over="ignore", invalid="ignore"):
        result: FloatArray = with_it[at] - np.exp(epsilons) * without[at]
    return result


def _epsilon(pmf: pld_pmf.DensePLDPmf, delta: float) -> float:
    if pmf._infinity_mass > delta:
        return math.inf
    losses, with_it, without = _masses(pmf)
    fits = with_it[1:] - np.exp(np.minimum(losses, _LARGEST_EXPONENT)) * without[1:] <= delta
    # Delta falls as epsilon rises: below the first loss at which it fits the masses stay what they are.
    first = int(np.argmax(fits)) if fits.any() else losses.size
    above, below = float(with_it[first]), float(without[first])
    if above <= below + delta:
        return 0.0
    if below == 0.0:
        return float(losses[min(first, losses.size - 1)])
    return math.log((above - delta) / below)
