"""Layers of many models at once: forward, per-record gradient norms in closed form, weighted gradient sums.

Shapes: M models, B records each, T positions of a record (pixels, tokens; 1 for a plain vector). Parameters
keep the layout of their module behind a leading axis of models. A layer's per-record gradient is made of what
went into it (`a`) and what the backward pass brought to its output (`b`), so its norm needs none: for a
linear layer |a|^2 |b|^2 (Goodfellow 2015, arXiv:1510.01799), with positions <a a^T, b b^T> (Li et al. 2022,
arXiv:2110.05679), or the gradient itself where that is smaller (Bu et al. 2022, arXiv:2205.10683).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional

Values = Mapping[str, torch.Tensor]
Gradients = dict[str, torch.Tensor]


class Layer(Protocol):
    """A layer with parameters, over a stack of models."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of its parameters."""
        ...

    def forward(self, inputs: torch.Tensor, values: Values) -> tuple[torch.Tensor, torch.Tensor]:
        """Output (M, B, ...) without activation, and `a`, which the two below are given."""
        ...

    def sums(self, a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor, values: Values) -> Gradients:
        """Sum over records of per-record gradients times `weight` (M, B)."""
        ...

    def norms(
        self, a: torch.Tensor, b: torch.Tensor, values: Values
    ) -> tuple[torch.Tensor, Callable[[torch.Tensor], Gradients]]:
        """Squared norms (M, B) of per-record gradients, and `sums` as a function of the weight."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """Over the last axis; a convolution is one over its patches.

    Attributes:
        weight: name; (M, out, ...) with the input axes behind.
        bias: name, or empty.
    """

    weight: str
    bias: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """See `Layer`."""
        return (self.weight, self.bias) if self.bias else (self.weight,)

    def forward(self, inputs: torch.Tensor, values: Values) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Layer`: one batched product over all models."""
        rows = inputs.flatten(1, -2)
        weight = values[self.weight].flatten(2).transpose(1, 2)
        if self.bias:
            out = torch.baddbmm(values[self.bias].unsqueeze(1), rows, weight)
        else:
            out = torch.bmm(rows, weight)
        return out.reshape(*inputs.shape[:-1], -1), inputs

    def sums(self, a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor, values: Values) -> Gradients:
        """See `Layer`: one batched product over all records."""
        weighted = (b.flatten(2, -2) * weight[..., None, None]).flatten(1, 2) if b.dim() > 3 else None
        rows = b * weight[..., None] if weighted is None else weighted
        shape = values[self.weight].shape
        found = {self.weight: torch.bmm(rows.transpose(1, 2), a.flatten(1, -2)).view(shape)}
        return {**found, self.bias: rows.sum(1)} if self.bias else found

    def norms(
        self, a: torch.Tensor, b: torch.Tensor, values: Values
    ) -> tuple[torch.Tensor, Callable[[torch.Tensor], Gradients]]:
        """See `Layer`; with T positions 2 T^2 numbers a record, or in * out where those are fewer."""
        if a.dim() == 3:
            of_a = a.square().sum(-1)
            squared = (of_a + 1.0 if self.bias else of_a) * b.square().sum(-1)
            return squared, lambda weight: self.sums(a, b, weight, values)
        a, b = a.flatten(2, -2), b.flatten(2, -2)
        at_bias = b.sum(2) if self.bias else None
        beside = 0.0 if at_bias is None else at_bias.square().sum(-1)
        if 2 * a.shape[2] ** 2 <= a.shape[-1] * b.shape[-1]:
            gram = torch.matmul(a, a.transpose(-1, -2)) * torch.matmul(b, b.transpose(-1, -2))
            return gram.sum((-1, -2)) + beside, lambda weight: self.sums(a, b, weight, values)
        each = torch.matmul(b.transpose(-1, -2), a).flatten(2)
        shape = values[self.weight].shape

        def sums(weight: torch.Tensor) -> Gradients:
            row = weight.unsqueeze(1)
            found = {self.weight: torch.bmm(row, each).view(shape)}
            return found if at_bias is None else {**found, self.bias: torch.bmm(row, at_bias).squeeze(1)}

        return each.square().sum(-1) + beside, sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """A table, looked up by integers.

    Attributes:
        weight: name; (M, rows, width).
    """

    weight: str

    @property
    def names(self) -> tuple[str, ...]:
        """See `Layer`."""
        return (self.weight,)

    def forward(self, inputs: torch.Tensor, values: Values) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Layer`: all tables end to end, one look-up."""
        table = values[self.weight]
        first = torch.arange(len(table), device=table.device) * table.shape[1]
        rows = inputs + first.view(-1, *[1] * (inputs.dim() - 1))
        return functional.embedding(rows, table.flatten(0, 1)), rows

    def sums(self, a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor, values: Values) -> Gradients:
        """See `Layer`."""
        table = values[self.weight]
        weighted = b * weight.view(*weight.shape, *[1] * (b.dim() - 2))
        total = torch.zeros_like(table).flatten(0, 1)
        total.index_add_(0, a.flatten(), weighted.flatten(0, -2))
        return {self.weight: total.view_as(table)}

    def norms(
        self, a: torch.Tensor, b: torch.Tensor, values: Values
    ) -> tuple[torch.Tensor, Callable[[torch.Tensor], Gradients]]:
        """See `Layer`: the Gram form over the T tokens of a record, where equal tokens meet; T^2 a record."""
        tokens = a.reshape(*a.shape[:2], -1)
        back = b.reshape(*tokens.shape, b.shape[-1])
        meet = tokens.unsqueeze(-1) == tokens.unsqueeze(-2)
        squared = (torch.matmul(back, back.transpose(-1, -2)) * meet).sum((-1, -2))
        return squared, lambda weight: self.sums(a, b, weight, values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The weight and bias of a normalisation, whose per-record gradients are as small as its parameters.

    Attributes:
        weight: name; (M, ...).
        bias: name, or empty.
        trailing: axes behind those of the parameters, such as the pixels behind the channels.
    """

    weight: str
    bias: str = ""
    trailing: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """See `Layer`."""
        return (self.weight, self.bias) if self.bias else (self.weight,)

    def forward(self, inputs: torch.Tensor, values: Values) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Layer`: of normalised inputs."""
        out = inputs * self._wide(values[self.weight], inputs)
        return (out + self._wide(values[self.bias], inputs) if self.bias else out), inputs

    def sums(self, a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor, values: Values) -> Gradients:
        """See `Layer`."""
        return self.norms(a, b, values)[1](weight)

    def norms(
        self, a: torch.Tensor, b: torch.Tensor, values: Values
    ) -> tuple[torch.Tensor, Callable[[torch.Tensor], Gradients]]:
        """See `Layer`: per-record gradients are formed."""
        axes = values[self.weight].dim() - 1
        each = {self.weight: self._each(a * b, axes)}
        if self.bias:
            each[self.bias] = self._each(b, axes)

        def sums(weight: torch.Tensor) -> Gradients:
            row = weight.unsqueeze(1)
            return {name: torch.bmm(row, rows).view(values[name].shape) for name, rows in each.items()}

        return torch.stack([rows.square().sum(-1) for rows in each.values()]).sum(0), sums

    def _wide(self, value: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """With axes for the records and positions: (M, 1, parameters, 1) or (M, 1, 1, parameters)."""
        ones = [1] * (inputs.dim() - value.dim() - 1)
        inner = (*value.shape[1:], *ones) if self.trailing else (*ones, *value.shape[1:])
        return value.reshape(len(value), 1, *inner)

    def _each(self, rows: torch.Tensor, axes: int) -> torch.Tensor:
        """Sum over positions: (M, B, parameters)."""
        if self.trailing:
            return rows.flatten(2 + axes).sum(-1).flatten(2) if rows.dim() > 2 + axes else rows.flatten(2)
        return rows.flatten(2, -axes - 1).sum(2).flatten(2) if rows.dim() > 2 + axes else rows.flatten(2)
