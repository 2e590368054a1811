"""Between per-record gradients as rows of one array and as Opacus keeps them, a tensor per parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dpaudit.protocols import RowArray


def flatten(tensors: Sequence[torch.Tensor]) -> RowArray:
    """Concatenate one tensor per parameter into (d,) on the CPU."""
    flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
    array: RowArray = flat.cpu().numpy()
    return array


def has_samples(parameter: torch.nn.Parameter) -> bool:
    """Whether per-record gradients were formed for this parameter."""
    return getattr(parameter, "grad_sample", None) is not None


def samples(parameter: torch.nn.Parameter) -> torch.Tensor:
    """Per-record gradients (b, ...) of one parameter, accumulated backward passes together."""
    sample: torch.Tensor | list[torch.Tensor] = parameter.grad_sample  # type: ignore[attr-defined]
    return sample if isinstance(sample, torch.Tensor) else torch.cat(sample)


def set_samples(parameter: torch.nn.Parameter, sample: torch.Tensor) -> None:
    """Replace per-record gradients, keeping the number of backward passes, which scales the gradient."""
    before = parameter.grad_sample  # type: ignore[attr-defined]
    after: Any = sample
    if isinstance(before, list):
        sizes = [len(part) for part in before[:-1]]
        cuts = np.cumsum([0, *sizes]).clip(max=len(sample))
        after = [sample[a:b] for a, b in zip(cuts, [*cuts[1:], len(sample)], strict=True)]
    parameter.grad_sample = after  # type: ignore[attr-defined]


def read(parameters: Sequence[torch.nn.Parameter]) -> RowArray:
    """Per-record gradients over all parameters, (b, d)."""
    stacked = torch.cat([samples(p).detach().flatten(1).float() for p in parameters], dim=1)
    array: RowArray = stacked.cpu().numpy()
    return array


def write(parameters: Sequence[torch.nn.Parameter], rows: RowArray, *, mean_over: float) -> None:
    """Give every parameter the per-record gradients `rows` (b, d), and the gradient that goes with them.

    Args:
        parameters: of d elements together.
        rows: per-record gradients; none for an empty batch.
        mean_over: what `p.grad` divides the sum by: a mean loss has divided by the batch, a sum by nothing.
    """
    start = 0
    for parameter in parameters:
        stop = start + parameter.numel()
        part = torch.as_tensor(np.ascontiguousarray(rows[:, start:stop]), device=parameter.device)
        part = part.view(-1, *parameter.shape)
        if has_samples(parameter):
            set_samples(parameter, part.to(samples(parameter).dtype))
        if parameter.grad is not None or not has_samples(parameter):
            parameter.grad = (part.sum(dim=0) / mean_over).to(parameter.dtype)
        start = stop


def edit(
    parameters: Sequence[torch.nn.Parameter],
    insert: RowArray | None,
    remove: int | None,
    *,
    mean_over: float,
) -> None:
    """Add or leave out one record in every `grad_sample`; without these, add `insert` to the gradient.

    Args:
        parameters: of d elements together.
        insert: (d,) gradient of the record to add.
        remove: index of the record to leave out.
        mean_over: what `p.grad` divides the sum by.
    """
    start = 0
    for parameter in parameters:
        stop = start + parameter.numel()
        if has_samples(parameter):
            sample = samples(parameter)
            if remove is not None:
                sample = torch.cat([sample[:remove], sample[remove + 1 :]])
            if insert is not None:
                row = torch.as_tensor(insert[start:stop], dtype=sample.dtype, device=sample.device)
                sample = torch.cat([sample, row.view(1, *sample.shape[1:])])
            set_samples(parameter, sample)
        elif insert is not None and parameter.grad is not None:
            row = torch.as_tensor(insert[start:stop] / mean_over, dtype=parameter.grad.dtype)
            parameter.grad = parameter.grad + row.view_as(parameter.grad).to(parameter.grad.device)
        start = stop
