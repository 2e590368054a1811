"""Members have the smaller gradient (Nasr et al. 2019, arXiv:1812.00910), seen with the model's weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpaudit.asking import Asked
from dpaudit.attacks.membership.logodds import unknown
from dpaudit.check import FloatArray
from dpaudit.evidence import Access
from dpaudit.protocols import View


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientNorm:
    """Minus the log norm of the gradient of the record's loss over all trainable parameters."""

    name: str = "gradient-norm"
    access: Access = Access.FINAL_MODEL
    shadows: int = 0

    @property
    def asked(self) -> Asked:
        """Gradients."""
        return Asked(gradients=True)

    def scores(self, targets: Sequence[View], shadows: Sequence[View]) -> FloatArray:
        """(targets, n); NaN where the model is no torch module. Cost targets * n."""
        if any(len(v.gradient_norms) != len(v.canaries.y) for v in targets):
            return unknown(targets)
        return np.stack([-np.log(np.maximum(v.gradient_norms, 1e-300)) for v in targets])
