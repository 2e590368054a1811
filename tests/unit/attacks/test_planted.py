"""Step canaries made of records, through a real Opacus run: in hooks, in virtual batches, with a fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from opacus import PrivacyEngine
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dpaudit.attacks.step_canary import StepCanary
from dpaudit.claim import Phase
from dpaudit.evidence import KnownNull, Note
from dpaudit.protocols import RowArray
from dpaudit.stats import known_null
from dpaudit.stats.ledger_family import LedgerFamily
from dpaudit.stats.tradeoff import gaussian_epsilon
from dpaudit.targets import rows as rows_of
from dpaudit.targets.broken import plant
from dpaudit.targets.observe import active, observe
from dpaudit.targets.planted import Planted
from dpaudit.targets.rows import flatten
from tests.training import canaries

STEPS = 36


def trained(
    *,
    fault: str | None = None,
    physical: int = 0,
    split: bool = False,
    ghost: bool = False,
    spoil: Callable[[Any], None] | None = None,
    epochs: int = STEPS // 6,
) -> tuple[tuple[Any, ...], list[int]]:
    """Train with 12 records riding along; returns evidence, and the size of each step's batch."""
    torch.manual_seed(5)
    pool = canaries()
    features = torch.as_tensor(pool.x, dtype=torch.float32) * 4
    sizes: list[int] = []
    attack = StepCanary(kind="input", records=12, replays=20)
    rng = np.random.default_rng(1)
    prepare = (lambda optimizer: plant(optimizer, fault)) if fault else None
    with observe((attack,), pool, rng, prepare=prepare) as seen:
        model = nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 2))
        loader = DataLoader(TensorDataset(features, torch.as_tensor(pool.y)), batch_size=36)
        mode = {"grad_sample_mode": "ghost", "criterion": nn.CrossEntropyLoss()} if ghost else {}
        made = PrivacyEngine(accountant="rdp").make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            data_loader=loader,
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            **mode,
        )
        model, optimizer, loader = made[0], made[1], made[-1]
        criterion = made[2] if ghost else nn.functional.cross_entropy
        if spoil is not None:
            spoil(model)
        entered = seen.step_made
        seen.step_made = lambda o, size: (sizes.append(size), entered(o, size))[1]  # type: ignore[method-assign]
        for _ in range(epochs):
            if physical:
                with BatchMemoryManager(
                    data_loader=loader, max_physical_batch_size=physical, optimizer=optimizer
                ) as virtual:
                    _epoch(model, optimizer, virtual, split, criterion)
            else:
                _epoch(model, optimizer, loader, split, criterion)
    return seen.evidence(), sizes


