"""How weights stand after the last private step that moved them, against how the code leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class Standing:
    """The latest sum of every weight that private steps move, whichever optimizer made the step.

    Attributes:
        left: whether weights were written to after that, as of the end of the run.
    """

    def __init__(self) -> None:
        self.left = False
        self._stood: dict[int, tuple[torch.Tensor, Any, float]] = {}

    def moving(self, parameters: Sequence[torch.Tensor]) -> None:
        """A step is about to be made, or to fail halfway."""
        for parameter in parameters:
            self._stood.pop(id(parameter), None)

    def stood(self, parameters: Sequence[torch.Tensor]) -> None:
        """A step was made. Costs a sum over the weights."""
        self._stood |= {id(p): (p, _kind(p), float(_sum(p))) for p in parameters}

    def ended(self) -> None:
        """Nothing more runs. What was moved to another device or precision cannot be compared."""
        now = ((_kind(p) == kind, float(_sum(p)), before) for p, kind, before in self._stood.values())
        self.left = any(same and after != before and before == before for same, after, before in now)
        self._stood.clear()


def _sum(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.detach().sum(dtype=torch.float32)


def _kind(parameter: torch.Tensor) -> tuple[Any, ...]:
    return parameter.dtype, parameter.device, parameter.shape
