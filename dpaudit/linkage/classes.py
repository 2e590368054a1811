"""Classes of records that look alike to somebody who knows the quasi-identifiers, and what they disclose.

k-anonymity is the size of the smallest class (Samarati and Sweeney 1998; Sweeney 2002,
doi:10.1142/S0218488502001648); l-diversity the fewest values of a sensitive column within one
(Machanavajjhala et al. 2007, doi:10.1145/1217299.1217302).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dpaudit.check import IntArray
from dpaudit.linkage.columns import combined, keys, times

_EDGES = (1, 2, 3, 5, 10, 20, 50, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """What is seen of a table by its quasi-identifiers.

    Attributes:
        records: n.
        classes: how many there are.
        smallest: k, the size of the smallest.
        alone: records that are alone in their class.
        sizes: (from, to, records) for ranges of class sizes; `to` is 0 where there is no upper end.
        without: records that are still alone if one column is left out, by its name.
        diversity: l, the fewest sensitive values within a class; None without a sensitive column.
        known: records in classes with a single sensitive value: it is disclosed to whoever knows that they
            are in the table, although nobody can say which record is theirs; None likewise.
    """

    records: int
    classes: int
    smallest: int
    alone: int
    sizes: tuple[tuple[int, int, int], ...]
    without: Mapping[str, int]
    diversity: int | None = None
    known: int | None = None


def classes_of(quasi: Mapping[str, IntArray], sensitive: IntArray | None = None) -> Classes:
    """Count classes; cost is a sort of n for each pair of quasi-identifiers.

    Args:
        quasi: (n,) codes of each quasi-identifier.
        sensitive: (n,) codes, or None.
    """
    key = combined(list(quasi.values()))
    size = np.bincount(key)
    diversity = known = None
    if sensitive is not None:
        pairs = np.unique(key * (int(sensitive.max()) + 1) + sensitive)
        values = np.bincount(pairs // (int(sensitive.max()) + 1), minlength=len(size))
        diversity, known = int(values.min()), int(size[values == 1].sum())
    return Classes(
        records=len(key),
        classes=len(size),
        smallest=int(size.min()),
        alone=int((size == 1).sum()),
        sizes=tuple(_ranges(size)),
        without={
            name: _alone([codes for other, codes in quasi.items() if other != name], len(key))
            for name in quasi
        },
        diversity=diversity,
        known=known,
    )


def _alone(columns: list[IntArray], records: int) -> int:
    """Records with a combination of their own; without any column all are alike."""
    return int((times(keys(columns)) == 1).sum()) if columns else int(records == 1)


def _ranges(size: IntArray) -> list[tuple[int, int, int]]:
    ends = [edge - 1 for edge in _EDGES[1:]]
    found = []
    for start, end in zip(_EDGES, [*ends, 0], strict=True):
        inside = size[(size >= start) & ((size <= end) | (end == 0))]
        found.append((start, end, int(inside.sum())))
    return found
