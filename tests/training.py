"""Small Opacus training functions for tests: each a correct use, or one with a fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from opacus import PrivacyEngine
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dpaudit.accounting import family_for
from dpaudit.attacks.reconstruction.prior_aware import PriorAware
from dpaudit.attacks.replay import ReplayAttack
from dpaudit.attacks.step_canary import StepCanary
from dpaudit.canary import Canaries, make_pool
from dpaudit.contradictions import law_findings, replay_findings
from dpaudit.evidence import Finding, KnownNull, Replay
from dpaudit.protocols import View
from dpaudit.stats import known_null, noise
from dpaudit.targets.broken import plant
from dpaudit.targets.observed import TrainingFunction

Fit = Callable[..., Any]
RIDERS = (
    ReplayAttack(stride=3),
    StepCanary(references=300, replays=5),
    PriorAware(candidates=4, games=1),
)


def canaries(seed: int = 0) -> Canaries:
    """A pool of 216 random records, half of them in."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((240, 16)), rng.integers(0, 2, 240)
    return make_pool(x, y, n_canaries=20, test_fraction=0.1, rng=rng).draw(rng)


class Tokens(nn.Module):
    """Embedding, LayerNorm and Linear over integer codes of the features."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm, self.head = nn.Embedding(10, 8), nn.LayerNorm(8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        codes = (x.abs() * 3).long().clamp(max=9)
        return self.head(self.norm(self.embedding(codes)).mean(1))


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))


def half_frozen() -> nn.Module:
    model = perceptron()
    for parameter in model[0].parameters():
        parameter.requires_grad = False
    return model


def dp_sgd(
    *,
    model: Callable[[], nn.Module] = perceptron,
    optimizer: Callable[[Any], torch.optim.Optimizer] = lambda p: torch.optim.SGD(p, lr=0.1),
    scheduler: Callable[[Any], Any] | None = None,
    epochs: int = 4,
    batch_size: int = 16,
    micro_batch: int | None = None,
    closure: bool = False,
    fault: str | None = None,
    noise_multiplier: float = 1.0,
    max_grad_norm: Any = 1.0,
    **private: Any,
) -> Fit:
    """A training function that uses Opacus as its manual says."""

    def fit(x: Any, y: Any, *, seed: int, device: str) -> nn.Module:
        network = model()
        inner = optimizer([p for p in network.parameters() if p.requires_grad])
        loader = DataLoader(TensorDataset(torch.as_tensor(x), torch.as_tensor(y)), batch_size=batch_size)
        loss: Any = nn.CrossEntropyLoss(reduction=private.get("loss_reduction", "mean"))
        if "ghost" in private.get("grad_sample_mode", ""):
            private["criterion"] = loss
        made = PrivacyEngine().make_private(
            module=network,
            optimizer=inner,
            data_loader=loader,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            **private,
        )
        wrapped, outer, loader = made[0], made[1], made[-1]
        loss = made[2] if len(made) == 4 else loss
        if fault:
            plant(outer, fault)
        schedule = scheduler(outer) if scheduler else None

        def one_epoch(batches: Any) -> None:
            for features, labels in batches:

                def backward(features: Any = features, labels: Any = labels) -> Any:
                    outer.zero_grad()
                    value = loss(wrapped(features), labels)
                    value.backward()
                    return value

                if closure:
                    outer.step(backward)
                else:
                    backward()
                    outer.step()
                if schedule:
                    schedule.step()

        for _ in range(epochs):
            if micro_batch:
                with BatchMemoryManager(
                    data_loader=loader, max_physical_batch_size=micro_batch, optimizer=outer
                ) as small:
                    one_epoch(small)
            else:
                one_epoch(loader)
        return network

    return fit


def audited(fit: Fit, seed: int = 3) -> View:
    """Train once under the step attacks."""
    return TrainingFunction(name="test", fit=fit, delta=1e-5).train(
        canaries(), seed=seed, device="cpu", attacks=RIDERS
    )


def findings(view: View) -> list[Finding]:
    """Every deterministic contradiction in a view."""
    found = [*view.findings, *(e for e in view.evidence if isinstance(e, Finding))]
    for evidence in view.evidence:
        if isinstance(evidence, Replay):
            found += replay_findings(evidence, family_for(view.claim, delta=1e-5))
            found += law_findings(evidence, alpha=1e-6)
    return found


def p_values(view: View) -> dict[str, float]:
    """P-values of "the claim holds" by the replayed noise and by the step canary."""
    family = family_for(view.claim, delta=1e-5)
    found = {}
    for evidence in view.evidence:
        if isinstance(evidence, Replay):
            found["replay"] = noise.replay(evidence, family, alpha=0.01).p_value
        elif isinstance(evidence, KnownNull):
            found["step-canary"] = known_null.fixed(evidence, family, alpha=0.01).p_value
    return {name: p for name, p in found.items() if p is not None}
