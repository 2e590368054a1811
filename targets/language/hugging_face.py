"""LoRA on a causal language model of Hugging Face, with or without Opacus: the extra `hf`.

Only the adapters are trained; they are linear layers, of which Opacus has per-record gradients. Nothing is
downloaded, no code of a model is run, and weights are read from safetensors or GGUF files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dpaudit.errors import UsageError
from dpaudit.targets.language.training import losses, per_record_gradients
from dpaudit.targets.plain_probe import PlainProbe


class NextToken(nn.Module):
    """Logits (b, t, vocabulary) for token ids (b, t), of which negative ones are padding behind a text."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Padding is read as token 0: it stands behind everything that it could change."""
        logits: torch.Tensor = self.model(input_ids=tokens.long().clamp(min=0), use_cache=False).logits
        return logits


def with_adapters(base: str | Mapping[str, Any], *, rank: int, gguf_file: str = "") -> NextToken:
    """A base model whose weights are frozen, with fresh LoRA adapters on all of its linear layers.

    Args:
        base: folder of a model; or the configuration of one with random weights, such as
            {"model_type": "gpt2", "vocab_size": 44, "n_embd": 64, "n_layer": 2, "n_head": 2}.
        rank: of the adapters (Hu et al. 2022, arXiv:2106.09685).
        gguf_file: name of a GGUF file in the folder; empty for safetensors.

    Raises:
        UsageError: the packages or the model are not there.
    """
    try:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoConfig, AutoModelForCausalLM
    except ImportError as error:
        raise UsageError(
            f"Expected transformers and peft for language-model-lora, found {error.name!r} missing. "
            "Install them: pip install 'dpaudit[hf]'."
        ) from None
    options: dict[str, Any] = {"attn_implementation": "eager"}
    if isinstance(base, Mapping):
        chosen = AutoConfig.for_model(**base)
        model = AutoModelForCausalLM.from_config(chosen, **options)
    else:
        source = {"gguf_file": gguf_file} if gguf_file else {"use_safetensors": True}
        try:
            model = AutoModelForCausalLM.from_pretrained(base, local_files_only=True, **source, **options)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"Expected base to be a folder with a causal language model, found {base!r}: "
                f"{str(error).splitlines()[0]} Nothing is downloaded: put the model there."
            ) from None
    # GPT-2 keeps its weights transposed, in a layer of its own.
    turned = any(type(module).__name__ == "Conv1D" for module in model.modules())
    adapters = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM", fan_in_fan_out=turned
    )
    return NextToken(get_peft_model(model, adapters))


def fit_lora(
    x: np.ndarray[Any, Any],
    y: np.ndarray[Any, Any],
    *,
    seed: int,
    device: str,
    base: str | Mapping[str, Any],
    gguf_file: str = "",
    rank: int = 8,
    epochs: int = 10,
    batch_size: int = 16,
    learning_rate: float = 0.003,
    noise_multiplier: float = 1.0,
    max_grad_norm: float = 1.0,
    accountant: str = "prv",
) -> nn.Module:
    """Fine-tune adapters by DP-Adam; by Adam without privacy where the noise multiplier is 0.

    The unit of privacy is one text, and only of the texts given here: what the base model was trained on is
    no part of the claim.

    Raises:
        UsageError: as `with_adapters`.
    """
    model = with_adapters(base, rank=rank, gguf_file=gguf_file).to(device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer: Any = torch.optim.Adam(trained, lr=learning_rate)
    loader: Any = DataLoader(TensorDataset(torch.as_tensor(x).long()), batch_size=batch_size, shuffle=True)
    fitted: nn.Module = model
    batch = torch.zeros(0)
    if noise_multiplier:
        fitted, optimizer, loader = PrivacyEngine(accountant=accountant).make_private(
            module=model,
            optimizer=optimizer,
            data_loader=loader,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
        )
    else:
        PlainProbe(optimizer, lambda: per_record_gradients(model, batch))
    for _ in range(epochs):
        for (texts,) in loader:
            batch = texts.to(device)
            optimizer.zero_grad()
            losses(fitted, batch).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model
