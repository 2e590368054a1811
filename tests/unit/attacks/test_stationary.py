"""Records that come back from the weights of a small network alone."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpaudit.asking import StationaryAsked
from dpaudit.attacks.reconstruction.stationary import KKTReconstruction
from dpaudit.canary import Canaries, make_pool
from dpaudit.evidence import Rebuilt
from dpaudit.plan import read
from dpaudit.protocols import View
from dpaudit.targets.observed import TrainingFunction
from dpaudit.targets.stationary import TwoLayers, _unexplained, stationary, two_layers
from dpaudit.trial import attacks_of

ATTACK = KKTReconstruction(height=8, width=8, candidates=50)


def parity() -> Any:
    path = Path(__file__).resolve().parents[3] / "examples" / "parity.py"
    spec = importlib.util.spec_from_file_location("parity", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pool_of(seed: int) -> Canaries:
    x, y = parity().load()
    rng = np.random.default_rng(seed)
    return make_pool(x, y, n_canaries=0, test_fraction=0.5, rng=rng).draw(rng)


def view_of(pool: Canaries, fit: Any, attack: KKTReconstruction = ATTACK, **options: Any) -> View:
    target = TrainingFunction(name="t", fit=fit, delta=1e-5, options=options, asked=attack.asked)
    return target.train(pool, seed=1, device="cpu")


def only(found: tuple[Rebuilt, ...] | str) -> Rebuilt:
    assert not isinstance(found, str), found
    return found[0]


def scores(found: tuple[Rebuilt, ...] | str) -> dict[str, tuple[float, float]]:
    return {each.name: (each.mean, each.blind or 0.0) for each in only(found).scores}


@pytest.mark.slow
def test_records_come_back_from_a_converged_network_and_not_from_a_private_one(capsys) -> None:
    rows = []
    for seed in (0, 1, 2):
        pool = pool_of(seed)
        plain = scores(ATTACK.rebuilt(view_of(pool, parity().fit)))
        private = scores(ATTACK.rebuilt(view_of(pool, parity().fit_private, epochs=10)))
        rows.append([*(plain[name] for name in ("ssim", "beyond others")), private["beyond others"]])
    table = np.array(rows)
    with capsys.disabled():
        print("\nrecords in and others, SSIM, nearer than any other; private:", table.mean(axis=0).round(3))
    (like, unlike), (beyond, chance), (hidden, _) = table.mean(axis=0)
    assert like > unlike
    assert beyond > 3 * chance
    # By chance three of 150 are nearer, and eight or more about once in twenty times.
    assert hidden < 2.5 * chance


def test_what_is_left_unexplained_is_that_of_gradients_taken_one_by_one() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 2, bias=False))
    x = torch.randn(4, 5)
    weights = torch.tensor([0.3, -0.2, 0.5, -0.1])
    first, last = model[0], model[2]
    # Both logits move against each other, as they do from small initial weights.
    with torch.no_grad():
        last.weight[0] = -last.weight[1]
    parts = [torch.zeros_like(p) for p in model.parameters()]
    for record, weight in zip(x, weights, strict=True):
        logits = model(record[None])[0]
        slopes = torch.autograd.grad(logits[1] - logits[0], list(model.parameters()))
        parts = [part + weight * slope for part, slope in zip(parts, slopes, strict=True)]
    whole = sum(float(p.detach().square().sum()) for p in model.parameters())
    naive = sum(
        float((p.detach() - q).square().sum()) for p, q in zip(model.parameters(), parts, strict=True)
    )
    network = TwoLayers(
        weight=first.weight.detach(),
        bias=first.bias.detach(),
        readout=(last.weight[1] - last.weight[0]).detach(),
    )
    found = float(_unexplained(network, x, weights, slope=1e5))
    assert found == pytest.approx(naive / whole, rel=1e-4)


def test_the_search_finds_the_one_record_that_weights_are_made_of() -> None:
    rng = np.random.default_rng(0)
    record = rng.uniform(-1, 1, 6)
    readout = rng.standard_normal(40)
    model = torch.nn.Sequential(torch.nn.Linear(6, 40), torch.nn.ReLU(), torch.nn.Linear(40, 2))
    with torch.no_grad():
        on = torch.as_tensor(readout > 0).float()
        v = torch.as_tensor(readout, dtype=torch.float32) * on
        model[0].weight[:] = 0.2 * v[:, None] * torch.as_tensor(record, dtype=torch.float32)
        model[0].bias[:] = 0.2 * v
        model[2].weight[:] = torch.stack([-v / 2, v / 2])
        model[2].bias.zero_()
    public = rng.uniform(-1, 1, (50, 6))
    with torch.no_grad():
        logs = torch.log_softmax(model(torch.as_tensor(public, dtype=torch.float32)).double(), 1).numpy()
    found = stationary(model, public, logs, public, StationaryAsked(candidates=2, iterations=1500))
    assert np.corrcoef(found[0], record)[0, 1] > 0.98


def test_the_example_asks_for_it() -> None:
    plan, _ = read(Path(__file__).resolve().parents[3] / "examples" / "parity.toml")
    assert attacks_of(plan)["kkt-reconstruction"] == ATTACK
    assert [target.role for target in plan.targets] == ["audited", "control"]


class Scaled(torch.nn.Module):
    """Preprocessing before the layers."""

    def __init__(self, inner: torch.nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.inner(2 * x)
        return out


def layers(*widths: int) -> torch.nn.Sequential:
    made: list[torch.nn.Module] = []
    for width, following in pairwise(widths):
        made += [torch.nn.Linear(width, following), torch.nn.ReLU()]
    return torch.nn.Sequential(*made[:-1])


@pytest.mark.parametrize(
    "model",
    [
        layers(6, 2),
        layers(6, 8, 8, 2),
        layers(6, 8, 3),
        Scaled(layers(6, 8, 2)),
        torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)),
        lambda x: x[:, :2],
    ],
    ids=["one layer", "three layers", "three classes", "preprocessing", "another activation", "a function"],
)
def test_other_models_are_told_apart(model: Any) -> None:
    x = np.random.default_rng(0).standard_normal((20, 6))
    with torch.no_grad():
        logs = torch.log_softmax(model(torch.as_tensor(x, dtype=torch.float32)).double(), 1).numpy()
    assert two_layers(model, x, logs) is None
    assert stationary(model, x, logs, x, StationaryAsked(candidates=4, iterations=2)).shape == (0,)


def test_a_network_without_a_bias_is_read() -> None:
    x = np.random.default_rng(0).standard_normal((20, 6))
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 8, bias=False), torch.nn.ReLU(), torch.nn.Linear(8, 2, bias=False)
    )
    with torch.no_grad():
        logs = torch.log_softmax(model(torch.as_tensor(x, dtype=torch.float32)).double(), 1).numpy()
    network = two_layers(model, x, logs)
    assert network is not None and network.bias is None
    assert stationary(model, x, logs, x, StationaryAsked(candidates=4, iterations=2)).shape == (4, 6)


def test_it_says_what_is_missing_and_keeps_pictures_only_where_asked_for() -> None:
    pool = pool_of(0)
    view = view_of(pool, parity().fit, replace(ATTACK, iterations=2), steps=20)
    assert not only(ATTACK.rebuilt(view)).panels
    panels = only(ATTACK.with_records().rebuilt(view)).panels
    assert {panel.row for panel in panels} == {"rebuilt", "nearest record trained on"}
    assert all(panel.real for panel in panels)
    assert only(ATTACK.rebuilt(view)).qualitative
    flat = replace(ATTACK, height=0, width=0)
    assert [each.name for each in only(flat.rebuilt(view)).scores] == ["correlation", "beyond others"]
    assert "two dense layers" in str(ATTACK.rebuilt(replace(view, stationary=np.zeros(0))))
    everybody = replace(pool, member=np.ones_like(pool.member))
    assert "trained on and others" in str(ATTACK.rebuilt(replace(view, canaries=everybody)))
