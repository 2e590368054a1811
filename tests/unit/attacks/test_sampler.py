"""Faults of the sampler are found, Poisson batches are not accused, and p-values keep their level."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dpaudit.accounting import family_for, pld_epsilon
from dpaudit.claim import Claim, Phase
from dpaudit.evidence import Draws, Sampling
from dpaudit.stats import sampler, sampling

N, RATE, STEPS = 400, 0.05, 120
PERIOD = round(1 / RATE)
LEDGER = (Phase(noise_multiplier=1.0, sample_rate=RATE, steps=STEPS),)
CLAIM = Claim(epsilon=pld_epsilon(LEDGER, 1e-5), delta=1e-5, ledger=LEDGER)
FAMILY = family_for(CLAIM)


def draws(batches: list[np.ndarray], *, n: int = N, rate: float = RATE, public: str = "") -> Draws:
    return Draws(
        records=np.concatenate(batches).astype(np.int64),
        sizes=np.array([len(batch) for batch in batches]),
        n_records=n,
        sample_rate=rate,
        period=round(1 / rate),
        public=public,
    )


def poisson(rng: np.random.Generator, rate: float = RATE, steps: int = STEPS, n: int = N) -> list[np.ndarray]:
    return [np.flatnonzero(rng.random(n) < rate) for _ in range(steps)]


def shuffled(rng: np.random.Generator) -> list[np.ndarray]:
    passes = (np.array_split(rng.permutation(N), PERIOD) for _ in range(STEPS // PERIOD))
    return [batch for batches in passes for batch in batches]


def siblings(rng: np.random.Generator) -> list[np.ndarray]:
    partner = rng.permutation(N)
    return [partner[np.concatenate([half, half + N // 2])] for half in poisson(rng, n=N // 2)]


FAULTS: dict[str, Callable[[np.random.Generator], Draws]] = {
    "a higher rate": lambda rng: draws(poisson(rng, 1.3 * RATE)),
    "shuffled": lambda rng: draws(shuffled(rng)),
    "fixed order": lambda rng: draws(np.array_split(np.arange(N), PERIOD) * (STEPS // PERIOD)),
    "seeded anew in each pass": lambda rng: draws(poisson(rng, steps=PERIOD) * (STEPS // PERIOD)),
    "siblings": lambda rng: draws(siblings(rng)),
    "fixed size": lambda rng: draws([rng.choice(N, 20, replace=False) for _ in range(STEPS)]),
    "public seed": lambda rng: draws(poisson(rng), public="a generator seeded with 7"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_fault_is_found(fault: str) -> None:
    evidence = Sampling(draws=(FAULTS[fault](np.random.default_rng(1)),))
    found = list(sampler.findings(evidence, FAMILY, LEDGER, alpha=1e-3))
    assert [each.check for each in found] == ["sampler"]
    assert found[0].epsilon is None or found[0].epsilon > CLAIM.epsilon


@pytest.mark.parametrize("rate", [RATE, 0.7 * RATE])
def test_poisson_batches_of_at_most_the_rate_are_not_accused(rate: float) -> None:
    evidence = Sampling(draws=(draws(poisson(np.random.default_rng(2), rate)),))
    assert not list(sampler.findings(evidence, FAMILY, LEDGER, alpha=1e-3))
    estimate = sampler.sampler(evidence, FAMILY, LEDGER, alpha=1e-3)
    assert estimate.epsilon_lower == 0.0 and estimate.p_value is not None and estimate.p_value > 1e-3


def test_a_claim_that_needs_no_amplification_is_not_accused() -> None:
    claim = Claim(epsilon=60.0, delta=1e-5, ledger=LEDGER)
    evidence = Sampling(draws=(draws(shuffled(np.random.default_rng(3))),))
    assert not list(sampler.findings(evidence, family_for(claim), LEDGER, alpha=1e-3))


@pytest.mark.parametrize(("n", "rate", "steps"), [(20, 0.2, 20), (100, 0.05, 40), (8, 0.02, 50)])
def test_p_values_keep_their_level(n: int, rate: float, steps: int) -> None:
    rng, runs, level = np.random.default_rng(4), 60, 0.02
    found: dict[str, int] = {}
    for _ in range(runs):
        for test in sampling.tests(draws(poisson(rng, rate, steps, n), n=n, rate=rate)):
            found[test.name] = found.get(test.name, 0) + (test.p_value <= level)
    print({name: count / runs for name, count in found.items()}, "attained at", level)
    # At most 2 % each: 7 of 60 has probability below 1e-3.
    assert max(found.values()) < 7


def test_the_rate_is_tested_against_what_was_accounted() -> None:
    seen = draws(poisson(np.random.default_rng(5), 1.3 * RATE))
    accounted = Sampling(draws=(replace(seen, accounted=2 * RATE),))
    assert sampler.sampler(Sampling(draws=(seen,)), FAMILY, LEDGER, alpha=1e-3).p_value < 1e-6
    assert sampler.sampler(accounted, FAMILY, LEDGER, alpha=1e-3).p_value > 1e-3
    assert not list(sampler.findings(accounted, FAMILY, LEDGER, alpha=1e-3))


def test_no_test_rejects_a_claim_that_covers_the_rate_that_was_found() -> None:
    evidence = Sampling(draws=(draws(poisson(np.random.default_rng(6), 1.3 * RATE)),))
    family = family_for(replace(CLAIM, epsilon=1.7 * CLAIM.epsilon))
    estimate = sampler.sampler(evidence, family, LEDGER, alpha=1e-3)
    assert 0 < estimate.epsilon_lower < family.claimed_epsilon and estimate.p_value == 1.0
    # But siblings at that rate are no Poisson batches of any rate.
    rng = np.random.default_rng(7)
    twice = [np.concatenate([half, half + N // 2]) for half in poisson(rng, 1.3 * RATE, n=N // 2)]
    found = list(sampler.findings(Sampling(draws=(draws(twice),)), family, LEDGER, alpha=1e-3))
    assert [each.epsilon for each in found] == [None]
