"""Count again: the event of a witness, on fresh outputs of the same two data sets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dpaudit.mechanism.verdicts import p_words
from dpaudit.mechanism.witness import Witness
from dpaudit.stats.event_test import Counts, largest_refuted, p_value, refutes
from dpaudit.targets.releases.calls import call_of
from dpaudit.targets.releases.drawing import InlineDrawer, cost
from dpaudit.targets.releases.randomness import randomness

_ENOUGH, _SECONDS = 4000, 30.0
_MOST = 20_000_000
"""Outputs that a replay draws at most, whatever the file says: they are held in memory."""
_STAGE = 1000
"""Draws of an audit have lower numbers: a replay never sees an output that the audit saw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A witness and what was counted now.

    Attributes:
        witness: that was replayed.
        mechanism: name of what was called.
        counts: fresh ones.
        refuted: whether they contradict the claim by themselves.
        lower: lower bound of the claim's parameter by them.
        p_value: of their test.
    """

    witness: Witness
    mechanism: str
    counts: Counts
    refuted: bool
    lower: float
    p_value: float

    @property
    def happened(self) -> bool:
        """Whether the event was seen at all, as it was in the witness."""
        return bool(self.counts.hits or self.counts.other_hits or not self.witness.hits)

    def words(self) -> str:
        """A line or two for a reader."""
        old, new, symbol = self.witness, self.counts, self.witness.guarantee.symbol
        if not self.happened:
            return (
                f"INCONCLUSIVE: none of {new.trials:,} and {new.other_trials:,} fresh outputs were such that "
                f"{old.event_words}, which {old.hits:,} and {old.other_hits:,} were in the witness. "
                f"Is {self.mechanism} the mechanism that it is of?"
            )
        verdict = "REFUTED again" if self.refuted else "NOT REFUTED by fresh outputs"
        return (
            f"{verdict}: {symbol} is at least {self.lower:.4g} where {old.guarantee.words()} is claimed "
            f"(p {p_words(self.p_value)}).\n"
            f"{old.event_words}: now {new.hits:,} of {new.trials:,} times and {new.other_hits:,} of "
            f"{new.other_trials:,} on the neighbour; in the witness {old.hits:,} of {old.trials:,} and "
            f"{old.other_hits:,} of {old.other_trials:,}."
        )

    def document(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "mechanism": self.mechanism,
            "refuted": self.refuted,
            "happened": self.happened,
            "lower_bound": self.lower if math.isfinite(self.lower) else None,
            "p_value": self.p_value,
            "hits": self.counts.hits,
            "trials": self.counts.trials,
            "other_hits": self.counts.other_hits,
            "other_trials": self.counts.other_trials,
        }


def replay(
    witness: Witness, mechanism: Any, *, name: str = "", seed: int = 0, alpha: float = 0.01
) -> Replayed:
    """Draw as many outputs as the witness had, or 4,000 if that is more, and test its event.

    Never more than twenty million.

    Args:
        witness: as loaded.
        mechanism: the function to draw from.
        name: of it, for reports.
        seed: of the fresh outputs.
        alpha: error probability.

    Raises:
        UsageError: the witness's data are no plain data, or the mechanism cannot be called.
    """
    likelier, other = witness.data()
    guarantee = witness.guarantee
    source = randomness(call_of(mechanism), lambda call: InlineDrawer(call=call), [likelier, other])
    drawer = InlineDrawer(call=source.call)
    # A test that stopped at its first decision had just enough outputs; as many again are often too few.
    each = cost(drawer, likelier, (witness.seed, _STAGE, seed, 2))
    size = max(min(witness.trials, _MOST), min(_ENOUGH, int(_SECONDS / (2 * each))))
    sides = enumerate((likelier, other))
    outputs = [drawer.draw(data, size, (witness.seed, _STAGE, seed, side)) for side, data in sides]
    counts = Counts(
        hits=int(witness.event.holds(outputs[0]).sum()),
        trials=size,
        other_hits=int(witness.event.holds(outputs[1]).sum()),
        other_trials=size,
    )
    at = (witness.other_hits + 0.5) / (witness.other_trials + 1.0)
    line = guarantee.line(guarantee.claimed, at)
    return Replayed(
        witness=witness,
        mechanism=name or witness.mechanism,
        counts=counts,
        refuted=refutes(counts, line, alpha),
        lower=largest_refuted(counts, lambda x: guarantee.line(x, at), alpha, most=guarantee.most),
        p_value=p_value(counts, line),
    )
