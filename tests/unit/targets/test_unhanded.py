"""Private records that a loop reads past its loader, and what may be read beside one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from opacus import PrivacyEngine
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, random_split

from dpaudit.attacks.replay import ReplayAttack
from dpaudit.targets.observe import observe
from dpaudit.targets.script import _NOBODY
from dpaudit.targets.unhanded import hashes

N, D = 240, 6
GENERATOR = torch.Generator().manual_seed(5)
X = torch.randn(N, D, generator=GENERATOR)
Y = torch.randint(0, 2, (N,), generator=GENERATOR)
PUBLIC = torch.randn(20, D, generator=GENERATOR)
Loss = Callable[..., torch.Tensor]


class _Own(Dataset[Any]):
    def __init__(self) -> None:
        self.features, self.labels = X.numpy().copy(), Y.tolist()

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> Any:
        return torch.from_numpy(self.features[i]), self.labels[i]


def _found(loss: Loss, dataset: Dataset[Any]) -> list[Any]:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, 2))
    with observe((ReplayAttack(steps=1, budget=6),), _NOBODY, np.random.default_rng(0)) as seen:
        model, optimizer, loader = PrivacyEngine().make_private(
            module=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
            data_loader=DataLoader(dataset, batch_size=12),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
        )
        for batch in loader:
            optimizer.zero_grad()
            loss(model, *batch).backward()
            optimizer.step()
    return list(seen.coupling.mixing.unhanded.findings())


def _ordinary(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model(x), y)


def _with_some(rows: torch.Tensor) -> Loss:
    """The same rows in every batch."""
    return lambda model, x, y: cross_entropy(
        model(torch.cat([x, rows])), torch.cat([y, torch.zeros(len(rows), dtype=torch.long)])
    )


def _centred(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model(x - X.mean(0)), y)


def _of_numpy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model(x + torch.tensor(X.numpy()[200:]).mean(0)), y)


def _drawn_to_all(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model(x), y) + 0.1 * torch.cdist(model(x), torch.tanh(X[:, :2])).mean()


@pytest.mark.parametrize("loss", [_with_some(X[100:110]), _centred, _of_numpy, _drawn_to_all])
@pytest.mark.parametrize("dataset", [TensorDataset(X, Y), _Own()])
def test_private_records_past_the_loader_are_found(loss: Loss, dataset: Dataset[Any]) -> None:
    assert len(_found(loss, dataset)) == 1


def _with_public(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return _with_some(PUBLIC)(model, x, y)


def _measured_beside(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        nn.Linear(D, 2)(X).argmax(1).eq(Y).float().mean()
    return cross_entropy(model(x), y)


def _looked_up(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Reads the rows of the batch, and no others, out of all of them."""
    rows = torch.cdist(x, X).argmin(1)
    return cross_entropy(model(X[rows]), y)


def _through_numpy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model(torch.tensor(x.numpy().copy())), y)


@pytest.mark.parametrize("loss", [_ordinary, _with_public, _measured_beside, _looked_up, _through_numpy])
@pytest.mark.parametrize("dataset", [TensorDataset(X, Y), _Own(), Subset(TensorDataset(X, Y), range(180))])
def test_what_is_no_other_private_record_is_not_accused(loss: Loss, dataset: Dataset[Any]) -> None:
    assert not _found(loss, dataset)


