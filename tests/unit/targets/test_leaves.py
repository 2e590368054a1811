"""One record under several numbers: repeated indices, joined copies, and what is no repetition."""

import time
from typing import Any

import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset, random_split

from dpaudit.targets.leaves import Units, multiplicities
from tests.unit.targets.test_batches_of_steps import OTHER, OTHER_Y, X, Y, ran, said

DATA, AGAIN, PUBLIC = TensorDataset(X, Y), TensorDataset(X, Y), TensorDataset(OTHER, OTHER_Y)


class Windows(TensorDataset):
    """Reads its tensors in a way of its own."""

    def __init__(self, start: int):
        super().__init__(X)
        self.start = start

    def __len__(self) -> int:
        return 50

    def __getitem__(self, index: int) -> Any:
        return X[self.start + index], Y[self.start + index]


@pytest.mark.parametrize(
    ("data", "most"),
    [
        (Subset(DATA, [0, 1, 2, 2, 2]), 3),
        (Subset(DATA, [0, 239, -1]), 2),
        (Subset(DATA, torch.tensor([3, 4, 3])), 2),
        (ConcatDataset([DATA, DATA, DATA]), 3),
        (ConcatDataset([DATA, AGAIN]), 2),
        (ConcatDataset([Subset(DATA, range(150)), Subset(AGAIN, range(100, 240))]), 2),
        (ConcatDataset([TensorDataset(X[:150], Y[:150]), TensorDataset(X[100:], Y[100:])]), 2),
        (Subset(ConcatDataset([PUBLIC, DATA]), [0, 50, 51, 50]), 2),
        (DATA, 0),
        (Subset(DATA, range(10, 20)), 1),
        (ConcatDataset([DATA, PUBLIC]), 1),
        (ConcatDataset([*random_split(DATA, [100, 140])]), 1),
        (ConcatDataset([TensorDataset(X[:100], Y[:100]), TensorDataset(X[100:], Y[100:])]), 1),
        (ConcatDataset([TensorDataset(X), TensorDataset(X + 1)]), 1),
        (Subset(TensorDataset(torch.zeros(1).expand(9)), range(9)), 1),
        (ConcatDataset([Windows(0), Windows(50)]), 1),
        (Subset(DATA, [500]), 0),
    ],
)
def test_numbers_of_each_record(data: Dataset[Any], most: int) -> None:
    times = multiplicities(data)
    assert (int(times.max()) if times.size else 0) == most


def test_a_run_on_repeated_records_is_contradicted() -> None:
    assert "unit of privacy" in said(ran(data=Subset(DATA, [*range(240), 3, 3]), passes=1))[0]
    assert "unit of privacy" not in said(ran(data=Subset(DATA, range(200)), passes=1))[0]


def test_a_million_records_are_resolved_in_a_moment_and_once() -> None:
    units, data = Units(), TensorDataset(torch.arange(1_000_000))
    joined = ConcatDataset(
        [Subset(data, torch.randperm(500_000).tolist()), Subset(data, range(499_999, 10**6))]
    )
    before = time.perf_counter()
    for _ in range(100):
        units.look(joined)
    assert time.perf_counter() - before < 5
    (found,) = units.findings()
    assert found.measured == "1 of 1000000 records under up to 2 numbers each"
