"""What attacks on models ask for beyond the scores of the records of the pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from dpaudit.attribute import Attribute
from dpaudit.check import BoolArray, FloatArray, IntArray
from dpaudit.evidence import Access, Guesses
from dpaudit.protocols import View


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is wanted of every model beyond the scores of its records.

    Attributes:
        copies: changed copies of each record to be scored.
        directions: along which the nearest change of the label is looked for.
        gradients: whether each record's gradient is measured.
        attribute: a column in which each record is scored with every value that it may have.
    """

    copies: int = 0
    directions: int = 0
    gradients: bool = False
    attribute: Attribute | None = None


@runtime_checkable
class Asks(Protocol):
    """A model attack that needs more of a model than the scores of its records."""

    @property
    def asked(self) -> Asked:
        """What it needs."""
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


@runtime_checkable
class LineUp(Protocol):
    """An attack for which models are trained with one of n candidates each. Its fields are its recipe."""

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
        """How many are trained: a game with each, but for those that the adversary learns from."""
        ...

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of candidates, smallest first; one of the most is drawn for each model."""
        ...

    @property
    def tests(self) -> tuple[str, ...]:
        """Source of the evidence of each."""
        ...

    @property
    def fitted(self) -> bool:
        """Whether training starts where all other records are fitted: the adversary chose those weights."""
        ...

    def labels(self, log_probabilities: FloatArray, own: IntArray) -> IntArray:
        """(n,) labels of the candidates, given (n, classes) before training and their own."""
        ...

    def evidence(
        self, log_probabilities: FloatArray, labels: IntArray, secrets: IntArray, rng: np.random.Generator
    ) -> tuple[Guesses, ...]:
        """Of games, from (M, n, classes) of final models and the (M,) candidates that were in."""
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
