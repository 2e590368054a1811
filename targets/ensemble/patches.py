"""A convolution as three steps: cut patches, one linear layer over them, put the channels in front again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

_Pair = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """Images or series (k, channels, ...) to patches (k, ..., channels * kernel).

    Attributes:
        kernel: size along each axis.
        stride: along each axis.
        padding: zeros on both sides of each axis.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Memory: the input times the kernel over the stride."""
        series = images.dim() == 3
        kernel, stride, padding = self.kernel, self.stride, self.padding
        if series:
            images, kernel, stride, padding = images.unsqueeze(2), (1, *kernel), (1, *stride), (0, *padding)
        patches: torch.Tensor = _Cut.apply(images, kernel, stride, padding)  # type: ignore[no-untyped-call]
        return patches.squeeze(1) if series else patches


class _Cut(torch.autograd.Function):
    """Forward by one strided copy, backward by col2im: torch's own pair of either kind has one slow half."""

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, kernel: _Pair, stride: _Pair, padding: _Pair) -> torch.Tensor:
        ctx.settings = images.shape[2:], kernel, padding, stride
        if any(padding):
            images = functional.pad(images, (padding[1], padding[1], padding[0], padding[0]))
        views = images.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1])
        return views.permute(0, 2, 3, 1, 4, 5).flatten(3).contiguous()

    @staticmethod
    def backward(ctx: Any, back: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        size, kernel, padding, stride = ctx.settings
        columns = back.flatten(1, 2).transpose(1, 2).contiguous()
        return functional.fold(columns, size, kernel, padding=padding, stride=stride), None, None, None


def channels_first(patches: torch.Tensor) -> torch.Tensor:
    """(k, ..., channels) to (k, channels, ...)."""
    return patches.movedim(-1, 1)


def cut(module: nn.Conv1d | nn.Conv2d) -> Patches | None:
    """The patches of a convolution; None for one that has groups, dilation or padding of another kind."""
    plain = module.groups == 1 and set(module.dilation) == {1} and module.padding_mode == "zeros"
    if not plain or isinstance(module.padding, str):
        return None
    return Patches(
        kernel=tuple(module.kernel_size), stride=tuple(module.stride), padding=tuple(module.padding)
    )
