"""How many outputs an audit of a mechanism draws, and on what: decided before the first is judged."""

from __future__ import annotations

from dataclasses import dataclass

from dpaudit.check import in_range

_FEWEST, _MOST = 4_000, 1_000_000
_SECONDS = 12.0
_SMALLEST_SCREEN, _LARGEST_SCREEN = 48, 2_000
"""Fewer outputs cannot refute even the grossest fault at the level of a screening."""
_STEPS = ((12, 2), (4, 4), (2, 8))
"""Of each round after the screening: how many pairs are left, and with how many parts of the outputs."""


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
        rounds: later looks at fewer pairs.
        confirm: outputs on each data set with which the last event is tested.
    """

    examples: int
    screen: int
    patterns: int
    rounds: tuple[Round, ...]
    confirm: int


def budget(samples: int, *, examples: int, patterns: int = 0) -> Budget:
    """Divide outputs: a fifth each for trying pairs and for choosing, three fifths for the confirmation.

    Half of the first fifth goes to the few pairs that are known to break mechanisms, where there are few
    outputs: they need not be spread over a hundred pairs to show a rare event.

    Of many outputs those that the first fifth leaves, because more than 2,000 on a data set are too many for
    pairs that have yet to compete, go to the second. A twentieth is for further candidates.

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
    left = max(samples / 5, samples / 3 - 2 * examples * screen)
    part = left / (2 * sum(pairs * parts for pairs, parts in _STEPS))
    return Budget(
        examples=examples,
        screen=screen,
        patterns=known,
        rounds=tuple(Round(pairs=pairs, size=max(int(part * parts), 64)) for pairs, parts in _STEPS),
        confirm=max(int(samples * 0.6 / 2), 64),
    )


def affordable(seconds_each: float) -> int:
    """Outputs that take some 12 seconds, between 4,000 and a million."""
    return int(min(max(_SECONDS / max(seconds_each, 1e-9), _FEWEST), _MOST))
