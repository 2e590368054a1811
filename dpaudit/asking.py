"""What attacks on models ask for beyond the scores of the records of the pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from dpaudit.check import BoolArray, FloatArray
from dpaudit.evidence import Access, Rebuilt
from dpaudit.protocols import View


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
class Asked:
    """What is wanted of every model beyond the scores of its records.

    Attributes:
        copies: changed copies of each record to be scored.
        directions: along which the nearest change of the label is looked for.
        gradients: whether each record's gradient is measured.
        secrets: what is wanted about planted secrets; None for nothing.
        representatives: of classes, of the audited model alone; None for none.
        linear: whether the weights are wanted, of the audited model alone, where it is linear.
    """

    copies: int = 0
    directions: int = 0
    gradients: bool = False
    secrets: SecretsAsked | None = None
    representatives: RepresentativesAsked | None = None
    linear: bool = False


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
class Extracts(Protocol):
    """An attack on language models in whose records secrets were planted. Its fields are its recipe."""

    @property
    def name(self) -> str:
        """In the plan and in the report."""
        ...

    @property
    def access(self) -> Access:
        """What its adversary sees."""
        ...

    @property
    def asked(self) -> Asked:
        """What it needs of the model."""
        ...

    def extracted(self, view: View) -> Extracted | None:
        """What it made of one model; None where no secret was planted or the model gives no likelihoods."""
        ...


@runtime_checkable
class Rebuilds(Protocol):
    """An attack that rebuilds something of the data from a final model. Its fields are its recipe."""

    @property
    def name(self) -> str:
        """In the plan and in the report."""
        ...

    @property
    def access(self) -> Access:
        """What its adversary sees."""
        ...

    @property
    def asked(self) -> Asked:
        """What it needs of the model."""
        ...

    def rebuilt(self, view: View) -> tuple[Rebuilt, ...] | str:
        """What it made of the audited model, or the reason why nothing."""
        ...


@runtime_checkable
class Game(Protocol):
    """An attack for which models are trained with and without one record. Its fields are its recipe."""

    @property
    def name(self) -> str:
        """In the plan and in the report."""
        ...

    @property
    def access(self) -> Access:
        """What its adversary sees."""
        ...

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
