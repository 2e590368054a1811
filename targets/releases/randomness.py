"""Where a mechanism gets its randomness from: the state it is given, a global one, elsewhere, or nowhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from dpaudit.outputs import Outputs
from dpaudit.targets.releases.calls import NONE, Call
from dpaudit.targets.releases.drawing import Drawer

_OUTPUTS = 24


class Source(StrEnum):
    """Of randomness."""

    GIVEN = "the random state that it is given"
    GLOBAL = "a global random state"
    OWN = "randomness of its own"
    NOWHERE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Randomness:
    """How a mechanism draws.

    Attributes:
        source: where from.
        call: the mechanism, with global states seeded before each call if it draws from these.
        note: what a user should know of it; may be empty.
    """

    source: Source
    call: Call
    note: str


def randomness(call: Call, drawer_of: Callable[[Call], Drawer], data: Sequence[Any]) -> Randomness:
    """Find out by drawing twice under one seed, and once under another.

    Args:
        call: the mechanism.
        drawer_of: makes a drawer of a call.
        data: some data sets; it is enough that the outputs vary on one of them.
    """
    drawer = drawer_of(call)
    first, again, other = (_drawn(drawer, data, seed) for seed in (1, 1, 2))
    if not any(_vary(a) or _differ(a, b) for a, b in zip(first, other, strict=True)):
        return Randomness(source=Source.NOWHERE, call=call, note=_nowhere(call))
    if not any(_differ(a, b) for a, b in zip(first, again, strict=True)):
        return Randomness(source=Source.GIVEN, call=call, note="")
    seeded = replace(call, reseed=True)
    twice = [_drawn(drawer_of(seeded), data, 1) for _ in range(2)]
    ignores = "ignores the random state that it is given, and " if call.random != NONE else ""
    if not any(_differ(a, b) for a, b in zip(*twice, strict=True)):
        note = f"It {ignores}draws from a global random state, which was seeded before each call."
        return Randomness(source=Source.GLOBAL, call=seeded, note=note)
    note = f"It {ignores}draws from a source that cannot be seeded: its outputs repeat in law only."
    return Randomness(source=Source.OWN, call=call, note=note)


def _drawn(drawer: Drawer, data: Sequence[Any], seed: int) -> list[Outputs]:
    return [drawer.draw(each, _OUTPUTS, (seed, 7, i)) for i, each in enumerate(data)]


def _vary(outputs: Outputs) -> bool:
    return bool(np.any(outputs.fingerprints != outputs.fingerprints[:1]))


def _differ(first: Outputs, second: Outputs) -> bool:
    return not np.array_equal(first.fingerprints, second.fingerprints)


def _nowhere(call: Call) -> str:
    given = ", whatever random state it is given" if call.random != NONE else ""
    return f"It puts out the same on every call{given}: a release without randomness protects nothing."
