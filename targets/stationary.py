"""Records of which the weights of a small network could be made, if its training has converged.

A homogeneous network that was trained on to a small cross-entropy points where its weights are a combination
of the gradients of the records with the least margin, with weights that are not negative (Lyu and Li 2020,
arXiv:1906.05890). Haim et al. 2022 (arXiv:2206.07758) search for records of which that is true.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from dpaudit.asking import StationaryAsked
from dpaudit.check import FloatArray

Predict = Callable[[torch.Tensor], torch.Tensor]
_STREAM = 20_220_607
_RATE, _SPREAD = 0.02, 0.1
_SHARPEST, _BLUNTEST = 60.0, 12.0
"""Slope of the sigmoid that stands in for the step of a ReLU, at the end of the search and at its start."""
_OUTSIDE = 0.01
"""Weight of values out of range, against the part of the weights that is not explained."""
_EXACT = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoLayers:
    """A network of one hidden layer of ReLU and two classes.

    Attributes:
        weight: (h, d) of the hidden layer.
        bias: (h,); None where it has none.
        readout: (h,) what each neuron adds to the logit of class 1 beyond that of class 0.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    readout: torch.Tensor


def stationary(
    model: Predict, x: FloatArray, scores: FloatArray, public: FloatArray, asked: StationaryAsked
) -> FloatArray:
    """Records that explain the weights of a two-layer network, by Adam from noise around the public mean.

    Minimises what no combination of the gradients explains of the weights, over candidates and their
    weights together. Costs `iterations` products of candidates * neurons * features, and runs on the CPU.

    Args:
        model: of which the weights are read.
        x: records (n, ...); what the model says of them shows that its weights are all that it is made of.
        scores: log-probabilities (n, 2) of the model.
        public: records (k, ...) of the same kind that were not trained on, for their mean and range.
        asked: the search.

    Returns:
        (candidates, ...), those of most weight first; (0,) for any other model, and for constant records.
    """
    network = two_layers(model, x, scores)
    if network is None or not len(public) or not np.ptp(public):
        return np.zeros(0)
    flat = torch.as_tensor(public.reshape(len(public), -1), dtype=torch.float32)
    low, high = flat.min(), flat.max()
    rng = np.random.default_rng(_STREAM)
    noise = torch.as_tensor(rng.standard_normal((asked.candidates, flat.shape[1])), dtype=torch.float32)
    spread = _SPREAD * (high - low)
    records = (flat.mean(dim=0) + spread * noise).requires_grad_()
    # The square keeps weights of records above zero.
    scale = _first_scale(network, records.detach())
    roots = torch.full((asked.candidates,), scale).requires_grad_()
    sign = torch.ones(asked.candidates)
    sign[::2] = -1.0
    rates = (records, _RATE * float(high - low)), (roots, _RATE * scale)
    adam = torch.optim.Adam([{"params": [each], "lr": rate} for each, rate in rates])
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, asked.iterations)
    with torch.enable_grad():
        for step in range(asked.iterations):
            slope = _BLUNTEST + (_SHARPEST - _BLUNTEST) * step / asked.iterations
            outside = torch.relu(low - records).square().sum() + torch.relu(records - high).square().sum()
            loss = _unexplained(network, records, sign * roots.square(), slope)
            adam.zero_grad()
            (loss + _OUTSIDE * outside / (high - low).square()).backward()  # type: ignore[no-untyped-call]
            adam.step()
            decay.step()
    order = roots.detach().square().argsort(descending=True)
    found = records.detach()[order].clamp(low, high).double().numpy()
    return np.asarray(found.reshape(-1, *x.shape[1:]))


def two_layers(model: Predict, x: FloatArray, scores: FloatArray) -> TwoLayers | None:
    """The weights of a model that is such a network and nothing else; None for any other.

    That nothing is done to records before the first layer is not assumed: the network's own log-probabilities
    of the records have to be those of the model.
    """
    modules = model.modules() if isinstance(model, nn.Module) else ()
    parts = [part for part in modules if isinstance(part, nn.Linear)]
    fits = len(parts) == 2 and scores.shape[1] == 2 and parts[0].in_features == x[0].size
    if not fits or parts[1].in_features != parts[0].out_features or parts[1].out_features != 2:
        return None
    with torch.no_grad():
        first, last = (part.weight.detach().float().cpu() for part in parts)
        bias = None if parts[0].bias is None else parts[0].bias.detach().float().cpu()
        end = 0.0 if parts[1].bias is None else parts[1].bias.detach().float().cpu()
        flat = torch.as_tensor(x.reshape(len(x), -1), dtype=torch.float32)
        logits = torch.relu(flat @ first.T + (0.0 if bias is None else bias)) @ last.T + end
        own = torch.log_softmax(logits, dim=1).numpy()
    if not np.allclose(own, scores, rtol=_EXACT, atol=_EXACT):
        return None
    return TwoLayers(weight=first, bias=bias, readout=last[1] - last[0])


def _first_scale(network: TwoLayers, records: torch.Tensor) -> float:
    """Root of the weight with which these records would come to weights of the right size."""
    made = network.readout.abs().mean() * records.norm(dim=1).mean() * len(records) ** 0.5
    return float((network.weight.norm(dim=1).mean() / made.clamp(min=1e-12)).sqrt())


def _unexplained(
    network: TwoLayers, records: torch.Tensor, weights: torch.Tensor, slope: float
) -> torch.Tensor:
    """Share of the squared weights that the combination of gradients leaves; `weights` (m,) have signs.

    The derivative of the ReLU is a sigmoid, so that records can move over a kink. Both logits move
    against each other, which doubles the gradient of the readout.
    """
    before = records @ network.weight.T + (0.0 if network.bias is None else network.bias)
    on = torch.sigmoid(slope * before / (network.weight.norm(dim=1) + 1e-9))
    each = weights[:, None] * on * network.readout
    squares = network.weight.square().sum() + network.readout.square().sum() / 2
    left = (each.T @ records - network.weight).square().sum()
    left = left + ((weights[:, None] * before * on).sum(dim=0) * 2 - network.readout).square().sum() / 2
    if network.bias is not None:
        left = left + (each.sum(dim=0) - network.bias).square().sum()
        squares = squares + network.bias.square().sum()
    return left / squares
