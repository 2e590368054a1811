"""Functions that make batches of records: those that mix them are found; those that pad or draw are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import default_collate

from dpaudit.targets.collation import Collation, Fetched

Records = list[tuple[torch.Tensor, int]]


def records(lengths: bool = False) -> Records:
    generator = torch.Generator().manual_seed(2)
    sizes = torch.randint(2, 9, (12,), generator=generator).tolist() if lengths else [6] * 12
    return [(torch.randn(size, generator=generator) + 3, i % 3) for i, size in enumerate(sizes)]


def plain(batch: Records) -> Any:
    return default_collate(batch)


def padded(batch: Records) -> Any:
    return {
        "x": pad_sequence([x for x, _ in batch], batch_first=True),
        "y": torch.tensor([y for _, y in batch]),
    }


def sorted_and_padded(batch: Records) -> Any:
    return padded(sorted(batch, key=lambda record: -len(record[0])))


def noised(batch: Records) -> Any:
    x, y = default_collate(batch)
    return x + torch.randn_like(x), y


def standardised_by_record(batch: Records) -> Any:
    x, y = default_collate(batch)
    return (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True), y


def consuming(batch: Records) -> Any:
    return default_collate([batch.pop() for _ in range(len(batch))])


def drawing_by_value(batch: Records) -> Any:
    x, y = default_collate(batch)
    return x + torch.randn(int((x > 3).sum()) + 1)[0], y


def centred(batch: Records) -> Any:
    x, y = default_collate(batch)
    return x - x.mean(0), y


def scaled_by_the_largest(batch: Records) -> Any:
    found = padded(batch)
    return {**found, "x": found["x"] / found["x"].abs().max()}


def mixed(batch: Records) -> Any:
    x, y = default_collate(batch)
    return 0.7 * x + 0.3 * x[torch.randperm(len(x))], y


def found(collate: Callable[[Any], Any], *, lengths: bool) -> bool:
    collation = Collation()
    # An order that leaves a record in its place mixes nothing there: one look may see nothing.
    torch.manual_seed(0)
    for _ in range(6):
        collation.look(Fetched(collate=collate, records=tuple(records(lengths))))
    return bool(list(collation.findings()))


@pytest.mark.parametrize(
    ("collate", "lengths"),
    [
        (plain, False),
        (padded, True),
        (sorted_and_padded, True),
        (noised, False),
        (standardised_by_record, False),
        (consuming, False),
        (drawing_by_value, False),
    ],
)
def test_functions_of_single_records_are_not_accused(collate: Callable[[Any], Any], lengths: bool) -> None:
    assert not found(collate, lengths=lengths)


@pytest.mark.parametrize(
    ("collate", "lengths"), [(centred, False), (scaled_by_the_largest, True), (mixed, False)]
)
def test_functions_that_mix_records_are_found(collate: Callable[[Any], Any], lengths: bool) -> None:
    assert found(collate, lengths=lengths)
