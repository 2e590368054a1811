"""Batches and noise of many models, drawn from a generator of each model's own.

A generator is asked in pieces whose size depends on one model alone, so that a model is trained on the same
batches and noise in whatever stack it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from dpaudit.targets.recipe import Recipe

_PIECE = 2**16
"""Numbers drawn from a generator at once: few calls, and a stack's pieces still fit into the cache."""
_BATCHES, _NOISE = range(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The batches of one step.

    Attributes:
        index: (M, B) numbers of records; anything where nobody is inside.
        inside: (M, B) 1.0 where there is a record, 0.0 in the padding.
    """

    index: torch.Tensor
    inside: torch.Tensor


def batches(recipe: Recipe, member: np.ndarray, seeds: list[int], device: str) -> Iterator[Step]:
    """Every step of a whole training.

    Args:
        recipe: says how many epochs, and how batches are drawn.
        member: (M, n) bool; every row with the same number of steps.
        seeds: (M,).
        device: where batches are drawn and used.
    """
    counts = member.sum(axis=1).tolist()
    widest = max(counts)
    # Members of each model first, in order; what follows is never looked up.
    order = np.argsort(~member, axis=1, kind="stable")[:, :widest]
    records = torch.as_tensor(order, device=device)
    generators = [_generator(seed, _BATCHES, device) for seed in seeds]
    steps = recipe.steps(counts[0])
    draw = _poisson if recipe.poisson else _shuffled
    for step in draw(counts, steps, recipe, generators):
        yield Step(index=records.gather(1, step.index), inside=step.inside)


def noise(size: int, seeds: list[int], device: str) -> Iterator[torch.Tensor]:
    """For each step (M, size) standard normal numbers. The tensor is overwritten later."""
    generators = [_generator(seed, _NOISE, device) for seed in seeds]
    block = torch.empty((len(seeds), max(1, _PIECE // (2 * size)), size), device=device)
    while True:
        # One call a model for many steps, since a generator cannot be asked for several models.
        for row, generator in zip(block, generators, strict=True):
            row.normal_(generator=generator)
        yield from block.unbind(1)


def _generator(seed: int, stream: int, device: str) -> torch.Generator:
    state = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0]
    return torch.Generator(device=device).manual_seed(int(state) % 2**63)


def _poisson(
    counts: list[int], steps: int, recipe: Recipe, generators: list[torch.Generator]
) -> Iterator[Step]:
    """Each record by a coin of its own in each step, with probability one over the steps of an epoch."""
    device = generators[0].device
    total, piece = recipe.epochs * steps, max(1, _PIECE // max(counts))
    for start in range(0, total, piece):
        length = min(piece, total - start)
        drawn = torch.zeros((len(counts), length, max(counts)), dtype=torch.bool, device=device)
        for row, count, generator in zip(drawn, counts, generators, strict=True):
            coins = torch.rand((length, count), generator=generator, device=device)
            row[:, :count] = coins < 1.0 / steps
        yield from _packed(drawn.transpose(0, 1))


def _packed(drawn: torch.Tensor) -> Iterator[Step]:
    """Masks (steps, M, n) to the numbers of those drawn, in order, padded to the largest batch of a step."""
    sizes = drawn.sum(-1)
    widths = sizes.amax(1).clamp(min=1).tolist()
    step, model, record = drawn.nonzero(as_tuple=True)
    first = sizes.flatten().cumsum(0) - sizes.flatten()
    place = torch.arange(len(record), device=drawn.device) - first[step * drawn.shape[1] + model]
    index = torch.zeros((*sizes.shape, max(widths)), dtype=torch.int64, device=drawn.device)
    index[step, model, place] = record
    inside = (torch.arange(max(widths), device=drawn.device) < sizes[..., None]).float()
    for number, width in enumerate(widths):
        yield Step(index=index[number, :, :width], inside=inside[number, :, :width])


def _shuffled(
    counts: list[int], steps: int, recipe: Recipe, generators: list[torch.Generator]
) -> Iterator[Step]:
    """Each epoch in an order of its own, the last batch with what is left."""
    device, size = generators[0].device, recipe.batch_size
    sizes = torch.tensor(counts, device=device)[:, None]
    place = torch.arange(steps * size, device=device)
    inside = (place < sizes).float()
    for _ in range(recipe.epochs):
        order = torch.zeros((len(counts), steps * size), dtype=torch.int64, device=device)
        for row, count, generator in zip(order, counts, generators, strict=True):
            row[:count] = torch.randperm(count, generator=generator, device=device)
        for start in range(0, max(counts), size):
            end = min(start + size, max(counts))
            yield Step(index=order[:, start:end], inside=inside[:, start:end])
