"""A stack of models is trained as each would be by PyTorch's loop and by Opacus's, on the same draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from opacus.optimizers import optimizer as opacus_optimizer
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from scipy.stats import ks_2samp
from torch import nn

from dpaudit.attacks.membership.logodds import log_odds
from dpaudit.errors import UsageError
from dpaudit.targets import models
from dpaudit.targets.ensemble import train_ensemble
from dpaudit.targets.ensemble.batches import batches, noise
from dpaudit.targets.ensemble.chunks import chunk_size, step_bytes
from dpaudit.targets.ensemble.dropout import Masks
from dpaudit.targets.ensemble.stack import LayerStack, MappedStack
from dpaudit.targets.ensemble.training import _stack, initial
from dpaudit.targets.observed import log_probabilities
from dpaudit.targets.recipe import Recipe, tensors

TOLERANCE = 1e-4
# Two of the models make three steps an epoch with unequal members, one makes two.
COUNTS = (30, 34, 24)
SEEDS = [5, 17, 3]


def perceptron() -> nn.Module:
    return models.mlp(36, (12,), 3)


def images(inplace: bool = False) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 6, 6)),
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(inplace)),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 2, bias=False),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(24, 3),
    )


def images_in_place() -> nn.Module:
    return images(inplace=True)


def series() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (2, 18)), nn.Conv1d(2, 8, 4, stride=2), nn.GELU(), nn.AvgPool1d(2), nn.Flatten(),
        nn.Linear(32, 3),
    )  # fmt: skip


def per_token() -> nn.Module:
    layers = [nn.Unflatten(1, (4, 9)), nn.Linear(9, 8), nn.LayerNorm(8), nn.SiLU(), nn.Linear(8, 2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 3))


def tokens() -> nn.Module:
    return nn.Sequential(
        nn.Embedding(7, 5), nn.LayerNorm(5), nn.Flatten(), nn.Linear(36 * 5, 3, bias=False), nn.ELU()
    )


def half_frozen() -> nn.Module:
    return models.half_frozen(36, 3)


class Residual(nn.Module):
    """No chain of layers, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(36, 10), nn.Linear(10, 10)
        self.head, self.scale = nn.Linear(10, 3), nn.Parameter(torch.ones(10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.first(x))
        return self.head(h + self.scale * torch.tanh(self.second(h)))


MODELS: dict[str, tuple[Callable[[], nn.Module], type]] = {
    "mlp": (perceptron, LayerStack),
    "cnn": (images, LayerStack),
    "conv1d": (series, LayerStack),
    "linear over tokens": (per_token, LayerStack),
    "embedding and layer norm": (tokens, LayerStack),
    "half frozen": (half_frozen, LayerStack),
    "vmap": (Residual, MappedStack),
    "vmap of tokens": (partial(models.Tokens, 36, 3), MappedStack),
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "momentum": {"optimizer_options": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}},
    "adam, cosine": {"optimizer": "adam", "learning_rate": 0.01, "schedule": "cosine"},
    "adamw, step": {"optimizer": "adamw", "learning_rate": 0.01, "schedule": "step"},
}


