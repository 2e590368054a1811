"""Batches that were drawn and not used: which are counted, and when their content is seen to decide that."""

from typing import Any

import numpy as np
import pytest
import torch
from opacus import PrivacyEngine
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from dpaudit.targets.observe import Observation, observe
from dpaudit.targets.script import _NOBODY
from tests.unit.targets.test_batches_of_steps import Skip, X, Y, ran, said


def by_class(i: int, x: torch.Tensor, y: torch.Tensor) -> bool:
    return bool((y == 1).sum() < 4)


def measured(seen: Observation) -> str:
    return next((note.measured for note in seen.notes() if note.check == "batches passed over"), "")


@pytest.mark.parametrize(
    ("skip", "stop", "counted"),
    [
        (lambda i, x, y: False, 10**6, ""),
        (lambda i, x, y: False, 7, ""),
        (lambda i, x, y: i % 2 == 1, 10**6, "20 of 40"),
        (lambda i, x, y: i % 2 == 1, 8, "6 of 14"),
        (lambda i, x, y: len(x) < 11, 10**6, " of 40"),
    ],
)
def test_batches_between_steps_are_counted(skip: Skip, stop: int, counted: str) -> None:
    found = measured(ran(skip=skip, stop=stop))
    assert counted in found and bool(found) == bool(counted)


def test_a_choice_by_class_is_contradicted_and_one_by_number_is_not() -> None:
    assert "control flow" in said(ran(skip=by_class, passes=5))[0]
    assert "control flow" not in said(ran(skip=lambda i, x, y: i % 2 == 1, passes=5))[0]


def other_uses(kind: str) -> Observation:
    torch.manual_seed(1)
    network = nn.Linear(6, 3)
    with observe((), _NOBODY, np.random.default_rng(0)) as seen:
        model, optimizer, loader = PrivacyEngine().make_private(
            module=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
            data_loader=DataLoader(TensorDataset(X, Y), batch_size=12),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
        )
        next(iter(loader))

        def trained(batches: Any, every: int = 1) -> None:
            for i, (x, y) in enumerate(batches):
                cross_entropy(model(x), y).backward()
                if (i + 1) % every == 0:
                    optimizer.step()
                    optimizer.zero_grad()

        for _ in range(2):
            if kind == "virtual batches":
                with BatchMemoryManager(
                    data_loader=loader, max_physical_batch_size=5, optimizer=optimizer
                ) as parts:
                    trained(parts)
                continue
            model.allow_grad_accumulation()
            trained(loader, 3 if kind == "accumulation" else 1)
            model.eval()
            for x, _y in loader if kind == "evaluation" else ():
                model(x)
            model.train()
            with torch.no_grad():
                for x, _y in loader if kind == "evaluation" else ():
                    model(x)
    return seen


@pytest.mark.parametrize("kind", ["virtual batches", "accumulation", "evaluation"])
def test_batches_for_something_else_are_not_counted(kind: str) -> None:
    assert measured(other_uses(kind)) == ""
