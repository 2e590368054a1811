"""From confirmations to a verdict, in words."""

from __future__ import annotations

import math

from dpaudit.mechanism.confirmation import Confirmation
from dpaudit.stats.guarantees import ApproximateDP, GaussianDP, Guarantee, SeveralDP
from dpaudit.verdict import Status, Verdict

_SMALL_P = 1e-12
"""Below it a p-value is not told: the exact test knows none that are much smaller."""


def judged(confirmations: tuple[Confirmation, ...], guarantee: Guarantee, *, nothing: str) -> Verdict:
    """Judge a claim.

    Args:
        confirmations: of the candidates, in order; each at its own share of alpha.
        guarantee: the claim.
        nothing: what to say where no event could be tested.
    """
    if not confirmations:
        return Verdict(status=Status.INCONCLUSIVE, reason=nothing)
    best = strongest(confirmations)
    lower = max(each.lower for each in confirmations)
    if best.refuted:
        return Verdict(
            status=Status.REFUTED,
            reason=_refuted(best, guarantee),
            epsilon_lower=best.epsilon_lower,
            decided_by="event search",
        )
    shown = f"{guarantee.symbol} is at least {lower:.4g}" if lower else "nothing was shown to leak"
    if best.ceiling <= guarantee.claimed:
        return Verdict(
            status=Status.INCONCLUSIVE,
            reason=(
                f"{best.counts.trials:,} outputs on each data set cannot show more than {best.ceiling:.4g}, "
                f"where {guarantee.claimed:.4g} is claimed: {shown}. Raise samples."
            ),
            epsilon_lower=best.epsilon_lower,
        )
    if best.detectable is None:
        return Verdict(
            status=Status.INCONCLUSIVE,
            reason=(
                f"No event was found by which {best.counts.trials:,} outputs on each data set would catch "
                f"anything with probability 0.9: {shown}. Return numbers or texts, or raise samples."
            ),
            epsilon_lower=best.epsilon_lower,
        )
    return Verdict(
        status=Status.NOT_REFUTED,
        reason=(
            f"On the pair and event that looked worst, {shown} where {guarantee.words()} is claimed. "
            f"The same test would have caught {_factor(best, guarantee)} with probability 0.9, if it "
            "showed in such an event; other pairs and events may leak more."
        ),
        epsilon_lower=best.epsilon_lower,
    )


def strongest(confirmations: tuple[Confirmation, ...]) -> Confirmation:
    """One that refutes, else the one that would have caught the least; of several the largest bound."""

    def order(each: Confirmation) -> tuple[float, float]:
        return -math.inf if each.detectable is None else -each.detectable, each.lower

    refuting = [each for each in confirmations if each.refuted]
    return max(refuting, key=lambda each: each.lower) if refuting else max(confirmations, key=order)


def _factor(of: Confirmation, guarantee: Guarantee) -> str:
    caught = of.detectable
    assert caught is not None
    if guarantee.claimed > 0:
        return f"{caught / guarantee.claimed:.3g} times the claim ({guarantee.symbol} {caught:.4g})"
    return f"{guarantee.symbol} {caught:.4g}"


def _refuted(by: Confirmation, guarantee: Guarantee) -> str:
    counts = by.counts
    return (
        f"{guarantee.symbol} is at least {by.lower:.4g} where {guarantee.words()} is claimed: "
        f"of {counts.trials:,} outputs on each data set, {counts.hits:,} and {counts.other_hits:,} "
        f"were such that {by.tried.event_words} (p {p_words(by.p_value)})."
        f"{_elsewhere(by, guarantee)}{_reading(by)}"
    )


def p_words(value: float) -> str:
    """A p-value with its sign of relation."""
    return f"= {value:.2g}" if value > _SMALL_P else f"< {_SMALL_P:g}"


def _elsewhere(by: Confirmation, guarantee: Guarantee) -> str:
    """At which point of the claimed curve, where the claim is a curve."""
    if isinstance(guarantee, ApproximateDP):
        return ""
    epsilon = math.log(by.line.slope)
    if isinstance(guarantee, (GaussianDP, SeveralDP)) and by.line.intercept >= 0:
        return (
            f" It breaks the claimed curve at epsilon {epsilon:.4g}, where the claim allows a delta of "
            f"{by.line.intercept:.3g}."
        )
    return ""


def _reading(by: Confirmation) -> str:
    """What sort of fault the event speaks of, where the event tells."""
    choice = by.tried.choice
    assert choice is not None
    name = getattr(choice.event.feature, "name", "")
    # Of whole numbers the event says which powers of two divide them, which is no matter of rounding.
    fine = name == "negative zero" or (name.endswith("low bit") and choice.event.threshold < 0)
    if fine:
        return (
            " The event looks at the last bits of a float, which floating-point noise does not hide "
            "(Mironov 2012): use a mechanism on a grid, such as a discrete or a snapping one."
        )
    if name == "records put out":
        return " Records come out bit by bit."
    if name == "kind":
        return " What sort of thing comes out, such as an exception, depends on one record."
    return ""
