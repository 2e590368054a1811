"""Records of one batch that reach the gradients of the next, or a buffer: seen where so, and nowhere else."""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from opacus import PrivacyEngine
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

from dpaudit.attacks.replay import ReplayAttack
from dpaudit.targets.observe import Observation, observe
from dpaudit.targets.script import _NOBODY
from dpaudit.targets.tape import Tape

OUTSIDE, BUFFERS = "no record outside of its batch", "no records in buffers"
Loop = Callable[[Any, Any, Any], None]


class Normed(nn.Module):
    """Normalises by a running mean of the features of earlier batches."""

    def __init__(self, write: Callable[[Any, torch.Tensor], None], *, persistent: bool = True) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8), persistent=persistent)
        self.write = write

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x - self.mean
        self.write(self, x.detach())
        return out


class Net(nn.Module):
    """Two layers, and a place for one row of each class."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.drop = nn.Linear(8, 6), nn.Linear(6, 3), nn.Dropout(0.3)
        self.register_buffer("kept", torch.zeros(3, 8))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("scratch", torch.zeros(8), persistent=False)

    def forward(self, x: torch.Tensor) -> Any:
        self.calls += (x[:, 0] > 0).sum()
        self.scratch.copy_(x[0])
        hidden = torch.tanh(self.body(x))
        return hidden, self.head(self.drop(hidden))


def in_place(self: Any, x: torch.Tensor) -> None:
    self.mean.lerp_(x.mean(0), 0.3)


def by_view(self: Any, x: torch.Tensor) -> None:
    self.mean[:4] = 0.7 * self.mean[:4] + 0.3 * x.mean(0)[:4]


def anew(self: Any, x: torch.Tensor) -> None:
    self.mean = 0.7 * self.mean + 0.3 * x.mean(0)


def noisy(self: Any, x: torch.Tensor) -> None:
    self.mean = (x.clamp(-1, 1).sum(0) + 2.0 * torch.randn(8)) / 12


def noisy_by_numpy(self: Any, x: torch.Tensor) -> None:
    noise = torch.from_numpy(np.random.default_rng(int(self.mean[0] * 1e6) % 1000).standard_normal(8))
    self.mean = ((x.clamp(-1, 1).sum(0) + 2.0 * noise) / 12).float()


def constant(self: Any, x: torch.Tensor) -> None:
    self.mean = 0.7 * self.mean + 0.1 * torch.arange(8.0)


def steps(loss: Callable[..., torch.Tensor], after: Callable[..., None] = lambda *_: None) -> Loop:
    """A loop with one step a batch, and something after each."""

    def loop(model: Any, optimizer: Any, loader: Any) -> None:
        state: dict[str, Any] = {}
        for x, y in loader:
            optimizer.zero_grad(set_to_none=False)
            loss(model, x, y, state).backward()
            optimizer.step()
            after(model, x, y, state)

    return loop


def plain(model: Any, x: torch.Tensor, y: torch.Tensor, state: dict[str, Any]) -> torch.Tensor:
    out = model(x)
    hidden, out = out if isinstance(out, tuple) else (out, out)
    state["grown"], state["hidden"], state["out"] = hidden, hidden.detach(), out.detach()
    state["loss"] = cross_entropy(out, y)
    return state["loss"]


def against_queue(model: Any, x: torch.Tensor, y: torch.Tensor, state: dict[str, Any]) -> torch.Tensor:
    loss = plain(model, x, y, state)
    queue = state.setdefault("queue", deque(maxlen=3))
    hidden = state["grown"]
    return loss + (torch.logsumexp(hidden @ torch.cat([*queue]).T, 1).mean() if queue else 0.0)


def into_queue(model: Any, x: torch.Tensor, y: torch.Tensor, state: dict[str, Any]) -> None:
    state["queue"].appendleft(state["hidden"])


def prototypes(model: Any, x: torch.Tensor, y: torch.Tensor, state: dict[str, Any]) -> None:
    with torch.no_grad():
        for c in y.unique():
            kept = model._module.kept
            kept[c] = 0.9 * kept[c] + 0.1 * x[y == c].mean(0)


def running_loss(model: Any, x: torch.Tensor, y: torch.Tensor, state: dict[str, Any]) -> torch.Tensor:
    loss = plain(model, x, y, state)
    state["mean"] = 0.9 * state.get("mean", torch.zeros(())) + 0.1 * loss.detach()
    return loss


def divided_by_running_loss(
    model: Any, x: torch.Tensor, y: torch.Tensor, state: dict[str, Any]
) -> torch.Tensor:
    loss = plain(model, x, y, state)
    before = state.get("mean", torch.ones(()))
    state["mean"] = 0.5 * before + 0.5 * loss.detach()
    return loss / before


def confusion(model: Any, x: torch.Tensor, y: torch.Tensor, state: dict[str, Any]) -> None:
    seen = state.setdefault("confusion", torch.zeros(3, 3))
    seen.index_put_((y, state["out"].argmax(1)), torch.ones(len(y)), accumulate=True)
    state["mean"] = 0.9 * state.get("mean", torch.zeros(())) + 0.1 * state["loss"].detach()
    state["printed"] = state["loss"].item()


def teacher(model: Any, x: torch.Tensor, y: torch.Tensor, state: dict[str, Any]) -> torch.Tensor:
    loss = plain(model, x, y, state)
    if "teacher" not in state:
        state["teacher"] = nn.Linear(8, 6)
        state["teacher"].load_state_dict(model._module.body.state_dict())
    with torch.no_grad():
        wanted = state["teacher"](x)
    return loss + mse_loss(state["grown"], wanted)


def teach(model: Any, x: torch.Tensor, y: torch.Tensor, state: dict[str, Any]) -> None:
    with torch.no_grad():
        for old, new in zip(state["teacher"].parameters(), model._module.body.parameters(), strict=True):
            old.mul_(0.5).add_(new, alpha=0.5)


def own_history(model: Any, x: torch.Tensor, y: torch.Tensor, state: dict[str, Any]) -> torch.Tensor:
    """A row for each record, of what the model said of it before: here records tell their own number."""
    table = state.setdefault("table", torch.zeros(96, 3))
    number = x[:, 7].long()
    out = model(x)[1]
    loss = cross_entropy(out, y) + mse_loss(out, table[number])
    table[number] = out.detach()
    return loss


def beside_public(model: Any, optimizer: Any, loader: Any) -> None:
    """Public anchors, of a loader that hands out after the private one, are kept in a queue."""
    public = DataLoader(TensorDataset(torch.randn(96, 8, generator=torch.Generator().manual_seed(1))), 12)
    state: dict[str, Any] = {"queue": deque(maxlen=3)}
    for (x, y), (anchors,) in zip(loader, public, strict=False):
        optimizer.zero_grad()
        against_queue(model, x, y, state).backward()
        optimizer.step()
        with torch.no_grad():
            state["queue"].appendleft(torch.tanh(model._module.body(anchors)))


def after_a_while(model: Any, optimizer: Any, loader: Any) -> None:
    """Nine passes, and a queue from the third on."""
    for number in range(9):
        (steps(plain) if number < 2 else steps(against_queue, into_queue))(model, optimizer, loader)


def virtual(model: Any, optimizer: Any, loader: Any) -> None:
    with BatchMemoryManager(data_loader=loader, max_physical_batch_size=6, optimizer=optimizer) as small:
        steps(plain)(model, optimizer, small)


def ran(network: Callable[[], nn.Module], loop: Loop, *, numbers: bool = False, alone: bool = False) -> Any:
    """Eight private steps under observation, and what they end with."""
    x = torch.randn(96, 8, generator=torch.Generator().manual_seed(5))
    if numbers:
        x[:, 7] = torch.arange(96.0)
    y = torch.arange(96) % 3
    torch.manual_seed(3)
    module = network()
    attacks = () if alone else (ReplayAttack(steps=0, watch=False),)
    with observe(attacks, _NOBODY, np.random.default_rng(0)) as seen:
        model, optimizer, loader = PrivacyEngine().make_private(
            module=module,
            optimizer=torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9),
            data_loader=DataLoader(TensorDataset(x, y), batch_size=12),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
        )
        loop(model, optimizer, loader)
    return seen, [t.clone() for t in module.state_dict().values()]


def normed(write: Callable[[Any, torch.Tensor], None], **options: bool) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(Normed(write, **options), nn.Linear(8, 3))


WRONG: dict[str, tuple[Callable[[], nn.Module], Loop, set[str]]] = {
    "running mean": (normed(in_place), steps(plain), {OUTSIDE, BUFFERS}),
    "running mean by a view": (normed(by_view), steps(plain), {OUTSIDE, BUFFERS}),
    "running mean in a new tensor": (normed(anew), steps(plain), {OUTSIDE, BUFFERS}),
    "running mean that is not saved": (normed(in_place, persistent=False), steps(plain), {OUTSIDE}),
    "a queue of features": (Net, steps(against_queue, into_queue), {OUTSIDE}),
    "a queue of features from the third pass on": (Net, after_a_while, {OUTSIDE}),
    "divided by a running loss": (Net, steps(divided_by_running_loss), {OUTSIDE}),
    "prototypes beside the network": (Net, steps(plain, prototypes), {BUFFERS}),
}
RIGHT: dict[str, tuple[Callable[[], nn.Module], Loop]] = {
    "dropout, counters and scratch": (Net, steps(plain)),
    "running loss that is printed": (Net, steps(running_loss)),
    "confusion matrix": (Net, steps(plain, confusion)),
    "teacher that follows the noisy weights": (Net, steps(teacher, teach)),
    "mean with noise": (normed(noisy), steps(plain)),
    "mean with noise of numpy": (normed(noisy_by_numpy), steps(plain)),
    "public anchors": (Net, beside_public),
    "mean of constants": (normed(constant), steps(plain)),
    "what was said of the same record before": (Net, steps(own_history)),
    "virtual batches": (Net, virtual),
}


def checks(seen: Observation) -> set[str]:
    return {finding.check for finding in seen.coupling.mixing.carried.findings()}


@pytest.mark.parametrize("name", WRONG)
def test_records_that_are_carried_over_are_found(name: str) -> None:
    network, loop, expected = WRONG[name]
    assert checks(ran(network, loop)[0]) == expected


@pytest.mark.parametrize("name", RIGHT)
def test_what_reaches_no_gradient_or_is_noisy_is_not_accused(name: str) -> None:
    seen, _ = ran(*RIGHT[name], numbers=name.startswith("what was said"))
    assert checks(seen) == set()
    assert seen.coupling.mixing.carried.pairs >= 2, seen.coupling.mixing.untestable


@pytest.mark.parametrize("name", ["running mean by a view", "a queue of features", "confusion matrix"])
def test_training_is_not_disturbed(name: str) -> None:
    network, loop = {**WRONG, **RIGHT}[name][:2]
    watched, alone = ran(network, loop)[1], ran(network, loop, alone=True)[1]
    assert all(torch.equal(one, two) for one, two in zip(watched, alone, strict=True))


def test_what_a_tape_writes_to_is_put_back_before_it_is_played_and_left_alone() -> None:
    kept, x = torch.zeros(4), torch.arange(4.0)
    with (tape := Tape()):
        out = x - kept
        kept[1:3] = x[1:3]
        kept.mul_(2)
    stood = kept.clone()
    again = tape.played([(x, x + 1)], [out])
    assert again is not None
    assert torch.equal(again[0], x + 1)
    assert torch.equal(kept, stood)
    assert tape.outside()[0] is x
