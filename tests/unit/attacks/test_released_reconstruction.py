"""What is rebuilt from final models: class representatives, and the last unknown record of a linear model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from dpaudit.asking import RepresentativesAsked
from dpaudit.attacks.reconstruction import likeness
from dpaudit.attacks.reconstruction.informed import Informed, closed_form
from dpaudit.attacks.reconstruction.model_inversion import ModelInversion, near
from dpaudit.canary import Canaries, make_pool
from dpaudit.errors import UsageError
from dpaudit.evidence import Rebuilt
from dpaudit.likeness import Score, picture
from dpaudit.protocols import View
from dpaudit.registry import ATTACKS, build
from dpaudit.targets.convex import fit_convex
from dpaudit.targets.datasets import digits
from dpaudit.targets.observed import TrainingFunction
from dpaudit.targets.representatives import representatives
from dpaudit.targets.trainer import fit_opacus, fit_plain
from tests.views import world

INVERSION = ModelInversion(height=8, width=8, restarts=2, iterations=80)
INFORMED = Informed(height=8, width=8, weight_decay=0.01, records=24)


def some_digits(n: int) -> Canaries:
    x, y = digits()
    rng = np.random.default_rng(5)
    chosen = rng.permutation(len(x))[:n]
    return make_pool(x[chosen], y[chosen], n_canaries=0, test_fraction=0.1, rng=rng).draw(rng)


def one_person_a_class(classes: int = 6) -> Canaries:
    """Two different pictures of each class, of which one is trained on."""
    rng = np.random.default_rng(3)
    x = np.kron(rng.random((2 * classes, 4, 4)) > 0.5, np.ones((2, 2)))
    y, member = np.tile(np.arange(classes), 2), np.repeat([True, False], classes)
    canary = np.zeros(2 * classes, dtype=bool)
    return Canaries(x=x, y=y, member=member, canary=canary, test_x=x[:2], test_y=y[:2])


def view_of(
    pool: Canaries, fit: Callable[..., Any], attack: ModelInversion | Informed, **options: Any
) -> View:
    target = TrainingFunction(name="t", fit=fit, delta=1e-5, options=options, asked=attack.asked)
    return target.train(pool, seed=1, device="cpu")


def only(found: tuple[Rebuilt, ...] | str) -> Rebuilt:
    assert not isinstance(found, str), found
    return found[0]


def score(found: tuple[Rebuilt, ...] | str, name: str) -> Score:
    return next(each for each in only(found).scores if each.name == name)


def perturbed(x: np.ndarray, y: np.ndarray, *, seed: int, device: str, noise: float) -> torch.nn.Module:
    """Output perturbation: noise on the optimum."""
    model = fit_convex(x, y, seed=seed, device=device)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(noise * torch.randn_like(weights))
    return model


def naive_informed(weights: np.ndarray, x: np.ndarray, y: np.ndarray, decay: float, i: int) -> tuple:
    """One record, from the gradients of all others one by one."""
    total = len(x) * decay * weights
    for j in range(len(x)):
        if j != i:
            logits = [row[:-1] @ x[j] + row[-1] for row in weights]
            p = np.exp(logits) / np.sum(np.exp(logits))
            for c in range(len(weights)):
                total[c] += (p[c] - (c == y[j])) * np.append(x[j], 1.0)
    row = int(np.argmax(np.abs(total[:, -1])))
    return total[row, :-1] / total[row, -1], int(np.argmax(total[:, -1]))


def test_the_closed_form_is_that_of_one_record_after_the_other() -> None:
    rng = np.random.default_rng(0)
    weights, x, y = rng.standard_normal((3, 6)), rng.random((7, 5)), rng.integers(0, 3, 7)
    found, labels = closed_form(weights, x, y, 0.02)
    for i in range(len(x)):
        record, label = naive_informed(weights, x, y, 0.02, i)
        np.testing.assert_allclose(found[i], record, rtol=1e-9)
        assert labels[i] == label


def test_the_last_record_of_a_convex_model_comes_back_and_under_noise_it_does_not(capsys) -> None:
    pool = some_digits(120)
    bare = INFORMED.rebuilt(view_of(pool, fit_convex, INFORMED))
    noisy = INFORMED.rebuilt(view_of(pool, perturbed, INFORMED, noise=0.1))
    private = INFORMED.rebuilt(view_of(pool, fit_opacus, INFORMED, hidden=(), noise_multiplier=1.0, epochs=3))
    with capsys.disabled():
        print(
            "\nPSNR of the last record:", *(round(score(f, "psnr").mean, 1) for f in (bare, noisy, private))
        )
    assert score(bare, "psnr").mean > 60 and score(bare, "ssim").mean > 0.999
    assert score(bare, "labels").mean == score(bare, "rebuilt").mean == 1
    for found in (noisy, private):
        assert score(found, "rebuilt").mean == 0
        assert score(found, "psnr").mean < score(found, "psnr").blind + 1.0


def test_whoever_does_not_know_the_regulariser_rebuilds_nothing() -> None:
    view = view_of(some_digits(120), fit_convex, INFORMED)
    assert score(replace(INFORMED, weight_decay=0.0).rebuilt(view), "rebuilt").mean == 0


def test_a_class_that_is_one_person_is_that_person_and_the_pictures_are_kept_only_where_asked_for() -> None:
    """The representative of a class of one record is that record, and not the one that was left out."""
    pool = one_person_a_class()
    attack = ModelInversion(iterations=150, restarts=2)
    view = view_of(pool, fit_plain, attack, epochs=150, batch_size=6)
    found = score(attack.rebuilt(view), "correlation")
    assert found.lower is not None and found.blind is not None
    assert found.mean > 0.4 and found.lower > found.blind + 0.2
    private = view_of(pool, fit_opacus, attack, epochs=3, batch_size=6, noise_multiplier=4.0)
    hidden = score(attack.rebuilt(private), "correlation")
    assert hidden.blind is not None and hidden.mean < hidden.blind + 0.2
    assert only(attack.rebuilt(view)).qualitative and not only(attack.rebuilt(view)).panels
    shown = only(attack.with_records().rebuilt(view)).panels
    assert len(shown) == 3 * 6 and all(panel.real for panel in shown)


def test_representatives_of_digits_are_nearest_to_their_own_class_and_to_no_member() -> None:
    found = INVERSION.rebuilt(view_of(some_digits(600), fit_plain, INVERSION, epochs=10))
    average, nearest = score(found, "average"), score(found, "correlation")
    assert average.lower is not None and average.blind is not None and average.lower > average.blind + 0.1
    assert nearest.blind is not None and abs(nearest.mean - nearest.blind) < 0.1


def test_every_class_is_climbed_within_the_range_and_alike_every_time() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
    )
    x = np.random.default_rng(0).uniform(-2, 3, (5, 4, 4))

    def made(restarts: int) -> tuple[np.ndarray, np.ndarray]:
        asked = RepresentativesAsked(restarts=restarts, iterations=40, smoothness=0.0, height=0, width=0)
        found = representatives(model, x, 3, asked, "cpu")
        said = torch.log_softmax(model(torch.as_tensor(found, dtype=torch.float32)), dim=1)
        return found, said.diagonal().detach().numpy()

    found, best = made(6)
    assert found.shape == (3, 4, 4) and found.min() >= x.min() - 1e-6 and found.max() <= x.max() + 1e-6
    grey = torch.full((1, 4, 4), (x.min() + x.max()) / 2, dtype=torch.float32)
    before = torch.log_softmax(model(grey), dim=1)[0].detach().numpy()
    assert (best > before + 0.3).all()
    np.testing.assert_array_equal(found, made(6)[0])


def test_likeness_is_that_of_one_picture_after_the_other() -> None:
    rng = np.random.default_rng(2)
    one, others = rng.random((8, 8)), rng.random((4, 8, 8))
    found = near(one, others, 1.0)
    for i, other in enumerate(others):
        assert found["ssim"][i] == pytest.approx(likeness.ssim(one[None], other[None], 1.0)[0])
        assert found["correlation"][i] == pytest.approx(np.corrcoef(one.ravel(), other.ravel())[0, 1])
        assert found["psnr"][i] == pytest.approx(-10 * np.log10(np.square(one - other).mean()))


def undifferentiable(x: np.ndarray, y: np.ndarray, *, seed: int, device: str) -> Callable[..., torch.Tensor]:
    weights = np.random.default_rng(seed).standard_normal((64, 10))
    return lambda given: torch.as_tensor(given.detach().numpy().reshape(len(given), -1) @ weights)


def test_where_it_cannot_be_tried_it_says_why() -> None:
    pool = some_digits(60)
    networks = view_of(pool, fit_plain, INFORMED, epochs=1)
    assert INFORMED.rebuilt(networks) == (
        "its log-probabilities are not those of one dense layer, for which there is a closed form"
    )
    assert "no pictures" in str(ModelInversion().rebuilt(networks))
    opaque = view_of(pool, undifferentiable, INVERSION)
    assert INVERSION.rebuilt(opaque) == "no gradients of the model by its input can be had"
    nothing = replace(world().view(0), scores=np.zeros((4, 0)))
    assert INVERSION.rebuilt(nothing) == INFORMED.rebuilt(nothing) == "there is no final model"
    likelihoods = replace(networks, scores=networks.scores[:, :1])
    assert "no classes" in str(INVERSION.rebuilt(likelihoods))


def test_what_is_a_picture() -> None:
    assert picture((64,), 8, 8) == (8, 8) and picture((3, 9, 7), 0, 0) == (9, 7)
    assert picture((64,), 0, 0) is None and picture((64,), 8, 9) is None and picture((5, 2), 0, 0) is None


def test_impossible_recipes_are_refused() -> None:
    recipes = {"model-inversion": {"restarts": 0}, "informed": {"records": 1}}
    for name, recipe in recipes.items():
        with pytest.raises(UsageError):
            build("attack", name, ATTACKS, recipe)
        with pytest.raises(UsageError):
            build("attack", name, ATTACKS, {"show_records": True})
