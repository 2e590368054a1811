"""Where Opacus 1.6 does not do what its users assume, as it is: each test is a thing an auditor must check.

A test here that fails after an upgrade is good news: the limit is gone, and what leans on it
(docs/mechanisms.md, the replay checks) can be relaxed.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus import PrivacyEngine
from opacus.accountants import GaussianAccountant, PRVAccountant, RDPAccountant
from opacus.data_loader import DPDataLoader
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import AdaClipDPOptimizer, DPOptimizer, DPOptimizerFastGradientClipping
from opacus.schedulers import StepGradClip
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from opacus.utils.uniform_sampler import (
    DistributedUniformWithReplacementSampler,
    UniformWithReplacementSampler,
)
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dpaudit.strategies import gradients

few = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**31 - 1)


class Contrast(nn.Module):
    """Per-record loss: `weight` times the first token's output less the last's."""

    def __init__(self, weight):
        super().__init__()
        self.weight, self.reduction = weight, "sum"

    def forward(self, out):
        loss = self.weight * (out[:, 0] - out[:, -1]).sum(-1)
        return loss if self.reduction == "none" else loss.sum()


def plain_optimizer(parameters, sigma=0.0):
    sgd = torch.optim.SGD(parameters, lr=1.0)
    return DPOptimizer(sgd, noise_multiplier=sigma, max_grad_norm=1.0, expected_batch_size=1)


def ghost(model, criterion, norm=1.0):
    """Model, optimizer and criterion in ghost-clipping mode, without noise."""
    wrapped = GradSampleModuleFastGradientClipping(model, max_grad_norm=norm, loss_reduction="sum")
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(model.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=norm,
        expected_batch_size=1,
        loss_reduction="sum",
    )
    return wrapped, optimizer, DPLossFastGradientClipping(wrapped, optimizer, criterion, "sum")


def private_engine(batch_size=25, records=100, accountant="rdp", **options):
    data = TensorDataset(torch.randn(records, 4), torch.randint(0, 2, (records,)))
    model = nn.Linear(4, 2)
    engine = PrivacyEngine(accountant=accountant)
    return engine, *engine.make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        data_loader=DataLoader(data, batch_size=batch_size, shuffle=True),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        **options,
    )


def released(optimizer):
    return torch.cat([p.grad.detach().flatten() for p in optimizer.params])


# --- sensitivity ---------------------------------------------------------------------------------


@few
@given(gradients(min_batch=1, max_dimension=6), st.sampled_from((math.nan, math.inf, -math.inf)))
def test_one_record_that_is_not_finite_turns_the_release_into_nan(rows, bad):
    """min(1, C/NaN) is NaN, and 0 * inf is NaN. No noise hides it: whether the record was in the
    batch is readable from the weights, so (epsilon, delta) fails for every delta below q. An auditor
    must try records that overflow the forward pass, not only large ones."""
    for position in range(len(rows)):
        poisoned = rows.copy()
        poisoned[position, 0] = bad
        parameter = nn.Parameter(torch.zeros(rows.shape[1]))
        optimizer = plain_optimizer([parameter], sigma=1.0)
        parameter.grad_sample = torch.from_numpy(poisoned)
        optimizer.step()
        assert parameter.grad[0].isnan()


@few
@given(st.floats(1.0, 3.0), st.integers(2, 6))
def test_a_finite_record_whose_squares_overflow_contributes_nothing(mantissa, dimension):
    """|g|^2 overflows float32 beyond 1.8e19, and C/inf is 0: harmless to privacy, but a canary of
    huge gradient is silent, and an audit that relies on it sees no leak where there may be one."""
    parameter = nn.Parameter(torch.zeros(dimension))
    optimizer = plain_optimizer([parameter])
    parameter.grad_sample = torch.full((1, dimension), mantissa * 1e20)
    optimizer.step()
    assert not parameter.grad.any()


def test_half_precision_gradients_exceed_the_clipping_norm_by_their_rounding():
    """Norm, factor and product are each rounded to 8 bits: up to 1 % beyond C, which is up to 1 %
    less noise than claimed. A check of sensitivity needs a tolerance by dtype, and says so."""
    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(200):
        parameter = nn.Parameter(torch.zeros(7, dtype=torch.bfloat16))
        optimizer = plain_optimizer([parameter])
        rows = torch.from_numpy(rng.normal(size=(1, 7)) * 100)
        parameter.grad_sample = rows.to(torch.bfloat16)
        optimizer.step()
        worst = max(worst, parameter.grad.double().norm().item())
    assert 1.002 < worst < 1.01


@pytest.mark.parametrize("offset", [255.0, 1000.0])
def test_ghost_clipping_of_sequences_can_release_many_times_the_clipping_norm(offset):
    """The ghost norm of a Linear layer over tokens is sqrt(sum (g g^T) * (a a^T)) in float32. Where
    tokens share a large offset and their gradients cancel, the sum loses all its digits and is
    clamped at 0: the record passes unclipped. Hooks clip the same record correctly. An auditor must
    measure sensitivity in the mode and dtype that trains, on inputs that are not centred."""
    by_ghost, by_hooks = [], []
    for seed in range(30):
        x = torch.full((1, 2, 8), offset)
        x[0, 1] += 1e-4 * offset * torch.randn(8, generator=torch.Generator().manual_seed(seed))

        model, optimizer, criterion = ghost(nn.Linear(8, 4, bias=False), Contrast(100.0))
        criterion(model(x)).backward()
        optimizer.step()
        by_ghost.append(released(optimizer).norm().item())

        wrapped = GradSampleModule(nn.Linear(8, 4, bias=False), loss_reduction="sum")
        optimizer = plain_optimizer(wrapped.parameters())
        Contrast(100.0)(wrapped(x)).backward()
        optimizer.step()
        by_hooks.append(released(optimizer).norm().item())
    assert max(by_ghost) > 5  # C is 1
    assert max(by_hooks) <= 1 + 1e-5


@few
@given(st.floats(0.05, 0.9))
def test_ghost_clipping_ignores_a_schedule_of_the_clipping_norm(factor):
    """`opacus.schedulers` change `optimizer.max_grad_norm`, which scales the noise; in ghost mode the
    clipping itself reads the module's. Sensitivity stays C while noise shrinks to sigma C factor, and
    the accountant is none the wiser."""
    model, optimizer, criterion = ghost(nn.Linear(4, 2, bias=False), Contrast(1e3))
    scheduler = StepGradClip(optimizer, step_size=1, gamma=factor)
    scheduler.step()
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0], [-4.0, 3.0, -2.0, 1.0]]])
    criterion(model(x)).backward()
    optimizer.step()
    assert optimizer.max_grad_norm == pytest.approx(factor)
    assert released(optimizer).norm().item() == pytest.approx(1.0, rel=1e-4)


def test_ghost_clipping_releases_layers_unfrozen_later_unclipped():
    """Layers that are frozen when the model is wrapped get no hook. Unfrozen later, hooks mode refuses
    to step, while ghost mode releases their gradient without counting it in the norm."""

    def half_frozen():
        model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False))
        model[0].weight.requires_grad_(False)
        with torch.no_grad():
            model[0].weight.fill_(0.01)
            model[1].weight.fill_(100.0)
        return model

    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0], [-4.0, -3.0, -2.0, -1.0]]])
    model, optimizer, criterion = ghost(half_frozen(), Contrast(1.0))
    model.requires_grad_(True)
    criterion(model(x)).backward()
    optimizer.step()
    assert released(optimizer).norm() > 100  # C is 1

    plain = half_frozen()
    wrapped = GradSampleModule(plain, loss_reduction="sum")
    explicit = plain_optimizer(plain.parameters())
    wrapped.requires_grad_(True)
    Contrast(1.0)(wrapped(x)).backward()
    with pytest.raises(ValueError, match="Per sample gradient not"):
        explicit.step()


# --- control flow --------------------------------------------------------------------------------


def test_adaptive_clipping_crashes_on_an_empty_batch():
    """A run that dies says that a batch was empty. Batches are empty with probability (1-q)^N, which
    differs between neighbours; an auditor must execute one."""
    parameter = nn.Parameter(torch.zeros(3))
    optimizer = AdaClipDPOptimizer(
        torch.optim.SGD([parameter], lr=1.0),
        noise_multiplier=1.0,
        target_unclipped_quantile=0.5,
        clipbound_learning_rate=0.1,
        max_clipbound=10.0,
        min_clipbound=0.1,
        unclipped_num_std=5.0,
        max_grad_norm=1.0,
        expected_batch_size=2,
    )
    parameter.grad_sample = torch.zeros(0, 3)
    with pytest.raises(RuntimeError, match="cannot reshape"):
        optimizer.step()


def test_expanded_weights_crash_on_an_empty_batch():
    _, model, _, _ = private_engine(grad_sample_mode="ew")
    with pytest.raises(RuntimeError, match="Batch size must be positive"):
        model(torch.empty(0, 4))


def test_the_distributed_sampler_skips_empty_batches(monkeypatch):
    """The number of steps then depends on the data, and is neither accounted for nor noisy."""
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    generator = torch.Generator().manual_seed(0)
    sampler = DistributedUniformWithReplacementSampler(
        total_size=5, sample_rate=0.05, generator=generator, steps=200
    )
    assert len(list(sampler)) < len(sampler)
    generator.manual_seed(0)
    single = UniformWithReplacementSampler(num_samples=5, sample_rate=0.05, generator=generator, steps=200)
    assert len(list(single)) == len(single)


# --- sampling ------------------------------------------------------------------------------------


def test_turning_poisson_sampling_off_is_silent_and_changes_no_epsilon():
    """Shuffled batches amplify far less (Chua et al. 2024, arXiv:2403.17673: up to 5.7 times the epsilon),
    yet the accountant goes on as before. An auditor must look at the sampler, not at the flag."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        engine, model, optimizer, loader = private_engine(poisson_sampling=False)
    assert not [w for w in caught if "oisson" in str(w.message) or "shuffl" in str(w.message)]
    assert not isinstance(loader, DPDataLoader)
    for x, y in loader:
        assert len(x) == 25
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert engine.accountant.history == [(1.0, 0.25, 4)]
    poisson = RDPAccountant()
    poisson.history = [(1.0, 0.25, 4)]
    assert engine.get_epsilon(1e-5) == poisson.get_epsilon(1e-5)


