"""Rank audits: canaries against references that were never inserted, so that the null is known.

Every observation is one inserted canary and no half of them is spent on learning the false-positive rate.
Ideas: exposure (Carlini et al. 2019, arXiv:1802.08232), random canaries (Andrew et al. 2024,
arXiv:2302.03098), one of k (Mahloujifar et al. 2025, arXiv:2410.22235).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from dpaudit.check import FloatArray, IntArray
from dpaudit.errors import UsageError
from dpaudit.estimate import Estimate
from dpaudit.evidence import KnownNull
from dpaudit.stats.clusters import clustered, clustered_betting
from dpaudit.stats.family import SCALE_TOLERANCE, Family, search
from dpaudit.stats.inversion import Found, check_inputs, conclude, detectable_epsilon, epsilon_at
from dpaudit.stats.ranks import log_mgf, moments, normal_score, rank_grid, sum_law
from dpaudit.stats.tradeoff import Gaussian, TradeOff

__all__ = ["Trajectory", "anytime", "clustered", "clustered_betting", "fixed", "refuted", "trajectory"]

_POINTS = 160
_FEW, _MOST = 64, 20_000
_NODES = 20
_RANKS_VALID = "references are exchangeable with the canary and were never inserted"
_STEPS = "each step's noise is fresh given the past; the canary was in every one of these steps"
_RUNS = "the runs are independent"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scores:
    """Normal scores and which law bounds each.

    Attributes:
        x: (n,) in observation order.
        group: (n,) index of the law.
        means: (groups,) mu of a step at scale 1; empty for whole runs.
    """

    x: FloatArray
    group: IntArray
    means: tuple[float, ...]
    n_references: int

    def curves(self, family: Family, scale: float) -> tuple[TradeOff, ...]:
        """What the member at a scale allows each group."""
        if not self.means:
            return (family.curve(scale),)
        return tuple(Gaussian(mu=mean / scale) for mean in self.means)

    @property
    def counts(self) -> list[int]:
        """Observations per group."""
        return [int(count) for count in np.bincount(self.group, minlength=max(1, len(self.means)))]


def _scores(evidence: KnownNull, family: Family) -> _Scores:
    """Group observations by the law that bounds them."""
    if evidence.unit not in ("step", "run"):
        raise UsageError(
            f"Expected unit to be 'step' or 'run', found {evidence.unit!r}. Say which was ranked."
        )
    if evidence.cluster is not None and np.unique(evidence.cluster).size < evidence.cluster.size:
        raise UsageError(
            f"Expected one observation per run, found {evidence.cluster.size} of "
            f"{np.unique(evidence.cluster).size} runs. Use `clustered`: those of one run are dependent."
        )
    x = normal_score(evidence.p_values, evidence.n_references)
    group = np.zeros(x.size, dtype=np.int64)
    means: tuple[float, ...] = ()
    if evidence.unit == "step":
        phase = np.zeros(x.size, dtype=np.int64) if evidence.phase is None else evidence.phase
        levels, group = np.unique(np.asarray(family.step_mean(phase)), return_inverse=True)
        means = tuple(levels.tolist())
    return _Scores(x=x, group=group, means=means, n_references=evidence.n_references)


def fixed(evidence: KnownNull, family: Family, *, alpha: float) -> Estimate:
    """Bound from the sum of normal scores, the number of observations being fixed in advance.

    The sum is compared with its exact law under the claim's curve on the grid of ranks. On a Gaussian claim
    and with many references this is the uniformly most powerful test, mu >= mean - z / sqrt(n).

    Args:
        evidence: n independent runs, or n steps of one run.
        family: under the adjacency of the evidence.
        alpha: error probability.

    Returns:
        An estimate; without observations one that says so. About 0.1 s for a Gaussian family or steps,
        30 curves of the family for runs.

    Raises:
        UsageError: several observations of one run, another adjacency, or p-values outside (0, 1].
    """
    check_inputs(evidence.adjacency, family, alpha)
    scores = _scores(evidence, family)
    n = scores.x.size
    found = _fixed(scores, family, alpha) if n else Found()
    return conclude(
        evidence,
        family,
        found,
        alpha=alpha,
        method="known-null rank sum",
        n=n,
        assumptions=_assumed(evidence),
    )


def _fixed(scores: _Scores, family: Family, alpha: float) -> Found:
    total, counts, references = float(scores.x.sum()), scores.counts, scores.n_references

    def p_value(scale: float, of: float = total) -> float:
        return sum_law(scores.curves(family, scale), counts, references).at_least(of)

    best = scores.x.size * float(rank_grid(references).score[0])
    claim = sum_law(scores.curves(family, family.claimed_scale), counts, references)
    critical = claim.critical(alpha)
    return Found(
        epsilon_lower=epsilon_at(p_value, family, alpha),
        p_value=claim.at_least(total),
        ceiling=epsilon_at(lambda scale: p_value(scale, best), family, alpha),
        detectable=None
        if np.isinf(critical)
        else detectable_epsilon(lambda scale: p_value(scale, critical), family),
    )


def _assumed(evidence: KnownNull) -> tuple[str, ...]:
    return (_RANKS_VALID, _STEPS if evidence.unit == "step" else _RUNS)


_RATES = np.geomspace(0.02, 2.5, 24)


def _log_weights() -> FloatArray:
    """Prior over betting rates: half-normal with precision 20, with a share of the log-uniform."""
    half_normal = _RATES * np.exp(-10.0 * _RATES**2)
    weights = 0.8 * half_normal / half_normal.sum() + 0.2 / _RATES.size
    result: FloatArray = np.log(weights)
    return result


def _looks(scores: _Scores) -> IntArray:
    """Numbers of observations after which the wealth can be largest, whatever is bet: few, even of a million.

    The logarithm of the wealth is convex in the sum so far and the counts of groups so far, and rises with
    the sum. Where a moment lies on or under the chord between an earlier and a later one of its group it is
    never the largest. Passes halve what is left; a path that does not get short is thinned evenly, which
    only loses power. Costs n.
    """
    at = np.arange(1, scores.x.size + 1)
    total = np.cumsum(scores.x)
    last = np.append(scores.group[1:] != scores.group[:-1], True)
    while at.size > _FEW:
        height, turn = total[at - 1], last[at - 1]
        before, after = at[1:-1] - at[:-2], at[2:] - at[1:-1]
        rise = (height[1:-1] - height[:-2]) * after
        # The last of a group always stays, so that no chord spans two.
        under = np.concatenate([[False], rise <= (height[2:] - height[1:-1]) * before, [False]]) & ~turn
        at = at[~under]
        if 20 * np.count_nonzero(under) < at.size:
            break
    if at.size > _MOST:
        at = np.unique(np.append(at[:: -(-at.size // _MOST)], scores.x.size))
    return at


def _log_wealth(scores: _Scores, family: Family, scale: float, at: IntArray) -> FloatArray:
    """(times,) logarithm of the mixture martingale after the first `at` observations, at one scale.

    M_t = sum_j w_j prod_i exp(r_j x_i) / E exp(r_j X_i), X_i being the largest score that the member allows
    (Robbins 1970; Howard et al. 2021, arXiv:1810.08240). Costs times * 24.
    """
    curves = scores.curves(family, scale)
    free = np.stack([log_mgf(curve, scores.n_references, _RATES) for curve in curves])
    seen = np.stack([np.cumsum(scores.group == g)[at - 1] for g in range(len(curves))], axis=1)
    total = np.cumsum(scores.x)[at - 1]
    result: FloatArray = logsumexp(np.multiply.outer(total, _RATES) - seen @ free + _log_weights(), axis=1)
    return result


def anytime(evidence: KnownNull, family: Family, *, alpha: float) -> Estimate:
    """Bound that stays valid when observation is stopped at any moment, also because of what was seen.

    Args:
        evidence: as for `fixed`, in observation order.
        family: under the adjacency of the evidence.
        alpha: error probability over all stopping times together.

    Returns:
        An estimate; its bound is the largest on the way. Costs n, and 40 curves of the family for runs.

    Raises:
        UsageError: as for `fixed`.
    """
    check_inputs(evidence.adjacency, family, alpha)
    scores = _scores(evidence, family)
    n = scores.x.size
    found = _anytime(scores, family, alpha) if n else Found()
    return conclude(
        evidence,
        family,
        found,
        alpha=alpha,
        method="known-null anytime martingale",
        n=n,
        assumptions=_assumed(evidence),
    )


def _anytime(scores: _Scores, family: Family, alpha: float) -> Found:
    n = scores.x.size
    looks, end = _looks(scores), np.array([n])

    def p_value(scale: float) -> float:
        return float(np.exp(-max(_log_wealth(scores, family, scale, looks).max(), 0.0)))

    def p_value_if(x: FloatArray, scale: float) -> float:
        imagined = _Scores(x=x, group=scores.group, means=scores.means, n_references=scores.n_references)
        return float(np.exp(-max(_log_wealth(imagined, family, scale, end)[0], 0.0)))

    best = np.full(n, rank_grid(scores.n_references).score[0])

    def power(truth: float) -> float:
        # The sum at the end is near normal; stopping earlier only adds power.
        drawn = [moments(curve, scores.n_references) for curve in scores.curves(family, truth)]
        low = np.array([mean for mean, _ in drawn])[scores.group]
        spread = np.sqrt(np.array([variance for _, variance in drawn])[scores.group].sum())
        unlucky = low - 1.2816 * spread / n
        return 1.0 if p_value_if(unlucky, family.claimed_scale) <= alpha else 0.0

    return Found(
        epsilon_lower=epsilon_at(p_value, family, alpha),
        p_value=p_value(family.claimed_scale),
        ceiling=epsilon_at(lambda scale: p_value_if(best, scale), family, alpha),
        detectable=detectable_epsilon(power, family),
    )


def refuted(evidence: KnownNull, family: Family, *, alpha: float) -> bool:
    """Whether `anytime` has refuted the family's own noise at some observation: one curve, and no bound."""
    scores = _scores(evidence, family)
    every = np.arange(1, scores.x.size + 1)
    return bool((_log_wealth(scores, family, 1.0, every) >= -np.log(alpha)).any())


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """How the anytime bound grew.

    Attributes:
        n: (points,) observations so far, at most 160 values.
        epsilon: (points,) bound after so many, never falling.
        first_rejection: observations after which the claim was refuted; None if it never was.
    """

    n: IntArray
    epsilon: FloatArray
    first_rejection: int | None


