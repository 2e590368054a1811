"""A model that is trained already: what it says of records that were in and of others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dpaudit.asking import Asked
from dpaudit.canary import Canaries
from dpaudit.errors import UsageError
from dpaudit.evidence import Access, Note
from dpaudit.protocols import StepAttack, View
from dpaudit.targets.answers import Predict, log_probabilities, with_answers
from dpaudit.targets.observed import accuracy, hash_of, n_parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedModel:
    """A target made of `load(**options) -> model`; nothing is trained, so no step can be looked at.

    Attributes:
        name: of the target in the plan.
        fit: loads the model: a module or callable from raw features (b, ...) to logits (b, classes).
        options: keyword arguments of `fit` from the plan.
        delta: not used: nobody is asked for an epsilon.
        asked: what the attacks want to know of the model beside its scores.
    """

    name: str
    fit: Callable[..., Predict]
    delta: float
    asked: Asked = field(default_factory=Asked)
    options: Mapping[str, Any] = field(default_factory=dict)

    def train(
        self, canaries: Canaries, *, seed: int, device: str, attacks: Sequence[StepAttack] = ()
    ) -> View:
        """Load the model and score the pool.

        Raises:
            TrialError: outputs are not finite logits of the right shape.
            UsageError: what is loaded is no model.
        """
        start = time.perf_counter()
        model = self.fit(**self.options)
        if not callable(model):
            raise UsageError(
                f"Expected {self.name}'s function to return a model, found {type(model).__name__}. "
                "Return a torch.nn.Module or a callable from features to logits."
            )
        scores = log_probabilities(model, canaries.x, device)
        test_scores = log_probabilities(model, canaries.test_x, device)
        inside = canaries.member
        view = View(
            canaries=canaries,
            scores=scores,
            test_scores=test_scores,
            test_accuracy=accuracy(test_scores, canaries.test_y),
            train_accuracy=accuracy(scores[inside], canaries.y[inside]),
            n_parameters=n_parameters(model),
            claim=None,
            evidence=(_UNSEEN,),
            weights_sha256=hash_of(model),
        )
        view = with_answers(view, model, self.asked, device)
        return replace(view, seconds=time.perf_counter() - start)


_UNSEEN = Note(
    check="trained by somebody else",
    where="the model as it was loaded",
    measured="its outputs alone",
    meaning="Clip, noise, sampling and accounting are out of sight, and no canary could be planted: records "
    "of the data leak far less than the worst that the claim has to cover. Audit the training function or "
    "trace the script for that.",
    source="released model",
    access=Access.FINAL_MODEL,
)
