"""Gradient inversion: each step against a naive twin, and the whole of it on runs of the real optimizer."""

from __future__ import annotations

from functools import cache
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from dpaudit.attacks.reconstruction import cards, inverting, likeness
from dpaudit.attacks.reconstruction.gradient_inversion import GradientInversion
from dpaudit.canary import Canaries, make_pool
from dpaudit.errors import UsageError
from dpaudit.evidence import NOT_TRIED, Note, Rebuilt
from dpaudit.likeness import Score
from dpaudit.matcher import GradientMatcher
from dpaudit.registry import ATTACKS, build
from dpaudit.stats import no_prior
from dpaudit.targets.broken import Loop
from dpaudit.targets.datasets import digits
from dpaudit.targets.inversion import matcher
from dpaudit.targets.observed import TrainingFunction
from dpaudit.targets.trainer import fit_opacus, fit_plain
from tests.training import canaries


def made(
    b: int = 5, *, activation: type[nn.Module] = nn.Tanh, middle: float = 0.0
) -> tuple[nn.Module, GradientMatcher]:
    """A small network and its matcher for a batch of b records."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 7), activation(), nn.Linear(7, 4))
    x, y = torch.rand(b, 3, 3) - middle, torch.arange(b) % 4
    rows = naive_rows(model, x, torch.eye(4)[y])
    found = matcher(model, model, list(model.parameters()), x, rows, 1e-7)
    assert not isinstance(found, str), found
    np.testing.assert_array_equal(found.batch()[1].argmax(axis=1), y)
    return model, found


def naive_rows(model: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    found = []
    for record, label in zip(x, labels, strict=True):
        model.zero_grad()
        cross_entropy(model(record[None]), label[None]).backward()
        found.append(torch.cat([p.grad.reshape(-1) for p in model.parameters()]).numpy())
    return np.stack(found)


def array(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def test_rows_are_those_of_a_loop_over_records() -> None:
    model, found = made()
    x, labels = array(5, 3, 3), np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0]]
    expected = naive_rows(model, torch.as_tensor(x), torch.as_tensor(labels))
    np.testing.assert_allclose(found.rows(x, labels), expected, atol=1e-6)


@pytest.mark.parametrize("cosine", [True, False])
def test_distances_and_their_slopes_are_those_of_a_loop_over_batches(cosine: bool) -> None:
    model, found = made()
    x, seen = array(3, 2, 3, 3), array(3, found.rows(*found.batch()).shape[1], seed=2) - 0.5
    labels = np.asarray(array(3, 2, 4, seed=3), dtype=np.float32)
    labels /= labels.sum(axis=2, keepdims=True)
    clip = np.array([np.inf, 0.3, 0.6], dtype=np.float32)

    def naive(x: np.ndarray) -> np.ndarray:
        values = []
        for records, of, wanted, limit in zip(x, labels, seen, clip, strict=True):
            rows = naive_rows(model, torch.as_tensor(records), torch.as_tensor(of)).astype(np.float64)
            norms = np.linalg.norm(rows, axis=1, keepdims=True)
            update = (rows * np.minimum(1.0, limit / norms)).sum(axis=0)
            angle = update @ wanted / np.linalg.norm(update) / np.linalg.norm(wanted)
            values.append(1 - angle if cosine else np.square(update - wanted).sum())
        return np.array(values)

    apart, slope, by_label = found.match(x, labels, seen, clip=clip, cosine=cosine)
    np.testing.assert_allclose(apart, naive(x), rtol=1e-4)
    step = array(*x.shape, seed=4) - np.float32(0.5)
    moved = (naive(x + np.float32(1e-2) * step) - naive(x - np.float32(1e-2) * step)) / 2e-2
    np.testing.assert_allclose((slope * step).sum(axis=(1, 2, 3)), moved, rtol=0.02, atol=1e-4)
    assert by_label.shape == labels.shape and np.abs(by_label).max() > 0


def test_a_record_is_read_off_exactly_and_so_is_its_label() -> None:
    _, found = made(activation=nn.ReLU)
    x, labels = found.batch()
    rows = found.rows(x, labels)
    np.testing.assert_allclose(inverting.read_off(rows, found)[:, 0], x, atol=1e-5)
    read = inverting.labels_of(rows, 1, found, 0.0, 1.0)
    np.testing.assert_array_equal(read[:, 0], labels)


def test_a_neuron_that_one_record_alone_excites_gives_it_away() -> None:
    _, found = made(b=2, activation=nn.ReLU, middle=0.5)
    x, labels = found.batch()
    rows = found.rows(x, labels)
    _, bias, width, _ = found.dense
    excited = rows[:, bias : bias + width] != 0
    alone = np.flatnonzero(excited.sum(axis=0) == 1)
    assert alone.size
    of_each = inverting.of_each_neuron(rows.sum(axis=0)[None], found)[0]
    owners = excited[:, alone].argmax(axis=0)
    np.testing.assert_allclose(of_each[alone], x[owners], atol=1e-4)


def test_labels_of_several_records_are_counted() -> None:
    _, found = made(b=12)
    x, labels = found.batch()
    rows = found.rows(x, labels)
    read = inverting.labels_of(rows.reshape(3, 4, -1).sum(axis=1), 4, found, 0.0, 1.0)
    wanted = labels.reshape(3, 4, -1).sum(axis=1)
    assert np.minimum(read.sum(axis=1), wanted).sum() >= 11


@cache
def pool() -> Canaries:
    x, y = digits()
    rng = np.random.default_rng(5)
    return make_pool(x, y, n_canaries=20, test_fraction=0.1, rng=rng).draw(rng)


@cache
def inverted(noise: float | None, **options: object) -> list[Rebuilt | Note]:
    recipe = {"records": 4, "iterations": 60, "restarts": 1, "height": 8, "width": 8, **options}
    fit = fit_plain if noise is None else fit_opacus
    private = {} if noise is None else {"noise_multiplier": noise, "accountant": "rdp"}
    target = TrainingFunction(
        name="t", fit=fit, delta=1e-5, options={"epochs": 1, "batch_size": 300, **private}
    )
    view = target.train(pool(), seed=3, device="cpu", attacks=(GradientInversion(**recipe),))
    return [e for e in view.evidence if getattr(e, "source", "") == "gradient-inversion"]


def score(found: list[Rebuilt], name: str, **wanted: object) -> Score:
    (item,) = (f for f in found if all(getattr(f, key) == value for key, value in wanted.items()))
    return next(each for each in item.scores if each.name == name)


METHODS = ("Inverting Gradients", "DLG", "read off the first layer")


def test_digits_are_rebuilt_from_an_update_without_privacy() -> None:
    found = inverted(None)
    assert {item.condition for item in found} == {"as released"}
    for method in METHODS:
        assert score(found, "ssim", real=True, method=method).mean > 0.9, method
        assert score(found, "features", real=True, method=method).mean == 1.0
    assert score(found, "labels", real=True, method=METHODS[0]).mean == 1.0


def test_noise_of_the_real_step_leaves_nothing_and_clipping_alone_leaves_all() -> None:
    noisy, clipped = inverted(1.5), inverted(1e-6)
    for method in METHODS:
        assert score(noisy, "ssim", real=True, method=method, condition="as released").mean < 0.5
    for method in METHODS[::2]:
        for found in (noisy, clipped):
            bare = score(found, "ssim", real=True, method=method, condition="without clip and noise")
            assert bare.mean > 0.9, method
        # Clipping alone changes the length of a record's gradient, and its direction is what gives it away.
        assert score(clipped, "ssim", real=True, method=method, condition="as released").mean > 0.9
    read = score(clipped, "psnr, no box", real=True, method=METHODS[2], condition="as released")
    assert read.bound is not None and read.mean < read.bound


def test_pictures_of_records_are_kept_only_where_asked_for() -> None:
    quiet, loud = inverted(None), inverted(None, show_records=True, iterations=2)
    assert {p.real for item in quiet for p in item.panels} == {False}
    assert {p.real for item in loud for p in item.panels} == {False, True}
    assert all(len(p.pixels) == 8 and max(map(max, p.pixels)) <= 255 for item in loud for p in item.panels)


def test_batches_are_inverted_and_flat_records_have_no_pictures() -> None:
    found = inverted(None, batch=2, height=0, width=0)
    assert all(item.batch == 2 and not item.panels and item.real for item in found)
    assert {s.name for item in found for s in item.scores} == {"psnr", "psnr, no box", "features", "labels"}
    assert score(found, "psnr", method=METHODS[0]).mean > 15 > score(found, "psnr", method=METHODS[0]).blind


class Smoothed(Loop):
    """Trains with another loss than the cross-entropy of the labels."""

    def loss(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return cross_entropy(self.wrapped(features), labels, label_smoothing=0.3)


def looped(loop: type[Loop] = Loop, **options: object):
    def fit(x, y, *, seed, device):
        x, y = torch.as_tensor(x), torch.as_tensor(y)
        return loop(x=x, y=y, epochs=1, accountant="rdp", **options).fit()

    return fit


@pytest.mark.parametrize(
    ("fit", "reason"),
    [
        (looped(grad_sample_mode="ghost"), "no per-record gradients are formed"),
        (looped(Smoothed), "not those of the cross-entropy"),
        (looped(network=lambda n, _: nn.Sequential(nn.Linear(n, 4), nn.GLU())), "last layer"),
    ],
    ids=["ghost", "smoothed", "gated"],
)
def test_it_says_why_it_cannot_be_tried(fit, reason: str) -> None:
    view = TrainingFunction(name="t", fit=fit, delta=1e-5).train(
        canaries(), seed=3, device="cpu", attacks=(GradientInversion(),)
    )
    (note,) = (e for e in view.evidence if isinstance(e, Note) and e.source == "gradient-inversion")
    assert note.check == NOT_TRIED and reason in note.measured


def test_nothing_of_the_run_changes_but_what_noise_comes_next() -> None:
    """The same weights as without the attack, where nothing is random after the first batch."""
    weights = [
        TrainingFunction(name="t", fit=fit_plain, delta=1e-5, options={"epochs": 1})
        .train(pool(), seed=3, device="cpu", attacks=attacks)
        .weights_sha256
        for attacks in ((), (GradientInversion(records=2, iterations=2, height=8, width=8),))
    ]
    assert weights[0] == weights[1]


def test_impossible_recipes_are_refused() -> None:
    for recipe in ({"batch": 0}, {"records": 2, "batch": 4}, {"iterations": 0}, {"show_records": True}):
        with pytest.raises(UsageError):
            build("attack", "gradient-inversion", ATTACKS, recipe)


def test_psnr_of_a_known_error() -> None:
    x = np.zeros((2, 10))
    np.testing.assert_allclose(likeness.psnr(x + 0.1, x, 1.0), 20.0)
    np.testing.assert_allclose(likeness.psnr(x, x, 1.0), likeness.BEST_PSNR)
    np.testing.assert_allclose(likeness.psnr(x + 1.0, x, 10.0), 20.0)


def naive_ssim(x: np.ndarray, y: np.ndarray, span: float) -> float:
    """Windows one by one, on pictures that are mirrored beyond their edges."""
    radius = min(5, (min(x.shape) - 1) // 2)
    grid = np.exp(-np.square(np.arange(-radius, radius + 1)) / (2 * 1.5**2))
    weights = np.outer(grid, grid) / grid.sum() ** 2
    a, b = (np.pad(each, radius, mode="symmetric") for each in (x, y))
    values = []
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            p, q = (each[i : i + 2 * radius + 1, j : j + 2 * radius + 1] for each in (a, b))
            m, n = (weights * p).sum(), (weights * q).sum()
            v, w = (weights * (p - m) ** 2).sum(), (weights * (q - n) ** 2).sum()
            c = (weights * (p - m) * (q - n)).sum()
            one, two = (0.01 * span) ** 2, (0.03 * span) ** 2
            values.append((2 * m * n + one) * (2 * c + two) / ((m * m + n * n + one) * (v + w + two)))
    return float(np.mean(values))


def test_ssim_is_that_of_windows_one_by_one_and_has_its_properties() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((3, 12, 9)), rng.random((3, 12, 9))
    found = likeness.ssim(x, y, 1.0)
    np.testing.assert_allclose(found, [naive_ssim(a, b, 1.0) for a, b in zip(x, y, strict=True)], atol=1e-9)
    np.testing.assert_allclose(found, likeness.ssim(y, x, 1.0))
    np.testing.assert_allclose(likeness.ssim(x, x, 1.0), 1.0)
    np.testing.assert_allclose(found, likeness.ssim(255 * x, 255 * y, 255.0))
    noise = rng.standard_normal(x.shape)
    falling = [likeness.ssim(x + scale * noise, x, 1.0).mean() for scale in (0.0, 0.05, 0.2, 1.0)]
    assert falling == sorted(falling, reverse=True) and falling[-1] < 0.5
    assert (likeness.ssim(1 - x, x, 1.0) < 0).all()


def test_records_are_matched_as_well_as_by_trying_all_orders() -> None:
    found, wanted = array(4, 6), array(3, 6, seed=9)
    chosen = likeness.matched(found, wanted)
    errors = {p: np.square(found[list(p)] - wanted).sum() for p in permutations(range(4), 3)}
    assert tuple(chosen) == min(errors, key=lambda p: errors[p])


def test_the_best_reconstruction_without_a_prior_has_the_error_that_is_stated(capsys) -> None:
    rng = np.random.default_rng(1)
    x = rng.random(64)
    norm, sigma, n = float(np.linalg.norm(x)), 0.05, 4000
    rebuilt = x + sigma * norm * rng.standard_normal((n, x.size))
    measured = likeness.psnr(rebuilt, np.tile(x, (n, 1)), 2.0)
    stated = no_prior.expected_psnr(np.array([norm]), x.size, noise_multiplier=sigma, span=2.0)[0]
    errors = np.square(rebuilt - x).mean(axis=1)
    limits = np.quantile(errors, [0.1, 0.5, 0.9])
    chances = no_prior.chance_of_error_below(limits, norm, x.size, noise_multiplier=sigma)
    with capsys.disabled():
        print(f"\nwithout a prior: {measured.mean():.3f} dB measured, {stated:.3f} stated; chances {chances}")
    assert abs(measured.mean() - stated) < 4 * measured.std() / np.sqrt(n)
    np.testing.assert_allclose(chances, [0.1, 0.5, 0.9], atol=0.03)


def test_test_cards_differ_and_fill_their_range() -> None:
    drawn = cards.cards(8, 8, 8)
    assert drawn.shape == (8, 8, 8) and drawn.min() >= 0 and drawn.max() <= 1
    assert all(np.ptp(card) > 0.5 for card in drawn)
    flat = drawn[:4].reshape(4, -1)
    assert np.abs(flat[:, None] - flat[None]).max(axis=2)[~np.eye(4, dtype=bool)].min() > 0.3
    assert (
        max(len(panel.pixels) for panel in cards.panels(np.zeros((1, 100, 70)), 0, 1, "r", real=False)) <= 32
    )
