"""What a model answers: changed copies, distances to another label, gradients, and sequences of tokens."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import nn

from dpaudit.asking import Asked
from dpaudit.errors import TrialError, UsageError
from dpaudit.protocols import View
from dpaudit.store import Store
from dpaudit.targets.answers import (
    MOST_IMAGES,
    changed,
    distances,
    gradient_norms,
    log_probabilities,
)
from dpaudit.targets.observed import TrainingFunction
from dpaudit.targets.trainer import fit_opacus
from tests.training import canaries


@pytest.mark.parametrize("shape", [(3, 5, 6), (3, 2, 5, 6)])
def test_an_image_is_shifted_by_a_pixel_and_mirrored(shape):
    x = np.random.default_rng(0).random(shape)
    copies = list(changed(x, MOST_IMAGES))
    assert len(copies) == 17
    assert all(copy.shape == shape and not np.array_equal(copy, x) for copy in copies)
    assert len({copy.tobytes() for copy in copies}) == 17
    assert np.array_equal(copies[0][..., 1:], x[..., :-1])
    assert np.array_equal(copies[8], x[..., ::-1])


def test_an_image_has_no_more_copies_than_that():
    with pytest.raises(UsageError, match="at most 17 changed copies"):
        changed(np.zeros((2, 3, 3)), 18)


def test_rows_of_a_table_get_the_same_little_noise_for_every_model():
    x = np.random.default_rng(0).normal(size=(4000, 3)) * [1.0, 10.0, 0.0]
    first, again = list(changed(x, 3)), list(changed(x, 3))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    np.testing.assert_allclose((first[2] - x).std(axis=0), [0.1, 1.0, 0.0], rtol=0.05, atol=1e-12)
    assert not np.array_equal(first[0], first[1])


class Halfspace(nn.Module):
    """Class 1 to the right of 0 in the first feature."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([-x[:, 0], x[:, 0]], dim=1)


def test_the_distance_along_a_direction_is_where_the_line_crosses_the_boundary():
    x = np.column_stack([np.linspace(-1.0, 1.0, 41) + 0.01, np.random.default_rng(0).normal(size=41)])
    y = (x[:, 0] > 0).astype(np.int64)
    y[3] = 1 - y[3]
    found = distances(Halfspace(), x, y, 6, "cpu")
    rng = np.random.default_rng([20_211_207, 1])
    for row in found:
        step = x.std(axis=0) * rng.standard_normal(x.shape)
        crossing = -x[:, 0] / step[:, 0]
        expected = np.where((crossing > 0) & (crossing <= 20.0), crossing, np.inf)
        far = np.arange(41) != 3
        reached = far & np.isfinite(row)
        # Bisection of a rung of the ladder, or of [0, its first rung].
        np.testing.assert_allclose(row[reached], expected[reached], rtol=0.02, atol=0.02 / 2**6)
        assert np.array_equal(np.isinf(row[far]), np.isinf(expected[far]))
        assert row[3] == 0.0


def test_a_label_that_never_changes_is_infinitely_far():
    x = np.random.default_rng(0).normal(size=(5, 2))
    constant = lambda z: torch.tensor([[1.0, 0.0]]).expand(len(z), 2)  # noqa: E731
    assert np.isinf(distances(constant, x, np.zeros(5, dtype=np.int64), 2, "cpu")).all()


class Branching(nn.Module):
    """Looks at a value, which cannot be vectorised."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.layer(x)
        return out if bool(out.sum() > -1e9) else -out


@pytest.mark.parametrize("model", [nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), Branching()])
def test_gradient_norms_are_those_of_single_backward_passes(model):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(70, 3)), rng.integers(0, 2, 70)
    found = gradient_norms(model, x, y, "cpu")
    for i in range(0, 70, 7):
        model.zero_grad()
        loss = nn.functional.cross_entropy(
            model(torch.tensor(x[i : i + 1], dtype=torch.float32)), torch.tensor(y[i : i + 1])
        )
        loss.backward()
        square = sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None)
        assert found[i] == pytest.approx(square**0.5, rel=1e-4)


def test_a_function_has_no_gradients():
    assert gradient_norms(lambda x: x, np.zeros((3, 2)), np.zeros(3, dtype=np.int64), "cpu").shape == (0,)


class Bigram(nn.Module):
    """Next token from this one."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.table(tokens.long().clamp(min=0))


def test_a_sequence_has_the_mean_log_probability_of_its_tokens_and_padding_counts_for_nothing():
    torch.manual_seed(0)
    model = Bigram()
    tokens = np.array([[0, 1, 2, 3], [4, 4, -1, -1]], dtype=np.float64)
    table = torch.log_softmax(model.table.weight.double(), dim=1).detach().numpy()
    found = log_probabilities(model, tokens, "cpu")
    assert found.shape == (2, 1)
    assert found[0, 0] == pytest.approx((table[0, 1] + table[1, 2] + table[2, 3]) / 3)
    assert found[1, 0] == pytest.approx(table[4, 4])
    assert gradient_norms(model, tokens, np.zeros(2, dtype=np.int64), "cpu")[0] > 0


def test_a_sequence_without_a_second_token_is_an_error():
    with pytest.raises(TrialError, match="finite logits, found NaN or infinity for 1 of 2"):
        log_probabilities(Bigram(), np.array([[0.0, 1.0], [2.0, -1.0]]), "cpu")
    with pytest.raises(TrialError, match="t > 1"):
        log_probabilities(Bigram(), np.array([[0.0], [2.0]]), "cpu")


def trained(fit, **asked) -> View:
    target = TrainingFunction(
        name="t", fit=fit, delta=1e-5, asked=Asked(**asked), options={"epochs": 1, "hidden": (4,)}
    )
    return target.train(canaries(), seed=0, device="cpu")


def test_a_run_answers_what_was_asked_and_the_store_brings_it_back(tmp_path):
    view = trained(fit_opacus, copies=2, directions=3, gradients=True)
    n = len(view.canaries.y)
    assert view.queries.shape == (2, n, 2)
    assert view.distances.shape == (3, n)
    assert view.gradient_norms.shape == (n,)
    assert view.test_scores.shape == (len(view.canaries.test_y), 2)
    facts = {f.name: getattr(view, f.name) for f in fields(View) if f.name != "canaries"}
    Store(tmp_path).save("key", facts)
    loaded = Store(tmp_path).load("key")
    for name in ("queries", "distances", "gradient_norms", "test_scores"):
        assert np.array_equal(loaded[name], facts[name]), name


def test_nothing_more_is_measured_than_was_asked():
    view = trained(fit_opacus)
    assert (view.queries.size, view.distances.size, view.gradient_norms.size) == (0, 0, 0)


def test_a_language_model_is_a_target_without_copies_and_without_accuracy():
    model = Bigram()
    view = TrainingFunction(
        name="t", fit=lambda x, y, *, seed, device: model, delta=1e-5, asked=Asked(copies=2, directions=1)
    ).train(canaries(), seed=0, device="cpu")
    assert view.scores.shape == (len(view.canaries.y), 1)
    assert np.isnan(view.test_accuracy)
    assert (view.queries.size, view.distances.size) == (0, 0)
