import numpy as np
import pytest

from dpaudit.claim import Adjacency, Phase, Sampler
from dpaudit.errors import UsageError
from dpaudit.stats import composition
from dpaudit.stats.shuffle import epsilon_lower, shuffle_epsilon
from dpaudit.stats.tradeoff import Gaussian, gaussian_epsilon

ADD, SWAP = Adjacency.ADD_REMOVE, Adjacency.REPLACE_ONE


def phase(sigma=1.0, q=0.02, steps=500, sampler=Sampler.POISSON):
    return Phase(noise_multiplier=sigma, sample_rate=q, steps=steps, sampler=sampler)


def test_equal_phases_merge_and_empty_ones_vanish():
    merged = composition.running((phase(steps=200), phase(steps=0, sigma=3.0), phase(steps=300)))
    assert merged == (phase(),)
    with pytest.raises(UsageError, match="at least one phase"):
        composition.running(())


def test_a_schedule_is_condensed_on_either_side():
    assert composition.condense((phase(), phase(2.0)), leak_more=True) == (phase(), phase(2.0))
    schedule = tuple(phase(float(sigma), 0.02, 20) for sigma in np.linspace(1.5, 0.9, 25))
    more, less = (composition.condense(schedule, leak_more=side) for side in (True, False))
    assert max(len(more), len(less)) <= 12
    assert sum(p.steps for p in more) == sum(p.steps for p in less) == 500
    low, high = (composition.pld_epsilon(each, 1e-5, coarsest=3e-3) for each in (less, more))
    assert low < high < 1.06 * low
    exact = composition.pld_epsilon(schedule[::2] + schedule[1::2], 1e-5, coarsest=3e-3)
    assert low <= exact <= high
    mixed = tuple(phase(float(sigma), 0.01 + i / 1e4, 1) for i, sigma in enumerate(np.linspace(1, 2, 60)))
    assert len(composition.condense(mixed, leak_more=True)) <= 12
    whole = tuple(phase(float(sigma), 1.0, 1) for sigma in np.linspace(1, 2, 60))
    assert composition.condense(whole, leak_more=True) == whole
    assert all(p.noise_multiplier >= 1.0 for p in composition.condense(mixed, leak_more=False))


@pytest.mark.parametrize(
    ("sampler", "q", "steps", "expected"),
    [
        (Sampler.POISSON, 0.1, 30, 0),
        (Sampler.POISSON, 1.0, 30, 30),
        (Sampler.FULL_BATCH, 0.1, 30, 30),
        (Sampler.SHUFFLE, 0.1, 30, 3),
        (Sampler.SHUFFLE, 0.1, 31, 4),
        (Sampler.UNKNOWN, 0.1, 30, 3),
    ],
)
def test_unamplified_releases(sampler, q, steps, expected):
    assert composition.releases(phase(q=q, steps=steps, sampler=sampler)) == expected


def test_gaussians_compose_exactly():
    ledger = (phase(2.0, 1.0, 9), phase(4.0, 0.5, 8, Sampler.FULL_BATCH))
    mu = np.sqrt(9 / 4 + 8 / 16)
    assert composition.pld_epsilon(ledger, 1e-5) == pytest.approx(gaussian_epsilon(mu, 1e-5))
    assert composition.pld_epsilon(ledger, 1e-5, SWAP) == pytest.approx(gaussian_epsilon(2 * mu, 1e-5))
    assert composition.curve(ledger) == Gaussian(mu=mu)


@pytest.mark.parametrize("adjacency", [ADD, SWAP])
def test_mixed_ledgers_compose_both_kinds(adjacency):
    both = composition.pld_epsilon((phase(), phase(4.0, 1.0, 4)), 1e-5, adjacency, coarsest=1e-3)
    alone = composition.pld_epsilon((phase(),), 1e-5, adjacency, coarsest=1e-3)
    released = composition.pld_epsilon((phase(4.0, 1.0, 4),), 1e-5, adjacency)
    assert max(alone, released) < both < alone + released


def naive_loss_moments(sigma, q, adjacency):
    """Mean and variance of one step's privacy loss on a fine grid of outputs."""
    x = np.linspace(-12 * sigma, 12 * sigma + 1, 400_001)

    def density(mean):
        return np.exp(-((x - mean) ** 2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi))

    inside = (1 - q) * density(0) + q * density(1)
    outside = (1 - q) * density(0) + q * density(-1) if adjacency is SWAP else density(0)
    loss = np.where(inside > 1e-300, np.log(np.maximum(inside, 1e-300) / np.maximum(outside, 1e-300)), 0.0)
    width = x[1] - x[0]
    mean = np.sum(inside * loss) * width
    return mean, np.sum(inside * (loss - mean) ** 2) * width


