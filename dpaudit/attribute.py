"""A sensitive column of tabular records: the values that it may have, and which one each record has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dpaudit.check import FloatArray, IntArray, in_range
from dpaudit.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """Which column, and what it may be.

    Attributes:
        column: index into the flattened features.
        values: that it may have; empty for `bins` values found in public records.
        bins: quantiles (i + 1/2) / bins of the public records stand for what lies around them.
    """

    column: int = 0
    values: Sequence[float] = ()
    bins: int = 3

    def __post_init__(self) -> None:
        """Refuse a choice of one."""
        in_range("column", self.column, 0, 1e9)
        in_range("bins", self.bins, 2, 100)
        if self.values:
            in_range("number of values", len(set(self.values)), 2, 100)

    def levels(self, public: FloatArray) -> FloatArray:
        """(v,) values to choose from, rising, given public records (k, ...).

        Raises:
            UsageError: no such column, or fewer than two values in it.
        """
        flat = _flat(public)
        in_range("column", self.column, 0, flat.shape[1] - 1, remedy="Count the features from 0.")
        shares = (np.arange(self.bins) + 0.5) / self.bins
        own = flat[:, self.column]
        found = np.unique(self.values if self.values else np.quantile(own, shares, method="nearest"))
        if len(found) < 2:
            raise UsageError(
                f"Expected at least 2 values in column {self.column}, found {len(found)} in public records. "
                "Name them in `values`, or choose another column."
            )
        return found.astype(np.float64)

    def of(self, x: FloatArray, levels: FloatArray) -> IntArray:
        """(n,) index of the nearest level for records (n, ...); the lower one of two."""
        middles = (levels[1:] + levels[:-1]) / 2
        return np.searchsorted(middles, _flat(x)[:, self.column], side="left").astype(np.int64)

    def changed(self, x: FloatArray, levels: FloatArray) -> Iterator[FloatArray]:
        """Records (n, ...) with each level in turn in the column."""
        for level in levels:
            copy = _flat(x).copy()
            copy[:, self.column] = level
            yield copy.reshape(x.shape)

    def without(self, x: FloatArray) -> FloatArray:
        """(n, d - 1) the other columns."""
        return np.delete(_flat(x), self.column, axis=1)


def _flat(x: FloatArray) -> FloatArray:
    return x.reshape(len(x), -1)
