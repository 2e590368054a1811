"""Rows of gradients against the records of a step's batch: made-up ones, repeated ones and missing ones."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from opacus import PrivacyEngine
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, TensorDataset

from dpaudit.attacks.sampler import SamplerAttack
from dpaudit.evidence import Draws, Sampling
from dpaudit.targets.observe import Observation, observe
from dpaudit.targets.script import _NOBODY

GENERATOR = torch.Generator().manual_seed(5)
X, Y = torch.randn(240, 6, generator=GENERATOR), torch.randint(0, 3, (240,), generator=GENERATOR)
OTHER, OTHER_Y = torch.randn(50, 6, generator=GENERATOR), torch.randint(0, 3, (50,), generator=GENERATOR)
Change = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
Skip = Callable[[int, torch.Tensor, torch.Tensor], bool]


def ran(
    change: Change = lambda x, y: (x, y),
    *,
    data: Dataset[Any] | None = None,
    skip: Skip = lambda i, x, y: False,
    stop: int = 10**6,
    passes: int = 2,
    ahead: int = 0,
    through: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Observation:
    """Batches of about twelve, fetched `ahead`; each pass ends after `stop` of them at most."""
    torch.manual_seed(1)
    network = nn.Linear(6, 3)
    with observe((SamplerAttack(),), _NOBODY, np.random.default_rng(0)) as seen:
        model, optimizer, loader = PrivacyEngine().make_private(
            module=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
            data_loader=DataLoader(data or TensorDataset(X, Y), batch_size=12),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
        )
        for _ in range(passes):
            for i, (x, y) in enumerate(fetched(through(loader), ahead)):
                if i == stop:
                    break
                if skip(i, x, y):
                    continue
                optimizer.zero_grad()
                features, labels = change(x, y)
                cross_entropy(model(features), labels).backward()
                optimizer.step()
    return seen


def fetched(loader: Any, ahead: int) -> Iterator[Any]:
    """Batches, each of which was fetched before so many steps."""
    waiting: deque[Any] = deque()
    for batch in loader:
        waiting.append(batch)
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting


def by_a_thread(loader: Iterable[Any]) -> Iterator[Any]:
    """A whole pass, fetched by another thread before the first step of it."""
    waiting: list[Any] = []
    thread = Thread(target=lambda: waiting.extend(loader))
    thread.start()
    thread.join()
    return iter(waiting)


def drawn(seen: Observation) -> tuple[Draws, ...]:
    return next(item for item in seen.evidence() if isinstance(item, Sampling)).draws


def said(seen: Observation) -> tuple[list[str], list[str]]:
    return [f.check for f in seen.findings()], [n.check for n in seen.notes()]


def beside(number: int) -> Change:
    return lambda x, y: (torch.cat([x, OTHER[:number]]), torch.cat([y, OTHER_Y[:number]]))


def repeated(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([x, x[y == 2]]), torch.cat([y, y[y == 2]])


@pytest.mark.parametrize("number", [9, 50])
def test_as_many_other_rows_in_each_step_leave_the_batches_what_they_are(number: int) -> None:
    seen = ran(beside(number))
    (batches,) = drawn(seen)
    assert batches.records.size == batches.sizes.sum() and batches.sizes.size == 40
    findings, notes = said(seen)
    assert "one gradient for each record" not in findings and "gradients of other data" in notes


def test_batches_that_no_step_was_made_on_are_told_from_those_with_other_rows() -> None:
    (batches,) = drawn(ran(beside(9), skip=lambda i, x, y: i % 2 == 1))
    assert batches.sizes.size == 20 and batches.sizes.mean() < 16


def test_rows_that_the_batch_decides_are_a_finding() -> None:
    seen = ran(repeated)
    (batches,) = drawn(seen)
    assert batches.sizes.mean() < 16
    assert said(seen) == (["one gradient for each record"], said(ran())[1])


@pytest.mark.parametrize("ahead", [1, 3])
def test_batches_that_are_fetched_ahead_are_those_of_their_steps(ahead: int) -> None:
    seen, usual = ran(ahead=ahead), ran()
    assert said(seen) == said(usual)
    (draws,), (others,) = drawn(seen), drawn(usual)
    assert draws.sizes.size == others.sizes.size
    assert draws.records.size == draws.sizes.sum()


@pytest.mark.parametrize("stop", [10**6, 12])
@pytest.mark.parametrize("change", [lambda x, y: (x, y), beside(9)])
def test_batches_that_a_thread_fetches_are_those_of_their_steps(stop: int, change: Change) -> None:
    seen, usual = ran(change, stop=stop, through=by_a_thread), ran(change, stop=stop)
    assert said(seen) == said(usual)
    (draws,), (others,) = drawn(seen), drawn(usual)
    assert draws.sizes.size == others.sizes.size
    assert draws.records.size == draws.sizes.sum()


def test_rows_that_are_missing_leave_the_batch_unknown() -> None:
    sizes = [d for d in drawn(ran(lambda x, y: (x[:8], y[:8]))) if not d.records.size]
    assert len(sizes) == 1 and set(sizes[0].sizes) == {8}


@pytest.mark.parametrize("private", [False, True])
def test_rows_of_another_loader_are_other_data_unless_it_reads_the_same(private: bool) -> None:
    data = TensorDataset(X, Y) if private else TensorDataset(OTHER, OTHER_Y)

    def change(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features, labels = next(iter(DataLoader(data, batch_size=7, shuffle=True)))
        return torch.cat([x, features]), torch.cat([y, labels])

    seen = ran(change)
    (batches,) = drawn(seen)
    assert bool(batches.records.size) is not private
    assert bool(batches.sizes.mean() > 16) is private
    assert "gradients of other data" in said(seen)[1]
