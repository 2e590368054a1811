"""What it means for epsilon that batches are not drawn as the ledger says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from dpaudit.claim import Adjacency, Ledger, Phase, Sampler
from dpaudit.estimate import Estimate
from dpaudit.evidence import Draws, Finding, Sampling
from dpaudit.stats import sampling
from dpaudit.stats.composition import pld_epsilon
from dpaudit.stats.family import Family
from dpaudit.stats.inversion import check_inputs, told
from dpaudit.stats.sampling import Tested
from dpaudit.stats.shuffle import epsilon_lower

_Tests = tuple[tuple[Draws, tuple[Tested, ...]], ...]
_COARSE = 3e-3
_POISSON_REMEDY = (
    "Train on the loader that make_private(poisson_sampling=True) returned, and on all of its batches."
)
_ASSUMED = (
    "record numbers are what the data loader handed out for the steps",
    "noise and clipping are as the ledger says",
)


def unamplified(ledger: Ledger, delta: float, adjacency: Adjacency = Adjacency.ADD_REMOVE) -> float:
    """Epsilon if everybody knows who is in which batch: one Gaussian release per pass over the data."""
    known = tuple(
        phase if phase.sampler is Sampler.FULL_BATCH else replace(phase, sampler=Sampler.SHUFFLE)
        for phase in ledger
    )
    return pld_epsilon(known, delta, adjacency)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The draws of one loader that are not what the ledger says.

    Attributes:
        draws: what was seen.
        test: the strongest contradiction; None where the batches are public.
        others: names of further tests that reject.
        epsilon: what follows at least; None where nothing is known to.
        remedy: the usual repair.
    """

    draws: Draws
    test: Tested | None
    others: tuple[str, ...]
    epsilon: float | None
    remedy: str


def sampler(evidence: Sampling, family: Family, ledger: Ledger, *, alpha: float) -> Estimate:
    """Test "batches are Poisson batches of the stated rate", and the epsilon that its failure leaves.

    Exact binomial and Chernoff tests, Bonferroni over all of them. Poisson sampling itself is no part of an
    (epsilon, delta) claim: where the claim covers the same steps without any amplification, it is not tested.

    Args:
        evidence: of one run.
        family: of the claim, under the adjacency of the evidence.
        ledger: the claim's.
        alpha: error probability.

    Returns:
        An estimate whose bound is 0 where nothing is rejected: batches drawn as stated show nothing of noise.
    """
    check_inputs(evidence.adjacency, family, alpha)
    tested = _tested(evidence)
    level = _level(tested, alpha)
    top = unamplified(ledger, family.delta, family.adjacency) if ledger else 0.0
    relevant = family.claimed_epsilon is not None and top > family.claimed_epsilon
    rejected = tuple(_rejected(tested, ledger, family, level))
    bounds = [each.epsilon for each in rejected if each.epsilon is not None]
    within = [each.draws for each in rejected if _within(each, family)]
    against = [test.p_value for draws, each in tested for test in each if all(draws is not w for w in within)]
    p = min(against, default=1.0) * alpha / level
    n = sum(int(draws.sizes.size) for draws in evidence.draws)
    rates = [sampling.detectable_rate(draws, level) for draws in evidence.draws if draws.sizes.size]
    return Estimate(
        epsilon_lower=max(bounds, default=0.0) if n else None,
        delta=family.delta,
        alpha=alpha,
        adjacency=family.adjacency,
        method=_method(evidence, level),
        source=evidence.source,
        access=evidence.access,
        ceiling=top if n else 0.0,
        n_observations=n,
        p_value=None if family.claimed_epsilon is None else min(1.0, p) if relevant else 1.0,
        claimed_epsilon=family.claimed_epsilon,
        detectable=_at_rates(evidence, ledger, family, rates) if relevant and n else None,
        assumptions=_ASSUMED,
    )


def _method(evidence: Sampling, level: float) -> str:
    """The tests, and what each would have noticed."""
    used = [draws for draws in evidence.draws if draws.sizes.size]
    if not used:
        return "inclusion tests"
    worst = max(used, key=lambda draws: draws.sizes.size)
    rate = sampling.detectable_rate(worst, level) / worst.promised
    sizes, records = sampling.detectable_spread(worst, level)
    return (
        f"inclusion tests; would notice a rate {rate:.3g} times the stated one, and variances of batch sizes "
        f"and inclusions off by {sizes:.2g} and {records:.2g} of themselves"
    )


def _tested(evidence: Sampling) -> _Tests:
    """Tests by loader. Where every record is in every batch there is nothing to test."""
    return tuple(
        (draws, sampling.tests(draws))
        for draws in evidence.draws
        if draws.sample_rate < 1 and draws.sizes.size
    )


def _at_rates(evidence: Sampling, ledger: Ledger, family: Family, rates: list[float]) -> float | None:
    found = [
        epsilon_lower(_with(ledger, draws, _rate_at_least(rate)), family.delta, family.adjacency)
        for draws, rate in zip((d for d in evidence.draws if d.sizes.size), rates, strict=True)
        if draws.sample_rate < 1
    ]
    return min(found, default=None)


def rejections(evidence: Sampling, ledger: Ledger, family: Family, *, alpha: float) -> Iterator[Rejected]:
    """Loaders whose batches contradict the ledger at level `alpha` over all tests together."""
    tested = _tested(evidence)
    yield from _rejected(tested, ledger, family, _level(tested, alpha))


def _level(tested: _Tests, alpha: float) -> float:
    return alpha / max(sum(len(each) for _, each in tested), 1)


