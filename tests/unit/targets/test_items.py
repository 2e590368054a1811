"""Data sets whose items are made of several records, and those whose items are not."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from dpaudit.targets.items import Items

N = 60
X = torch.randn(N, 5, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % 3


class _Rows(Dataset[Any]):
    """Hands out its rows; what is wrong with others is in `__getitem__`."""

    def __init__(self) -> None:
        self.x, self.y = X.clone(), Y.clone()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        return self.x[i], self.y[i]


class Mixup(_Rows):
    def __getitem__(self, i: int) -> Any:
        j = int(torch.randint(len(self), ()))
        return 0.7 * self.x[i] + 0.3 * self.x[j], self.y[i]


class SometimesMixup(_Rows):
    def __getitem__(self, i: int) -> Any:
        return self.x[i] + (self.x[random.randrange(N)] if random.random() < 0.5 else 0), self.y[i]


class Normalised(_Rows):
    def __getitem__(self, i: int) -> Any:
        return self.x[i] - self.x.mean(0), self.y[i]


class Pairs(_Rows):
    def __getitem__(self, i: int) -> Any:
        return {"anchor": self.x[i], "other": self.x[(i + 7) % N]}


class OfRecords(_Rows):
    def __init__(self) -> None:
        self.records = [{"x": x.tolist(), "y": int(y)} for x, y in zip(X, Y, strict=True)]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> Any:
        other = self.records[np.random.randint(N)]
        return torch.tensor(self.records[i]["x"]) + torch.tensor(other["x"]), self.records[i]["y"]


class Around(_Rows):
    """Mixes what another data set hands out."""

    def __init__(self) -> None:
        self.inner = TensorDataset(X, Y)

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, i: int) -> Any:
        (x, y), (other, _) = self.inner[i], self.inner[int(torch.randint(N, ()))]
        return x + other, y


class Augmented(_Rows):
    def __getitem__(self, i: int) -> Any:
        x = self.x[i] + torch.randn(5) + np.random.normal() + random.random()
        return x.flip(0) if random.random() < 0.5 else x, self.y[i]


class Ordered(_Rows):
    """Looks its rows up under other numbers, which it holds as well."""

    def __init__(self) -> None:
        super().__init__()
        self.order = torch.randperm(N)
        self.numbers = list(range(N))

    def __getitem__(self, i: int) -> Any:
        k = int(self.order[self.numbers[i]])
        return self.x[k], self.y[k]


class Drawing(_Rows):
    """Draws from a generator of its own and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.rng, self.seen = np.random.default_rng(0), np.zeros(N)

    def __getitem__(self, i: int) -> Any:
        self.seen[i] += 1
        self.x[i] *= 1.5
        return self.x[i] * float(self.rng.normal()), self.y[i]


class Caching(_Rows):
    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[int, Any] = {}

    def __getitem__(self, i: int) -> Any:
        if i not in self.cache:
            self.cache[i] = self.x[i] / self.x[i].norm()
        return self.cache[i], self.y[i]


class Table(_Rows):
    def __init__(self) -> None:
        self.table = pytest.importorskip("pandas").DataFrame(X.numpy())

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, i: int) -> Any:
        return torch.tensor(self.table.iloc[i].to_numpy()), 0


class Noted(_Rows):
    """Hands out what is different each time, and what cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = (line for line in "ab")


class Windows(_Rows):
    """Its items are windows of a series that is longer than there are of them."""

    def __len__(self) -> int:
        return N - 4

    def __getitem__(self, i: int) -> Any:
        return self.x[i : i + 5]


def _looked(dataset: Any) -> list[Any]:
    items = Items()
    items.look(dataset)
    items.look(dataset)
    return list(items.findings())


@pytest.mark.parametrize("kind", [Mixup, SometimesMixup, Normalised, Pairs, OfRecords, Around])
def test_items_of_several_records_are_found_and_named(kind: type[_Rows]) -> None:
    for dataset in (kind(), Subset(kind(), range(40)), ConcatDataset([kind(), kind()])):
        (found,) = _looked(dataset)
        assert found.where.startswith(f"{kind.__name__}.__getitem__ (test_items.py:")


@pytest.mark.parametrize("kind", [_Rows, Augmented, Ordered, Drawing, Caching, Table, Noted, Windows])
def test_items_of_one_record_are_not_accused(kind: type[_Rows]) -> None:
    for dataset in (kind(), Subset(kind(), range(40)), ConcatDataset([kind(), kind()])):
        assert not _looked(dataset)


def test_data_and_random_states_are_left_as_they_were() -> None:
    dataset = Drawing()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    _looked(dataset)
    assert torch.equal(dataset.x, X)
    assert not dataset.seen.any()
    assert dataset.rng.normal() == np.random.default_rng(0).normal()
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()


def test_torch_data_sets_are_not_looked_into() -> None:
    assert not _looked(TensorDataset(X, Y))
    assert not _looked(Subset(TensorDataset(X, Y), range(10)))
