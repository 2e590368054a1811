"""How fast shadow models are trained: as stacks, and one after another as every peer does, in one run.

Run `python bench/shadow.py`; the table goes to bench/results/shadow.md. `--quick` takes fewer models and
repetitions. Methods take turns, and medians are reported. Beside the time on the wall stands the time of the
processor, which other work on the same machine disturbs less.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import machine

from dpaudit.targets.datasets import digits
from dpaudit.targets.ensemble import train_ensemble
from dpaudit.targets.ensemble import training as stacks
from dpaudit.targets.ensemble.stack import MappedStack
from dpaudit.targets.models import mlp
from dpaudit.targets.recipe import Recipe

RESULTS = Path(__file__).parent / "results" / "shadow.md"
THREADS = 2
SIGMA, CLIP = 1.5, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One architecture on one set of records.

    Attributes:
        name: in the table.
        recipe: without privacy.
        x: (n, ...) features.
        y: (n,) labels.
        models: of a stack.
    """

    name: str
    recipe: Recipe
    x: np.ndarray
    y: np.ndarray
    models: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Seconds for one model, on the wall and of the processor."""

    wall: float
    processor: float


def small_cnn() -> nn.Module:
    """The network of Opacus's MNIST example: 26,010 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 8, stride=2, padding=3), nn.ReLU(), nn.MaxPool2d(2, 1),
        nn.Conv2d(16, 32, 4, stride=2), nn.ReLU(), nn.MaxPool2d(2, 1),
        nn.Flatten(), nn.Linear(32 * 4 * 4, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip


def cases(quick: bool, device: str) -> list[Case]:
    x, y = digits()
    x, y = x[:1616].astype(np.float32), y[:1616]
    rng = np.random.default_rng(0)
    images = rng.standard_normal((256, 1, 28, 28)).astype(np.float32)
    perceptron = Recipe(model=partial(mlp, 64, (32,), 10), learning_rate=0.5, epochs=2 if quick else 5)
    network = Recipe(model=small_cnn, learning_rate=0.05, epochs=1 if quick else 2)
    many, few = (256, 64) if device == "cuda" else (128, 16)
    return [
        Case(name="MLP 64-32-10, digits, 808 members", recipe=perceptron, x=x, y=y, models=many),
        Case(
            name="small CNN, 28x28, 128 members",
            recipe=network,
            x=images,
            y=rng.integers(0, 10, 256),
            models=few,
        ),
    ]


def loop(case: Case, recipe: Recipe, device: str, threads: int) -> int:
    """One model as in a peer's code: data loader, model, optimizer; Opacus by `make_private`."""
    torch.set_num_threads(threads)
    inside = np.random.default_rng(1).permutation(len(case.y))[: len(case.y) // 2]
    data = TensorDataset(torch.as_tensor(case.x[inside]), torch.as_tensor(case.y[inside]))
    model = recipe.model().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.learning_rate)
    loader = DataLoader(data, batch_size=recipe.batch_size, shuffle=True)
    if recipe.private:
        model, optimizer, loader = PrivacyEngine().make_private(
            module=model, optimizer=optimizer, data_loader=loader, noise_multiplier=SIGMA, max_grad_norm=CLIP
        )
    for _ in range(recipe.epochs):
        for features, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(features.to(device)), labels.to(device)).backward()
            optimizer.step()
    return 1