def _rejected(tested: _Tests, ledger: Ledger, family: Family, level: float) -> Iterator[Rejected]:
    for draws, each in tested:
        failed = sorted((test for test in each if test.p_value <= level), key=lambda test: test.p_value)
        if not failed and not draws.public:
            continue
        epsilon, remedy = _consequence(draws, {test.name for test in failed}, ledger, family, level)
        yield Rejected(
            draws=draws,
            test=failed[0] if failed else None,
            others=tuple(test.name for test in failed[1:]),
            epsilon=epsilon,
            remedy=remedy,
        )


def findings(evidence: Sampling, family: Family, ledger: Ledger, *, alpha: float) -> Iterator[Finding]:
    """Name the loader, what was expected of its batches, and the epsilon that is left.

    Nothing is found against a claim that needs no amplification.
    """
    claimed = family.claimed_epsilon
    if claimed is None or not ledger or unamplified(ledger, family.delta, family.adjacency) <= claimed:
        return
    for rejected in rejections(evidence, ledger, family, alpha=alpha):
        test, draws = rejected.test, rejected.draws
        if _within(rejected, family):
            continue
        measured = f"{test.measured} (p {told(test.p_value)})" if test else draws.public
        if rejected.others:
            measured += f"; also {', '.join(rejected.others)}"
        yield Finding(
            check="sampler",
            where=draws.where,
            expected=test.expected if test else "batches that are drawn in secret",
            measured=f"{measured}; {draws.public}" if test and draws.public else measured,
            epsilon=rejected.epsilon,
            remedy=rejected.remedy,
            source=evidence.source,
            access=evidence.access,
        )


def _within(rejected: Rejected, family: Family) -> bool:
    """Whether the claim covers what follows: it is not contradicted then, whatever the loader says."""
    claimed = family.claimed_epsilon
    return claimed is not None and rejected.epsilon is not None and rejected.epsilon <= claimed


def _consequence(
    draws: Draws, failed: set[str], ledger: Ledger, family: Family, level: float
) -> tuple[float | None, str]:
    """Epsilon of the ledger with the sampling that was found in place of the stated one."""
    delta, adjacency = family.delta, family.adjacency
    repeated = passes_repeated(draws)
    shuffled = _once_per_pass(draws)
    if draws.public or (repeated and _in_order(draws)):
        remedy = "Draw batches from a generator whose seed nobody else has; leave `generator=` out."
        return unamplified(ledger, delta, adjacency), remedy
    if repeated:
        kind = Sampler.SHUFFLE if shuffled else Sampler.POISSON
        once = _with(ledger, draws, _repeated(repeated, kind))
        remedy = "Do not seed the loader's generator anew in each pass."
        return epsilon_lower(once, delta, adjacency, coarsest=_COARSE), remedy
    if shuffled:
        passes = _with(ledger, draws, lambda phase: replace(phase, sampler=Sampler.SHUFFLE))
        return epsilon_lower(passes, delta, adjacency, coarsest=_COARSE), _POISSON_REMEDY
    if sampling.RATE in failed:
        rate = sampling.rate_interval(draws, 2 * level)[0]
        more = _with(ledger, draws, _rate_at_least(rate))
        remedy = "Tell the accountant the rate at which records really enter batches."
        epsilon = epsilon_lower(more, delta, adjacency, coarsest=_COARSE)
        # A claim that covers the rate does not cover batches that are no Poisson batches of any rate.
        covered = family.claimed_epsilon is not None and epsilon <= family.claimed_epsilon
        return None if covered and failed != {sampling.RATE} else epsilon, remedy
    return None, _POISSON_REMEDY


def passes_repeated(draws: Draws) -> int:
    """How many passes had the same batches, beginning with the first; 0 if they differ."""
    period, steps = draws.period, int(draws.sizes.size)
    if not draws.records.size or period < 2 or steps < 2 * period:
        return 0
    every = [hash(batch) for batch in sampling.batches(draws)]
    same = np.array([every[t] == every[t % period] for t in range(steps)])
    return steps // period if same[period:].mean() >= 0.9 else 0


def _in_order(draws: Draws) -> bool:
    """Whether the first pass goes through the data set from the first record to the last."""
    first = draws.records[: int(draws.sizes[: draws.period].sum())]
    return bool(first.size > 1 and (np.diff(first) == 1).all())


def _once_per_pass(draws: Draws) -> bool:
    """Whether every pass had each record at most once, in batches of a fixed size: a shuffle."""
    period, ends = draws.period, np.cumsum(draws.sizes)
    if not draws.records.size or period < 2 or np.unique(draws.sizes).size > 2:
        return False
    parts = np.split(draws.records, ends[period - 1 :: period])
    return all(np.unique(part).size == part.size for part in parts)


def _with(ledger: Ledger, draws: Draws, change: Callable[[Phase], Phase]) -> Ledger:
    """The ledger with those phases changed that drew from this loader."""
    return tuple(
        change(phase) if math.isclose(phase.sample_rate, draws.sample_rate, rel_tol=1e-6) else phase
        for phase in ledger
    )


def _rate_at_least(rate: float) -> Callable[[Phase], Phase]:
    return lambda phase: replace(phase, sample_rate=min(max(rate, phase.sample_rate), 1.0))


def _repeated(passes: int, kind: Sampler) -> Callable[[Phase], Phase]:
    """The same batches in each of k passes: one pass with the noise of an average of k."""
    return lambda phase: replace(
        phase,
        sampler=kind,
        noise_multiplier=phase.noise_multiplier / math.sqrt(passes),
        steps=max(1, phase.steps // passes),
    )
