"""Properties that a privacy audit takes for granted, stated for the real Opacus.

Sampling and accounting are in `test_opacus_accounting.py`; what does not hold, in
`test_opacus_limits.py`. Statistical checks draw their seed with the example
and reject at `RARE`, so that a test body is a function of its example and false alarms are negligible.
"""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping, DPPerLayerOptimizer
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from scipy.stats import binom, chi2
from torch import nn

from dpaudit.strategies import gradients

RARE = 1e-9
ROUNDING = 1e-5  # of float32 norms and sums over a few records, relative to the clipping norm

few = settings(max_examples=12, deadline=None)
some = settings(max_examples=40, deadline=None)
many = settings(max_examples=100, deadline=None)

norms = st.sampled_from((1e-6, 1e-3, 0.1, 1.0, 4.0, 1e3))
sigmas = st.floats(0.1, 10.0)
seeds = st.integers(0, 2**31 - 1)
clipped = norms.flatmap(lambda c: st.tuples(st.just(c), gradients(max_grad_norm=c, min_batch=1)))
MODES = ("hooks", "functorch", "ghost")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def optimizer_for(dimension, norm, sigma=0.0, *, parts=1, batch=1, kind=DPOptimizer, **options):
    """The real optimizer over `parts` parameters that hold `dimension` numbers together."""
    parameters = [nn.Parameter(torch.zeros(len(p))) for p in np.array_split(np.arange(dimension), parts)]
    return kind(
        torch.optim.SGD(parameters, lr=1.0),
        noise_multiplier=sigma,
        max_grad_norm=norm,
        expected_batch_size=batch,
        **options,
    )


def load(optimizer, rows):
    """Hand per-record gradients (b, d) to the optimizer as a backward pass would."""
    pieces = np.array_split(np.asarray(rows, dtype=np.float32), len(optimizer.params), axis=1)
    for parameter, piece in zip(optimizer.params, pieces, strict=True):
        parameter.grad_sample = torch.from_numpy(np.ascontiguousarray(piece))


def flat(tensors):
    return torch.cat([t.detach().double().flatten() for t in tensors]).numpy()


def summed(rows, norm, *, parts=1, kind=DPOptimizer):
    """Clipped sum (d,) of rows (b, d) by `clip_and_accumulate`."""
    optimizer = optimizer_for(rows.shape[1], norm, parts=parts, kind=kind)
    load(optimizer, rows)
    optimizer.clip_and_accumulate()
    return flat(p.summed_grad for p in optimizer.params)


def assert_counts_follow(counts, probabilities):
    """Exact two-sided binomial test of every cell, Bonferroni over the cells."""
    n, level = np.sum(counts), RARE / (2 * len(counts))
    assert (binom.cdf(counts, n, probabilities) >= level).all()
    assert (binom.sf(np.asarray(counts) - 1, n, probabilities) >= level).all()


# --- clipping ------------------------------------------------------------------------------------


@many
@given(clipped)
def test_no_record_contributes_more_than_the_clipping_norm(example):
    norm, rows = example
    for row in rows:
        assert np.linalg.norm(summed(row[None], norm)) <= norm * (1 + ROUNDING)


@many
@given(clipped, st.integers(0, 7), st.integers(1, 4))
def test_one_record_moves_the_sum_by_at_most_the_clipping_norm(example, index, parts):
    norm, rows = example
    index, parts = index % len(rows), min(parts, rows.shape[1])
    everyone = summed(rows, norm, parts=parts)
    others = summed(np.delete(rows, index, axis=0), norm, parts=parts)
    assert np.linalg.norm(everyone - others) <= norm * (1 + ROUNDING)


@some
@given(clipped, st.data())
def test_replacing_one_record_moves_the_sum_by_at_most_twice_the_clipping_norm(example, data):
    norm, rows = example
    index = data.draw(st.integers(0, len(rows) - 1))
    replaced = rows.copy()
    replaced[index] = -data.draw(st.sampled_from(list(rows)))
    assert np.linalg.norm(summed(rows, norm) - summed(replaced, norm)) <= 2 * norm * (1 + ROUNDING)


