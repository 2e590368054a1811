"""A convolution as three steps: cut patches, one linear layer over them, put the channels in front again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


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
        if any(self.padding):
            images = functional.pad(images, [p for p in reversed(self.padding) for _ in range(2)])
        for axis, (kernel, stride) in enumerate(zip(self.kernel, self.stride, strict=True)):
            images = images.unfold(2 + axis, kernel, stride)
        axes = len(self.kernel)
        places = range(2, 2 + axes)
        return images.permute(0, *places, 1, *range(2 + axes, 2 + 2 * axes)).flatten(1 + axes)


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
