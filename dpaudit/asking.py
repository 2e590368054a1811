"""What attacks on models ask for beyond the scores of the records of the pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from dpaudit.attribute import Attribute
from dpaudit.check import BoolArray, FloatArray, IntArray
from dpaudit.evidence import Access, Guesses, Rebuilt
from dpaudit.protocols import View


class Named(Protocol):
    """What every attack says of itself."""

    @property
    def name(self) -> str:
        """In the plan and in the report."""
        ...

    @property
    def access(self) -> Access:
        """What its adversary sees."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretsAsked:
    """What is wanted of a language model about the secrets that were planted in its records.

    Attributes:
        references: other secrets of the same space that are scored beside each planted one.
        temperature: of the sampling scheme.
        top_k: most likely tokens that the scheme draws from; 0 for all.
        generated: texts that are sampled.
        prompt: first tokens of a record outside the game from which each of them goes on.
    """

    references: int
    temperature: float
    top_k: int
    generated: int
    prompt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RepresentativesAsked:
    """A picture of each class is wanted that the model takes for it as surely as can be.

    Attributes:
        restarts: searches for each class.
        iterations: steps of each search.
        smoothness: weight of the total variation of pictures.
        height: of a picture, where a record is a flat row of its pixels; 0 to go by the shape of a record.
        width: likewise.
    """

    restarts: int
    iterations: int
    smoothness: float
    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StationaryAsked:
    """Records are wanted of which the weights of a two-layer network could be made.

    Attributes:
        candidates: how many are searched for together.
        iterations: steps of the search.
    """

    candidates: int
    iterations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is wanted of every model beyond the scores of its records.

    Attributes:
        copies: changed copies of each record to be scored.
        directions: along which the nearest change of the label is looked for.
        gradients: whether each record's gradient is measured.
        attribute: a column in which each record is scored with every value that it may have.
        secrets: what is wanted about planted secrets; None for nothing.
        representatives: of classes, of the audited model alone; None for none.
        linear: whether the weights are wanted, of the audited model alone, where it is linear.
        stationary: records that explain the weights, of the audited model alone; None for none.
    """

    copies: int = 0
    directions: int = 0
    gradients: bool = False
    attribute: Attribute | None = None
    secrets: SecretsAsked | None = None
    representatives: RepresentativesAsked | None = None
    linear: bool = False
    stationary: StationaryAsked | None = None


@runtime_checkable
class Asks(Protocol):
    """A model attack that needs more of a model than the scores of its records."""

    @property
    def asked(self) -> Asked:
        """What it needs."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """What an attack made of the secrets that were planted in one model.

    Attributes:
        member: (s,) whether the record of a secret was in.
        size: (s,) how many secrets its space has.
        p_values: (s,) `(1 + #{references that score as high}) / (K + 1)`.
        n_references: K.
        queries: (s,) samples after which the secret has come with probability p at least; inf where never.
        n: number of queries that counts as feasible.
        p: that probability.
        leaked: spans that look like a secret: of members, and of those how many came in what was generated.
        beside: the same for records that were not in.
        said: different spans that look like a secret in what was generated, and how many are of members.
    """

    member: BoolArray
    size: FloatArray
    p_values: FloatArray
    n_references: int
    queries: FloatArray
    n: int
    p: float
    leaked: tuple[int, int]
    beside: tuple[int, int]
    said: tuple[int, int]


@runtime_checkable
class Extracts(Named, Protocol):
    """An attack on language models in whose records secrets were planted. Its fields are its recipe."""

    @property
    def asked(self) -> Asked:
        """What it needs of the model."""
        ...

    def extracted(self, view: View) -> Extracted | None:
        """What it made of one model; None where no secret was planted or the model gives no likelihoods."""
        ...


@runtime_checkable
class Rebuilds(Named, Protocol):
    """An attack that rebuilds something of the data from a final model. Its fields are its recipe."""

    @property
    def asked(self) -> Asked:
        """What it needs of the model."""
        ...

    def rebuilt(self, view: View) -> tuple[Rebuilt, ...] | str:
        """What it made of the audited model, or the reason why nothing."""
        ...


@runtime_checkable
class Guessing(Protocol):
    """A model attack that guesses something about each record, right or wrong."""

    def guesses(self, target: View, shadows: Sequence[View]) -> tuple[BoolArray, BoolArray] | None:
        """Whether each record is guessed right, (n,): by the attack, and without a model; None if unable."""
        ...


@runtime_checkable
class SeveralTests(Protocol):
    """An attack whose evidence is of several tests, which share its weight evenly."""

    @property
    def tests(self) -> tuple[str, ...]:
        """Source of the evidence of each."""
        ...


class CandidateGames(Named, Protocol):
    """An attack for which models are trained with one of n candidates each. Its fields are its recipe."""

    @property
    def models(self) -> int:
        """How many are trained with a candidate: a game with each, but for those that are learned from."""
        ...

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of candidates, smallest first; one of the most is drawn for each model."""
        ...

    @property
    def tests(self) -> tuple[str, ...]:
        """Source of the evidence of each; none where nothing is tested."""
        ...

    @property
    def start(self) -> str:
        """Initial weights: "recipe", anew for each model; "known", one for all; "fitted" to all others."""
        ...

    def labels(self, log_probabilities: FloatArray, own: IntArray) -> IntArray:
        """(n,) labels of the candidates, given (n, classes) before training and their own."""
        ...


@runtime_checkable
class LineUp(CandidateGames, Protocol):
    """Picks the candidate by what final models say of each."""

    def evidence(
        self, log_probabilities: FloatArray, labels: IntArray, secrets: IntArray, rng: np.random.Generator
    ) -> tuple[Guesses, ...]:
        """Of games, from (M, n, classes) of final models and the (M,) candidates that were in."""
        ...


@runtime_checkable
class Reconstructs(CandidateGames, Protocol):
    """Learns from the weights of shadow models to rebuild the candidate."""

    @property
    def shadows(self) -> int:
        """How many the adversary learns from, each with one record in the place of the unknown one."""
        ...

    @property
    def batches(self) -> str:
        """Whether their order is "own" to each model or "known"."""
        ...

    def reconstructed(
        self,
        known: FloatArray,
        records: FloatArray,
        weights: FloatArray,
        candidates: FloatArray,
        secrets: IntArray,
        rng: np.random.Generator,
    ) -> tuple[Guesses | Rebuilt, ...]:
        """From (S, p) weights and (S, ...) records of shadow models, and (M, p) weights of others.

        The record of each of those is `candidates[secrets]`, of (n, ...).
        """
        ...


@runtime_checkable
class Game(Named, Protocol):
    """An attack for which models are trained with and without one record. Its fields are its recipe."""

    @property
    def models(self) -> int:
        """How many are trained; half of them with the record."""
        ...

    def features(self, others: FloatArray) -> FloatArray:
        """Features (...) of the record beside others (n, ...)."""
        ...

    def label(self, log_probabilities: FloatArray) -> int:
        """Label of the record, given (classes,) log-probabilities before training."""
        ...

    def scores(self, log_probabilities: FloatArray, label: int) -> FloatArray:
        """(M,) higher where the record seems to be in, from its (M, classes) log-probabilities."""
        ...
