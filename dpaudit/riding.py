"""What step attacks and their sessions may ask of a run beyond its steps."""

from __future__ import annotations

from typing import Protocol, Self, runtime_checkable


@runtime_checkable
class Several(Protocol):
    """A session that may ride on every private optimizer of a run, and puts together what it collects."""

    @property
    def several(self) -> bool:
        """Whether it does."""
        ...


@runtime_checkable
class Retrains(Protocol):
    """A step attack that may want the training function run again, on neighbouring data."""

    retrain: bool


@runtime_checkable
class Plants(Protocol):
    """A step attack that wants records of its own to ride through forward and backward pass."""

    @property
    def planted(self) -> int:
        """How many; 0 for none."""
        ...

    def due(self, index: int) -> bool:
        """Whether their gradients are wanted at an optimizer's step of this number."""
        ...


@runtime_checkable
class Describes(Protocol):
    """An attack that shows what can be done and tests no claim: it has no share of the error level."""

    descriptive: bool


@runtime_checkable
class Shows(Protocol):
    """An attack that may keep pictures of real records, where the plan's `data.show_records` says so."""

    def with_records(self) -> Self:
        """The same attack, keeping them."""
        ...


@runtime_checkable
class Inverts(Protocol):
    """A step attack that wants to differentiate the model of the run by its input."""

    inverts: bool
