"""How many outputs an audit of a mechanism draws, and on what: decided before the first is judged."""

from __future__ import annotations

from dataclasses import dataclass

from dpaudit.check import in_range

_PLANNED = (1_000_000, 300_000, 100_000, 30_000, 10_000, 4_000)
_SECONDS = 20.0
_SMALLEST_SCREEN, _LARGEST_SCREEN = 48, 2_000
"""Fewer outputs cannot refute even the grossest fault at the level of a screening."""
_STEPS = ((16, 1), (8, 2), (4, 4), (1, 16))
"""Of each round after the screening: how many pairs are left, and how many parts of the outputs each gets."""
_LARGEST_PART, _LARGEST_ROUND = 40_000, 2_000_000
"""More do not choose pairs better, nor the last pair's event; the confirmation gets what is left."""
_OVERHEAD = 0.4
_FOR_SIMPLEST = 1 / 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A second look at the best pairs.

    Attributes:
        pairs: how many.
        size: outputs on each data set.
    """

    pairs: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Outputs by purpose.

    Attributes:
        examples: pairs that are tried.
        screen: outputs on each data set of a pair that is tried.
        patterns: the same, of the pairs that are known to break mechanisms.
        simplest: the same, of the first few of these.
        rounds: later looks at fewer pairs.
        confirm: outputs on each data set with which the last event is tested.
    """

    examples: int
    screen: int
    patterns: int
    simplest: int
    rounds: tuple[Round, ...]
    confirm: int


def budget(samples: int, *, examples: int, patterns: int = 0) -> Budget:
    """Divide outputs: a fifth for trying pairs, a quarter for choosing, the rest for the confirmation.

    Half of the first fifth goes to the few pairs that are known to break mechanisms, where there are few
    outputs: they need not be spread over a hundred pairs to show a rare event.

    Of many outputs those that the first fifth leaves, because more than 2,000 on a data set are too many for
    pairs that have yet to compete, go to the choosing, and what is too much for that to the confirmation.

    Args:
        samples: outputs over all data sets together.
        examples: pairs that are tried.
        patterns: how many of them are known to break mechanisms.

    Raises:
        UsageError: fewer than 200 outputs, or no example.
    """
    in_range("samples", samples, 200, 1e10, remedy="An audit needs some outputs.")
    in_range("examples", examples, 1, 1e6, remedy="Try at least one pair.")
    screen = min(max(int(samples / 5 / (2 * examples)), _SMALLEST_SCREEN), _LARGEST_SCREEN)
    known = min(max(int(samples / 10 / (2 * max(patterns, 1))), screen), _LARGEST_SCREEN)
    part = max(samples * _OVERHEAD - 2 * examples * screen, samples / 4) / (2 * sum(p * n for p, n in _STEPS))
    rounds = tuple(
        Round(pairs=pairs, size=max(int(_most(part, pairs) * parts), 64)) for pairs, parts in _STEPS
    )
    chosen = sum(each.pairs * each.size for each in rounds) + examples * screen
    return Budget(
        examples=examples,
        screen=screen,
        patterns=known,
        simplest=max(known, min(int(samples * _FOR_SIMPLEST), _LARGEST_SCREEN)),
        rounds=rounds,
        confirm=max(int(max(samples / 2 - chosen, samples * 0.6 / 2)), 64),
    )


def _most(part: float, pairs: int) -> float:
    """A part of the outputs, cut off where more would not help.

    The event of the last pair may be rare: a million tell a leak of 0.13 in one output of 300 from luck.
    """
    return min(part, _LARGEST_PART if pairs > 1 else _LARGEST_ROUND / _STEPS[-1][1])


def affordable(seconds_each: float) -> int:
    """The most of a few fixed numbers of outputs, 4,000 to a million, that take no more than 20 seconds.

    Fixed numbers, so that two machines plan the same unless one is several times as fast.
    """
    return next((n for n in _PLANNED if n * seconds_each <= _SECONDS), _PLANNED[-1])
