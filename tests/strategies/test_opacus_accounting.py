"""Sampling and accounting of the real Opacus: every record by its own coin, every step counted once."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus import PrivacyEngine
from opacus.accountants import PRVAccountant, RDPAccountant
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from scipy.stats import binom
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dpaudit.accounting import pld_epsilon
from dpaudit.claim import Phase
from dpaudit.strategies import phases

RARE = 1e-9

few = settings(max_examples=12, deadline=None)
some = settings(max_examples=40, deadline=None)

sigmas = st.floats(0.1, 10.0)
seeds = st.integers(0, 2**31 - 1)


def assert_rate(hits, n, probability):
    """Exact two-sided binomial test of every count of hits in n, Bonferroni over the counts."""
    level = RARE / (2 * np.size(hits))
    assert (binom.cdf(hits, n, probability) >= level).all()
    assert (binom.sf(np.asarray(hits) - 1, n, probability) >= level).all()


# --- sampling ------------------------------------------------------------------------------------

PEOPLE, DRAWS = 30, 400


@some
@given(st.floats(0.02, 0.98), seeds)
def test_poisson_sampler_includes_every_record_independently(rate, seed):
    generator = torch.Generator().manual_seed(seed)
    sampler = UniformWithReplacementSampler(
        num_samples=PEOPLE, sample_rate=rate, generator=generator, steps=DRAWS
    )
    batches = list(sampler)
    assert len(batches) == DRAWS
    chosen = np.zeros((DRAWS, PEOPLE), dtype=bool)
    for row, batch in zip(chosen, batches, strict=True):
        assert len(set(batch)) == len(batch)
        row[batch] = True

    assert_rate(chosen.sum(axis=0), DRAWS, rate)
    # Neighbours in the data set, and successive batches, share no coin.
    assert_rate((chosen[:, 1:] & chosen[:, :-1]).sum(axis=0), DRAWS, rate**2)
    twice = chosen[0::2] & chosen[1::2]
    assert_rate(twice.sum(axis=0), len(twice), rate**2)
    # The whole law of the batch size; its variance is N q (1-q), where shuffled batches have 0.
    sizes = np.bincount(chosen.sum(axis=1), minlength=PEOPLE + 1)
    assert_rate(sizes, DRAWS, binom.pmf(np.arange(PEOPLE + 1), PEOPLE, rate))


@few
@given(st.integers(5, 60), st.integers(1, 60), st.floats(0.3, 5.0), seeds)
def test_the_engine_accounts_for_exactly_the_steps_that_ran(records, size, sigma, seed):
    size = min(size, records)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        data = TensorDataset(torch.randn(records, 2), torch.randint(0, 3, (records,)))
        model = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3))
        engine = PrivacyEngine(accountant="rdp")
        model, optimizer, loader = engine.make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            data_loader=DataLoader(data, batch_size=size),
            noise_multiplier=sigma,
            max_grad_norm=1.0,
        )
        steps = 0
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            steps += 1
    rate = 1 / math.ceil(records / size)
    assert engine.accountant.history == [(sigma, rate, steps)]
    assert loader.sample_rate == rate
    assert optimizer.expected_batch_size == int(records * rate)


# --- accounting ----------------------------------------------------------------------------------

rates = st.floats(1e-3, 0.5)
modest = phases(noise=(0.7, 6.0), rate=(1e-3, 0.5), max_steps=200)
cheap = phases(noise=(1.5, 6.0), rate=(1e-3, 0.1), max_steps=100)
small_deltas = st.floats(1e-8, 1e-3)


WHOLE_ORDERS = tuple(range(2, 64))  # The fractional ones are a hundred times slower at large rates.


def epsilon(ledger, delta, kind=RDPAccountant, **options):
    accountant = kind()
    accountant.history = [(p.noise_multiplier, p.sample_rate, p.steps) for p in ledger]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return accountant.get_epsilon(delta, **options)


def renyi(ledger, delta):
    return epsilon(ledger, delta, alphas=WHOLE_ORDERS)


@some
@given(modest, small_deltas, st.floats(1.01, 3.0), st.integers(1, 200))
def test_epsilon_falls_in_noise_and_delta_and_grows_in_rate_and_steps(phase, delta, factor, more):
    def at(p, d=delta):
        return renyi((p,), d)

    sigma, rate = phase.noise_multiplier, phase.sample_rate
    base = at(phase)
    assert at(Phase(noise_multiplier=sigma * factor, sample_rate=rate, steps=phase.steps)) <= base + 1e-9
    assert at(phase, min(0.5, delta * factor)) <= base + 1e-9
    busier = min(1.0, rate * factor)
    assert base <= at(Phase(noise_multiplier=sigma, sample_rate=busier, steps=phase.steps)) + 1e-9
    assert base <= at(Phase(noise_multiplier=sigma, sample_rate=rate, steps=phase.steps + more)) + 1e-9


@some
@given(st.lists(st.tuples(sigmas, st.floats(0.01, 0.5), st.integers(1, 20)), min_size=1, max_size=4))
def test_accountant_history_is_the_ledger_in_run_lengths(stretches):
    accountant = RDPAccountant()
    for sigma, rate, steps in stretches:
        for _ in range(steps):
            accountant.step(noise_multiplier=sigma, sample_rate=rate)
    runs = [
        (*key, sum(steps for *_, steps in group))
        for key, group in itertools.groupby(stretches, key=lambda stretch: stretch[:2])
    ]
    assert accountant.history == runs


@settings(max_examples=15, deadline=None)
@given(modest, modest, small_deltas)
def test_composition_is_additive_in_steps_and_blind_to_order(one, two, delta):
    halves = (
        Phase(noise_multiplier=one.noise_multiplier, sample_rate=one.sample_rate, steps=one.steps // 2),
        Phase(noise_multiplier=one.noise_multiplier, sample_rate=one.sample_rate, steps=-(-one.steps // 2)),
    )
    assert renyi(halves, delta) == pytest.approx(renyi((one,), delta), abs=1e-9)
    both = renyi((one, two), delta)
    assert both == pytest.approx(renyi((two, one), delta), abs=1e-9)
    assert max(renyi((one,), delta), renyi((two,), delta)) <= both + 1e-9
    assert both <= renyi((one,), delta / 2) + renyi((two,), delta / 2) + 1e-9


@settings(max_examples=6, deadline=None)
@given(st.lists(cheap, min_size=1, max_size=2).map(tuple), st.floats(1e-7, 1e-4))
def test_prv_is_within_its_error_of_pld_and_rdp_is_above(ledger, delta):
    exact = pld_epsilon(ledger, delta)
    assert exact - 1e-3 <= epsilon(ledger, delta, PRVAccountant) <= exact + 0.02
    assert exact <= epsilon(ledger, delta) + 1e-3