@pytest.mark.parametrize("adjacency", [ADD, SWAP])
@pytest.mark.parametrize(("sigma", "q"), [(1.0, 0.02), (3.0, 0.3), (0.7, 0.01)])
def test_loss_moments_equal_integration(sigma, q, adjacency):
    mean, deviation, step = composition.loss_moments((phase(sigma, q, 4),), adjacency)
    slow = naive_loss_moments(sigma, q, adjacency)
    assert mean == pytest.approx(4 * slow[0], rel=1e-3)
    assert deviation == pytest.approx(2 * np.sqrt(slow[1]), rel=1e-2)
    assert step == pytest.approx(np.sqrt(slow[1]), rel=1e-2)


@pytest.mark.parametrize("adjacency", [ADD, SWAP])
@pytest.mark.parametrize("setting", [(1.0, 0.02, 500), (4.0, 0.01, 1000), (0.6, 0.01, 1000)])
def test_the_coarse_grid_is_pessimistic_by_little(setting, adjacency):
    ledger = (phase(*setting),)
    fine = composition.pld_epsilon(ledger, 1e-5, adjacency)
    coarse = composition.pld_epsilon(ledger, 1e-5, adjacency, coarsest=3e-3)
    assert fine - 1e-6 <= coarse <= fine * 1.003


def naive_shuffle_delta(sigma, batches, epsilon):
    """sup over C of P(largest > C) - e^eps Q(largest > C), one epoch, by a loop over C."""
    from scipy.stats import norm

    best = 0.0
    for c in np.linspace(-3 * sigma, 12 * sigma + 2, 4000):
        rest = (batches - 1) * norm.logcdf(c / sigma)
        inside = -np.expm1(norm.logcdf((c - 2) / sigma) + rest)
        outside = -np.expm1(norm.logcdf((c - 1) / sigma) + rest)
        best = max(best, inside - np.exp(epsilon) * outside)
    return best


@pytest.mark.parametrize(
    ("sigma", "batches", "expected"),
    [(0.4, 1000, 13.21), (0.5, 100, 10.00), (0.8, 100, 5.62), (1.0, 50, 4.21), (1.0, 100, 4.06)],
)
def test_shuffled_batches_have_at_least_the_published_epsilon(sigma, batches, expected):
    found = shuffle_epsilon(phase(sigma, 1 / batches, batches, Sampler.SHUFFLE), 1e-5)
    assert found == pytest.approx(expected, abs=0.01)
    assert naive_shuffle_delta(sigma, batches, found) == pytest.approx(1e-5, rel=0.05)


def test_shuffled_figures_are_ordered():
    shuffled = phase(1.0, 0.01, 100, Sampler.SHUFFLE)
    poisson = composition.pld_epsilon((phase(1.0, 0.01, 100),), 1e-5)
    upper = composition.pld_epsilon((shuffled,), 1e-5)
    assert poisson < shuffle_epsilon(shuffled, 1e-5) < upper
    twice = phase(1.0, 0.01, 200, Sampler.SHUFFLE)
    assert (
        shuffle_epsilon(shuffled, 1e-5)
        < shuffle_epsilon(twice, 1e-5)
        < composition.pld_epsilon((twice,), 1e-5)
    )
    assert shuffle_epsilon(shuffled, 1e-5, SWAP) > shuffle_epsilon(shuffled, 1e-5)
    assert shuffle_epsilon(phase(1.0, 0.01, 99, Sampler.SHUFFLE), 1e-5) == 0.0
    assert shuffle_epsilon(phase(1.0, 1.0, 1, Sampler.SHUFFLE), 1e-5) == pytest.approx(
        gaussian_epsilon(1.0, 1e-5), rel=1e-3
    )


def test_lower_figures_by_sampler():
    poisson, shuffled, unknown = (
        (phase(1.0, 0.02, 50, s),) for s in (Sampler.POISSON, Sampler.SHUFFLE, Sampler.UNKNOWN)
    )
    assert epsilon_lower(poisson, 1e-5) == composition.pld_epsilon(poisson, 1e-5)
    assert epsilon_lower(shuffled, 1e-5) == pytest.approx(4.207, abs=1e-3)
    assert epsilon_lower(unknown, 1e-5) == min(epsilon_lower(poisson, 1e-5), epsilon_lower(shuffled, 1e-5))
    assert epsilon_lower((*poisson, *shuffled), 1e-5) == epsilon_lower(shuffled, 1e-5)
    assert epsilon_lower((phase(0.0),), 1e-5) == np.inf