def test_a_seeded_data_loader_makes_the_private_batches_public():
    """The generator of the user's loader becomes the generator of the Poisson sampler: whoever knows
    the seed knows the batches, and amplification by sampling is gone."""
    data = TensorDataset(torch.arange(50.0))

    def batches():
        loader = DataLoader(data, batch_size=10, shuffle=True, generator=torch.Generator().manual_seed(7))
        return [x.tolist() for (x,) in DPDataLoader.from_data_loader(loader)]

    assert batches() == batches()


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-9, 1e-5), seeds)
def test_inclusion_probabilities_are_rounded_up_to_a_grid_of_two_to_the_minus_24(rate, seed):
    """`torch.rand` returns multiples of 2^-24, so P[rand < q] = ceil(q 2^24) / 2^24: 1.3 % above
    q = 1e-6, 19 % above 1e-7, 60 times 1e-9. The accountant is told q."""
    draws = torch.rand(20_000, generator=torch.Generator().manual_seed(seed)).double() * 2**24
    assert torch.equal(draws, draws.round())
    included = sum(k / 2**24 < rate for k in range(math.ceil(rate * 2**24) + 2)) / 2**24
    assert included == math.ceil(rate * 2**24) / 2**24 >= rate


def test_an_epoch_can_be_a_step_short_of_the_length_of_the_loader():
    """steps = int(1 / (1/n)) is n - 1 for 93, 99, 105 and others: a ledger that assumes
    epochs * len(loader) counts steps that never ran. Read `accountant.history`."""

    def steps(n):
        return len(UniformWithReplacementSampler(num_samples=10, sample_rate=1 / n))

    assert [n for n in range(1, 120) if steps(n) != n] == [93, 99, 105, 117]
    assert all(steps(n) in (n - 1, n) for n in range(1, 3000))


