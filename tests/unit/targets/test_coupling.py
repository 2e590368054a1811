"""Records that reach each other's gradients: seen in wrong models and losses, and in no correct one."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from opacus import PrivacyEngine
from opacus.layers import DPLSTM, DPMultiheadAttention
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import nn
from torch.nn.functional import cross_entropy, normalize, one_hot
from torch.utils.data import DataLoader, TensorDataset

from dpaudit.attacks.replay import ReplayAttack
from dpaudit.attacks.step_canary import StepCanary
from dpaudit.targets.observe import Observation, observe
from dpaudit.targets.script import _NOBODY

LOOKS = (ReplayAttack(steps=0, watch=False),)
RIDING = (*LOOKS, StepCanary(kind="input", records=8, replays=1))
Loss = Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]


def mean_loss(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model(x), y)


def ghost_loss(criterion: Any, model: Any, x: torch.Tensor, y: torch.Tensor) -> Any:
    return criterion(model(x), y)


def trained(
    network: nn.Module,
    loss: Loss = mean_loss,
    *,
    batch_size: int = 12,
    codes: bool = False,
    hooks: bool = False,
    width: int = 8,
    epochs: int = 1,
    physical: int | None = None,
    fault: Callable[[Any], None] | None = None,
    attacks: Any = LOOKS,
    **private: Any,
) -> tuple[Observation, str]:
    """Six private steps under observation, or under none without attacks; and the weights."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(96, width, generator=generator)
    x = (x * 3).long().clamp(0, 9) if codes else x
    y = torch.randint(0, 3, (96,), generator=generator)
    torch.manual_seed(1)
    if private.get("grad_sample_mode") == "ghost":
        private["criterion"] = nn.CrossEntropyLoss()
    with observe(attacks, _NOBODY, np.random.default_rng(0)) as seen:
        made = PrivacyEngine().make_private(
            module=network,
            optimizer=torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1),
            data_loader=DataLoader(TensorDataset(x, y), batch_size=batch_size),
            noise_multiplier=1.0,
            wrap_model=not hooks,
            **({"max_grad_norm": 1.0} | private),
        )
        model, optimizer, loader = network if hooks else made[0], made[1], made[-1]
        if len(made) == 4:
            loss = partial(ghost_loss, made[2])
        if fault:
            fault(model)

        def go(batches: Any) -> None:
            for features, labels in batches:
                optimizer.zero_grad()
                loss(model, features, labels).backward()
                optimizer.step()

        if physical:
            with BatchMemoryManager(
                data_loader=loader, max_physical_batch_size=physical, optimizer=optimizer
            ) as small:
                go(small)
        else:
            for _ in range(epochs):
                go(loader)
    return seen, str([p.tolist() for p in network.parameters()] + [b.tolist() for b in network.buffers()])


class Centred(nn.Module):
    """Subtracts a statistic of the batch."""

    def __init__(self, detached: bool = False):
        super().__init__()
        self.detached = detached

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(0)
        return x - (mean.detach() if self.detached else mean)


class Neighbours(nn.Module):
    """Mixes each record with the one before it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.7 * x + 0.3 * x.roll(1, 0)


class Remembers(nn.Module):
    """A correct layer with dropout, a buffer, a counter and a list."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.drop = nn.Linear(8, 8), nn.Dropout(0.5)
        self.calls, self.sizes = 0, [0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.sizes.append(len(x))
        self.last = self.drop(self.inner(x))
        return self.last


class Draws(nn.Module):
    """Draws as many random numbers as its records have negative features, and one more."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(int((x < 0).sum()) + 1)
        return self.inner(x) + 0.1 * noise[0]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = DPLSTM(2, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x.reshape(-1, 4, 2))[0][:, -1])


class Attends(nn.Module):
    """Embedding with padding, positions, attention and layer normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm = nn.Embedding(10, 6, padding_idx=0), nn.LayerNorm(6)
        self.attention = DPMultiheadAttention(6, 2, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        words = self.words(x)
        mixed, _ = self.attention(words, words, words)
        return {"logits": self.head(self.norm(words + mixed))}


class Shuffled(nn.Module):
    """Sorts its records and puts them back, as code for sequences of several lengths does."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.drop, self.head = nn.Linear(8, 6), nn.Dropout(0.5), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        order = x.sum(1).argsort()
        return self.head(self.drop(self.inner(x[order])))[order.argsort()]


class Noised(Shuffled):
    """Adds noise to what it sorted: a record that changes its place gets other noise."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        order = x.sum(1).argsort()
        features = self.inner(x[order])
        return self.head(features + 0.1 * torch.randn_like(features))[order.argsort()]


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))


