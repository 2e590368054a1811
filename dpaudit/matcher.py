"""What an attack may ask of the model behind a step: to be differentiated by its input."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from dpaudit.protocols import RowArray


class GradientMatcher(Protocol):
    """The model of a run at one step, differentiated by its input: what a server knows of an update.

    Records (..., *shape) are as the model is given them, after the user's own preprocessing. Labels are
    probabilities (..., classes), so that they can be searched for, too.

    Attributes:
        shape: of one record.
        classes: number of logits.
        dense: first weight, first bias, width and inputs of a first layer that is dense, as places in the
            flat gradient; None where the first layer is another one.
        head: place of the bias of the last layer, or of its weights where it has none; None where it is
            not dense.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """See the attribute."""
        ...

    @property
    def classes(self) -> int:
        """See the attribute."""
        ...

    @property
    def dense(self) -> tuple[int, int, int, int] | None:
        """See the attribute."""
        ...

    @property
    def head(self) -> slice | None:
        """See the attribute."""
        ...

    def batch(self) -> tuple[RowArray, RowArray]:
        """Records (b, *shape) at hand and their labels (b, classes), as the run's own rows confirm them."""
        ...

    def rows(self, x: RowArray, labels: RowArray) -> RowArray:
        """Per-record gradients (b, d) of records (b, *shape), unclipped, as the oracle's rows are."""
        ...

    def features(self, x: RowArray) -> RowArray:
        """What the last layer is given, (b, f)."""
        ...

    def probabilities(self, x: RowArray) -> RowArray:
        """Of each class, (b, classes)."""
        ...

    def match(
        self, x: RowArray, labels: RowArray, seen: RowArray, *, clip: RowArray, cosine: bool
    ) -> tuple[RowArray, RowArray, RowArray]:
        """How far the updates of k candidate batches are from those seen, and the gradients of that.

        Costs k * b second derivatives of the model, memory k * b * d.

        Args:
            x: (k, b, *shape).
            labels: (k, b, classes).
            seen: (k, d) released sums.
            clip: (k,) norm to which each record's gradient is clipped first; inf for none.
            cosine: 1 - cosine of the angle between the two, else their squared distance.

        Returns:
            (k,) distances, and their gradients by x and by labels.
        """
        ...


@runtime_checkable
class Invertible(Protocol):
    """A step whose model can be differentiated by its input."""

    def matcher(self) -> GradientMatcher | str:
        """The model at this step, or the reason why it cannot be had."""
        ...