def test_accumulation_without_poisson_sampling_can_record_a_rate_above_one():
    engine, model, optimizer, _ = private_engine(batch_size=50, poisson_sampling=False)
    x, y = torch.randn(5, 4), torch.randint(0, 2, (5,))
    for _ in range(3):
        nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    assert engine.accountant.history == [(1.0, 1.5, 1)]
    with pytest.raises(ValueError, match="math domain error"):
        engine.get_epsilon(1e-5)


# --- accounting ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RDPAccountant, PRVAccountant])
def test_accountants_return_negative_epsilons_where_the_answer_is_zero(kind):
    accountant = kind()
    accountant.history = [(100.0, 0.001, 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert accountant.get_epsilon(0.1) < 0


def test_the_gaussian_accountant_reports_less_than_was_spent():
    """Its central limit theorem is an approximation, not a bound: 2.38 where PLD says 2.77."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        approximate, tight = GaussianAccountant(), PRVAccountant()
    approximate.history = tight.history = [(1.0, 0.02, 500)]
    assert approximate.get_epsilon(1e-5) < 0.9 * tight.get_epsilon(1e-5)


def test_accountants_that_load_one_state_share_its_history():
    """`load_state_dict` keeps a reference: two resumed runs count into each other."""
    first = RDPAccountant()
    first.step(noise_multiplier=1.0, sample_rate=0.1)
    state = first.state_dict()
    second, third = RDPAccountant(), RDPAccountant()
    second.load_state_dict(state)
    third.load_state_dict(state)
    second.step(noise_multiplier=1.0, sample_rate=0.1)
    assert third.history == [(1.0, 0.1, 2)]


@pytest.mark.parametrize("kind", [PRVAccountant, GaussianAccountant])
def test_only_the_renyi_accountant_knows_that_nothing_costs_nothing(kind):
    assert RDPAccountant().get_epsilon(1e-5) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((ValueError, IndexError)):
            kind().get_epsilon(1e-5)
