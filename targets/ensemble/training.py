"""Train many models at once by one recipe, in stacks that fit the cache or the GPU."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch
from torch import nn

from dpaudit.check import BoolArray, FloatArray
from dpaudit.errors import UsageError
from dpaudit.targets.ensemble.batches import Step, batches, noise
from dpaudit.targets.ensemble.chunks import chunk_size, in_threads, step_bytes
from dpaudit.targets.ensemble.stack import NotStackable, Stack, stacked, state
from dpaudit.targets.recipe import Recipe, tensors

LOG = logging.getLogger("dpaudit.ensemble")
_GLOBAL_GENERATOR = threading.Lock()
_SAMPLE = 4
_OUTPUTS = 2**24
_OPTIMIZERS = (
    torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adamax, torch.optim.NAdam,
    torch.optim.RAdam, torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.Adadelta,
)  # fmt: skip
"""Those whose update of a number depends on its own gradients alone, so that stacks train as singles do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Trained models.

    Attributes:
        recipe: that trained them.
        values: parameters and buffers by name, (M, ...) each, on the CPU.
        device: where they compute.
        reason: why they were trained one after another; empty if they were stacked.
        seconds: that training took.
    """

    recipe: Recipe
    values: dict[str, torch.Tensor]
    device: str
    reason: str
    seconds: float

    def __len__(self) -> int:
        """Number of models."""
        return len(next(iter(self.values.values())))

    def model(self, number: int) -> nn.Module:
        """One of them as a module of its own, in evaluation mode."""
        model = self.recipe.model().to(self.device)
        with torch.no_grad():
            for name, value in state(model).items():
                value.copy_(self.values[name][number])
        return model.eval()

    def log_probabilities(self, x: np.ndarray) -> FloatArray:
        """Float64 (M, n, classes) on features x (n, ...); not finite where a model diverged."""
        features, _ = tensors(x, np.zeros(len(x)))
        parts = [torch.log_softmax(part.double(), dim=-1).cpu() for part in self._logits(features)]
        found: FloatArray = torch.cat(parts).numpy()
        return found

    def _logits(self, features: torch.Tensor) -> Iterator[torch.Tensor]:
        """Of some models at a time, (m, n, classes)."""
        rows = max(1, _OUTPUTS // max(1, features[0].numel()))
        if self.reason:
            with torch.no_grad():
                for number in range(len(self)):
                    model = self.model(number)
                    pieces = [model(piece.to(self.device)) for piece in torch.split(features, rows)]
                    yield torch.cat(pieces)[None]
            return
        stack = _stack(self.recipe, features, [0], self.device)
        models = max(1, min(len(self), _OUTPUTS // features.numel()))
        for start in range(0, len(self), models):
            values = {n: v[start : start + models].to(self.device) for n, v in self.values.items()}
            pieces = [stack.logits(values, piece.to(self.device)) for piece in torch.split(features, rows)]
            yield torch.cat(pieces, dim=1)


def train_ensemble(
    recipe: Recipe,
    x: np.ndarray,
    y: np.ndarray,
    member: BoolArray,
    seeds: Sequence[int],
    device: str = "cpu",
    *,
    chunk: int | None = None,
) -> Ensemble:
    """Train one model on each row of members, as `recipe` would one by one.

    A model's weights depend on its own seed and members and not on the stack it is in, up to the rounding of
    batched products. What cannot be stacked is trained one after another by the recipe's own loop; the result
    and one line of log say why. Cost grows with models * steps * batch * parameters.

    Args:
        recipe: model, optimizer, schedule, batches, noise.
        x: (n, ...) features of all records.
        y: (n,) labels.
        member: (M, n) who is in.
        seeds: (M,) of initial weights, batches and noise.
        device: cpu or cuda.
        chunk: models of a stack; None for as many as fit.

    Raises:
        UsageError: shapes that do not match, or a model without members.
    """
    member = np.asarray(member, dtype=np.bool_)
    _check(x, y, member, seeds)
    start = time.perf_counter()
    features, labels = (part.to(device) for part in tensors(x, y))
    reason = ""
    try:
        values = _stacks(recipe, features, labels, member, list(seeds), device, chunk)
    except NotStackable as error:
        reason = str(error)
        LOG.warning("%d models are trained one after another: %s.", len(member), reason)
        values = _one_by_one(recipe, x, y, member, seeds, device)
    seconds = time.perf_counter() - start
    return Ensemble(recipe=recipe, values=values, device=device, reason=reason, seconds=seconds)


def _check(x: np.ndarray, y: np.ndarray, member: BoolArray, seeds: Sequence[int]) -> None:
    if member.ndim != 2 or member.shape[1] != len(x) or len(y) != len(x) or len(seeds) != len(member):
        raise UsageError(
            f"Expected x (n, ...), y (n,), member (M, n) and M seeds, found {np.shape(x)}, {np.shape(y)}, "
            f"{member.shape} and {len(seeds)}. Give one row of members and one seed a model."
        )
    if not member.size or not member.any(axis=1).all():
        raise UsageError("Expected every model to have a member, found one without. Draw its members again.")


def _one_by_one(
    recipe: Recipe, x: np.ndarray, y: np.ndarray, member: BoolArray, seeds: Sequence[int], device: str
) -> dict[str, torch.Tensor]:
    found = []
    for inside, seed in zip(member, seeds, strict=True):
        with _seeded(seed, device):
            found.append(state(recipe(x[inside], y[inside], seed=seed, device=device)))
    return {name: torch.stack([one[name].detach().cpu() for one in found]) for name in found[0]}


@contextmanager
def _seeded(seed: int, device: str) -> Iterator[None]:
    """Seed torch's global generators inside the block."""
    devices = [torch.cuda.current_device()] if device == "cuda" else []
    with _GLOBAL_GENERATOR, torch.random.fork_rng(devices=devices):
        # Not torch.manual_seed, which writes a stack trace for every kind of device that is not there.
        torch.default_generator.manual_seed(seed)
        if device == "cuda":
            torch.cuda.manual_seed_all(seed)
        yield


