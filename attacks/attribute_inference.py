"""The sensitive column of a record, from its other columns, its label, and what a model says.

The adversary asks the model for the record with every possible value in turn, and takes the one at which the
model is surest of the label beside what other models are, weighed by what public records say of such people
(Fredrikson et al. 2014; Yeom et al. 2018, arXiv:1709.01604). What it gets right is worth something only above
imputation from public records alone (Jayaraman and Evans 2022, arXiv:2209.01292), and tells of one record's
training only above the same attack on models that were trained without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpaudit.asking import Asked
from dpaudit.attribute import Attribute
from dpaudit.canary import Canaries
from dpaudit.check import BoolArray, FloatArray
from dpaudit.evidence import Access
from dpaudit.protocols import View


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeInference:
    """One column of a table.

    Attributes:
        shadows: models that the adversary trained itself, for what models say that have not, or not all, seen
            the record; with none it takes the model as it is.
        column: index of the sensitive column among the flattened features, from 0.
        values: that it may have; empty for `bins` values found in public records.
        bins: how many.
    """

    name: str = "attribute-inference"
    access: Access = Access.FINAL_MODEL
    shadows: int = 0
    column: int = 0
    values: Sequence[float] = ()
    bins: int = 3

    def __post_init__(self) -> None:
        """Refuse a column without a choice."""
        assert self.attribute

    @property
    def attribute(self) -> Attribute:
        """The column and its values."""
        return Attribute(column=self.column, values=tuple(self.values), bins=self.bins)

    @property
    def asked(self) -> Asked:
        """Every record with every value."""
        return Asked(attribute=self.attribute)

    def scores(self, targets: Sequence[View], shadows: Sequence[View]) -> FloatArray:
        """(targets, n) log posterior of the true value over what imputation says; NaN without answers."""
        return np.stack([self._scores(view, shadows) for view in targets])

    def guesses(self, target: View, shadows: Sequence[View]) -> tuple[BoolArray, BoolArray] | None:
        """Whether each record's value is guessed right, (n,): by the attack, and by imputation alone.

        None where the model does not answer for changed records.
        """
        if not target.substituted.size:
            return None
        levels = self.attribute.levels(target.canaries.test_x)
        truth = self.attribute.of(target.canaries.x, levels)
        imputed = self._imputed(target.canaries, levels)
        posterior = imputed + self._evidence(target, shadows)
        return np.argmax(posterior, axis=1) == truth, np.argmax(imputed, axis=1) == truth

    def _scores(self, view: View, shadows: Sequence[View]) -> FloatArray:
        if not view.substituted.size:
            return np.full(len(view.canaries.y), np.nan)
        levels = self.attribute.levels(view.canaries.test_x)
        truth = self.attribute.of(view.canaries.x, levels)
        imputed = self._imputed(view.canaries, levels)
        posterior = imputed + self._evidence(view, shadows)
        posterior -= np.logaddexp.reduce(posterior, axis=1, keepdims=True)
        rows = np.arange(len(truth))
        gain: FloatArray = posterior[rows, truth] - imputed[rows, truth]
        return gain

    def _evidence(self, target: View, shadows: Sequence[View]) -> FloatArray:
        """(n, v) log-probability of the label at each value, over its mean among shadow models."""
        own = _of_label(target)
        others = [_of_label(view) for view in shadows if view.substituted.size]
        return own - np.mean(others, axis=0) if others else own

    def _imputed(self, canaries: Canaries, levels: FloatArray) -> FloatArray:
        """(n, v) log-probability of each value given the other columns and the label, by logistic regression.

        Learnt from the records outside the game; a value that none of them has keeps a small share.
        """
        from sklearn.linear_model import LogisticRegression

        labels = np.unique(canaries.y)
        public = _beside(self.attribute.without(canaries.test_x), canaries.test_y == labels[:, None])
        asked = _beside(self.attribute.without(canaries.x), canaries.y == labels[:, None])
        centre, spread = public.mean(axis=0), public.std(axis=0)
        spread = np.where(spread > 0, spread, 1.0)
        known = self.attribute.of(canaries.test_x, levels)
        least = 1.0 / (len(known) + len(levels))
        found = np.full((len(asked), len(levels)), least)
        present = np.unique(known)
        if len(present) > 1:
            model = LogisticRegression(C=0.1, max_iter=300)
            model.fit((public - centre) / spread, known)
            found[:, present] = np.maximum(model.predict_proba((asked - centre) / spread), least)
        else:
            found[:, present] = 1.0
        return np.asarray(np.log(found / found.sum(axis=1, keepdims=True)), dtype=np.float64)


def _of_label(view: View) -> FloatArray:
    """(n, v) log-probability of each record's label with each value."""
    rows = np.arange(len(view.canaries.y))
    return np.asarray(view.substituted[:, rows, view.canaries.y].T, dtype=np.float64)


def _beside(columns: FloatArray, is_label: BoolArray) -> FloatArray:
    return np.concatenate([columns, is_label.T.astype(np.float64)], axis=1)
