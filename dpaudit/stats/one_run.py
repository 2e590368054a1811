"""One-run audits: how many coins of one training run are guessed right.

Half of m canaries is in, by independent coins; the most suspicious are called members, the least
suspicious not, the rest is abstained from. The number of guesses must not depend on the coins. Maximising
the p-value over it errs in 10-25 % of audits at nominal 5 %: here it is fixed in advance, or a grid of
numbers shares alpha.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtrc

from dpaudit.check import FloatArray, IntArray, finite, in_range
from dpaudit.errors import UsageError
from dpaudit.estimate import Estimate
from dpaudit.evidence import Guesses, OneRun
from dpaudit.stats.family import EpsilonDeltaFamily, Family
from dpaudit.stats.guessing import accuracy_allowed, curve_rejects, curve_tail, pure_tail
from dpaudit.stats.inversion import Found, check_inputs, conclude, detectable_epsilon, epsilon_at
from dpaudit.stats.tradeoff import EpsilonDelta

_CENTRE_SHARE = 0.8
_COINS = "each canary was in by its own fair coin; the number of guesses was fixed before the coins were seen"
_IMPOSSIBLE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class GuessPlan:
    """Numbers of guesses that are tried, and the share of alpha that each may spend.

    Attributes:
        guesses: (r,) ascending.
        shares: (r,) positive, with sum 1.
    """

    guesses: tuple[int, ...]
    shares: tuple[float, ...]


def guess_plan(canaries: int, guesses: int | Sequence[int] | None = None) -> GuessPlan:
    """Numbers of guesses for so many canaries, from nothing but that number.

    By default about 5 sqrt(m), near the best for scores of every tried strength (50 of 100, 160 of 1,000,
    1,600 of 1e5), gets 0.8 of alpha; a quarter of it, four times it and all m share the rest, for leaks of
    other shapes. Given numbers share alpha evenly.

    Args:
        canaries: m.
        guesses: pre-registered number or numbers, in [1, m].

    Raises:
        UsageError: a number outside [1, m], or none.
    """
    if guesses is not None:
        given = (guesses,) if isinstance(guesses, int) else tuple(guesses)
        if not given:
            raise UsageError(
                f"Expected guesses to hold a number, found {given!r}. Leave it out for the default."
            )
        for number in given:
            in_range("guesses", number, 1, canaries, remedy="There are no more coins than canaries.")
        chosen = tuple(sorted(set(given)))
        return GuessPlan(guesses=chosen, shares=(1.0 / len(chosen),) * len(chosen))
    centre = min(canaries, max(1, round(5 * math.sqrt(canaries))))
    others = sorted({n for n in (centre // 4, 4 * centre, canaries) if 8 <= n <= canaries} - {centre})
    share = (1 - _CENTRE_SHARE) / len(others) if others else 0.0
    shares = {**dict.fromkeys(others, share), centre: _CENTRE_SHARE if others else 1.0}
    return GuessPlan(guesses=tuple(sorted(shares)), shares=tuple(shares[n] for n in sorted(shares)))


def right_guesses(evidence: OneRun, guesses: IntArray, *, rng: np.random.Generator | None = None) -> IntArray:
    """How many guesses are right when r are made: members at the top r/2 (rounded up), others at the bottom.

    Ties at the edge of abstention count as they would in the worst order, or are broken by `rng`. They are
    never broken by position, which may follow the coins. Costs a sort.

    Args:
        evidence: m canaries.
        guesses: (r,) numbers of guesses.
        rng: for breaking ties at random.
    """
    scores, included = evidence.scores, np.asarray(evidence.included, dtype=np.bool_)
    if rng is not None:
        order = rng.permutation(scores.size)
        scores, included = scores[order], included[order]
    order = np.argsort(-scores, kind="stable")
    falling, inside = -scores[order], included[order]
    upper = (guesses + 1) // 2
    tied = rng is None
    top = _right_at_top(falling, inside, upper, worst=tied)
    bottom = _right_at_top(-falling[::-1], ~inside[::-1], guesses - upper, worst=tied)
    return top + bottom


def _right_at_top(ascending: FloatArray, right: np.ndarray, count: IntArray, *, worst: bool) -> IntArray:
    """(r,) how many of the first `count` are right; the least over all orders of ties if `worst`."""
    before = np.concatenate([[0], np.cumsum(right)])
    if not worst:
        return np.asarray(before[count], dtype=np.int64)
    edge = ascending[np.maximum(count - 1, 0)]
    start, end = np.searchsorted(ascending, edge, "left"), np.searchsorted(ascending, edge, "right")
    wrong_there = (end - start) - (before[end] - before[start])
    found = before[start] + np.maximum(count - start - wrong_there, 0)
    return np.where(count > 0, found, 0).astype(np.int64)


def _checked(evidence: OneRun) -> int:
    """Number of canaries of evidence that the theorems cover."""
    scores, included = finite("scores", evidence.scores), np.asarray(evidence.included)
    if scores.ndim != 1 or scores.shape != included.shape:
        raise UsageError(
            f"Expected scores and included of one shape (m,), found {scores.shape} and {included.shape}. "
            "Give one coin per score."
        )
    if evidence.inclusion_probability != 0.5:
        raise UsageError(
            f"Expected inclusion_probability=0.5, found {evidence.inclusion_probability!r}. "
            "One-run bounds are proven for fair coins: toss each canary's coin with probability 1/2."
        )
    members, total = int(np.count_nonzero(included)), scores.size
    if total and members in (0, total):
        raise UsageError(
            f"Expected canaries of both kinds, found {members} of {total} included. "
            "Toss a fair coin for each, or use more canaries."
        )
    far = abs(members - total / 2) - 1
    if total and 2 * bdtrc(total / 2 + far, total, 0.5) < _IMPOSSIBLE:
        raise UsageError(
            f"Expected about half of the canaries to be in, found {members} of {total}. "
            "These were no fair coins: draw the canaries again."
        )
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class _Test:
    """A test of the members of a family by numbers of right guesses.

    Attributes:
        tail: p-values (r,) from scale, guesses (r,) and right guesses (r,).
        rejects: whether each p-value is at most its level (r,), where that is cheaper; same shapes.
    """

    tail: Callable[[float, IntArray, IntArray], FloatArray]
    rejects: Callable[[float, IntArray, IntArray, FloatArray], np.ndarray]


def _invert(
    test: _Test, family: Family, plan: GuessPlan, correct: IntArray, canaries: int, alpha: float
) -> Found:
    guesses, shares = np.array(plan.guesses), np.array(plan.shares)
    levels = alpha * shares

    def bound(right: IntArray) -> float:
        # Only whether a member is rejected is asked for: two values around alpha make the root search halve.
        def p_value(scale: float) -> float:
            return alpha / 2 if test.rejects(scale, guesses, right, levels).any() else 2 * alpha

        return epsilon_at(p_value, family, alpha)

    p_values = test.tail(family.claimed_scale, guesses, correct) / shares
    return Found(
        epsilon_lower=bound(correct),
        p_value=min(1.0, float(p_values.min())),
        ceiling=bound(guesses),
        detectable=_detectable(test, family, guesses, levels, canaries),
    )


def _detectable(
    test: _Test, family: Family, guesses: IntArray, levels: FloatArray, canaries: int
) -> float | None:
    """Least epsilon caught nine times in ten when every canary leaks alike, through one number of guesses."""
    if family.claimed_epsilon is None:
        return None
    low, high = np.zeros_like(guesses), guesses + 1
    while np.any(high - low > 1):
        middle = (low + high) // 2
        rejected = test.rejects(family.claimed_scale, guesses, middle, levels)
        low, high = np.where(rejected, low, middle), np.where(rejected, middle, high)

    def power(scale: float) -> float:
        accuracy = accuracy_allowed(family.curve(scale), canaries=canaries, guesses=guesses)
        reached = np.where(high <= guesses, bdtrc(np.minimum(high - 1.0, guesses), guesses, accuracy), 0.0)
        return float(np.where(high == 0, 1.0, reached).max())

    return detectable_epsilon(power, family)


def epsilon_delta(
    evidence: OneRun,
    family: Family,
    *,
    alpha: float,
    guesses: int | Sequence[int] | None = None,
    rng: np.random.Generator | None = None,
) -> Estimate:
    """Bound from one run that assumes nothing beyond (epsilon, delta), delta = 0 included.

    Steinke, Nasr and Jagielski 2023 (arXiv:2305.08846). Even a guesser who is always right shows at most
    log(r / ln(1 / alpha)), and with delta = 1e-5 no more than 8 however many canaries there are.

    Args:
        evidence: m canaries of one run.
        family: under the adjacency of the evidence; only its claimed epsilon and delta are used.
        alpha: error probability.
        guesses: pre-registered number or numbers of guesses; see `guess_plan` for the default.
        rng: breaks ties of scores at random; without it they count against the bound.

    Returns:
        An estimate; without canaries one that says so. A sort of m scores.

    Raises:
        UsageError: coins that were not fair or of one kind only, scores that are not finite, impossible
            guesses, or another adjacency.
    """
    check_inputs(evidence.adjacency, family, alpha)
    canaries, bare = _checked(evidence), _bare(family)

    def tail(scale: float, made: IntArray, right: IntArray) -> FloatArray:
        return pure_tail(bare.epsilon(scale), bare.delta, canaries=canaries, guesses=made, correct=right)

    test = _Test(tail=tail, rejects=lambda scale, made, right, levels: tail(scale, made, right) <= levels)
    return _estimate(evidence, bare, test, alpha, guesses, rng, "one run, right guesses")


def _bare(family: Family) -> EpsilonDeltaFamily:
    if isinstance(family, EpsilonDeltaFamily):
        return family
    claimed = family.claimed_epsilon
    base = claimed if claimed is not None and 0 < claimed < math.inf else 1.0
    return EpsilonDeltaFamily(
        base_epsilon=base, delta=family.delta, adjacency=family.adjacency, claimed_epsilon=claimed
    )


def f_dp(
    evidence: OneRun,
    family: Family,
    *,
    alpha: float,
    guesses: int | Sequence[int] | None = None,
    rng: np.random.Generator | None = None,
) -> Estimate:
    """Bound from one run against the curve of a claim: above `epsilon_delta`, yet not tight.

    Mahloujifar, Melis and Chaudhuri 2025 (arXiv:2410.22235). Against a Gaussian claim of 8 a perfect attack
    shows 3.1, 4.6, 5.5 and 6.0 with 1e2, 1e3, 1e4 and 1e5 canaries: what is missing is not a fault found.

    Args:
        evidence: m canaries of one run.
        family: under the adjacency of the evidence.
        alpha: error probability.
        guesses: pre-registered number or numbers of guesses; see `guess_plan` for the default.
        rng: breaks ties of scores at random; without it they count against the bound.

    Returns:
        An estimate; without canaries one that says so. A sort of m scores and 60 curves of the family.

    Raises:
        UsageError: as for `epsilon_delta`.
    """
    check_inputs(evidence.adjacency, family, alpha)
    test = _curve_test(family, _checked(evidence), 2)
    return _estimate(evidence, family, test, alpha, guesses, rng, "one run, right guesses against the curve")


def _curve_test(family: Family, canaries: int, options: int) -> _Test:
    def tail(scale: float, made: IntArray, right: IntArray) -> FloatArray:
        return curve_tail(
            family.curve(scale), canaries=canaries, guesses=made, correct=right, options=options
        )

    def rejects(scale: float, made: IntArray, right: IntArray, levels: FloatArray) -> np.ndarray:
        return curve_rejects(
            family.curve(scale), canaries=canaries, guesses=made, correct=right, level=levels, options=options
        )

    return _Test(tail=tail, rejects=rejects)


def _estimate(
    evidence: OneRun,
    family: Family,
    test: _Test,
    alpha: float,
    guesses: int | Sequence[int] | None,
    rng: np.random.Generator | None,
    method: str,
) -> Estimate:
    canaries = evidence.scores.size
    found = Found()
    if canaries:
        plan = guess_plan(canaries, guesses)
        correct = right_guesses(evidence, np.array(plan.guesses), rng=rng)
        found = _invert(test, family, plan, correct, canaries, alpha)
    return Estimate(
        epsilon_lower=found.epsilon_lower,
        delta=family.delta,
        alpha=alpha,
        adjacency=family.adjacency,
        method=method,
        source=evidence.source,
        access=evidence.access,
        ceiling=found.ceiling,
        n_observations=canaries,
        p_value=None if family.claimed_epsilon is None else found.p_value,
        claimed_epsilon=family.claimed_epsilon,
        detectable=found.detectable,
        assumptions=(_COINS, family.assumption),
    )
