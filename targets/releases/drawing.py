"""Draw outputs: one random state each, in this process or in workers, and never longer than allowed.

A mechanism that raises, hangs or takes its process down has put out just that: it is an output like others.
"""

from __future__ import annotations

import contextlib
import io
import math
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol

import numpy as np

from dpaudit.errors import UsageError
from dpaudit.outputs import Outputs
from dpaudit.targets.releases.calls import Call, fresh
from dpaudit.targets.releases.reading import OUT_OF_TIME, Failure, read, read_array

Key = tuple[int, ...]
_WARM = 4
"""Outputs that start up to four workers."""
_MEASURED, _MOST_MEASURED = 0.05, 4**7
"""Seconds and outputs that are enough to tell what an output costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Consecutive outputs of one draw.

    Attributes:
        key: of the draw; with the number of an output it makes the seed of that output.
        start: number of the first output.
        stop: one more than that of the last.
    """

    key: Key
    start: int
    stop: int


class Drawer(Protocol):
    """Draws independent outputs."""

    def draw(self, data: Any, size: int, key: Key) -> Outputs:
        """Put out `size` outputs on `data`; the same for the same key, as far as the mechanism allows."""
        ...


class _OutOfTime(BaseException):
    """Raised inside a call; no `except Exception` of the mechanism's own catches it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineDrawer:
    """Draws in this process.

    Attributes:
        call: the mechanism.
        timeout: seconds for one call; holds in the main thread, and only where Python runs.
    """

    call: Call
    timeout: float = 10.0

    def draw(self, data: Any, size: int, key: Key) -> Outputs:
        """See `Drawer`."""
        return outputs_of(self.call, data, Stretch(key=key, start=0, stop=size), self.timeout)


def outputs_of(call: Call, data: Any, stretch: Stretch, timeout: float) -> Outputs:
    """The outputs of a stretch, one after another or, where the mechanism can, in one call."""
    with _quiet(), _interruptible():
        if call.many:
            return _many(call, data, stretch, timeout)
        numbers = range(stretch.start, stretch.stop)
        return read([_one(call, data, (*stretch.key, i), timeout) for i in numbers])


def _one(call: Call, data: Any, seed: Key, timeout: float, size: int | None = None) -> Any:
    """One call; what it raises is what it put out."""
    try:
        _ring_after(timeout)
        try:
            return call(fresh(data), seed, size)
        finally:
            _ring_after(0.0)
    except _OutOfTime:
        return OUT_OF_TIME
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Failure(label=f"raised {type(error).__name__}", message=_message(error))


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "a message that cannot be read"


def _many(call: Call, data: Any, stretch: Stretch, timeout: float) -> Outputs:
    """One call for all outputs; if it fails, one call for each, since only one of them may have failed."""
    size = stretch.stop - stretch.start
    found = _one(call, data, (*stretch.key, stretch.start), timeout * max(1.0, size**0.5), size)
    if isinstance(found, Failure):
        return _each(call, data, stretch, timeout)
    values = _counted(found, size)
    return read_array(values) if isinstance(values, np.ndarray) else read(values)


def _counted(found: Any, size: int) -> Any:
    """What one call gave, if it is as many outputs as were asked for."""
    single = isinstance(found, (str, bytes, dict, set)) or not hasattr(found, "__iter__")
    if single or getattr(found, "shape", None) == ():
        raise UsageError(
            f"Expected {size} outputs of one call, found one {type(found).__name__}. "
            "Return an array or a list of them, or leave out the size and return one."
        )
    values: Any = found if isinstance(found, np.ndarray) else list(found)
    if len(values) != size:
        raise UsageError(
            f"Expected {size} outputs of one call, found {len(values)}. "
            "Return them along the first axis, or leave out the size and return one."
        )
    return values


def _each(call: Call, data: Any, stretch: Stretch, timeout: float) -> Outputs:
    found = [_one(call, data, (*stretch.key, i), timeout, 1) for i in range(stretch.start, stretch.stop)]
    return read([each if isinstance(each, Failure) else _counted(each, 1)[0] for each in found])


def _alarms() -> bool:
    """Whether calls can be interrupted: in the main thread, and where Python runs."""
    return threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")


def _ring_after(seconds: float) -> None:
    """Interrupt the main thread then; never, for 0."""
    if _alarms():
        signal.setitimer(signal.ITIMER_REAL, seconds)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Turn an alarm into `_OutOfTime`."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise _OutOfTime

    before = signal.signal(signal.SIGALRM, ring) if _alarms() else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what a mechanism prints, thousands of times over, off the terminal."""
    nowhere = _Nowhere()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield


class _Nowhere(io.TextIOBase):
    """A text stream that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)


def cost(drawer: Drawer, data: Any, key: Key) -> float:
    """Seconds per output, measured on some.

    The first draw does not count, which pays for processes and imports. Of the others the last two do, whose
    cheaper one is taken: what puts out many in one call is a thousand times cheaper than its first calls are.
    """
    drawer.draw(data, _WARM, (*key, 0))
    size, before = 1, math.inf
    while True:
        start = time.perf_counter()
        drawer.draw(data, size, (*key, size))
        spent = time.perf_counter() - start
        if spent > _MEASURED or size >= _MOST_MEASURED:
            return max(min(spent / size, before), 1e-8)
        size, before = 4 * size, spent / size


def pieces(size: int, key: Key, length: int) -> Sequence[Stretch]:
    """A draw in stretches of at most so many outputs."""
    return [Stretch(key=key, start=start, stop=min(start + length, size)) for start in range(0, size, length)]
