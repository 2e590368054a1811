"""What a data loader hands out, as rows: tensors, and tuples, lists and dictionaries of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def tensors(batch: Any, size: int) -> list[torch.Tensor]:
    """Those of a batch that have a row for each of its `size` records."""
    if isinstance(batch, torch.Tensor):
        return [batch] if batch.dim() and len(batch) == size else []
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, (tuple, list)) else ()
    return [tensor for part in parts for tensor in tensors(part, size)]


def mapped(batch: Any, size: int, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same batch with each of those tensors changed."""
    if isinstance(batch, torch.Tensor):
        return change(batch) if batch.dim() and len(batch) == size else batch
    if isinstance(batch, dict):
        return {key: mapped(part, size, change) for key, part in batch.items()}
    if type(batch) in (tuple, list):
        return type(batch)(mapped(part, size, change) for part in batch)
    return batch


def chosen(batch: Any, size: int, kept: torch.Tensor) -> Any:
    """The same batch with some of its records, by position."""
    return mapped(batch, size, lambda tensor: tensor[kept.to(tensor.device)])
