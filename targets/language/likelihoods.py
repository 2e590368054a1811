"""What a finished language model gives to secrets: likelihoods, probabilities of sampling, and sampled texts.

The model is any module or function from token ids (b, t) to logits of the next token (b, t, vocabulary). It
has to be causal: what stands behind a token must not matter for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from dpaudit.asking import SecretsAsked
from dpaudit.check import FloatArray, IntArray
from dpaudit.protocols import View
from dpaudit.secret import PADDING, Secrets

Predict = Callable[[torch.Tensor], torch.Tensor]
_ROWS = 512
_SEED = 241_019_482


def with_secrets(view: View, model: Predict, asked: SecretsAsked, device: str) -> View:
    """The view with what was asked about its planted secrets; as it is where there are none.

    Costs s (K + 1) sequences up to the end of each secret, and g t^2 / 2 tokens of sampling: nothing is
    assumed of the model, so that no state of it is kept between tokens.
    """
    secrets = view.canaries.secrets
    if secrets is None or not len(secrets.planted):
        return view
    with torch.no_grad():
        count = min(asked.references, secrets.references)
        scores = candidate_scores(model, view.canaries.x, secrets, count, device)
        tokens = token_scores(model, view.canaries.x, secrets, asked, device)
        texts = generated(model, view.canaries.test_x, asked, view.canaries.x.shape[1], device)
    return replace(view, secret_scores=scores, secret_tokens=tokens, generated=texts)


def candidate_scores(
    model: Predict, x: FloatArray, secrets: Secrets, references: int, device: str
) -> FloatArray:
    """Log-probability (s, K + 1) of the planted secret, first, and of K others in its place."""
    found = np.zeros((len(secrets.planted), references + 1))
    for place, row in enumerate(secrets.planted):
        start = int(secrets.start[row])
        candidates = secrets.candidates(int(row), references)
        before = np.repeat(x[row : row + 1, :start], len(candidates), axis=0)
        rows = np.concatenate([before, candidates], axis=1)
        for first in range(0, len(rows), _ROWS):
            part = slice(first, first + _ROWS)
            found[place, part] = _of_span(model, rows[part], start, device, 1.0, 0).sum(axis=1)
    return found


def token_scores(
    model: Predict, x: FloatArray, secrets: Secrets, asked: SecretsAsked, device: str
) -> FloatArray:
    """Log-probability (s, w) with which the scheme draws each token of the planted secrets after the others.

    Negative infinity where the scheme never draws it; 0 behind a secret that is shorter than others.
    """
    spelled = secrets.spelled()
    found = np.zeros(spelled.shape)
    for place, (row, secret) in enumerate(zip(secrets.planted, spelled, strict=True)):
        start = int(secrets.start[row])
        record = np.concatenate([x[row, :start], secret[secret != PADDING]])[None]
        own = _of_span(model, record, start, device, asked.temperature, asked.top_k)
        found[place, : own.shape[1]] = own[0]
    return found


def _of_span(
    model: Predict, rows: FloatArray, start: int, device: str, temperature: float, top_k: int
) -> FloatArray:
    """Log-probability (b, t - start) of each token from `start` on; 0 for padding."""
    tokens = torch.as_tensor(rows, dtype=torch.float32, device=device)
    following = tokens[:, start:].long()
    shaped = scheme(model(tokens)[:, start - 1 : -1].double(), temperature, top_k)
    picked = shaped.gather(2, following.clamp(min=0)[:, :, None])[:, :, 0]
    spans: FloatArray = picked.masked_fill(following < 0, 0.0).cpu().numpy()
    return spans


def scheme(logits: torch.Tensor, temperature: float, top_k: int) -> torch.Tensor:
    """Log-probabilities of the next token under a sampling scheme; the shape of the logits."""
    if top_k:
        least = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    return torch.log_softmax(logits / temperature, dim=-1)


def generated(model: Predict, prompts: FloatArray, asked: SecretsAsked, length: int, device: str) -> IntArray:
    """Texts (g, length) that the scheme samples after the first tokens of records outside the game."""
    rows = np.arange(asked.generated) % max(len(prompts), 1)
    tokens = torch.as_tensor(prompts[rows, : asked.prompt], device=device).long().clamp(min=0)
    source = torch.Generator(device=device).manual_seed(_SEED)
    for _ in range(length - tokens.shape[1]):
        logits = torch.cat([model(part.float())[:, -1].double() for part in torch.split(tokens, _ROWS)])
        drawn = torch.multinomial(scheme(logits, asked.temperature, asked.top_k).exp(), 1, generator=source)
        tokens = torch.cat([tokens, drawn], dim=1)
    texts: IntArray = tokens.cpu().numpy()
    return texts