class _Views(_Own):
    """Hands out changed rows, and their numbers; what is kept of all records is looked up by these."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = torch.randn(N, 2)

    def __getitem__(self, i: int) -> Any:
        return torch.from_numpy(self.features[i]) + 0.1 * torch.randn(D), i


class _Numbers(_Own):
    def __getitem__(self, i: int) -> Any:
        return (i,)


def test_rows_may_be_looked_up_by_the_numbers_that_a_loader_hands_out() -> None:
    dataset = _Numbers()
    rows = torch.from_numpy(dataset.features)

    def looked_up(model: nn.Module, numbers: torch.Tensor) -> torch.Tensor:
        return cross_entropy(model(rows[numbers]), Y[numbers])

    assert not _found(looked_up, dataset)


def test_what_belongs_to_the_records_of_a_batch_may_be_looked_up() -> None:
    dataset = _Views()

    def clean(model: nn.Module, x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        return cross_entropy(model(0.5 * x + 0.5 * torch.from_numpy(dataset.features)[numbers]), Y[numbers])

    def taught(model: nn.Module, x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        return cross_entropy(model(x), dataset.logits[numbers].softmax(1))

    assert not _found(clean, dataset)
    assert not _found(taught, dataset)


def test_public_rows_that_are_equal_to_private_ones_by_chance_are_not_accused() -> None:
    table = (torch.rand(600, 12, generator=torch.Generator().manual_seed(3)) < 0.5).float()
    public = table[300:]

    def against_public(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return cross_entropy(model(x[:, :D]) * (1 + torch.cdist(x, public).mean(1, keepdim=True)), y)

    assert not _found(against_public, TensorDataset(table[:300], Y.repeat(2)[:300]))


def test_a_public_part_of_the_data_may_be_read() -> None:
    private, public = random_split(TensorDataset(X, Y), [200, 40], generator=torch.Generator().manual_seed(0))
    assert not _found(_with_some(X[torch.tensor(public.indices)]), private)
    assert _found(_with_some(X[torch.tensor(private.indices[:40])]), private)


def test_parts_of_data_sets_of_ones_own_are_known_by_what_is_handed_out() -> None:
    generator = torch.Generator().manual_seed(0)
    private, public = random_split(_Own(), [200, 40], generator=generator)
    assert not _found(_with_some(X[torch.tensor(public.indices)]), private)
    assert _found(_with_some(X[torch.tensor(private.indices[:40])]), private)
    # Which rows it reads for a number, only it knows.
    behind = random_split(_Backwards(), [200, 40], generator=generator)[0]
    others = sorted(set(range(N)) - {N - 1 - i for i in behind.indices})
    assert not _found(_with_some(X[torch.tensor(others)]), behind)


class _Backwards(_Own):
    def __getitem__(self, i: int) -> Any:
        return super().__getitem__(N - 1 - i)


def test_rows_of_whole_numbers_are_known() -> None:
    pixels = torch.randint(0, 256, (N, D), generator=GENERATOR, dtype=torch.uint8)
    others = torch.randint(0, 256, (30, D), generator=GENERATOR, dtype=torch.uint8)

    def minus(rows: torch.Tensor) -> Loss:
        return lambda model, x, y: cross_entropy(model(x / 255 - (rows / 255).mean(0)), y)

    assert _found(minus(pixels[:30]), TensorDataset(pixels, Y))
    assert not _found(minus(others), TensorDataset(pixels, Y))


def test_batches_may_be_kept_for_later() -> None:
    """A loop that steps on the batch before the last, as one that fetches ahead does."""
    kept: list[torch.Tensor] = []

    def late(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        kept.append(x)
        return cross_entropy(
            model(torch.cat(kept[-3:])), torch.zeros(sum(map(len, kept[-3:])), dtype=torch.long)
        )

    assert not _found(late, TensorDataset(X, Y))


def test_equal_rows_and_no_others_have_equal_numbers() -> None:
    found = hashes(torch.cat([X, X.flip(0), X.double().float() + 1e-6]))
    assert found is not None
    first, again, other = np.split(found, 3)
    assert (first == again[::-1]).all()
    assert np.unique(first).size == N
    assert not np.isin(other, first).any()
    assert hashes(Y[:, None]) is None
    numbers = hashes((1000 * X).to(torch.int16))
    assert numbers is not None and np.unique(numbers).size == N
    assert (numbers == hashes((1000 * X).to(torch.int16).long())).all()
    assert hashes(X[:, :2]) is None