@many
@given(norms.flatmap(lambda c: st.tuples(st.just(c), gradients(max_grad_norm=c, min_batch=1, largest=1e15))))
def test_clipping_is_the_formula_of_its_paper(example):
    """Sum of g min(1, C / (|g| + 1e-6)) (Abadi et al. 2016, arXiv:1607.00133), by a scalar loop."""
    norm, rows = example
    want = np.zeros(rows.shape[1])
    for row in rows.astype(np.float64):
        length = math.sqrt(sum(x * x for x in row))
        want += row * min(1.0, norm / (length + 1e-6))
    np.testing.assert_allclose(summed(rows, norm), want, atol=norm * len(rows) * ROUNDING)


@some
@given(clipped, st.integers(1, 5))
def test_virtual_batches_sum_to_the_logical_batch_and_take_one_step(example, physical):
    norm, rows = example
    optimizer, steps = optimizer_for(rows.shape[1], norm), []
    optimizer.attach_step_hook(lambda o: steps.append(1))
    chunks = [rows[i : i + physical] for i in range(0, len(rows), physical)]
    for i, chunk in enumerate(chunks):
        optimizer.signal_skip_step(do_skip=i < len(chunks) - 1)
        optimizer.zero_grad()
        load(optimizer, chunk)
        optimizer.step()
    assert steps == [1]
    got = flat(p.grad for p in optimizer.params)
    np.testing.assert_allclose(got, summed(rows, norm), atol=norm * len(rows) * ROUNDING)


@some
@given(clipped, st.integers(1, 4))
def test_per_layer_clipping_has_the_sensitivity_that_its_noise_is_scaled_to(example, parts):
    norm, rows = example
    parts = min(parts, rows.shape[1])
    optimizer = optimizer_for(rows.shape[1], [norm] * parts, 1.0, parts=parts, kind=DPPerLayerOptimizer)
    load(optimizer, rows[:1])
    optimizer.clip_and_accumulate()
    assert optimizer.max_grad_norm == pytest.approx(norm * math.sqrt(parts))
    moved = np.linalg.norm(flat(p.summed_grad for p in optimizer.params))
    assert moved <= optimizer.max_grad_norm * (1 + ROUNDING)


@some
@given(clipped)
def test_gradients_of_a_step_cannot_be_released_twice(example):
    norm, rows = example
    optimizer = optimizer_for(rows.shape[1], norm, 1.0)
    load(optimizer, rows)
    optimizer.step()
    with pytest.raises(ValueError, match="haven't been cleared"):
        optimizer.step()


# --- clipping through a model --------------------------------------------------------------------


def network(seed, features, classes=3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(features, 5), nn.Tanh(), nn.Linear(5, classes))


def clipped_sum(mode, model, x, y, norm):
    """Clipped sum of a batch through the whole of Opacus, flattened."""
    model = copy.deepcopy(model)
    if mode == "ghost":
        wrapped = GradSampleModuleFastGradientClipping(model, max_grad_norm=norm)
        kind = DPOptimizerFastGradientClipping
    else:
        wrapped, kind = GradSampleModule(model, force_functorch=mode == "functorch"), DPOptimizer
    sgd = torch.optim.SGD(wrapped.parameters(), lr=1.0)
    optimizer = kind(sgd, noise_multiplier=0.0, max_grad_norm=norm, expected_batch_size=1)
    criterion = nn.CrossEntropyLoss()
    if mode == "ghost":
        criterion = DPLossFastGradientClipping(wrapped, optimizer, criterion)
    criterion(wrapped(x), y).backward()
    optimizer.step()
    return flat(p.grad for p in optimizer.params)


def naive_clipped_sum(model, x, y, norm):
    """One backward pass per record, clipped in float64; no Opacus."""
    model = copy.deepcopy(model).double()
    total = 0.0
    for row, label in zip(x.double(), y, strict=True):
        model.zero_grad()
        nn.functional.cross_entropy(model(row[None]), label[None]).backward()
        gradient = flat(p.grad for p in model.parameters())
        total = total + gradient * min(1.0, norm / (np.linalg.norm(gradient) + 1e-6))
    return total


