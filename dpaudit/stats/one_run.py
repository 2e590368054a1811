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

from dpaudit.check import BoolArray, FloatArray, IntArray, finite, in_range
from dpaudit.errors import UsageError
from dpaudit.estimate import Estimate
from dpaudit.evidence import Guesses, OneRun
from dpaudit.stats.binomial import tail
from dpaudit.stats.family import EpsilonDeltaFamily, Family
from dpaudit.stats.guessing import (
    GuessPlan,
    accuracy_allowed,
    curve_rejects,
    curve_tail,
    guess_plan,
    pure_tail,
    right_guesses,
)
from dpaudit.stats.inversion import Found, check_inputs, conclude, detectable_epsilon, epsilon_at

_COINS = "each canary was in by its own fair coin; the number of guesses was fixed before the coins were seen"
_IMPOSSIBLE = 1e-9


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
    if total and 2 * tail(max(members, total - members), total, 0.5) < _IMPOSSIBLE:
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
        accuracy: (r,) share of right guesses where every canary leaks alike what a scale allows.
    """

    tail: Callable[[float, IntArray, IntArray], FloatArray]
    rejects: Callable[[float, IntArray, IntArray, FloatArray], BoolArray]
    accuracy: Callable[[float, IntArray], FloatArray]


def _invert(test: _Test, family: Family, plan: GuessPlan, correct: IntArray, alpha: float) -> Found:
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
        detectable=_detectable(test, family, guesses, levels),
    )


def _detectable(test: _Test, family: Family, guesses: IntArray, levels: FloatArray) -> float | None:
    """Least epsilon caught nine times in ten when every canary leaks alike, through one number of guesses."""
    if family.claimed_epsilon is None:
        return None
    low, high = np.zeros_like(guesses), guesses + 1
    while np.any(high - low > 1):
        middle = (low + high) // 2
        rejected = test.rejects(family.claimed_scale, guesses, middle, levels)
        low, high = np.where(rejected, low, middle), np.where(rejected, middle, high)

    def power(scale: float) -> float:
        reached = tail(np.minimum(high, guesses), guesses, test.accuracy(scale, guesses))
        return float(np.where(high <= guesses, reached, 0.0).max())

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

    def p_values(scale: float, made: IntArray, right: IntArray) -> FloatArray:
        return pure_tail(bare.epsilon(scale), bare.delta, canaries=canaries, guesses=made, correct=right)

    test = _Test(
        tail=p_values,
        rejects=lambda scale, made, right, levels: p_values(scale, made, right) <= levels,
        accuracy=_best_accuracy(bare, canaries),
    )
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
    def p_values(scale: float, made: IntArray, right: IntArray) -> FloatArray:
        return curve_tail(
            family.curve(scale), canaries=canaries, guesses=made, correct=right, options=options
        )

    def rejects(scale: float, made: IntArray, right: IntArray, levels: FloatArray) -> BoolArray:
        return curve_rejects(
            family.curve(scale), canaries=canaries, guesses=made, correct=right, level=levels, options=options
        )

    accuracy = _best_accuracy(family, canaries)
    if options > 2:
        # A guess in every game is right with probability 1 - f(1 / k) at most.
        def accuracy(scale: float, made: IntArray) -> FloatArray:
            return family.curve(scale).tpr(np.full(len(made), 1.0 / options))

    return _Test(tail=p_values, rejects=rejects, accuracy=accuracy)


def _best_accuracy(family: Family, canaries: int) -> Callable[[float, IntArray], FloatArray]:
    return lambda scale, made: accuracy_allowed(family.curve(scale), canaries=canaries, guesses=made)


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
        found = _invert(test, family, plan, correct, alpha)
    return conclude(evidence, family, found, alpha=alpha, method=method, n=canaries, assumptions=(_COINS,))


def choices(evidence: Guesses, family: Family, *, alpha: float, canaries: int | None = None) -> Estimate:
    """Bound from one run in which each canary was one of k candidates, guessed from one release.

    Unlike `reconstruction.guesses` it needs no independence of the games (arXiv:2410.22235, k > 2).

    Args:
        evidence: right guesses of those made; k is 1 / baseline.
        family: under the adjacency of the evidence.
        alpha: error probability.
        canaries: m, all games, also those in which no guess was made; default the trials. The number of
            guesses must have been fixed in advance.

    Returns:
        An estimate; without games one that says so. 60 curves of the family.

    Raises:
        UsageError: a baseline that is not 1 / k, more guesses than canaries, evidence about steps, or
            another adjacency.
    """
    check_inputs(evidence.adjacency, family, alpha)
    made, total = evidence.trials, evidence.trials if canaries is None else canaries
    in_range("canaries", total, made, math.inf, remedy="There is at most one guess per canary.")
    in_range("successes", evidence.successes, 0, made, remedy="Count again.")
    in_range("baseline", evidence.baseline, 0.0, 0.5, open_low=True)
    options = round(1 / evidence.baseline)
    if abs(options * evidence.baseline - 1) > 1e-6 or evidence.unit != "run":
        raise UsageError(
            f"Expected unit 'run' and baseline 1 / k, found {evidence.unit!r} and {evidence.baseline!r}. "
            "Draw each canary evenly from k candidates."
        )
    found = Found()
    if made:
        test = _curve_test(family, total, options)
        plan = GuessPlan(guesses=(made,), shares=(1.0,))
        found = _invert(test, family, plan, np.array([evidence.successes]), alpha)
    return conclude(
        evidence,
        family,
        found,
        alpha=alpha,
        method=f"one run, {evidence.successes} of {made} right choices",
        n=total,
        assumptions=("each canary was drawn evenly from its candidates, by itself; guesses fixed in number",),
    )
