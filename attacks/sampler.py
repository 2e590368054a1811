"""Takes down which records enter which step, as the data loader really hands them out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpaudit.canary import Canaries
from dpaudit.evidence import Access, Batch, Draws, Evidence, Sampling
from dpaudit.protocols import RowArray, StepOracle

_Key = tuple[int, float, str, str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerAttack:
    """Whoever knows how batches are drawn knows who is in them, unless every record has its own coin.

    Attributes:
        inclusions: records that are taken down at most (8 bytes each); later steps count by their size only.
    """

    name: str = "sampler"
    access: Access = Access.LEDGER
    inclusions: int = 5_000_000

    def begin(self, canaries: Canaries, rng: np.random.Generator) -> SamplerSession:
        """Start taking down one run."""
        return SamplerSession(self)


class SamplerSession:
    """The batches of one run, by what their loader says of itself."""

    def __init__(self, attack: SamplerAttack):
        self._attack = attack
        self._batches: dict[_Key, list[Batch]] = {}
        self._taken = 0

    def observe(self, step: StepOracle) -> None:
        """Steps themselves are not looked at."""

    def released(self, gradient: RowArray) -> None:
        """Nothing was inserted."""

    def drawn(self, batch: Batch) -> None:
        """Keep the records of a batch, or its size where they are not known."""
        known = batch.records.size == batch.size
        if known and self._taken + batch.size > self._attack.inclusions:
            return
        self._taken += batch.size if known else 0
        key = (batch.n_records, batch.sample_rate, batch.where, batch.public, known)
        self._batches.setdefault(key, []).append(batch)

    def evidence(self) -> tuple[Evidence, ...]:
        """All batches as one sample."""
        if not self._batches:
            return ()
        draws = tuple(_draws(batches, known=key[-1]) for key, batches in self._batches.items())
        return (Sampling(draws=draws, source=self._attack.name, access=self._attack.access),)


def _draws(batches: list[Batch], *, known: bool) -> Draws:
    first = batches[0]
    records = np.concatenate([batch.records for batch in batches]) if known else np.zeros(0, dtype=np.int64)
    return Draws(
        records=records,
        sizes=np.array([batch.size for batch in batches], dtype=np.int64),
        n_records=first.n_records,
        sample_rate=first.sample_rate,
        period=first.period,
        where=first.where,
        public=first.public,
        accounted=float(np.mean([batch.accounted or batch.sample_rate for batch in batches])),
    )
