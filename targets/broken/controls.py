"""Correct uses of Opacus that an audit must not accuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from opacus.optimizers import DPOptimizer
from opacus.schedulers import ExponentialNoise

from dpaudit.targets import models


class FlippedNoise(DPOptimizer):  # type: ignore[misc]
    """The noise is subtracted: the same mechanism."""

    def add_noise(self) -> None:
        """Turn the sign of what was added."""
        super().add_noise()
        for p in self.params:
            p.grad = 2 * p.summed_grad.view_as(p) - p.grad


class NoiseAtEachMicroBatch(DPOptimizer):  # type: ignore[misc]
    """Noise is added at every virtual batch, more than is needed."""

    def clip_and_accumulate(self) -> None:
        """Accumulate, and add noise unless the step will."""
        super().clip_and_accumulate()
        if self._check_skip_next_step(pop_next=False):
            for p in self.params:
                deviation = self.noise_multiplier * self.max_grad_norm
                p.summed_grad = p.summed_grad + torch.normal(0.0, deviation, p.summed_grad.shape)


def _momentum(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def _decay(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, weight_decay=0.1)


def _adam(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=lr / 50)


_ADAPTIVE = {
    "clipping": "adaptive",
    "target_unclipped_quantile": 0.5,
    "clipbound_learning_rate": 0.2,
    "max_clipbound": 10.0,
    "min_clipbound": 0.1,
    "unclipped_num_std": 2.0,
}

_NETWORKS: Mapping[str, Callable[..., torch.nn.Module] | None] = {
    "linear": None,
    "convolution": models.convolution,
    "embedding": models.Tokens,
    "lstm": models.Recurrent,
    "3-d inputs": models.per_token,
}

CONTROLS: dict[str, dict[str, Any]] = {
    "reference": {},
    "small clipping norm": {"max_grad_norm": 0.01},
    "large clipping norm": {"max_grad_norm": 10.0},
    "noise at each virtual batch": {"mixin": NoiseAtEachMicroBatch, "micro_batch": 16},
    "weight decay": {"inner": _decay},
    "momentum": {"inner": _momentum},
    "adam": {"inner": _adam},
    "learning-rate schedule": {"schedule": lambda o: torch.optim.lr_scheduler.StepLR(o, 5)},
    "noise schedule": {"schedule": lambda o: ExponentialNoise(o, gamma=0.999), "epochs": 1},
    "noise with its sign flipped": {"mixin": FlippedNoise},
    "per-layer clipping": {"private": {"clipping": "per_layer"}, "max_grad_norm": [0.5] * 4},
    "adaptive clipping": {"private": _ADAPTIVE},
    "sum of losses": {"private": {"loss_reduction": "sum"}, "learning_rate": 0.01},
    "virtual batches": {"micro_batch": 16},
    "empty batches": {"batch_size": 2, "epochs": 1},
    "frozen layers": {"network": models.half_frozen},
    "bfloat16 forward pass": {"autocast": True},
    **{
        f"{mode}, {name}": {
            "grad_sample_mode": mode,
            "network": network,
            "max_grad_norm": 0.05 if name == "3-d inputs" else 1.0,
        }
        for mode in ("hooks", "functorch", "ghost")
        for name, network in _NETWORKS.items()
    },
}
"""Options of `Loop` by name."""