def _stacks(
    recipe: Recipe,
    features: torch.Tensor,
    labels: torch.Tensor,
    member: BoolArray,
    seeds: list[int],
    device: str,
    chunk: int | None,
) -> dict[str, torch.Tensor]:
    """Train in stacks of models that make the same number of steps."""
    steps = np.array([recipe.steps(int(count)) for count in member.sum(axis=1)])
    stack = _stack(recipe, features, [0], device)
    each = step_bytes(recipe, stack, initial(recipe, [0], device), features[:_SAMPLE])
    chunks: list[np.ndarray] = []
    for count in np.unique(steps):
        group = np.flatnonzero(steps == count)
        size = chunk or chunk_size(each, len(group), device)
        chunks += np.array_split(group, -(-len(group) // size))

    def train(chosen: np.ndarray) -> dict[str, torch.Tensor]:
        own = [seeds[number] for number in chosen]
        values = _train(recipe, features, labels, member[chosen], own, device)
        return {name: value.cpu() for name, value in values.items()}

    parts = list(in_threads(train, chunks) if device == "cpu" else map(train, chunks))
    back = torch.as_tensor(np.argsort(np.concatenate(chunks)))
    return {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}


def _stack(recipe: Recipe, features: torch.Tensor, seeds: list[int], device: str) -> Stack:
    """Raise where models of this recipe cannot be stacked."""
    with _seeded(seeds[0], device):
        model = recipe.model().to(device).train()
        probe = recipe.new_optimizer([torch.zeros(1)])
    if type(probe) not in _OPTIMIZERS:
        raise NotStackable(f"the update of {type(probe).__name__} is not known to be one of single numbers")
    sample = features[:_SAMPLE].to(device)
    return stacked(model, sample, torch.tensor(seeds, device=device), private=recipe.private)


def _train(
    recipe: Recipe,
    features: torch.Tensor,
    labels: torch.Tensor,
    member: BoolArray,
    seeds: list[int],
    device: str,
) -> dict[str, torch.Tensor]:
    """One stack, on batches and noise of each model's own."""
    values = initial(recipe, seeds, device)
    stack = _stack(recipe, features, seeds, device)
    counts = member.sum(axis=1)
    steps = recipe.steps(int(counts[0]))
    size = sum(value[0].numel() for value in trained(recipe, values).values())
    fit_stack(
        recipe,
        stack,
        values,
        features,
        labels,
        batches(recipe, member, seeds, device),
        noise(size, seeds, device) if recipe.private else repeat(torch.empty(0)),
        # As Opacus computes it from the loader: the whole number below n q.
        expected=torch.tensor([int(count * (1 / steps)) for count in counts], device=device),
        steps=recipe.epochs * steps,
    )
    return values


def initial(recipe: Recipe, seeds: Iterable[int], device: str) -> dict[str, torch.Tensor]:
    """Parameters and buffers (M, ...) of fresh models, each under its own seed, as the real loop does."""
    found = []
    for seed in seeds:
        with _seeded(seed, device):
            found.append(state(recipe.model()))
    return {name: torch.stack([one[name].detach() for one in found]).to(device) for name in found[0]}


def trained(recipe: Recipe, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those that the optimizer updates."""
    with _seeded(0, "cpu"):
        names = [name for name, p in recipe.model().named_parameters() if p.requires_grad]
    return {name: values[name] for name in names}


def fit_stack(
    recipe: Recipe,
    stack: Stack,
    values: dict[str, torch.Tensor],
    features: torch.Tensor,
    labels: torch.Tensor,
    draws: Iterable[Step],
    normal: Iterable[torch.Tensor],
    *,
    expected: torch.Tensor,
    steps: int,
) -> None:
    """Train `values` in place on given batches and noise.

    Args:
        recipe: optimizer, schedule and clip.
        stack: the models' code.
        values: parameters and buffers (M, ...).
        features: (n, ...) of all records.
        labels: (n,).
        draws: the batches of each step.
        normal: (M, parameters) standard normal numbers for each step, in the order of the parameters.
        expected: (M,) records that DP-SGD divides by.
        steps: in all, for the schedule.
    """
    parameters = trained(recipe, values)
    optimizer = recipe.new_optimizer(list(parameters.values()))
    scheduler = recipe.new_scheduler(optimizer, steps=steps)
    sizes = [value[0].numel() for value in parameters.values()]
    for draw, row in zip(draws, normal, strict=False):
        x, y = features[draw.index], labels[draw.index]
        if recipe.noise_multiplier is None:
            mean = draw.inside / draw.inside.sum(1, keepdim=True).clamp(min=1.0)
            gradients = stack.mean(values, x, y, mean)
        else:
            gradients = stack.clipped(values, x, y, draw.inside, recipe.max_grad_norm)
            deviation = recipe.noise_multiplier * recipe.max_grad_norm
            for name, part in zip(parameters, torch.split(row, sizes, dim=1), strict=True):
                gradient = gradients[name]
                divisor = expected.view(-1, *[1] * (gradient.dim() - 1))
                gradients[name] = gradient.add_(part.view_as(gradient), alpha=deviation).div_(divisor)
        for name, value in parameters.items():
            value.grad = gradients[name]
        optimizer.step()
        scheduler.step()
