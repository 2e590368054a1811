"""What an audit could show, before anything is trained: ceiling, detectable epsilon, observations needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np

from dpaudit.accounting import family_for
from dpaudit.claim import Claim
from dpaudit.estimate import Estimate
from dpaudit.scoring.assemble import assemble
from dpaudit.scoring.columns import Labels
from dpaudit.scoring.eligibility import Terms, lines
from dpaudit.scoring.scores import Design, Reading, Rows, Scores
from dpaudit.stats.family import GaussianFamily
from dpaudit.stats.multiplicity import split

TWICE = 2.0
"""How much more than claimed a fault leaks that an audit should catch."""

_DRAWS = 3
_SLOW = "certified betting"
"""Seconds an estimate: simulated once, and not searched for the observations that it needs."""

_MOST_SCORES = 200_000
_MOST_RUNS = 1_000
_SIZES = (2, 3, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What one attack or estimator could show of a claim.

    Attributes:
        name: of the attack, or of the design and its estimator.
        observations: how many there would be, in words.
        alpha: its share.
        claimed: epsilon of the claim under the neighbouring relation of the evidence.
        expected: median bound if the code is correct and the attack optimal; None if not known.
        ceiling: the largest bound that so many observations can show.
        detectable: the smallest true epsilon that is caught nine times in ten; None if none is.
        needed: observations from which twice the claim is caught nine times in ten, in words.
        note: why numbers are missing, or what they suppose.
    """

    name: str
    observations: str
    alpha: float
    claimed: float | None = None
    expected: float | None = None
    ceiling: float | None = None
    detectable: float | None = None
    needed: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many scores are imagined.

    Attributes:
        observations: runs where each gives one score, and records of a run that gives many.
        runs: of the design of several runs.
        references: records that were not in beside each canary of a known null.
    """

    observations: int = 1000
    runs: int = 10
    references: int = 100


def simulate(design: Design, size: int, records: int, *, mu: float, rng: np.random.Generator) -> Scores:
    """Scores of an optimal attack on a mu-GDP mechanism that leaks every record alike.

    Args:
        design: whose scores.
        size: runs; records for one run.
        records: of each run, where a run has several; for a known null those that were not in.
        mu: of the mechanism.
        rng: source of the draw.
    """
    each = {Design.KNOWN_NULL: records + 1, Design.SEVERAL_RUNS: records}.get(design, 1)
    run = np.zeros(size, np.int64) if design is Design.ONE_RUN else np.repeat(np.arange(size), each)
    first = np.arange(run.size) % each == 0
    member = first if design is Design.KNOWN_NULL else rng.random(run.size) < 0.5
    model = None if design is Design.ONE_RUN else Labels(codes=run, names=tuple(map(str, range(size))))
    rows = Rows(score=rng.normal(size=run.size) + mu * member, member=member, model=model)
    return assemble(rows, Reading(design=design, higher_is_member=True))


def of_designs(claim: Claim, sizes: Sizes, *, alpha: float, seed: int = 0) -> list[Prospect]:
    """What `dpaudit bound --gaussian` would show of each design, line by line.

    Args:
        claim: what would be tested; a Gaussian mechanism of the same epsilon stands in for its steps.
        sizes: of the designs.
        alpha: of the verdict.
        seed: of the simulated scores behind `expected`.

    Returns:
        One prospect for each line that would decide. Takes seconds.
    """
    n = sizes.observations
    imagined = (
        (Design.INDEPENDENT_RUNS, n, 1, "{:,} runs", "runs"),
        (Design.KNOWN_NULL, n, sizes.references, f"{{:,}} runs, 1 of {sizes.references:,}", "runs"),
        (Design.SEVERAL_RUNS, sizes.runs, n, f"{{:,}} runs of {n:,}", f"runs of {n:,}"),
        (Design.ONE_RUN, n, 1, "1 run of {:,}", "records"),
    )
    bare = Claim(epsilon=claim.epsilon, delta=claim.delta, adjacency=claim.adjacency)
    found: list[Prospect] = []
    for design, size, records, words, unit in imagined:
        could = partial(_estimates, bare, design, records, alpha, seed)
        draws = [
            {name: run() for name, run in could(size, draw).items() if not (draw and _SLOW in name)}
            for draw in range(_DRAWS)
        ]
        for name, first in draws[0].items():
            found.append(
                Prospect(
                    name=f"{design}: {name}",
                    observations=words.format(size),
                    alpha=first.alpha,
                    claimed=first.claimed_epsilon,
                    expected=median(draw[name].epsilon_lower or 0.0 for draw in draws if name in draw),
                    ceiling=first.ceiling,
                    detectable=first.detectable,
                    needed=""
                    if _SLOW in name
                    else _needed(partial(_catches, could, name, TWICE * claim.epsilon), records, unit),
                )
            )
    return found


def _estimates(
    claim: Claim, design: Design, records: int, alpha: float, seed: int, size: int, draw: int
) -> dict[str, Callable[[], Estimate]]:
    """The estimators that would decide, by name, on one simulated set of scores."""
    terms = Terms(alpha=alpha, gaussian=claim.delta > 0, adjacency=claim.adjacency)
    family = family_for(claim)
    mu = family.mu if isinstance(family, GaussianFamily) else claim.epsilon
    scores = simulate(design, size, records, mu=mu, rng=np.random.default_rng([seed, draw]))
    found, _ = lines(scores, claim, claim.delta, terms)
    shares = split(alpha, {line.name: line.weight for line in found if line.weight})
    return {line.name: partial(line.estimate, shares[line.name]) for line in found if line.weight}


def _catches(
    could: Callable[[int, int], dict[str, Callable[[], Estimate]]], name: str, epsilon: float, size: int
) -> bool:
    estimate = could(size, 0).get(name)
    if estimate is None:
        return False
    detectable = estimate().detectable
    return detectable is not None and detectable <= epsilon


def _needed(catches: Callable[[int], bool], records: int, unit: str) -> str:
    most = _SIZES[-1] if records == 1 else _MOST_RUNS
    sizes = [size for size in _SIZES if size <= most and size * records <= _MOST_SCORES]
    size = first_size(sizes, catches)
    return f"over {sizes[-1]:,} {unit}" if size is None else f"{size:,} {unit}"


def first_size(sizes: Sequence[int], catches: Callable[[int], bool]) -> int | None:
    """The first of ascending sizes that catches, by bisection; None if the last does not."""
    if not catches(sizes[-1]):
        return None
    low, high = -1, len(sizes) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if catches(sizes[middle]) else (middle, high)
    return sizes[high]