def _epoch(model: Any, optimizer: Any, loader: Any, split: bool, criterion: Any) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        used = slice(len(x) // 2 if split else len(x))
        criterion(model(x[used]), y[used]).backward()
        optimizer.step()


def ranks_of(evidence: tuple[Any, ...]) -> KnownNull:
    return next(e for e in evidence if isinstance(e, KnownNull))


TRUE = gaussian_epsilon(1.0, 1e-5)
"""Of one step with noise multiplier 1."""


def shown(ranks: KnownNull) -> float:
    """Lower bound on the epsilon of one step."""
    family = LedgerFamily(ledger=(Phase(noise_multiplier=1.0, sample_rate=1.0, steps=1),), delta=1e-5)
    return known_null.fixed(ranks, family, alpha=0.01).epsilon_lower or 0.0


@pytest.mark.parametrize("physical", [0, 15])
def test_records_ride_along_and_leave_before_the_step(physical: int) -> None:
    evidence, sizes = trained(physical=physical)
    ranks = ranks_of(evidence)
    # The first batch only fills the bank; each later step gives 20 re-executions and the real one.
    assert ranks.p_values.size >= (STEPS - 2) * 21
    assert ranks.n_references == 11
    assert 25 < np.mean(sizes) < 47, "the planted records did not enter the steps"
    assert 0.5 * TRUE < shown(ranks) < TRUE


def test_too_little_noise_is_shown_by_records() -> None:
    correct, broken = (ranks_of(trained(fault=f)[0]) for f in (None, "noise-divided-by-batch"))
    assert broken.p_values.mean() < 0.5 * correct.p_values.mean()
    assert shown(broken) > TRUE


def forgets(model: Any) -> None:
    """A ghost clip by the norm of one bias alone."""
    model.trainable_parameters = model.trainable_parameters[-1:]


@pytest.mark.slow
def test_in_ghost_mode_records_ride_along_and_leave_before_the_backward_passes() -> None:
    evidence, _ = trained(ghost=True, physical=15)
    ranks = ranks_of(evidence)
    assert not any(isinstance(e, Note) and e.check == "planted records" for e in evidence)
    assert ranks.p_values.size >= (STEPS - 2) * 21 and ranks.n_references == 11
    assert 0.5 * TRUE < shown(ranks) < TRUE


def test_in_ghost_mode_a_clip_that_forgets_layers_is_shown_by_records() -> None:
    evidence, _ = trained(ghost=True, spoil=forgets)
    assert shown(ranks_of(evidence)) > TRUE


def test_what_a_planted_record_adds_in_ghost_mode_is_its_clipped_gradient() -> None:
    """The same run by hooks forms the per-record gradients that ghost mode only ever sums."""
    added, summed = first_seen(ghost=True)
    planted, own = first_seen(ghost=False)
    assert np.allclose(added, clipped(planted), atol=1e-5)
    assert np.allclose(summed, clipped(own).sum(axis=0), atol=1e-4), "planted records are in the sum"


def clipped(rows: RowArray) -> RowArray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1.0))


def first_seen(*, ghost: bool) -> tuple[RowArray, RowArray]:
    """Of the first step with planted records: what is known of these, and what is left for the step."""
    seen: list[tuple[RowArray, RowArray]] = []

    def listen(_: Any) -> None:
        planted = active().planted  # type: ignore[union-attr]
        strip = planted.strip

        def stripped(parameters: Any) -> RowArray:
            found = strip(parameters)
            if len(found) and not seen:
                left = flatten([p.grad for p in parameters]) if ghost else rows_of.read(parameters)
                seen.append((found, left))
            return found

        planted.strip = stripped  # type: ignore[method-assign]

    trained(ghost=ghost, spoil=listen, epochs=1)
    return seen[0]


def test_a_loop_that_drops_rows_is_told_of_and_not_ranked() -> None:
    evidence, _ = trained(split=True)
    assert not any(isinstance(e, KnownNull) for e in evidence)
    assert any(isinstance(e, Note) and e.check == "planted records" for e in evidence)


def weight(rows: torch.Tensor | None) -> nn.Parameter:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad_sample = rows  # type: ignore[attr-defined]
    return parameter


def test_every_optimizer_of_a_batch_is_rid_of_planted_rows_or_nothing_more_is_planted() -> None:
    planted = Planted(3, np.random.default_rng(0))
    batch = torch.arange(20.0).view(10, 2), torch.arange(10)
    assert len(planted.passing(batch, 10)[0]) == 13
    first, second = (weight(torch.arange(26.0).view(13, 2)) for _ in range(2))
    for parameter in (first, second):
        candidates = planted.strip([parameter])
        assert candidates.tolist() == torch.arange(20.0, 26.0).view(3, 2).tolist()
        assert parameter.grad_sample.tolist() == torch.arange(20.0).view(10, 2).tolist()  # type: ignore[attr-defined]
    elsewhere = weight(torch.ones(4, 2))
    assert not planted.strip([elsewhere]).size and not planted.lost
    planted.passing(batch, 10)
    assert not planted.strip([weight(None)]).size and "taken out" in planted.lost
    assert len(planted.passing(batch, 10)[0]) == 10
