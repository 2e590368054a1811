"""What a trained model answers: log-probabilities, answers about changed records, and gradients.

Whatever is changed in a record is changed alike for every model, so that answers can be compared.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from dpaudit.asking import Asked
from dpaudit.check import FloatArray, IntArray
from dpaudit.errors import TrialError, UsageError
from dpaudit.protocols import View
from dpaudit.targets.language.likelihoods import with_secrets
from dpaudit.targets.representatives import linear, representatives
from dpaudit.targets.stationary import stationary

Predict = Callable[[torch.Tensor], torch.Tensor]
_BATCH = 4096
_ROWS = 64
_STREAM = 20_211_207
_NOISE = 0.1
"""Noise of a changed table row, in standard deviations of each feature."""
_SHIFTS = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
MOST_IMAGES = 2 * len(_SHIFTS) + 1
_LADDER = np.geomspace(0.02, 20.0, 16)
_BISECTIONS = 6


def with_answers(view: View, model: Predict, asked: Asked, device: str) -> View:
    """The view with what the attacks asked for, as far as this kind of record can have it."""
    x, y = view.canaries.x, view.canaries.y
    if asked.gradients:
        view = replace(view, gradient_norms=gradient_norms(model, x, y, device))
    if view.scores.shape[1] == 1:
        if asked.secrets is not None:
            view = with_secrets(view, model, asked.secrets, device)
        return view  # A token has no neighbour, and a likelihood no label.
    if asked.representatives is not None:
        with _without_backward_hooks(model):
            found = representatives(model, x, view.scores.shape[1], asked.representatives, device)
        view = replace(view, representatives=found)
    if asked.linear:
        view = replace(view, linear=linear(model, x, view.scores))
    if asked.stationary is not None:
        found = stationary(model, x, view.scores, view.canaries.test_x, asked.stationary)
        view = replace(view, stationary=found)
    if asked.copies:
        answers = [log_probabilities(model, copy, device) for copy in changed(x, asked.copies)]
        view = replace(view, queries=np.stack(answers))
    if asked.attribute is not None:
        levels = asked.attribute.levels(view.canaries.test_x)
        answers = [log_probabilities(model, copy, device) for copy in asked.attribute.changed(x, levels)]
        view = replace(view, substituted=np.stack(answers))
    if asked.directions:
        view = replace(view, distances=distances(model, x, y, asked.directions, device))
    return view


def log_probabilities(model: Predict, x: FloatArray, device: str) -> FloatArray:
    """Float64 log-probabilities of `model` on raw features (n, ...).

    Returns:
        (n, classes); or (n, 1), the mean log-probability of the tokens after the first, where the model gives
        logits (b, t, vocabulary) for token ids (b, t). A negative id is padding and counts for nothing.

    Raises:
        TrialError: outputs of another shape, or not finite.
    """
    if isinstance(model, torch.nn.Module):
        model.eval()
    parts = []
    with torch.no_grad():
        for start in range(0, len(x), _BATCH):
            features = torch.as_tensor(x[start : start + _BATCH], dtype=torch.float32, device=device)
            logits = model(features)
            if logits.ndim == 3:
                parts.append(-_sequence_loss(logits, features)[:, None].cpu())
            else:
                parts.append(torch.log_softmax(logits.double(), dim=-1).cpu())
    outputs: FloatArray = torch.cat(parts).numpy()
    if outputs.ndim != 2 or len(outputs) != len(x):
        raise TrialError(
            f"Expected logits of shape ({len(x)}, classes), found {outputs.shape}. Return one row a record."
        )
    if not np.isfinite(outputs).all():
        bad = int((~np.isfinite(outputs)).any(axis=1).sum())
        raise TrialError(
            f"Expected finite logits, found NaN or infinity for {bad} of {len(x)} records. "
            "Lower the learning rate or repair the loss."
        )
    return outputs


def _sequence_loss(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy (b,) of each next token, in float64."""
    if tokens.ndim != 2 or logits.shape[:2] != tokens.shape or tokens.shape[1] < 2:
        raise TrialError(
            f"Expected logits (b, t, vocabulary) for tokens (b, t) with t > 1, found {tuple(logits.shape)} "
            f"for {tuple(tokens.shape)}. Return one row of logits a token."
        )
    following = tokens[:, 1:].long()
    said = following >= 0
    own = torch.log_softmax(logits[:, :-1].double(), dim=-1)
    picked = own.gather(2, following.clamp(min=0)[:, :, None])[:, :, 0]
    return -(picked * said).sum(1) / said.sum(1)


def changed(x: FloatArray, copies: int) -> Iterator[FloatArray]:
    """Changed copies of records: shifted by a pixel and mirrored, or a table's rows with a little noise.

    Args:
        x: (n, features) a table; (n, h, w) or (n, channels, h, w) images.
        copies: how many; an image has 17.

    Raises:
        UsageError: more copies than an image has.
    """
    if x.ndim > 2 and copies > MOST_IMAGES:
        raise UsageError(f"Expected at most {MOST_IMAGES} changed copies of an image, found {copies}.")
    return islice(_images(x) if x.ndim > 2 else _rows(x), copies)


