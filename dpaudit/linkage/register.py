"""Names given to records: whoever of a register looks like a record in every quasi-identifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpaudit.check import IntArray
from dpaudit.linkage.columns import Source, alike, combined


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """What a register says of the records of a table.

    Attributes:
        records: n of the table.
        persons: entries of the register.
        none: records that nobody of the register looks like.
        one: records that exactly one entry looks like; they are given its name.
        several: the others.
        right: of those with one, how many are given the right name; None where nobody knows.
        lucky: right names expected if a random one of the matching entries is named, over all records; None
            likewise.
        unique: entries of the register that are alone in it.
    """

    records: int
    persons: int
    none: int
    one: int
    several: int
    unique: int
    right: int | None = None
    lucky: float | None = None


def match(
    table: Source, register: Source, quasi: Sequence[str], *, identity: str, truth: str | None = None
) -> Matches:
    """Match records exactly; costs sorts of n + m.

    Args:
        table: with the quasi-identifiers, and the truth.
        register: with the quasi-identifiers and the identity.
        quasi: their names, the same in both.
        identity: column of the register with the name of each person.
        truth: column of the table with the right name, for whoever measures; or None.
    """
    pairs = [alike(table.columns[name], register.columns[name]) for name in quasi]
    n, m = len(table), len(register)
    key = combined([np.concatenate(pair) for pair in pairs])
    ours, theirs = key[:n], key[n:]
    count = np.bincount(theirs, minlength=int(key.max()) + 1)
    found = count[ours]
    right = lucky = None
    if truth is not None:
        true, names = alike(table.columns[truth], register.columns[identity])
        named = np.full(len(count), -1, dtype=np.int64)
        named[theirs] = names
        right = int((named[ours] == true)[found == 1].sum())
        lucky = _expected(ours, true, theirs, names, found)
    return Matches(
        records=n,
        persons=m,
        none=int((found == 0).sum()),
        one=int((found == 1).sum()),
        several=int((found > 1).sum()),
        unique=int((count == 1).sum()),
        right=right,
        lucky=lucky,
    )


def _expected(ours: IntArray, true: IntArray, theirs: IntArray, names: IntArray, found: IntArray) -> float:
    """Sum over records of the share of matching entries that bear the right name."""
    width = int(max(true.max(initial=0), names.max(initial=0))) + 1
    entries, times = np.unique(theirs * width + names, return_counts=True)
    wanted = ours * width + true
    at = np.minimum(np.searchsorted(entries, wanted), max(len(entries) - 1, 0))
    hits = np.where(entries[at] == wanted, times[at], 0) if len(entries) else np.zeros(len(wanted))
    return float((hits / np.maximum(found, 1)).sum())
