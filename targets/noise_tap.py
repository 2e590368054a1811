"""Where Opacus draws noise: the clipped sum and its noise are both at hand there.

Every optimizer of Opacus, and what is derived from one, draws the noise of each parameter by one function.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from opacus.optimizers import DPOptimizer

_NAME = "_generate_noise"
_PACKAGE = "opacus.optimizers"


class NoiseTap:
    """Listens to the draws of one optimizer, and may put other noise in the place of what was drawn.

    Attributes:
        heard: number of the parameter, -1 where it is none, and noisy sum, of each draw.
        exchanging: whether noise is replaced. Sums and noise are then rounded to a grid on which both add up
            exactly: noisy sums that are made equal are so to the last bit.
        targets: the noisy sums that the draws are to lead to, in order; None to lay down those of this run.
    """

    def __init__(self, optimizer: DPOptimizer, parameters: Callable[[], Sequence[torch.nn.Parameter]]):
        self.heard: list[tuple[int, torch.Tensor]] = []
        self.exchanging = False
        self.targets: Sequence[torch.Tensor] | None = None
        self._optimizer = optimizer
        self._parameters = parameters
        self._grains: list[float] = []
        self._laid: list[torch.nn.Parameter] = []

    @contextmanager
    def on(self) -> Iterator[None]:
        """Listen."""
        self._laid = list(self._parameters())
        spaces = _namespaces(self._optimizer)
        drawn = [space[_NAME] for space in spaces]
        for space, function in zip(spaces, drawn, strict=True):
            space[_NAME] = self._around(function)
        try:
            yield
        finally:
            for space, function in zip(spaces, drawn, strict=True):
                space[_NAME] = function

    def _around(self, drawn: Callable[..., Any]) -> Callable[..., Any]:
        def draw(*args: Any, **kwargs: Any) -> Any:
            noise = drawn(*args, **kwargs)
            reference = kwargs.get("reference", args[1] if len(args) > 1 else None)
            if isinstance(reference, torch.Tensor) and isinstance(noise, torch.Tensor):
                return self._take(reference, noise)
            self.heard.append((-1, torch.zeros(0)))
            return noise

        return draw

    @torch.no_grad()
    def _take(self, reference: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        if self.exchanging:
            noise = self._exchanged(reference, noise)
        self.heard.append((self._number(reference), reference.detach() + noise))
        return noise

    def _exchanged(self, reference: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The noise that leads to the target, and the sum put on the grid."""
        draw = len(self.heard)
        if self.targets is None:
            del self._grains[draw:]
            self._grains.append(_grain(reference, noise))
            noise = _on_grid(noise, self._grains[draw])
            reference.copy_(_on_grid(reference, self._grains[draw]))
            return noise
        if draw >= len(self.targets) or self.targets[draw].shape != reference.shape:
            return noise
        reference.copy_(_on_grid(reference, self._grains[draw]))
        return self.targets[draw] - reference

    def _number(self, reference: torch.Tensor) -> int:
        """Of the parameter that the sum belongs to."""
        count = len(self._laid)
        first = len(self.heard) % max(count, 1)
        likely = ((first + i) % count for i in range(count))
        return next((i for i in likely if getattr(self._laid[i], "summed_grad", None) is reference), -1)


def _namespaces(optimizer: DPOptimizer) -> list[dict[str, Any]]:
    """Every place where a method of the optimizer would look the function up."""
    spaces = [vars(module) for name, module in list(sys.modules.items()) if name.startswith(_PACKAGE)]
    methods = [value for kind in type(optimizer).__mro__ for value in vars(kind).values()]
    for method in (*methods, *vars(optimizer).values()):
        spaces.append(getattr(getattr(method, "__func__", method), "__globals__", {}))
    known = {id(space): space for space in spaces if isinstance(space, dict)}
    return [space for space in known.values() if callable(space.get(_NAME))]


def _grain(reference: torch.Tensor, noise: torch.Tensor) -> float:
    """Of the grid on which this noise, and sums far larger than this, are added without rounding."""
    largest = 256.0 * max(float(noise.abs().max()), float(reference.abs().max())) if noise.numel() else 0.0
    if not 0.0 < largest < math.inf:
        return 0.0
    return float(2.0 ** math.ceil(math.log2(largest))) * torch.finfo(noise.dtype).eps


def _on_grid(values: torch.Tensor, grain: float) -> torch.Tensor:
    return torch.round(values / grain) * grain if grain else values
