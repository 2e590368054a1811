"""Which records a data set reads, and what is said of plain steps before the private ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from opacus import PrivacyEngine
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset, random_split

from dpaudit.attacks.replay import ReplayAttack
from dpaudit.evidence import UNKNOWN
from dpaudit.targets.observe import Observation, observe
from dpaudit.targets.script import _NOBODY
from dpaudit.targets.sources import share, sources


def data(seed: int = 5, size: int = 96) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 6, generator=generator)
    return TensorDataset(x, torch.randint(0, 2, (size,), generator=generator))


WHOLE = data()
TABLE = WHOLE.tensors[0]


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        (WHOLE, WHOLE, True),
        (WHOLE, data(), True),
        (WHOLE, data(6), False),
        (Subset(WHOLE, range(40)), Subset(WHOLE, range(40, 96)), False),
        (Subset(WHOLE, range(41)), Subset(WHOLE, range(40, 96)), True),
        (Subset(Subset(WHOLE, range(40, 96)), [0, 1]), Subset(WHOLE, range(41)), True),
        (Subset(Subset(WHOLE, range(40, 96)), [1, 2]), Subset(WHOLE, range(41)), False),
        (ConcatDataset([data(6), data(7)]), WHOLE, False),
        (ConcatDataset([data(6), WHOLE]), Subset(WHOLE, [3]), True),
        (Subset(ConcatDataset([data(6), WHOLE]), range(96)), WHOLE, False),
        (Subset(ConcatDataset([data(6), WHOLE]), range(97)), WHOLE, True),
        (TensorDataset(TABLE[:40]), TensorDataset(TABLE[40:]), False),
        (TensorDataset(TABLE[:40]), Subset(TensorDataset(TABLE), range(40, 96)), False),
        (TensorDataset(TABLE, torch.zeros(96)), WHOLE, True),
        (TensorDataset(torch.zeros(96)), TensorDataset(torch.ones(96)), False),
        (None, WHOLE, False),
    ],
)
def test_data_sets_share_records_or_do_not(one: Any, other: Any, shared: bool) -> None:
    assert share(sources(one), sources(other)) is shared
    assert share(sources(other), sources(one)) is shared


def trained(
    private: Dataset[Any],
    warm_up: Dataset[Any] | torch.Tensor,
    *,
    mode: str = "hooks",
    frozen: bool = False,
    attacks: Any = (),
) -> Observation:
    """Plain steps on one data set, or on a table without any loader, then private ones on another."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    with observe(attacks, _NOBODY, np.random.default_rng(0)) as seen:
        plain = torch.optim.SGD(network.parameters(), lr=0.1)
        batches = (
            [(warm_up, torch.zeros(len(warm_up), dtype=torch.long))]
            if isinstance(warm_up, torch.Tensor)
            else DataLoader(warm_up, batch_size=16)
        )
        for x, y in batches:
            plain.zero_grad()
            cross_entropy(network(x), y).backward()
            plain.step()
        if frozen:
            network[0].requires_grad_(False)
        model, optimizer, *_, loader = PrivacyEngine().make_private(
            module=network,
            optimizer=torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1),
            data_loader=DataLoader(private, batch_size=12),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            grad_sample_mode=mode,
            **({"criterion": nn.CrossEntropyLoss()} if mode == "ghost" else {}),
        )
        for x, y in loader:
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()
    return seen


@pytest.mark.parametrize(
    ("warm_up", "frozen", "accused"),
    [
        (lambda: random_split(WHOLE, [40, 56])[0], False, False),
        (lambda: data(6), True, False),
        (data, False, True),
        (data, True, True),
        (lambda: Subset(WHOLE, [95]), False, True),
    ],
)
def test_plain_steps_on_private_records_alone_are_found(
    warm_up: Callable[[], Any], frozen: bool, accused: bool
) -> None:
    public = warm_up()
    numbers = (
        set(range(96)) - set(public.indices) if isinstance(public, Subset) and not accused else range(96)
    )
    findings = {
        f.check for f in trained(Subset(WHOLE, sorted(numbers)), public, frozen=frozen).findings(1e-5)
    }
    assert findings == ({"steps without privacy"} if accused else set())


def test_plain_steps_on_data_of_unknown_origin_are_neither_accused_nor_passed_over() -> None:
    seen = trained(WHOLE, torch.randn(20, 6))
    assert not seen.findings(1e-5)
    assert UNKNOWN in {note.check for note in seen.notes()}


def test_a_loss_that_ghost_clipping_does_not_know_is_found() -> None:
    watching = (ReplayAttack(steps=1, budget=2),)
    found = trained(WHOLE, data(6), mode="ghost", attacks=watching).findings(1e-5)
    assert [f.check for f in found] == ["sensitivity"]
    assert found[0].epsilon == float("inf")


def test_ghost_models_that_step_one_after_the_other_are_not_accused() -> None:
    made = []
    with observe((ReplayAttack(steps=1, budget=2),), _NOBODY, np.random.default_rng(0)) as seen:
        for _ in range(2):
            network = nn.Linear(6, 2)
            made.append(
                PrivacyEngine().make_private(
                    module=network,
                    optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
                    criterion=nn.CrossEntropyLoss(),
                    data_loader=DataLoader(WHOLE, batch_size=12),
                    noise_multiplier=1.0,
                    max_grad_norm=1.0,
                    grad_sample_mode="ghost",
                )
            )
        for x, y in made[0][-1]:
            for model, optimizer, criterion, _ in made:
                optimizer.zero_grad()
                criterion(model(x), y).backward()
            for _, optimizer, _, _ in made:
                optimizer.step()
    assert not any(f.check == "sensitivity" for f in seen.findings(1e-5))
