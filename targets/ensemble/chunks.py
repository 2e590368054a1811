"""How many models a stack has: those whose step fits into the cache, or into the GPU's free memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from dpaudit.targets.ensemble.layers import Values
from dpaudit.targets.ensemble.stack import LayerStack, Stack
from dpaudit.targets.recipe import Recipe

_FEWEST, _MOST = 8, 256
_UNKNOWN = 16 * 2**20
_SHARE = 0.4
_COPIES = 16
_STATES = 5
_FLOAT = 4


def chunk_size(each: int, models: int, device: str) -> int:
    """Models of a stack, `models` at most, each of whose steps moves `each` bytes."""
    if device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return max(1, min(models, int(free * _SHARE) // each))
    fit = max(_FEWEST, min(_MOST, _cache() // each))
    return max(1, min(fit, -(-models // torch.get_num_threads())))


def _cache() -> int:
    """Bytes of the last cache: below it more models are faster, since each call serves more of them."""
    try:
        return max(os.sysconf("SC_LEVEL3_CACHE_SIZE"), _UNKNOWN)
    except (ValueError, OSError, AttributeError):
        return _UNKNOWN


def in_threads(train: Callable[[Any], Any], chunks: Sequence[Any]) -> Iterator[Any]:
    """Train chunks side by side, each by one thread, and yield the results in order.

    The kernels of small models are too short to be split over cores: waiting for each other takes longer.
    """
    if torch.get_num_threads() == 1:
        yield from map(train, chunks)
        return
    with ThreadPoolExecutor(
        torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        yield from pool.map(train, chunks)


def step_bytes(recipe: Recipe, stack: Stack, values: Values, sample: torch.Tensor) -> int:
    """That one model's step holds: weights, gradients, optimizer, and what a batch leaves in its layers.

    Args:
        recipe: the batches.
        stack: how gradients are formed.
        values: of one model.
        sample: (k, ...) records to try it on.
    """
    numbers = sum(value.numel() for value in values.values())
    if isinstance(stack, LayerStack):
        left = stack.numbers(values, sample) // len(sample)
    else:
        left = _COPIES * sample[0].numel() + numbers * recipe.private
    return _FLOAT * (_STATES * numbers + recipe.batch_size * left)
