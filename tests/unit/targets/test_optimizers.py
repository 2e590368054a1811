"""Every private optimizer of a run is replayed, by itself, and findings say which one they are of."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from opacus import PrivacyEngine
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from dpaudit.accounting import family_for
from dpaudit.attacks.replay import ReplayAttack
from dpaudit.attacks.step_canary import StepCanary
from dpaudit.contradictions import family_of_part, replay_findings
from dpaudit.evidence import Evidence, KnownNull, Note, Replay
from dpaudit.stats import known_null, noise
from dpaudit.targets.broken import plant
from dpaudit.targets.observe import Observation, observe
from dpaudit.targets.script import _NOBODY

RIDERS = (
    ReplayAttack(steps=3, stride=3, watch=False, budget=6, repeats=3),
    StepCanary(references=200, replays=2),
)


@cache
def two_optimizers(
    fault: Callable[[Any], None] | None = None,
    *,
    noises: tuple[float, float] = (1.0, 1.0),
    together: bool = True,
) -> Observation:
    """Two models on the same records, each with an engine; steps in turn, or one model after the other."""
    torch.manual_seed(2)
    x, y = torch.randn(120, 6), torch.randint(0, 2, (120,))
    with observe(RIDERS, _NOBODY, np.random.default_rng(0)) as seen:
        runs = []
        for width, sigma in zip((4, 8), noises, strict=True):
            network = nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 2))
            runs.append(
                PrivacyEngine().make_private(
                    module=network,
                    optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
                    data_loader=DataLoader(TensorDataset(x, y), batch_size=12),
                    noise_multiplier=sigma,
                    max_grad_norm=1.0,
                )
            )
        if fault is not None:
            fault(runs[1][1])

        def step(run: Any, features: torch.Tensor, labels: torch.Tensor) -> None:
            model, optimizer, _ = run
            optimizer.zero_grad()
            cross_entropy(model(features), labels).backward()
            optimizer.step()

        if together:
            for features, labels in runs[0][2]:
                for run in runs:
                    step(run, features, labels)
        else:
            for run in runs:
                for features, labels in run[2]:
                    step(run, features, labels)
    return seen


def replayed(evidence: Sequence[Evidence]) -> list[Replay]:
    return [e for e in evidence if isinstance(e, Replay)]


@pytest.mark.parametrize(("together", "noises"), [(True, (1.0, 1.0)), (False, (1.0, 2.0))])
def test_two_correct_optimizers_are_both_replayed_and_not_accused(
    together: bool, noises: tuple[float, float]
) -> None:
    seen = two_optimizers(noises=noises, together=together)
    evidence, claim = seen.evidence(), seen.claim(1e-5)
    assert claim is not None
    parts = [(replay, family_of_part(replay, claim, 1e-5)) for replay in replayed(evidence)]
    assert [sum(steps for _, steps in replay.part) for replay, _ in parts] == [10, 10]
    assert [replay.noise[0].claimed_std for replay, _ in parts] == list(noises)
    assert not [f for replay, family in parts for f in replay_findings(replay, family)]
    joint = noise.replays(parts, alpha=0.01)
    assert joint.p_value is not None and joint.p_value > 1e-6
    assert joint.epsilon_lower is not None and joint.epsilon_lower <= claim.epsilon
    ranks = [e for e in evidence if isinstance(e, KnownNull)]
    assert [r.p_values.size for r in ranks] == [20 * 3]
    assert known_null.fixed(ranks[0], family_for(claim), alpha=0.01).p_value > 1e-6
    assert not [e for e in evidence if isinstance(e, Note) and e.check == "unwatched steps"]


def test_a_fault_of_the_second_optimizer_is_found_and_named() -> None:
    seen = two_optimizers(lambda optimizer: plant(optimizer, "half-noise"))
    first, second = replayed(seen.evidence())
    claim = seen.claim(1e-5)
    assert claim is not None
    assert not list(replay_findings(first, family_of_part(first, claim, 1e-5)))
    found = list(replay_findings(second, family_of_part(second, claim, 1e-5)))
    assert [(f.check, f.where) for f in found] == [("noise", "every parameter of optimizer 2")]
    assert all(sample.where.startswith("optimizer 2: ") for sample in second.noise)


def test_a_bound_from_one_optimizer_speaks_of_its_own_steps_alone() -> None:
    seen = two_optimizers()
    claim = seen.claim(1e-5)
    assert claim is not None
    own = family_of_part(replayed(seen.evidence())[1], claim, 1e-5)
    assert own.epsilon(1.0) < 0.9 * family_for(claim).epsilon(1.0)
    whole = replace(replayed(seen.evidence())[1], part=())
    assert family_of_part(whole, claim, 1e-5).epsilon(1.0) == family_for(claim).epsilon(1.0)


def test_optimizers_beyond_many_are_said_not_to_be_watched() -> None:
    seen = two_optimizers()
    seen.probes[1].watched = False
    notes = [e for e in seen.evidence() if isinstance(e, Note) and e.check == "unwatched steps"]
    seen.probes[1].watched = True
    assert [note.measured for note in notes] == ["1 of them were not replayed"]


class Tells(torch.optim.SGD):
    """Its step returns something, as a closure's loss that is handed on."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        return "made"


@pytest.mark.parametrize("kind", [torch.optim.SGD, Tells])
def test_a_step_returns_what_it_returns_unobserved(kind: type[torch.optim.SGD]) -> None:
    def returned(riders: Any) -> Any:
        model: Any = nn.Linear(2, 2)
        loader: Any = DataLoader(TensorDataset(torch.ones(8, 2)), batch_size=8)
        with observe(riders, _NOBODY, np.random.default_rng(0)) if riders else nullcontext():
            model, optimizer, _ = PrivacyEngine().make_private(
                module=model,
                optimizer=kind(model.parameters(), lr=0.1),
                data_loader=loader,
                noise_multiplier=1.0,
                max_grad_norm=1.0,
            )

            def closure() -> Any:
                value = model(torch.ones(8, 2)).sum()
                value.backward()
                return value

            return optimizer.step(closure)

    assert returned(RIDERS[:1]) == returned(())