def trajectory(evidence: KnownNull, family: Family, *, alpha: float) -> Trajectory:
    """The running bound of `anytime`, thinned for a figure, and when it first refuted the claim.

    Looks at 160 moments only and interpolates epsilon between 20 scales, so that it may lie below the
    estimate by a little. Costs 20 curves of the family.

    Raises:
        UsageError: as for `fixed`.
    """
    check_inputs(evidence.adjacency, family, alpha)
    scores = _scores(evidence, family)
    n, threshold = scores.x.size, -np.log(alpha)
    if not n:
        return Trajectory(n=np.zeros(0, np.int64), epsilon=np.zeros(0), first_rejection=None)
    at = np.unique(np.round(np.linspace(1, n, min(n, _POINTS)))).astype(np.int64)
    every = np.arange(1, n + 1)
    beyond = np.flatnonzero(_log_wealth(scores, family, family.claimed_scale, every) >= threshold)
    first = int(every[beyond[0]]) if beyond.size and family.claimed_epsilon is not None else None

    return Trajectory(n=at, epsilon=_running_bound(scores, family, alpha, at), first_rejection=first)


def _running_bound(scores: _Scores, family: Family, alpha: float, at: IntArray) -> FloatArray:
    """(times,) largest bound so far, from the wealth against 20 members of the family."""
    threshold = -np.log(alpha)
    low, high = family.scales
    strongest = search(
        lambda scale: threshold - float(_log_wealth(scores, family, scale, at).max()), low, high, start=1.0
    )
    nodes = np.geomspace(
        strongest * (1 + SCALE_TOLERANCE), max(min(60 * strongest, high), 1.01 * strongest), _NODES
    )
    wealth = np.stack([_log_wealth(scores, family, float(node), at) for node in nodes])
    wealth = np.maximum.accumulate(wealth, axis=1)
    first = np.argmax(wealth >= threshold, axis=0)
    before = np.maximum(first - 1, 0)
    times = np.arange(at.size)
    gain = wealth[first, times] - wealth[before, times]
    part = np.where(gain > 0, (threshold - wealth[before, times]) / np.where(gain > 0, gain, 1.0), 1.0)
    where = np.log(nodes[before]) + part * (np.log(nodes[first]) - np.log(nodes[before]))
    known = (wealth >= threshold).any(axis=0)
    # Epsilon of a member costs most of all: only of those on either side of a bound.
    needed = np.unique(np.concatenate([[0], first[known], before[known]]))
    epsilon = np.interp(where, np.log(nodes[needed]), [family.epsilon(float(node)) for node in nodes[needed]])
    bound: FloatArray = np.maximum.accumulate(np.where(known, epsilon, 0.0))
    return bound
