"""Networks with one hidden layer, trained many at a time by batched products: shadows for benchmarks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch.nn.functional import one_hot

from dpaudit.check import FloatArray


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How all models of a target are trained."""

    hidden: int = 64
    epochs: int = 40
    batch: int = 64
    rate: float = 0.3
    sigma: float = 0.0
    clip: float = 1.0


class Stack:
    """Networks with one hidden layer, (models, ...) each parameter, trained together."""

    def __init__(self, features: int, classes: int, models: int, recipe: Recipe, seed: int):
        self.random = torch.Generator().manual_seed(seed)
        self.recipe, self.classes = recipe, classes
        width = (features, recipe.hidden, classes)
        self.weights = [
            torch.randn(models, a, b, generator=self.random) / math.sqrt(a) for a, b in pairwise(width)
        ]
        self.biases = [torch.zeros(models, 1, b) for b in width[1:]]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden units and logits of (models, b, features)."""
        hidden = torch.relu(torch.baddbmm(self.biases[0], x, self.weights[0]))
        return hidden, torch.baddbmm(self.biases[1], hidden, self.weights[1])

    def backward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Inputs and errors of both layers, of which a record's gradient is the outer product."""
        hidden, logits = self.forward(x)
        last = torch.softmax(logits, dim=-1) - one_hot(y, self.classes)
        first = torch.bmm(last, self.weights[1].transpose(1, 2)) * (hidden > 0)
        return [x, hidden], [first, last]

    def norms(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Norm of each record's gradient, (models, b): that of an outer product is the product of norms."""
        return _norms(*self.backward(x, y))

    def step(self, x: torch.Tensor, y: torch.Tensor, present: torch.Tensor, size: float) -> None:
        """One step on the records of (models, b) that are present; `size` is the expected number of them."""
        inputs, errors = self.backward(x, y)
        weight = present.float()
        if self.recipe.sigma:
            weight *= self.recipe.clip / _norms(inputs, errors).clamp(min=self.recipe.clip)
        for layer, (given, error) in enumerate(zip(inputs, errors, strict=True)):
            kept = error * weight[:, :, None]
            self._descend(self.weights[layer], torch.bmm(given.transpose(1, 2), kept), size)
            self._descend(self.biases[layer], kept.sum(1, keepdim=True), size)

    def _descend(self, parameter: torch.Tensor, total: torch.Tensor, size: float) -> None:
        if self.recipe.sigma:
            noise = torch.randn(total.shape, generator=self.random)
            total = total + self.recipe.sigma * self.recipe.clip * noise
        parameter.sub_(total, alpha=self.recipe.rate / size)

    def train(self, x: torch.Tensor, y: torch.Tensor, member: torch.Tensor) -> None:
        """Shuffled batches without privacy, Poisson batches with it; every model has as many members."""
        models, n = len(member), int(member[0].sum())
        rows = member.nonzero()[:, 1].reshape(models, n)
        steps = max(1, round(n / self.recipe.batch))
        rate = 1 / steps
        most = self.recipe.batch if not self.recipe.sigma else int(n * rate + 8 * math.sqrt(n * rate)) + 1
        for _ in range(self.recipe.epochs):
            order = torch.rand(models, n, generator=self.random).argsort(dim=1)
            for step in range(steps):
                if self.recipe.sigma:
                    order = torch.rand(models, n, generator=self.random).argsort(dim=1)
                    drawn = torch.binomial(
                        torch.full((models,), float(n)), torch.full((models,), rate), generator=self.random
                    )
                    chosen, present = order[:, :most], torch.arange(most) < drawn[:, None]
                else:
                    chosen = order[:, step * most : (step + 1) * most]
                    present = torch.ones_like(chosen, dtype=torch.bool)
                at = rows.gather(1, chosen)
                self.step(x[at], y[at], present, n * rate)

    def answers(self, x: FloatArray) -> FloatArray:
        """Log-probabilities (models, n, classes) in float64."""
        flat = torch.as_tensor(x.reshape(len(x), -1), dtype=torch.float32)
        logits = self.forward(flat.expand(len(self.weights[0]), *flat.shape))[1]
        found: FloatArray = torch.log_softmax(logits.double(), dim=-1).numpy()
        return found

    def one(self, number: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """A single model as a function from features to logits."""
        return lambda x: self._one(number, x.flatten(1))

    def _one(self, number: int, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(x @ self.weights[0][number] + self.biases[0][number])
        return hidden @ self.weights[1][number] + self.biases[1][number]


def _norms(inputs: list[torch.Tensor], errors: list[torch.Tensor]) -> torch.Tensor:
    """The norm of an outer product is the product of norms; the bias adds one input that is 1."""
    squares = [(a.square().sum(-1) + 1) * e.square().sum(-1) for a, e in zip(inputs, errors, strict=True)]
    return torch.stack(squares).sum(0).sqrt()