def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 3))


def contrastive(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = normalize(model(x), dim=1)
    return cross_entropy(out @ out.T / 0.1, torch.arange(len(x)))


def two_views(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    one, other = model(x), model(x + 0.1)
    return cross_entropy(one @ other.T, torch.arange(len(x)))


def squared(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model(x), y) ** 2


def spread(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = model(x)
    return cross_entropy(out, y) + 0.5 * out.var(dim=0).mean()


def mixed_up(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    order = torch.randperm(len(x))
    blend = 0.7 * x + 0.3 * x[order]
    return 0.7 * cross_entropy(model(blend), y) + 0.3 * cross_entropy(model(blend), y[order])


def centred(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model((x - x.mean(0)) / x.std(0)), y)


def contrasted(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    factor = 1 + torch.rand(len(x), 1)
    return cross_entropy(model(x * factor + torch.rand(len(x), 1)), y)


def standardised(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x = (x - 0.3) / 1.7
    x = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)
    order = torch.randperm(len(x))
    return cross_entropy(model(x[order]), y[order])


def labels_mixed(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    soft = one_hot(y, 3).float()
    return cross_entropy(model(x), 0.7 * soft + 0.3 * soft[torch.randperm(len(y))])


def smoothed_by_the_batch(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    soft = one_hot(y, 3).float()
    return cross_entropy(model(x), 0.9 * soft + 0.1 * soft.mean(0))


def smoothed(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    factor = 0.05 + 0.1 * torch.rand(len(y), 1)
    return cross_entropy(model(x), (1 - factor) * one_hot(y, 3) + factor / 3)


def weighted_by_counts(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    counts = torch.bincount(y, minlength=3).clamp(min=1)
    return cross_entropy(model(x), y, weight=len(y) / counts)


def hardest(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    losses = cross_entropy(model(x), y, reduction="none")
    return (losses * (losses >= losses.median()).detach()).mean()


def above_the_median(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    losses = cross_entropy(model(x), y, reduction="none")
    return (losses * (losses > losses.median()).detach()).mean()


def above_a_quantile(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    losses = cross_entropy(model(x), y, reduction="none")
    return (losses * (losses.detach() > losses.detach().quantile(0.8)).float()).mean()


def above_the_mean(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    losses = cross_entropy(model(x), y, reduction="none")
    return (losses * (0.1 + 0.9 * (losses > losses.mean()).float())).mean()


def over_the_mean_above_the_median(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    losses = cross_entropy(model(x), y, reduction="none")
    apart = losses.detach()
    return (losses / apart.mean() * (apart > apart.median())).mean()


def above_a_constant(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    losses = cross_entropy(model(x), y, reduction="none")
    return (losses * (losses > 1.1).detach()).mean()


def beyond_a_margin(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    scores, own = model(x), one_hot(y, 3).bool()
    return torch.relu(0.8 + scores.masked_fill(own, -9.0).amax(dim=1) - scores[own]).mean()


def hardest_few(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    losses = cross_entropy(model(x), y, reduction="none")
    return losses.topk(max(1, len(y) // 3)).values.mean()


class GroupRobust:
    """Group DRO (Sagawa et al. 2020, arXiv:1911.08731): groups with a large loss get more weight."""

    def __init__(self) -> None:
        self.shares = torch.ones(3) / 3

    def __call__(self, model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        losses = cross_entropy(model(x), y, reduction="none")
        members = one_hot(y, 3).float()
        by_group = (members.T @ losses) / members.sum(0).clamp(min=1)
        raised = self.shares * (0.5 * by_group.detach()).exp()
        self.shares = raised / raised.sum()
        return (self.shares * by_group).sum()


def worst_group(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    losses = cross_entropy(model(x), y, reduction="none")
    members = one_hot(x[:, 0].gt(0).long(), 2).float()
    return ((members.T @ losses) / members.sum(0).clamp(min=1)).max()


def fixed_share_of_groups(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    losses = cross_entropy(model(x), y, reduction="none")
    return (losses * torch.tensor([0.5, 1.0, 2.5])[y]).mean()


def weighted_by_own_loss(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    losses = cross_entropy(model(x), y, reduction="none")
    return (losses * (losses > 1).detach()).mean()


def patched(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    blend = x.clone()
    blend[:, :4] = x[torch.randperm(len(x)), :4]
    return cross_entropy(model(blend), y)


def erased(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    kept = torch.rand_like(x) > 0.3
    flipped = torch.where(torch.rand(len(x), 1) < 0.5, x.flip(1), x)
    return cross_entropy(model(flipped * kept), y)


def centred_by_a_constant(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model((x - 0.01) / 0.98), y)


class Beside(nn.Module):
    """Takes what the loader handed out beside features that the loop made."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 3)

    def forward(self, features: torch.Tensor, raw: torch.Tensor) -> torch.Tensor:
        return self.inner(features) + 0 * raw[:, :3]


def beside_raw(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model(x - x.mean(0), x), y)


def augmented_beside_raw(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model(x + 0.1 * torch.randn_like(x), x), y)


def noised(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model(x + 0.1 * torch.randn_like(x)), y)


def weighted_far_above_the_clip(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(1e4 * model(x), y, weight=torch.tensor([1.0, 2.0, 3.0]), label_smoothing=0.1)


def weighted_below_the_clip(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model(x)[:, :2], y.clamp(max=1), weight=torch.tensor([0.2, 3.0]))


def weighted_and_undone(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    weights = torch.tensor([0.2, 3.0])
    constant = float(weights[y.clamp(max=1)].sum()) / max(len(y), 1)
    return weighted_below_the_clip(model, x, y) * constant


def stable(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = model(x)
    return cross_entropy(out - out.max(), y) * 1024.0


def two_outputs(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    one, other = model(x), model(x.flip(1))
    return cross_entropy(one, y) + (one - other).square().sum(1).mean()


def beside_made_up(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    made_up = model(torch.randn_like(x))
    return cross_entropy(model(x), y) + made_up.var(dim=0).mean()


def tokens(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model(x)["logits"].reshape(-1, 3), y.repeat_interleave(8))


def half(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return cross_entropy(model(x), y)


def linear(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return model(x)[:, 0].mean()


NO_POISSON = {"poisson_sampling": False}
WRONG = {
    "batch statistics in the model": (lambda: nn.Sequential(nn.Linear(8, 6), Centred(), nn.Linear(6, 3)), {}),
    "detached": (lambda: nn.Sequential(nn.Linear(8, 6), Centred(detached=True), nn.Linear(6, 3)), {}),
    "mixed with the one before": (lambda: nn.Sequential(nn.Linear(8, 6), Neighbours(), nn.Linear(6, 3)), {}),
    "before the first layer": (lambda: nn.Sequential(Centred(), nn.Linear(8, 3)), {}),
    "after the last layer": (
        lambda: nn.Sequential(nn.Linear(8, 3), nn.BatchNorm1d(3, affine=False, track_running_stats=False)),
        {},
    ),
    "contrastive": (plain, {"loss": contrastive}),
    "two views": (plain, {"loss": two_views}),
    "squared mean": (plain, {"loss": squared}),
    "variance over the batch": (plain, {"loss": spread}),
    "mixup": (wide, {"loss": mixed_up, "batch_size": 24, "width": 12}),
    "mean of the batch subtracted": (wide, {"loss": centred, "batch_size": 24, "width": 12}),
    "in virtual batches": (plain, {"loss": contrastive, "physical": 6}),
    "labels mixed": (plain, {"loss": labels_mixed, "epochs": 3}),
    "labels smoothed by those of the batch": (plain, {"loss": smoothed_by_the_batch}),
    "class weights of the batch": (plain, {"loss": weighted_by_counts}),
    "the harder half": (plain, {"loss": hardest, "epochs": 3}),
    "above the median": (plain, {"loss": above_the_median, "epochs": 2}),
    "above a quantile": (plain, {"loss": above_a_quantile, "epochs": 2}),
    "ten times above the mean": (plain, {"loss": above_the_mean, "epochs": 2}),
    "over the mean above the median": (plain, {"loss": over_the_mean_above_the_median, "epochs": 2}),
    "the hardest few": (plain, {"loss": hardest_few, "epochs": 2}),
    "group DRO": (plain, {"loss": GroupRobust(), "epochs": 2}),
    "the worst group": (plain, {"loss": worst_group, "epochs": 2}),
    "patches of others": (plain, {"loss": patched}),
    "centred beside what the loader gave": (Beside, {"loss": beside_raw}),
    "full batch, centred": (wide, {"loss": centred, "batch_size": 96, "width": 12, "epochs": 3} | NO_POISSON),
    "functorch": (plain, {"loss": contrastive, "grad_sample_mode": "functorch"}),
}
RIGHT = {
    "plain": (plain, {}),
    "one layer": (lambda: nn.Linear(8, 3), {}),
    "dropout and state": (lambda: nn.Sequential(Remembers(), nn.Linear(8, 3)), {}),
    "convolution and group normalisation": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 8)), nn.Conv1d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(24, 3)
        ),
        {},
    ),
    "recurrent": (Recurrent, {}),
    "attention over words": (Attends, {"loss": tokens, "codes": True}),
    "as many words as records": (Attends, {"loss": tokens, "codes": True, "batch_size": 8} | NO_POISSON),
    "sorted": (Shuffled, {}),
    "sorted, and noise by place": (Noised, {"batch_size": 48, "epochs": 4}),
    "weights over a constant": (plain, {"loss": fixed_share_of_groups}),
    "largest subtracted": (plain, {"loss": stable}),
    "above a constant": (plain, {"loss": above_a_constant, "epochs": 2}),
    "beyond a margin": (plain, {"loss": beyond_a_margin, "epochs": 2}),
    "called twice": (plain, {"loss": two_outputs}),
    "made-up records": (plain, {"loss": beside_made_up}),
    "brightness and contrast": (wide, {"loss": contrasted, "batch_size": 24, "width": 12}),
    "standardised by record": (wide, {"loss": standardised, "batch_size": 24, "width": 12}),
    "noise added": (wide, {"loss": noised, "batch_size": 24, "width": 12}),
    "full batch, less a constant": (
        wide,
        {"loss": centred_by_a_constant, "batch_size": 96, "width": 12, "epochs": 3} | NO_POISSON,
    ),
    "labels smoothed by record": (plain, {"loss": smoothed}),
    "weighted by its own loss": (plain, {"loss": weighted_by_own_loss}),
    "flipped and erased": (plain, {"loss": erased}),
    "augmented beside what the loader gave": (Beside, {"loss": augmented_beside_raw}),
    "functorch": (plain, {"grad_sample_mode": "functorch"}),
    "autocast": (plain, {"loss": half}),
    "linear": (plain, {"loss": linear}),
    "virtual batches": (plain, {"physical": 6}),
    "bfloat16, largest subtracted": (
        lambda: plain().bfloat16(),
        {"loss": lambda m, x, y: stable(m, x.bfloat16(), y)},
    ),
    "bfloat16": (lambda: plain().bfloat16(), {"loss": lambda m, x, y: cross_entropy(m(x.bfloat16()), y)}),
    "ghost": (plain, {"grad_sample_mode": "ghost"}),
}  # fmt: skip


def ran(network: Callable[[], nn.Module], options: dict[str, Any]) -> Observation:
    torch.manual_seed(3)
    return trained(network(), **options)[0]


@pytest.mark.parametrize("name", WRONG)
def test_records_that_reach_each_other_are_found(name: str) -> None:
    found = list(ran(*WRONG[name]).coupling.findings())
    assert [f.check for f in found] == ["one record, one gradient"], name


@pytest.mark.parametrize("name", RIGHT)
def test_a_correct_model_and_loss_are_not_accused(name: str) -> None:
    seen = ran(*RIGHT[name])
    assert list(seen.coupling.findings()) == []
    assert seen.coupling.looked >= 2, seen.coupling.untestable


@pytest.mark.parametrize("mode", ["ghost", "hooks"])
@pytest.mark.parametrize("wrong", [False, True])
def test_records_that_ride_along_are_not_taken_for_those_of_the_batch(mode: str, wrong: bool) -> None:
    """In ghost mode their losses are left out, so that no copy has a gradient in their places."""
    torch.manual_seed(3)
    network = nn.Sequential(Neighbours(), plain()) if wrong else plain()
    seen, _ = trained(network, grad_sample_mode=mode, attacks=RIDING, epochs=2, batch_size=24)
    mixing = seen.coupling.mixing
    assert not seen.planted.lost and mixing.looked >= 3, mixing.untestable
    assert bool(list(mixing.findings())) is wrong


@pytest.mark.parametrize("name", ["dropout and state", "recurrent", "plain", "ghost"])
def test_training_is_not_disturbed(name: str) -> None:
    network, options = RIGHT[name]
    torch.manual_seed(3)
    watched, alone = network(), network()
    alone.load_state_dict(watched.state_dict())
    assert trained(watched, **options)[1] == trained(alone, **options, attacks=())[1]
    assert [getattr(m, "calls", 0) for m in watched.modules()] == [
        getattr(m, "calls", 0) for m in alone.modules()
    ]
    assert [getattr(m, "sizes", 0) for m in watched.modules()] == [
        getattr(m, "sizes", 0) for m in alone.modules()
    ]


def test_what_cannot_be_executed_again_is_said_and_does_not_stop_training() -> None:
    # Of the two passes of a step the second one only.
    seen = ran(Draws, {"loss": lambda m, x, y: cross_entropy(m(x.abs()), y) + cross_entropy(m(x), y)})
    assert list(seen.coupling.findings()) == []
    assert "other random numbers" in seen.coupling.untestable
    assert len(seen.ledger) == 1 and seen.ledger[0].steps == 8


def test_where_nothing_was_looked_at_the_checklist_says_so() -> None:
    torch.manual_seed(3)
    seen, _ = trained(plain(), hooks=True)
    notes = {note.check: note.measured for note in seen.notes()}
    assert "no forward pass" in notes["records apart in model and loss"]


def first_layer_only(model: Any) -> None:
    """A clip that forgets every parameter but two."""
    model.trainable_parameters = model.trainable_parameters[:2]


def by_the_mean(model: Any) -> None:
    """A clip by the mean norm of the batch."""
    real = type(model).get_norm_sample
    model.get_norm_sample = lambda: real(model).mean().expand(len(real(model)))


@pytest.mark.parametrize("fault", [None, first_layer_only, by_the_mean])
@pytest.mark.parametrize("physical", [None, 6])
def test_the_clip_of_ghost_mode_is_put_to_the_test(fault: Any, physical: int | None) -> None:
    torch.manual_seed(3)
    seen, _ = trained(plain(), grad_sample_mode="ghost", fault=fault, physical=physical)
    moved = seen.coupling.ghost.moved(seen.optimizers[0])
    assert moved is not None
    assert (moved.distance > 1.01) == (fault is not None), moved


def seen_of_steps(second: Callable[..., torch.Tensor]) -> tuple[list[str], list[str]]:
    """Findings and notes of a run whose steps sum the gradients of two backward passes."""

    def loss(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        mean_loss(model, x, y).backward()
        return second(model, x, y)

    torch.manual_seed(3)
    seen, _ = trained(plain(), loss=loss, poisson_sampling=False)
    return [f.check for f in seen.findings()], [n.check for n in seen.notes()]


def of_public_data(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return mean_loss(model, torch.linspace(-1, 1, 96).view(12, 8), torch.arange(12) % 3)


def of_the_batch(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return mean_loss(model, x + 0.1, y)


def test_public_rows_of_a_second_backward_pass_are_no_second_gradient_of_a_record() -> None:
    findings, notes = seen_of_steps(of_public_data)
    assert "one gradient for each record" not in findings
    assert "gradients of other data" in notes


def test_a_second_backward_pass_of_the_same_records_is_one() -> None:
    findings, notes = seen_of_steps(of_the_batch)
    assert "one gradient for each record" in findings
    assert "gradients of other data" not in notes


@pytest.mark.parametrize("loss", [weighted_far_above_the_clip, weighted_and_undone])
def test_a_mean_over_class_weights_is_noted_where_nothing_shows_more(loss: Loss) -> None:
    torch.manual_seed(3)
    seen, _ = trained(plain(), loss=loss)
    assert list(seen.coupling.findings()) == []
    assert "loss divided by the batch" in {n.check for n in seen.notes()}


@pytest.mark.parametrize("options", [{}, {"physical": 6}, {"grad_sample_mode": "functorch"}])
def test_a_mean_over_class_weights_is_found_where_a_record_moves_the_sum(options: Any) -> None:
    torch.manual_seed(3)
    seen, _ = trained(plain(), loss=weighted_below_the_clip, **options)
    (found,) = seen.coupling.findings()
    assert found.check == "sensitivity" and float(found.measured.split()[0]) > 2
    assert "loss divided by the batch" not in {n.check for n in seen.notes()}


def test_where_the_clip_is_another_the_movement_is_not_measured() -> None:
    torch.manual_seed(3)
    options: Any = {"clipping": "per_layer", "max_grad_norm": [0.5] * 4}
    seen, _ = trained(plain(), loss=weighted_below_the_clip, **options)
    assert list(seen.coupling.findings()) == []
    assert "loss divided by the batch" in {n.check for n in seen.notes()}
