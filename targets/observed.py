"""A training function as a target: run it once under observation and take down what it released."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dpaudit.asking import Asked
from dpaudit.canary import Canaries
from dpaudit.check import FloatArray, IntArray
from dpaudit.errors import UsageError
from dpaudit.evidence import Finding, Note
from dpaudit.protocols import StepAttack, StopTraining, View
from dpaudit.riding import Retrains
from dpaudit.targets import neighbouring_run
from dpaudit.targets.answers import Predict, log_probabilities, with_answers
from dpaudit.targets.observe import STREAM, observe
from dpaudit.targets.transcript import Transcript

Fit = Callable[..., Predict]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFunction:
    """A target made of `fit(x, y, *, seed, device, **options) -> model`.

    Attributes:
        name: of the target in the plan.
        fit: the training function; gets the members as float32 features and int64 labels and returns
            a module or callable from raw features (b, ...) to logits (b, classes).
        options: keyword arguments of `fit` from the plan.
        delta: at which the run's accountant is asked for its epsilon.
        asked: what the attacks want to know of the finished model beside its scores.
    """

    name: str
    fit: Fit
    delta: float
    asked: Asked = field(default_factory=Asked)
    options: Mapping[str, Any] = field(default_factory=dict)

    def train(
        self, canaries: Canaries, *, seed: int, device: str, attacks: Sequence[StepAttack] = ()
    ) -> View:
        """Train once. Costs what `fit` costs, and for each step what the step attacks re-execute.

        Raises:
            TrialError: the model's outputs are not finite logits of the right shape.
            UsageError: `fit` does not accept the plan's options.
        """
        start = time.perf_counter()
        # Not the stream that training code draws from when it is handed the same seed.
        rng = np.random.default_rng([seed, STREAM])
        with _seeded(seed), observe(attacks, canaries, rng, seeds=[seed]) as seen:
            model = self._call(canaries, seed, device)
        again = self._again(canaries, seed, device) if _retrains(attacks) and seen.ledger else ()
        scores = log_probabilities(model, canaries.x, device)
        test_scores = log_probabilities(model, canaries.test_x, device)
        clean = canaries.member & ~canaries.canary
        view = View(
            canaries=canaries,
            scores=scores,
            test_scores=test_scores,
            test_accuracy=accuracy(test_scores, canaries.test_y),
            train_accuracy=accuracy(scores[clean], canaries.y[clean]),
            n_parameters=n_parameters(model),
            claim=seen.claim(self.delta),
            ledger=seen.ledger,
            accounted=seen.accounted(),
            evidence=(*seen.evidence(), *again),
            findings=seen.findings(self.delta),
            spending=seen.spending(self.delta),
            place=seen.place,
            weights_sha256=hash_of(model),
        )
        view = with_answers(view, model, self.asked, device)
        return replace(view, seconds=time.perf_counter() - start)

    def _again(self, canaries: Canaries, seed: int, device: str) -> tuple[Finding | Note, ...]:
        """Train again, on neighbouring data and under the same releases."""

        def run(x: FloatArray, y: IntArray, transcript: Transcript, offset: int) -> None:
            chosen = (seed + offset) % 2**63
            seeded = observe((), canaries, np.random.default_rng(seed), seeds=[chosen], transcript=transcript)
            with _seeded(chosen), seeded, suppress(StopTraining):
                transcript.hand_over(self._fitted(x.astype(np.float32), y, chosen, device))

        x = canaries.train_x.astype(np.float32).astype(np.float64)
        return neighbouring_run.examine(x, canaries.train_y, run)

    def _call(self, canaries: Canaries, seed: int, device: str) -> Predict:
        return self._fitted(canaries.train_x.astype(np.float32), canaries.train_y, seed, device)

    def _fitted(self, x: NDArray[np.float32], y: IntArray, seed: int, device: str) -> Predict:
        model = self.fit(x, y, seed=seed, device=device, **self.options)
        if not callable(model):
            raise UsageError(
                f"Expected {self.name}'s training function to return a model, found {type(model).__name__}. "
                "Return a torch.nn.Module or a callable from features to logits."
            )
        return model


def _retrains(attacks: Sequence[StepAttack]) -> bool:
    return any(isinstance(attack, Retrains) and attack.retrain for attack in attacks)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch and numpy for code that uses their global generators, and put them back afterwards."""
    state = np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        np.random.set_state(state)


def accuracy(scores: FloatArray, labels: IntArray) -> float:
    """Share of right labels; NaN where there are none, or where the model gives a likelihood alone."""
    if scores.shape[1] == 1:
        return float("nan")
    return float((scores.argmax(axis=1) == labels).mean()) if len(labels) else float("nan")


def n_parameters(model: Predict) -> int:
    """Number of weights; 0 for a callable that is no module."""
    return sum(p.numel() for p in model.parameters()) if isinstance(model, torch.nn.Module) else 0


def hash_of(model: Predict) -> str:
    """SHA-256 over names and bytes of the weights; empty for a callable that is no module."""
    if not isinstance(model, torch.nn.Module):
        return ""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