@st.composite
def batches(draw, min_size=1, largest=3.0):
    features, size = draw(st.integers(1, 4)), draw(st.integers(min_size, 6))
    rng = np.random.default_rng(draw(seeds))
    scale = draw(st.sampled_from((0.0, 1e-3, 1.0, largest)))
    x = torch.from_numpy(rng.normal(size=(size, features)) * scale).float()
    return network(draw(seeds), features), x, torch.from_numpy(rng.integers(0, 3, size))


@settings(max_examples=25, deadline=None)
@given(batches(), st.sampled_from((1e-3, 0.1, 1.0, 10.0)))
def test_hooks_functorch_and_ghost_clipping_agree_with_one_record_at_a_time(batch, norm):
    model, x, y = batch
    want = naive_clipped_sum(model, x, y, norm)
    for mode in MODES:
        got = clipped_sum(mode, model, x, y, norm)
        np.testing.assert_allclose(got, want, atol=2e-5 * norm * len(x), err_msg=mode)


@settings(max_examples=25, deadline=None)
@given(batches(largest=1e4), st.sampled_from((1e-3, 1.0, 10.0)), st.integers(0, 5), st.sampled_from(MODES))
def test_one_record_through_a_model_moves_the_release_by_at_most_the_clipping_norm(batch, norm, index, mode):
    model, x, y = batch
    index %= len(x)
    keep = torch.arange(len(x)) != index
    alone = clipped_sum(mode, model, x[index : index + 1], y[index : index + 1], norm)
    assert np.linalg.norm(alone) <= norm * (1 + ROUNDING)
    moved = clipped_sum(mode, model, x, y, norm) - clipped_sum(mode, model, x[keep], y[keep], norm)
    assert np.linalg.norm(moved) <= norm * (1 + 2e-5 * len(x))


@few
@given(seeds, st.sampled_from(MODES))
def test_an_empty_batch_releases_zero_before_noise(seed, mode):
    got = clipped_sum(mode, network(seed, 2), torch.empty(0, 2), torch.empty(0, dtype=torch.long), 1.0)
    np.testing.assert_array_equal(got, 0.0)


# --- noise ---------------------------------------------------------------------------------------

WIDTH = 20_000  # finds noise that is 5 % low


def release(norm, sigma, seed, *, batch=1, secure=False, steps=1, rows=None):
    """Released gradients, (steps, 2 parameters, WIDTH): of no record, or of `rows`."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = optimizer_for(
        2 * WIDTH, norm, sigma, parts=2, batch=batch, generator=generator, secure_mode=secure
    )
    out = []
    for _ in range(steps):
        optimizer.zero_grad()
        load(optimizer, np.zeros((0, 2 * WIDTH)) if rows is None else rows)
        optimizer.step()
        out.append([flat([p.grad]) for p in optimizer.params])
    return np.array(out)


@many
@given(norms, sigmas, seeds, st.booleans())
def test_noise_of_every_parameter_has_deviation_sigma_times_norm(norm, sigma, seed, secure):
    for noise in release(norm, sigma, seed, secure=secure)[0] / (sigma * norm):
        assert chi2.ppf(RARE / 2, WIDTH) <= np.square(noise).sum() <= chi2.isf(RARE / 2, WIDTH)
        assert noise.sum() ** 2 / WIDTH <= chi2.isf(RARE, 1)


@some
@given(norms, sigmas, seeds, st.booleans())
def test_noise_is_independent_between_parameters_and_steps(norm, sigma, seed, secure):
    draws = np.sign(release(norm, sigma, seed, secure=secure, steps=2).reshape(4, WIDTH))
    for one, other in itertools.combinations(draws, 2):
        assert_counts_follow(np.bincount((one == other).astype(int), minlength=2), [0.5, 0.5])


@some
@given(norms, sigmas, seeds, st.integers(1, 512), seeds)
def test_release_is_clipped_sum_plus_noise_over_the_expected_batch_size(norm, sigma, seed, batch, data):
    """The divisor is public; the number of records that came is not."""
    rows = np.random.default_rng(data).normal(size=(3, 2 * WIDTH)).astype(np.float32)
    noise = release(norm, sigma, seed).reshape(-1)
    got = release(norm, sigma, seed, batch=batch, rows=rows).reshape(-1) * batch
    scale = norm * (3 + 5 * sigma)
    np.testing.assert_allclose(got, summed(rows, norm, parts=2) + noise, atol=scale * ROUNDING)