def stack(
    case: Case, recipe: Recipe, device: str, threads: int, models: int = 0, mapped: bool = False
) -> int:
    """As many models as a stack has."""
    torch.set_num_threads(threads)
    rng = np.random.default_rng(2)
    models = models or case.models
    member = np.zeros((models, len(case.y)), dtype=bool)
    for row in member:
        row[rng.permutation(len(case.y))[: len(case.y) // 2]] = True
    known = stacks._stack
    if mapped:
        names = frozenset(name for name, _ in recipe.model().named_parameters())
        stacks._stack = lambda recipe, *_: MappedStack(model=recipe.model().to(device), trained=names)
    try:
        ensemble = train_ensemble(recipe, case.x, case.y, member, range(models), device)
    finally:
        stacks._stack = known
    assert not ensemble.reason, ensemble.reason
    return models


Method = Callable[[Case, Recipe, str], int]


def methods(private: bool, quick: bool) -> dict[str, Method]:
    peer = "Opacus, make_private" if private else "PyTorch loop"
    twin = "vmap(grad)" if private else "vmap"
    twins = 4 if quick else 16
    return {
        f"{peer}, 1 thread": partial(loop, threads=1),
        f"{peer}, {THREADS} threads": partial(loop, threads=THREADS),
        f"{twin} of torch.func over {twins} models": partial(
            stack, threads=THREADS, models=twins, mapped=True
        ),
        "stack": partial(stack, threads=THREADS),
    }


def spend(method: Method, case: Case, recipe: Recipe, device: str) -> Spent:
    wall, processor = time.perf_counter(), time.process_time()
    models = method(case, recipe, device)
    if device == "cuda":
        torch.cuda.synchronize()
    return Spent(
        wall=(time.perf_counter() - wall) / models, processor=(time.process_time() - processor) / models
    )


def compare(case: Case, private: bool, quick: bool, device: str) -> list[str]:
    """Rows of the table for one case."""
    recipe = replace(case.recipe, noise_multiplier=SIGMA if private else None, max_grad_norm=CLIP)
    ways = methods(private, quick)
    seen: dict[str, list[Spent]] = {name: [] for name in ways}
    for method in ways.values():
        spend(method, case, replace(recipe, epochs=1), device)
    for _ in range(3 if quick else 5):
        for name, method in ways.items():
            seen[name].append(spend(method, case, recipe, device))
    wall = {name: statistics.median(s.wall for s in of) for name, of in seen.items()}
    processor = {name: statistics.median(s.processor for s in of) for name, of in seen.items()}
    peers = list(ways)[:2]
    fastest, thriftiest = min(wall[p] for p in peers), min(processor[p] for p in peers)
    kind = "DP-SGD" if private else "SGD"
    rows = [
        f"| {case.name} | {kind} | {name} | {1 / wall[name]:.3g} | {fastest / wall[name]:.3g} "
        f"| {1e3 * processor[name]:.3g} | {thriftiest / processor[name]:.3g} |"
        for name in ways
    ]
    print("\n".join(rows), flush=True)
    return rows


def lira(device: str, models: int, private: bool) -> str:
    """Seconds for the shadow models of LiRA by the default recipe, which has 40 epochs."""
    case = cases(False, device)[0]
    recipe = replace(case.recipe, epochs=40, noise_multiplier=SIGMA if private else None, max_grad_norm=CLIP)
    spent = spend(partial(stack, threads=THREADS, models=models), case, recipe, device)
    line = (
        f"- {models} LiRA shadow models of the digits MLP, 40 epochs of {'DP-SGD' if private else 'SGD'}: "
        f"{spent.wall * models:.1f} s on the wall, {spent.processor * models:.1f} s of the processor"
    )
    print(line, flush=True)
    return line


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name(0) if device == "cuda" else f"CPU, {THREADS} threads"
    print(f"{machine()}, {name}")
    rows = [
        row
        for case in cases(arguments.quick, device)
        for private in (False, True)
        for row in compare(case, private, arguments.quick, device)
    ]
    whole = [lira(device, 32 if arguments.quick else 256, private) for private in (False, True)]
    lines = ["# Shadow models a second", "", f"{machine()}, {name}", "", *whole, ""]
    lines += [
        "Ratios are to the faster of the two sequential loops; medians of repetitions that took turns.",
        "",
        "| model | training | how | models/s | ratio | CPU ms a model | ratio |",
        "|---|---|---|--:|--:|--:|--:|",
        *rows,
    ]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
