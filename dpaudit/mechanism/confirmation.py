"""Confirm an event, or a few, fixed beforehand, on outputs that nobody has seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from dpaudit.attacks.event_search.selection import Choice
from dpaudit.mechanism.pairs import Screen, Tried, counted, expected_rate
from dpaudit.mechanism.search import Progress
from dpaudit.outputs import Outputs
from dpaudit.stats.event_bets import Pairs, largest_beaten, log_wealth, pairs
from dpaudit.stats.event_power import detectable
from dpaudit.stats.event_test import Counts, Line, largest_refuted, p_value, refutes
from dpaudit.stats.guarantees import ApproximateDP, Guarantee

_BETTING = 0.2
"""Share of alpha for the bets, which may end the test early; the exact test at the end has the rest."""
_FIRST = 0.4
"""Share of alpha for the first of several events on the same outputs; the others divide the rest."""
_FIRST_LOOK = 32
_BLOCK, _BLOCKS = 500_000, 16
"""Outputs drawn at once at most, unless these are too many draws; with those that double, fewer than 40."""
CONFIRM_STAGE = 50
"""From here on stages draw what is counted as evidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """The test of one event on one pair, the best of those that were tested on the same outputs.

    Attributes:
        tried: the pair and its event.
        counts: on fresh outputs.
        alpha: error probability of the test and of each bound, over all events that were tested with it.
        event_alpha: the part of it with which the exact test at the end bounds this event.
        line: that the claim allows; fixed before the outputs were drawn.
        refuted: whether the counts contradict it.
        lower: lower bound of the claim's parameter.
        epsilon_lower: lower bound of epsilon at the claim's delta, without assuming anything else.
        p_value: of the exact test; where the bets ended the test early, of the bets.
        ceiling: largest bound that this many outputs could have shown.
        detectable: smallest parameter that is refuted with probability 0.9 on an event as frequent as this
            one; None if none is.
        early: whether the bets ended the test.
    """

    tried: Tried
    counts: Counts
    alpha: float
    event_alpha: float
    line: Line
    refuted: bool
    lower: float
    epsilon_lower: float
    p_value: float
    ceiling: float
    detectable: float | None
    early: bool


def confirm(
    tried: Tried,
    screen: Screen,
    *,
    size: int,
    alpha: float,
    stop_early: bool,
    stage: int = CONFIRM_STAGE,
    progress: Progress,
) -> Confirmation:
    """Test what was chosen on `size` fresh outputs of each data set, or fewer if the bets decide before.

    Several events divide alpha (Bonferroni); the one with the largest bound is returned. The bets are on the
    first alone.

    Args:
        tried: pair and event, as chosen; both directions, all events and all pairs were compared before.
        screen: draws.
        size: outputs on each data set.
        alpha: error probability of all that is said here.
        stop_early: whether to end at the first decision.
        stage: number of the draws, to which their seeds belong.
        progress: is told.
    """
    first = tried.choice
    assert first is not None
    choices = (first, *first.beside)
    guarantee = screen.guarantee
    own = _shares(len(choices), alpha)
    at = expected_rate(first.counts)
    line = guarantee.line(guarantee.claimed, at)
    betting = _BETTING * own[0] if stop_early else 0.0
    parts: list[list[Counts]] = []
    looks: list[Pairs] = []
    # Outputs are counted and forgotten: millions of them need not be held.
    most = max(_BLOCK, -(-size // _BLOCKS))
    done, length, early = 0, _FIRST_LOOK if stop_early else most, False
    seen = Pairs(hit=0, other=0, both=0, neither=0)
    while done < size and not early:
        progress("confirming", done, size)
        drawn = screen.samples(tried, stage + len(parts), min(length, size - done))
        parts.append([counted(choice, drawn.first, drawn.second) for choice in choices])
        done += drawn.first.size
        length = min(done, most)
        if stop_early:
            seen = _added(seen, first, drawn.first, drawn.second)
            looks.append(seen)
            early = log_wealth(seen, line) >= -math.log(betting)

    def concluded(i: int) -> Confirmation:
        counts = _together([part[i] for part in parts])
        bets = (looks, betting) if i == 0 else ([], 0.0)
        chosen = replace(tried, choice=choices[i])
        return _concluded(chosen, guarantee, counts, *bets, alpha, own[i], early, size)

    tested = range(1 if early else len(choices))
    return max((concluded(i) for i in tested), key=lambda each: (each.refuted, each.lower))


def _shares(events: int, alpha: float) -> tuple[float, ...]:
    if events == 1:
        return (alpha,)
    return (_FIRST * alpha, *[(1.0 - _FIRST) * alpha / (events - 1)] * (events - 1))


def _together(parts: list[Counts]) -> Counts:
    return Counts(
        hits=sum(part.hits for part in parts),
        trials=sum(part.trials for part in parts),
        other_hits=sum(part.other_hits for part in parts),
        other_trials=sum(part.other_trials for part in parts),
    )


def _added(seen: Pairs, choice: Choice, first: Outputs, second: Outputs) -> Pairs:
    likelier, other = (second, first) if choice.swapped else (first, second)
    new = pairs(choice.event.holds(likelier), choice.event.holds(other))
    return Pairs(
        hit=seen.hit + new.hit,
        other=seen.other + new.other,
        both=seen.both + new.both,
        neither=seen.neither + new.neither,
    )


def _concluded(
    tried: Tried,
    guarantee: Guarantee,
    counts: Counts,
    looks: list[Pairs],
    betting: float,
    alpha: float,
    own: float,
    early: bool,
    size: int,
) -> Confirmation:
    """Bounds by the bets and, if the test went to its planned end, by the exact test, with `own` of alpha."""
    assert tried.choice is not None
    at = expected_rate(tried.choice.counts)
    line = guarantee.line(guarantee.claimed, at)
    plain = ApproximateDP(claimed=0.0, delta=guarantee.delta)

    def bound(of: Guarantee) -> float:
        found = 0.0
        if looks:
            found = largest_beaten(looks, lambda x: of.line(x, at), betting, most=of.most)
        if not early:
            found = max(found, largest_refuted(counts, lambda x: of.line(x, at), own - betting, most=of.most))
        return found

    lower = bound(guarantee)
    epsilon = lower if isinstance(guarantee, ApproximateDP) else bound(plain)
    wealth = max((log_wealth(seen, line) for seen in looks), default=0.0)
    by_bets = min(1.0, math.exp(-wealth) * alpha / betting) if betting else 1.0
    exact = 1.0 if early else min(1.0, p_value(counts, line) * alpha / (own - betting))
    best = Counts(hits=size, trials=size, other_hits=0, other_trials=size)
    return Confirmation(
        tried=tried,
        counts=counts,
        alpha=alpha,
        event_alpha=own - betting,
        line=line,
        refuted=early or refutes(counts, line, own - betting),
        lower=lower,
        epsilon_lower=epsilon,
        p_value=min(by_bets, exact),
        ceiling=largest_refuted(
            best, lambda x: guarantee.line(x, 0.5 / size), own - betting, most=guarantee.most
        ),
        detectable=detectable(guarantee, counts, at, own - betting, trials=size),
        early=early,
    )