def data(model: Callable[[], nn.Module]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    y = rng.integers(0, 3, 60)
    x = (rng.standard_normal((60, 36)) + 0.3 * y[:, None]).astype(np.float32)
    if model is tokens:
        x = rng.integers(0, 7, (60, 36))
    member = np.zeros((len(COUNTS), 60), dtype=bool)
    for row, count in zip(member, COUNTS, strict=True):
        row[rng.permutation(60)[:count]] = True
    return x, y, member


def recipe_of(model: Callable[[], nn.Module], **options: Any) -> Recipe:
    return Recipe(**{"model": model, "learning_rate": 0.1, "epochs": 3, "batch_size": 12, **options})


def drawn(recipe: Recipe, inside: np.ndarray, seed: int) -> list[list[int]]:
    """The batches that the stack draws for one model, as positions among its members."""
    position = np.cumsum(inside) - 1
    steps = batches(recipe, inside[None], [seed], "cpu")
    return [position[s.index[0][s.inside[0] > 0].numpy()].tolist() for s in steps]


def real_loop(
    recipe: Recipe, x: np.ndarray, y: np.ndarray, inside: np.ndarray, seed: int, patch: pytest.MonkeyPatch
) -> nn.Module:
    """The recipe's loop, by PyTorch or Opacus as they are, with what they draw replaced."""
    given = drawn(recipe, inside, seed)
    orders = iter(given)
    size = sum(p.numel() for p in recipe.model().parameters() if p.requires_grad)
    rows = noise(size, [seed], "cpu")
    left: list[torch.Tensor] = []

    def normal(std: float, reference: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        if not left:
            left.append(next(rows)[0].clone())
        row = left.pop()
        if row.numel() > reference.numel():
            left.append(row[reference.numel() :])
        return std * row[: reference.numel()].view_as(reference)

    def one_epoch() -> Iterator[list[int]]:
        return (next(orders) for _ in range(recipe.steps(int(inside.sum()))))

    patch.setattr(UniformWithReplacementSampler, "__iter__", lambda _: one_epoch())
    patch.setattr(
        torch.utils.data.RandomSampler, "__iter__", lambda _: (i for batch in one_epoch() for i in batch)
    )
    patch.setattr(opacus_optimizer, "_generate_noise", normal)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = recipe(x[inside], y[inside], seed=seed, device="cpu")
    assert next(orders, None) is None and not left
    return model


def assert_agree(recipe: Recipe, patch: pytest.MonkeyPatch, stack: type) -> None:
    x, y, member = data(recipe.model)
    features, _ = tensors(x, y)
    assert type(_stack(recipe, features, [0], "cpu")) is stack
    ensemble = train_ensemble(recipe, x, y, member, SEEDS)
    assert ensemble.reason == ""
    for number, (inside, seed) in enumerate(zip(member, SEEDS, strict=True)):
        with patch.context() as context:
            model = real_loop(recipe, x, y, inside, seed, context)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            fresh = dict(recipe.model().named_parameters())
        for name, right in model.named_parameters():
            found = ensemble.values[name][number]
            # Of the way that training moved the weights, which is less than the weights themselves.
            moved = (right - fresh[name]).norm()
            assert (found - right).norm() <= TOLERANCE * moved, name
            assert bool(moved > 0) == right.requires_grad, name
        logits = model.eval()(features).double()
        assert np.allclose(
            ensemble.log_probabilities(x)[number], logits.log_softmax(-1).detach().numpy(), atol=1e-3
        )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in a worker; the kernels of small models wait for each other longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", MODELS)
def test_a_stack_agrees_with_the_loop_of_pytorch(name, monkeypatch):
    model, stack = MODELS[name]
    assert_agree(recipe_of(model), monkeypatch, stack)


@pytest.mark.parametrize("name", MODELS)
def test_a_private_stack_agrees_with_opacus(name, monkeypatch):
    model, stack = MODELS[name]
    assert_agree(recipe_of(model, noise_multiplier=0.5, max_grad_norm=0.8), monkeypatch, stack)


@pytest.mark.parametrize("noise_multiplier", [None, 0.5])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_and_schedules_agree(name, noise_multiplier, monkeypatch):
    recipe = recipe_of(perceptron, noise_multiplier=noise_multiplier, **OPTIMIZERS[name])
    assert_agree(recipe, monkeypatch, LayerStack)


@pytest.mark.parametrize(("noise_multiplier", "sampling"), [(None, "poisson"), (0.5, "shuffle")])
def test_the_other_sampling_agrees(noise_multiplier, sampling, monkeypatch):
    recipe = recipe_of(perceptron, noise_multiplier=noise_multiplier, sampling=sampling)
    assert_agree(recipe, monkeypatch, LayerStack)


def test_empty_poisson_batches_agree(monkeypatch):
    recipe = recipe_of(perceptron, noise_multiplier=0.5, batch_size=1, epochs=1)
    assert any(not batch for batch in drawn(recipe, data(perceptron)[2][0], SEEDS[0]))
    assert_agree(recipe, monkeypatch, LayerStack)


def test_layers_that_work_in_place_agree(monkeypatch):
    assert_agree(recipe_of(images_in_place), monkeypatch, LayerStack)


def regularised() -> nn.Module:
    return nn.Sequential(nn.Linear(36, 16), nn.Dropout(0.4), nn.ReLU(), nn.Linear(16, 3))


@pytest.mark.parametrize("noise_multiplier", [None, 0.5])
@pytest.mark.parametrize("model", [images, Residual, regularised])
def test_a_model_does_not_depend_on_the_stack_that_it_is_in(model, noise_multiplier):
    x, y, member = data(model)
    recipe = recipe_of(model, noise_multiplier=noise_multiplier)
    whole = train_ensemble(recipe, x, y, member, SEEDS)
    for number, seed in enumerate(SEEDS):
        alone = train_ensemble(recipe, x, y, member[number : number + 1], [seed])
        for name, value in alone.values.items():
            assert torch.allclose(value[0], whole.values[name][number], rtol=1e-4, atol=1e-5), name


def test_threads_and_chunks_change_nothing():
    x, y, member = data(perceptron)
    recipe = recipe_of(perceptron, noise_multiplier=0.5)
    many, seeds = np.tile(member, (4, 1)), list(range(12))
    whole = train_ensemble(recipe, x, y, many, seeds, chunk=12)
    torch.set_num_threads(2)
    parts = train_ensemble(recipe, x, y, many, seeds, chunk=1)
    for name, value in whole.values.items():
        assert torch.allclose(value, parts.values[name], rtol=1e-4, atol=1e-5)
    assert len({value.numpy().tobytes() for value in whole.values["1.weight"]}) == 12


def test_a_stack_is_as_large_as_what_a_step_of_its_layers_leaves_behind():
    x, y, _ = data(images)
    features, _ = tensors(x, y)
    sizes = {}
    for model in (perceptron, images, Residual):
        recipe = recipe_of(model, noise_multiplier=0.5, batch_size=100)
        values = initial(recipe, [0], "cpu")
        sizes[model] = step_bytes(recipe, _stack(recipe, features, [0], "cpu"), values, features)
    # 36 pixels with 9 numbers each go into the first convolution and 4 channels come out, of 100 records.
    assert 4 * 100 * 36 * (9 + 4) < sizes[images] < 20 * 4 * 100 * 36 * (9 + 4)
    assert sizes[perceptron] < sizes[images]
    # vmap forms the gradient of every record.
    assert sizes[Residual] > 4 * 100 * sum(p.numel() for p in Residual().parameters())
    assert chunk_size(2**40, 300, "cpu") == 8 and chunk_size(1, 3, "cpu") == 3


def test_training_leaves_the_global_generator_alone():
    x, y, member = data(perceptron)
    before = torch.random.get_rng_state()
    train_ensemble(recipe_of(regularised, epochs=1), x, y, member, SEEDS)
    assert torch.equal(before, torch.random.get_rng_state())


def test_dropout_drops_its_share_of_units_of_each_model_record_and_step_anew():
    masks = Masks(rate=0.3, seeds=torch.tensor([1, 2]), layer=4)
    first, second = masks(torch.ones(2, 400, 50)), masks(torch.ones(2, 400, 50))
    for drawn in (first, second):
        assert set(drawn.unique().tolist()) == {0.0, float(torch.tensor(1.0) / 0.7)}
        # 40,000 coins: the share has a standard deviation of 0.0023.
        assert (drawn == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
        kept = (drawn > 0).double() - 0.7
        for one, other in ((kept[0], kept[1]), (kept[:, 1:], kept[:, :-1]), (kept[..., 1:], kept[..., :-1])):
            assert abs((one * other).mean() / 0.21) < 0.03
    assert abs((((first > 0).double() - 0.7) * ((second > 0).double() - 0.7)).mean() / 0.21) < 0.02
    other_layer = Masks(rate=0.3, seeds=torch.tensor([1, 2]), layer=5)(torch.ones(2, 400, 50))
    assert (other_layer != first).float().mean().item() == pytest.approx(2 * 0.3 * 0.7, abs=0.02)


class Branches(nn.Module):
    """Control flow that depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(36, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x) if x.sum() > 0 else self.head(-x)


class Centred(Branches):
    """A record's logits depend on who else is in the batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x - x.mean(0))


class Random(Branches):
    """Draws in its forward pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x + torch.randn_like(x) * self.training)


class Counts(Branches):
    """Changes a buffer in its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.head(x)


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(36, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))


class Flipped(torch.optim.SGD):
    """An optimizer that nobody knows."""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": normalised}, "BatchNorm1d mixes the records"),
        ({"model": Branches}, "vmap cannot run it"),
        ({"model": Centred}, "depends on the other records"),
        ({"model": Random}, "vmap cannot run it"),
        ({"model": Counts}, "changes its buffers"),
        ({"model": perceptron, "optimizer": Flipped}, "update of Flipped is not known"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_stacked_is_trained_one_after_another_and_says_so(options, words, caplog):
    x, y, member = data(perceptron)
    recipe = recipe_of(options.pop("model"), epochs=1, **options)
    ensemble = train_ensemble(recipe, x, y, member, SEEDS)
    assert words in ensemble.reason
    assert words in caplog.text and "one after another" in caplog.text
    assert ensemble.log_probabilities(x).shape == (3, 60, 3)
    with torch.random.fork_rng():
        torch.manual_seed(SEEDS[1])
        right = recipe(x[member[1]], y[member[1]], seed=SEEDS[1], device="cpu")
    for name, value in right.named_parameters():
        assert torch.equal(ensemble.values[name][1], value)


@pytest.mark.parametrize("noise_multiplier", [None, 0.5])
def test_log_odds_are_distributed_as_of_models_trained_alone(noise_multiplier):
    """Kolmogorov-Smirnov with each model one observation, since records of one model depend on each other."""
    x, y, member = data(perceptron)
    member = np.tile(member, (14, 1))
    recipe = recipe_of(perceptron, noise_multiplier=noise_multiplier, epochs=8)
    alone = []
    for seed, inside in enumerate(member, start=1000):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = recipe(x[inside], y[inside], seed=seed, device="cpu")
        alone.append(log_probabilities(model, x, "cpu"))

    def p_value(other: Recipe, side: np.ndarray) -> float:
        scores = train_ensemble(other, x, y, member, range(len(member))).log_probabilities(x)
        means = [
            [log_odds(one, y)[chosen].mean() for one, chosen in zip(of, side, strict=True)]
            for of in (scores, alone)
        ]
        return float(ks_2samp(*means).pvalue)

    assert min(p_value(recipe, member), p_value(recipe, ~member)) > 0.01
    # It would tell other models: these are trained for half as long.
    assert p_value(replace(recipe, epochs=4), member) < 1e-3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": "adamm"}, "did you mean 'adam'?"),
        ({"schedule": "cosin"}, "did you mean 'cosine'?"),
        ({"sampling": "poison"}, "did you mean 'poisson'?"),
        ({"noise_multiplier": -1.0}, "noise_multiplier=-1.0"),
        ({"max_grad_norm": 0.0}, "max_grad_norm=0.0"),
        ({"epochs": 0}, "epochs=0"),
        ({"optimizer": torch.optim.SGD, "optimizer_options": {"momentum": 0.9}}, "beside a factory"),
    ],
)
def test_a_wrong_recipe_is_refused(options, words):
    with pytest.raises(UsageError) as raised:
        recipe_of(perceptron, **options)
    assert words in str(raised.value)


def test_wrong_members_are_refused():
    x, y, member = data(perceptron)
    with pytest.raises(UsageError, match="one seed a model"):
        train_ensemble(recipe_of(perceptron), x, y, member, [1])
    member[0] = False
    with pytest.raises(UsageError, match="found one without"):
        train_ensemble(recipe_of(perceptron), x, y, member, SEEDS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", MODELS)
def test_a_stack_on_a_gpu_starts_from_the_same_weights_and_learns_as_much(name):
    model, _ = MODELS[name]
    x, y, member = data(model)
    recipe = recipe_of(model, noise_multiplier=0.5)
    losses = [
        -np.take_along_axis(
            train_ensemble(recipe, x, y, np.tile(member, (10, 1)), range(30), device).log_probabilities(x),
            y[None, :, None],
            axis=2,
        ).mean(axis=(1, 2))
        for device in ("cpu", "cuda")
    ]
    assert ks_2samp(*losses).pvalue > 0.001