def _images(x: FloatArray) -> Iterator[FloatArray]:
    shifts = [(0, 0), *_SHIFTS]
    for mirrored in (False, True):
        for down, right in shifts if mirrored else shifts[1:]:
            moved = _shifted(x, down, right)
            yield moved[..., ::-1].copy() if mirrored else moved


def _shifted(x: FloatArray, down: int, right: int) -> FloatArray:
    """Move by a pixel; the edge that comes free repeats itself, because what is background differs."""
    height, width = x.shape[-2:]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return x[..., rows[:, None], columns[None, :]]


def _rows(x: FloatArray) -> Iterator[FloatArray]:
    rng = np.random.default_rng([_STREAM, 0])
    spread = x.std(axis=0)
    while True:
        yield x + _NOISE * spread * rng.standard_normal(x.shape)


def distances(model: Predict, x: FloatArray, y: IntArray, directions: int, device: str) -> FloatArray:
    """How far along random directions the label changes, by predicted labels alone.

    A ladder of growing steps finds the first that changes it, bisection the place in between. Costs
    22 predictions a record and direction.

    Returns:
        (directions, n) in standard deviations of the features; 0 where the label is wrong already, inf where
        20 of them do not change it.
    """
    rng = np.random.default_rng([_STREAM, 1])
    # One spread for all pixels of an image: one that is always black would never change.
    spread = x.std(axis=0) if x.ndim == 2 else x.std()
    wrong = log_probabilities(model, x, device).argmax(axis=1) != y
    found = np.zeros((directions, len(x)))
    for row in found:
        step = spread * rng.standard_normal(x.shape)
        low, high = np.zeros(len(x)), np.full(len(x), np.inf)
        for scale in _LADDER:
            open_ = np.isinf(high)
            off = _differs(model, x, y, step, np.where(open_, scale, 0.0), device)
            high[open_ & off] = scale
            low[open_ & ~off] = scale
        for _ in range(_BISECTIONS):
            middle = np.where(np.isinf(high), 0.0, (low + high) / 2)
            off = _differs(model, x, y, step, middle, device)
            high, low = np.where(off & np.isfinite(high), middle, high), np.where(off, low, middle)
        row[:] = np.where(wrong, 0.0, high)
    return found


def _differs(
    model: Predict, x: FloatArray, y: IntArray, step: FloatArray, scale: FloatArray, device: str
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    moved = x + scale.reshape(-1, *[1] * (x.ndim - 1)) * step
    differs: np.ndarray[tuple[int], np.dtype[np.bool_]] = (
        log_probabilities(model, moved, device).argmax(axis=1) != y
    )
    return differs


def gradient_norms(model: Predict, x: FloatArray, y: IntArray, device: str) -> FloatArray:
    """Euclidean norm (n,) of each record's gradient over all trainable parameters; empty for no module.

    Costs a backward pass a record: together where the model can be vectorised, else one by one.
    """
    if not isinstance(model, nn.Module):
        return np.zeros(0)
    model.eval()
    with _without_backward_hooks(model):
        parts = [
            _squares(
                model,
                torch.as_tensor(x[start : start + _ROWS], dtype=torch.float32, device=device),
                torch.as_tensor(y[start : start + _ROWS], device=device),
            )
            for start in range(0, len(x), _ROWS)
        ]
    norms: FloatArray = torch.cat(parts).sqrt().double().cpu().numpy()
    return norms


@contextmanager
def _without_backward_hooks(model: Predict) -> Iterator[None]:
    """Opacus's own hooks look for activations that evaluation does not keep."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    kept = [(module, module._backward_hooks) for module in modules]
    try:
        for module, _ in kept:
            module._backward_hooks = OrderedDict()
        yield
    finally:
        for module, hooks in kept:
            module._backward_hooks = hooks


def _squares(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Squared norm (b,) of each record's gradient."""
    try:
        return _squares_together(model, x, y)
    except (RuntimeError, NotImplementedError, ValueError):
        # Layers that look at values, or write in place, cannot be vectorised.
        return torch.stack([_square(model, f[None], k[None]) for f, k in zip(x, y, strict=True)])


def _loss(logits: torch.Tensor, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    if logits.ndim == 3:
        return _sequence_loss(logits, features).sum()
    return cross_entropy(logits, labels)


def _squares_together(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    wanted = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    rest = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}
    rest |= dict(model.named_buffers())

    def loss(values: dict[str, torch.Tensor], features: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        logits = functional_call(model, {**rest, **values}, (features[None],))
        return _loss(logits, features[None], label[None])

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))(wanted, x, y)
    return torch.stack([g.reshape(len(x), -1).square().sum(1) for g in gradients.values()]).sum(0)


def _square(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    wanted = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(_loss(model(x), x, y), wanted, allow_unused=True)
    return torch.stack([g.detach().square().sum() for g in gradients if g is not None]).sum()
