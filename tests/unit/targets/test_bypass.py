"""Steps of the optimizer under a private one: with a release, with more than that, and with raw gradients."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from opacus import PrivacyEngine
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from dpaudit.attacks.replay import ReplayAttack
from dpaudit.evidence import ADDED, WRITTEN
from dpaudit.targets.applied import Origin, origin
from dpaudit.targets.observe import Observation, observe
from dpaudit.targets.script import _NOBODY

Turn = Callable[[Any], None]
PUBLIC = DataLoader(TensorDataset(torch.linspace(-1, 1, 96).view(16, 6), torch.arange(16) % 2), batch_size=8)


def ran(
    turn: Turn, *, mode: str = "hooks", attacks: Any = (), at_last: Turn | None = None
) -> tuple[Observation, SimpleNamespace]:
    """Eight batches, on each of which `turn` makes what steps it makes."""
    generator = torch.Generator().manual_seed(5)
    x, y = torch.randn(96, 6, generator=generator), torch.randint(0, 2, (96,), generator=generator)
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    with observe(attacks, _NOBODY, np.random.default_rng(0)) as seen:
        made = PrivacyEngine().make_private(
            module=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
            data_loader=DataLoader(TensorDataset(x, y), batch_size=12),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            grad_sample_mode=mode,
            **({"criterion": nn.CrossEntropyLoss()} if mode == "ghost" else {}),
        )
        run = SimpleNamespace(model=made[0], optimizer=made[1], raw=made[1].original_optimizer)
        run.weights = list(network.parameters())
        loss = made[2] if mode == "ghost" else cross_entropy
        for i, (features, labels) in enumerate(made[-1]):
            run.optimizer.zero_grad()
            loss(run.model(features), labels).backward()
            run.before = [p.grad.clone() for p in run.weights]
            run.i, run.x, run.y = i, features, labels
            turn(run)
        if at_last is not None:
            at_last(run)
    run.network = network
    return seen, run


def of_public(run: Any, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    run.model.disable_hooks()
    gradients = list(torch.autograd.grad(cross_entropy(run.model(x), y), run.weights))
    run.model.enable_hooks()
    return gradients


def with_a_release(run: Any) -> None:
    run.optimizer.pre_step()
    run.raw.step()


def clipped(run: Any) -> None:
    run.optimizer.pre_step()
    nn.utils.clip_grad_norm_(run.weights, 0.01)
    run.raw.step()


def cut_off(run: Any) -> None:
    run.optimizer.pre_step()
    nn.utils.clip_grad_value_(run.weights, 0.02)
    run.raw.step()


def decayed_and_twice(run: Any) -> None:
    run.optimizer.pre_step()
    for p in run.weights:
        p.grad.add_(p.detach(), alpha=0.01)
    run.raw.step()
    run.raw.step()


def public_added(run: Any) -> None:
    run.optimizer.pre_step()
    x, y = PUBLIC.dataset[:]
    for p, gradient in zip(run.weights, of_public(run, x, y), strict=True):
        p.grad.add_(gradient)
    run.raw.step()


def public_loader_added(run: Any) -> None:
    run.optimizer.pre_step()
    for p, gradient in zip(run.weights, of_public(run, *next(iter(PUBLIC))), strict=True):
        p.grad.add_(gradient)
    run.raw.step()


def public_steps_between(run: Any) -> None:
    run.optimizer.pre_step()
    run.raw.step()
    for p, gradient in zip(run.weights, of_public(run, *next(iter(PUBLIC))), strict=True):
        p.grad = gradient
    run.raw.step()


def public_steps_beside(run: Any) -> None:
    run.optimizer.step()
    for p, gradient in zip(run.weights, of_public(run, *next(iter(PUBLIC))), strict=True):
        p.grad = gradient
    run.raw.step()


def raw_put_back(run: Any) -> None:
    run.optimizer.pre_step()
    for p, gradient in zip(run.weights, run.before, strict=True):
        p.grad = gradient
    run.raw.step()


def raw_added(run: Any) -> None:
    run.optimizer.pre_step()
    for p, gradient in zip(run.weights, run.before, strict=True):
        p.grad.add_(gradient, alpha=0.3)
    run.raw.step()


def sum_without_noise(run: Any) -> None:
    run.optimizer.pre_step()
    for p in run.weights:
        p.grad = p.summed_grad.clone() / 12
    run.raw.step()


def differentiated_again(run: Any) -> None:
    run.optimizer.pre_step()
    run.optimizer.zero_grad()
    cross_entropy(run.model(run.x), run.y).backward()
    run.raw.step()


def another_loss(run: Any) -> None:
    """Raw gradients that nothing tells from those of public data."""
    run.optimizer.pre_step()
    run.optimizer.zero_grad()
    run.model(run.x).square().mean().backward()
    run.raw.step()


def release_at_first_only(run: Any) -> None:
    if not run.i:
        run.optimizer.pre_step()
    run.raw.step()


def raw_alone(run: Any) -> None:
    run.raw.step()


def raw_beside(run: Any) -> None:
    (run.optimizer if run.i % 2 else run.raw).step()


def released_twice(run: Any) -> None:
    run.optimizer.step()
    nn.utils.clip_grad_norm_(run.weights, 0.05)
    run.raw.step()


def raw_after_a_step(run: Any) -> None:
    run.optimizer.step()
    for parameter, before in zip(run.weights, run.before, strict=True):
        parameter.grad = before
    run.raw.step()


def hooked(change: Callable[[Any], None]) -> Turn:
    """A hook of the underlying optimizer changes what the private one hands over."""

    def turn(run: Any) -> None:
        if not run.i:
            run.raw.register_step_pre_hook(lambda *_: change(run))
        run.optimizer.step()

    return turn


def scaled_by_layer(run: Any) -> None:
    for i, p in enumerate(run.weights):
        p.grad.mul_(0.1 * (i + 1))


def clipped_and_decayed(run: Any) -> None:
    nn.utils.clip_grad_norm_(run.weights, 0.01)
    for p in run.weights:
        p.grad = p.grad + 0.01 * p.detach()


def clipped_by_layer(run: Any) -> None:
    run.optimizer.pre_step()
    scaled_by_layer(run)
    run.raw.step()


def all_put_back(run: Any) -> None:
    for p, gradient in zip(run.weights, run.before, strict=True):
        p.grad.copy_(gradient)


def one_layer_without_noise(run: Any) -> None:
    run.weights[0].grad = run.weights[0].summed_grad.clone() / 12


def one_bias_without_noise(run: Any) -> None:
    run.weights[-1].grad = run.weights[-1].summed_grad.clone() / 12


RIGHT = [with_a_release, clipped, cut_off, decayed_and_twice, clipped_by_layer, released_twice]
RIGHT += [hooked(scaled_by_layer), hooked(clipped_and_decayed), hooked(lambda _: None)]
UNDECIDED = [public_added, public_loader_added, public_steps_between, public_steps_beside, another_loss]
UNDECIDED += [hooked(one_bias_without_noise)]
WRONG = [
    raw_put_back,
    raw_added,
    sum_without_noise,
    differentiated_again,
    release_at_first_only,
    raw_after_a_step,
    raw_alone,
    raw_beside,
    hooked(one_layer_without_noise),
    hooked(all_put_back),
]


def said(seen: Observation) -> tuple[set[str], set[str]]:
    return {f.check for f in seen.findings()}, {note.check for note in seen.notes()}


@pytest.mark.parametrize(("turn", "mode"), [*((turn, "hooks") for turn in RIGHT), (clipped, "ghost")])
def test_what_is_made_of_a_release_is_not_accused(turn: Turn, mode: str) -> None:
    seen, _ = ran(turn, mode=mode)
    findings, notes = said(seen)
    assert not findings and not notes & {ADDED, "steps without privacy"}
    assert seen.bypass.private_steps == 8


@pytest.mark.parametrize("turn", UNDECIDED)
def test_what_may_be_public_is_neither_accused_nor_passed_over(turn: Turn) -> None:
    findings, notes = said(ran(turn)[0])
    assert not findings and ADDED in notes


@pytest.mark.parametrize("turn", WRONG)
def test_raw_gradients_are_found(turn: Turn) -> None:
    assert "steps without privacy" in said(ran(turn)[0])[0]


def test_a_release_that_the_loop_steps_with_is_counted_and_replayed() -> None:
    seen, _ = ran(with_a_release, attacks=(ReplayAttack(steps=2, budget=4),))
    claim = seen.claim(1e-5)
    assert claim is not None and [phase.steps for phase in claim.ledger] == [8]
    assert sum(phase.steps for phase in seen.accounted()) == 8
    notes = {note.check for note in seen.evidence() if hasattr(note, "check")}
    assert not notes & {WRITTEN, "unwatched steps"}
    assert not seen.findings(1e-5)


def test_training_on_releases_is_not_disturbed() -> None:
    watched = ran(clipped, attacks=(ReplayAttack(steps=2, budget=4),))[1].network
    alone = ran(clipped)[1].network
    for one, other in zip(watched.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, other)


def test_weights_that_a_loop_moves_by_a_release_are_said_to_be_written() -> None:
    def by_hand(run: Any) -> None:
        run.optimizer.pre_step()
        with torch.no_grad():
            for p in run.weights:
                p.sub_(0.1 * p.grad)

    seen, _ = ran(by_hand, attacks=(ReplayAttack(steps=1, budget=4),))
    findings, notes = said(seen)
    assert not findings and WRITTEN in notes


def polished(run: Any) -> None:
    with torch.no_grad():
        for p, gradient in zip(run.weights, run.before, strict=True):
            p.sub_(gradient)


def put_aside(run: Any) -> None:
    run.model.double().eval().requires_grad_(False)


@pytest.mark.parametrize("turn", [with_a_release, lambda run: run.optimizer.step()])
@pytest.mark.parametrize(("at_last", "told"), [(polished, True), (put_aside, False), (None, False)])
def test_weights_that_are_written_after_the_last_step_are_told_of(
    turn: Turn, at_last: Turn | None, told: bool
) -> None:
    seen, run = ran(turn, attacks=(ReplayAttack(steps=1, budget=4),), at_last=at_last)
    with torch.no_grad():
        run.weights[0].zero_()  # The run is over.
    written = [note for note in seen.notes() if note.check == WRITTEN]
    assert [note.measured for note in written] == ["after the last step, by no optimizer"] * told
    assert not seen.findings()


def vectors() -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    while True:
        yield torch.randn(40, generator=generator)


def test_origin_agrees_with_least_squares() -> None:
    released, weights, raw, public = (v for v, _ in zip(vectors(), range(4), strict=False))
    cases = {
        Origin.RELEASE: [released, 0.3 * released + 0.1 * weights, released.clamp(-0.5, 0.5), 0 * released],
        Origin.RAW: [raw, released + 0.01 * raw, 2 * raw - weights],
        Origin.UNKNOWN: [public, released + 0.01 * public, raw + public],
    }
    for expected, gradients in cases.items():
        for gradient in gradients:
            assert origin([gradient], [released], [weights], [[raw]]) is expected
    for gradient in (released + 0.01 * public, 0.3 * released + 0.1 * weights):
        basis = torch.stack([released, weights], dim=1).double()
        fitted = basis @ torch.linalg.lstsq(basis, gradient.double()[:, None]).solution
        explained = bool((fitted[:, 0] - gradient).norm() < 1e-5 * gradient.norm())
        assert explained == (origin([gradient], [released], [weights], []) is Origin.RELEASE)


def test_of_few_numbers_nothing_is_concluded() -> None:
    released, raw = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0])
    assert origin([released + raw], [released], [raw], [[raw]]) is Origin.UNKNOWN
    sparse = torch.zeros(40).index_fill_(0, torch.tensor([3]), 2.0)
    assert origin([sparse + torch.arange(40)], [torch.arange(40.0)], [torch.ones(40)], [[sparse]]) is (
        Origin.UNKNOWN
    )


@pytest.mark.parametrize("secretly", [False, True])
def test_public_batches_that_are_drawn_beside_private_ones_stay_public(secretly: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    x, y = torch.randn(96, 6, generator=generator), torch.randint(0, 2, (96,), generator=generator)
    private = DataLoader(TensorDataset(x, y), batch_size=12)
    network = nn.Linear(6, 2)
    plain = torch.optim.SGD(network.parameters(), lr=0.1)
    with observe((), _NOBODY, np.random.default_rng(0)) as seen:
        for features, labels in private if secretly else PUBLIC:
            plain.zero_grad()
            cross_entropy(network(features), labels).backward()
            plain.step()
        model, optimizer, loader = PrivacyEngine().make_private(
            module=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
            data_loader=private,
            noise_multiplier=1.0,
            max_grad_norm=1.0,
        )
        for (features, labels), _ in zip(loader, PUBLIC, strict=False):
            optimizer.zero_grad()
            cross_entropy(model(features), labels).backward()
            optimizer.step()
    assert bool(list(seen.bypass.findings())) is secretly
