"""Shuffled batches: the epsilon they have at least, since Poisson amplification is not theirs."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
from dp_accounting.pld import privacy_loss_distribution
from scipy.special import log_ndtr

from dpaudit.check import FloatArray
from dpaudit.claim import Adjacency, Ledger, Phase, Sampler
from dpaudit.stats.composition import FINE, pld_epsilon, running, silent


@lru_cache(maxsize=64)
def shuffle_epsilon(phase: Phase, delta: float, adjacency: Adjacency = Adjacency.ADD_REMOVE) -> float:
    """Epsilon that shuffled batches have at least (Chua et al. 2024, arXiv:2403.17673), composed over epochs.

    Worst case: every other record has the opposite gradient, so that the batch with the record stands
    out by 2 clipping norms (present) against 1 (absent) or 0 (replaced). Of each epoch the adversary
    keeps the largest of its batch sums, rounded to a grid; both are post-processing.

    Args:
        phase: with noise; its sampler is not looked at. Unfinished epochs do not count.
        delta: in [0, 1).
        adjacency: ADD_REMOVE here means that the record's gradient is zeroed out.

    Returns:
        A lower figure; 0.1 s, whatever the number of steps.
    """
    sigma, batches = phase.noise_multiplier, max(1, round(1 / phase.sample_rate))
    passes = math.floor(phase.steps / batches + 1e-9)
    if not passes:
        return 0.0
    edges = np.linspace(-8.0, 2.0 / sigma + 10.0, 4000)
    other = (1.0 if adjacency is Adjacency.ADD_REMOVE else 0.0) / sigma
    log_in, log_out = (_log_maximum_cells(edges, shift, batches) for shift in (2.0 / sigma, other))
    with np.errstate(over="ignore", invalid="ignore"):
        loss = privacy_loss_distribution.from_two_probability_mass_functions(
            dict(enumerate(log_out.tolist())),
            dict(enumerate(log_in.tolist())),
            pessimistic_estimate=False,
            value_discretization_interval=max(1e-3, (2 / sigma**2 + 10 / sigma) * passes / 1e5),
        )
        return max(0.0, float(loss.self_compose(passes).get_epsilon_for_delta(delta)))


def _log_maximum_cells(edges: FloatArray, shift: float, batches: int) -> FloatArray:
    """Log probabilities of the cells between edges for the largest of N(shift, 1) and batches - 1 N(0, 1)."""
    log_cdf = log_ndtr(edges - shift) + (batches - 1) * log_ndtr(edges)
    # 1 - CDF has no digits left where the record stands out, so tails are bounded separately there: by the
    # sum over batches, whose excess over the exact tail is below its square.
    others = math.log(batches - 1) if batches > 1 else -math.inf
    log_tail = np.logaddexp(log_ndtr(shift - edges), others + log_ndtr(-edges))
    with np.errstate(divide="ignore"):
        by_cdf = log_cdf[1:] + np.log(-np.expm1(log_cdf[:-1] - log_cdf[1:]))
        by_tail = log_tail[:-1] + np.log(-np.expm1(log_tail[1:] - log_tail[:-1]))
    cells = np.where(log_cdf[1:] < -1e-6, by_cdf, by_tail)
    result: FloatArray = np.concatenate([log_cdf[:1], cells, log_tail[-1:]])
    return np.maximum(result, -700.0)


@lru_cache(maxsize=256)
def epsilon_lower(
    ledger: Ledger, delta: float, adjacency: Adjacency = Adjacency.ADD_REMOVE, *, coarsest: float = FINE
) -> float:
    """Epsilon that a ledger has at least in the worst case of its other records.

    Poisson and full batches: `pld_epsilon`. Shuffled: `shuffle_epsilon`. Unknown: the smaller
    of what Poisson and shuffled batches give. These groups are not composed; the largest figure counts.
    """
    ran = running(ledger)
    if silent(ran):
        return math.inf
    known = tuple(phase for phase in ran if phase.sampler in (Sampler.POISSON, Sampler.FULL_BATCH))
    figures = [pld_epsilon(known, delta, adjacency, coarsest=coarsest)] if known else []
    for phase in ran:
        if phase in known:
            continue
        figures.append(shuffle_epsilon(replace(phase, sampler=Sampler.SHUFFLE), delta, adjacency))
        if phase.sampler is Sampler.UNKNOWN:
            poisson = (replace(phase, sampler=Sampler.POISSON),)
            figures[-1] = min(figures[-1], pld_epsilon(poisson, delta, adjacency, coarsest=coarsest))
    return max(figures, default=0.0)
