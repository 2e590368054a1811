"""Where a replayed step broke what it claims: from measurements to findings that name the place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from scipy.special import chdtri

from dpaudit.accounting import family_for
from dpaudit.claim import Claim
from dpaudit.evidence import Finding, NoiseSample, Replay
from dpaudit.stats import noise
from dpaudit.stats.family import Family
from dpaudit.stats.inversion import told

BEYOND_DOUBT = 1e-9
"""Level at which a deviation is called a contradiction outright, apart from the alpha of the audit."""
_CLEARLY = 0.01


def replay_findings(replay: Replay, family: Family) -> Iterator[Finding]:
    """Name the place where a replayed step broke what it claims.

    Only what is beyond doubt becomes a finding: noise that is too small for the measured sensitivity, in a
    parameter or over all, at a level of 1e-9. Smaller deviations are left to the test that spends alpha.
    """
    sensitivity = noise.effective_sensitivity(replay)
    samples = [sample for sample in replay.noise if sample.count > 0 and sample.claimed_std > 0]
    wrong = noise.contradictions(replay, level=BEYOND_DOUBT)
    if sensitivity <= 0 or not samples or not wrong:
        return
    pooled = replace(
        samples[0],
        where=f"every parameter{_of(samples)}",
        sum_of_squares=math.fsum(sample.sum_of_squares for sample in samples),
        count=sum(sample.count for sample in samples),
    )
    small = {where for where, p in noise.too_small(replay).items() if p < BEYOND_DOUBT}
    few = [sample for sample in samples if sample.where in small and sample.where in wrong]
    worst = min(few, key=lambda sample: sample.sum_of_squares / sample.count, default=pooled)
    if len(few) == len(samples):
        worst = pooled
    if (few or sensitivity <= 1) and _clearly_below(worst):
        std = math.sqrt(worst.sum_of_squares / worst.count)
        yield Finding(
            check="noise",
            where=worst.where if worst is pooled else f"parameter {worst.where}",
            expected=f"noise of standard deviation {worst.claimed_std:.4g} clipping norms",
            measured=f"{std:.4g}",
            epsilon=family.epsilon(_at_most(worst, len(samples)) / max(sensitivity, 1.0))
            if std
            else math.inf,
            remedy="Add noise of std noise_multiplier * max_grad_norm to the sum of every parameter.",
        )
    if sensitivity > 1:
        yield Finding(
            check="sensitivity",
            where=replay.sensitivity_where,
            expected="one record to move the clipped sum by at most the clipping norm",
            measured=f"{sensitivity:.4g} clipping norms, under noise of "
            f"{math.sqrt(pooled.sum_of_squares / pooled.count):.4g}",
            epsilon=family.epsilon(_at_most(pooled, 1) / sensitivity),
            remedy="Clip each record's gradient over all parameters together, before summing.",
        )


def family_of_part(replay: Replay, claim: Claim, delta: float) -> Family:
    """Family by which a replay becomes an epsilon: of the steps of its own optimizer alone.

    What these spend the run spends at least; that the steps of other optimizers are like them, nobody saw.
    """
    own = tuple(
        replace(claim.ledger[i], steps=min(steps, claim.ledger[i].steps))
        for i, steps in replay.part
        if i < len(claim.ledger)
    )
    whole = claim if not own else replace(claim, ledger=own)
    return family_for(whole, adjacency=replay.adjacency, delta=delta)


def part_findings(
    parts: Sequence[tuple[Replay, Family]], *, alpha: float, stopped: bool
) -> Iterator[Finding]:
    """What the replays of several optimizers of one run show.

    Args:
        parts: what was replayed of each, and the family of its own steps.
        alpha: spent over all of them on the law of their noise.
        stopped: whether the run was stopped for what was seen, so that only what is beyond doubt counts.
    """
    for replay, family in parts:
        yield from replay_findings(replay, family)
        if not stopped:
            yield from law_findings(replay, alpha=alpha / len(parts))


def law_findings(replay: Replay, *, alpha: float) -> Iterator[Finding]:
    """Noise that is not what a Gaussian mechanism draws, whatever its size.

    Args:
        replay: with p-values of its noise's law.
        alpha: spent over all of them by Bonferroni.
    """
    for name, p_value in replay.law:
        if p_value < alpha / len(replay.law):
            yield Finding(
                check=f"noise: {name}",
                where=f"noise of the replayed and of the real steps{_of(replay.noise)}",
                expected="independent normal noise, drawn anew for every coordinate of every step",
                measured=f"p {told(p_value)} for {name}",
                epsilon=None,
                remedy="Draw the noise with torch.normal(0, noise_multiplier * max_grad_norm, size).",
            )


def _of(samples: Sequence[NoiseSample]) -> str:
    """Which optimizer the parameters are of, where their names say one."""
    names = {sample.where.partition(": ")[0] for sample in samples if sample.where.startswith("optimizer ")}
    return f" of {min(names)}" if names else ""


def _clearly_below(sample: NoiseSample) -> bool:
    return sample.sum_of_squares / sample.count < (sample.claimed_std * (1 - _CLEARLY)) ** 2


def _at_most(sample: NoiseSample, tests: int) -> float:
    """The largest effective over claimed multiplier that is not beyond doubt too large."""
    lowest = float(chdtri(sample.count, 1 - BEYOND_DOUBT / tests))
    return math.sqrt(sample.sum_of_squares / lowest) / sample.claimed_std if lowest > 0 else math.inf
