"""How much memory a process holds, and how much there is. Where the system does not say, 0: no limit."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

GIB = 1 << 30
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def held_by(process: int | None) -> int:
    """Bytes in memory of a process, shared ones included; 0 where it is gone or the system is not Linux."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def of_the_machine() -> int:
    """Bytes that there are, or that the container may use if that is less; 0 where nothing says."""
    found = []
    with suppress(OSError, ValueError, AttributeError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in _LIMITS:
        with suppress(OSError, ValueError):
            found.append(int(Path(path).read_text(encoding="ascii")))
    return min((size for size in found if size > 0), default=0)


@contextmanager
def uncollected() -> Iterator[None]:
    """Look for no cycles meanwhile: imports and drawing make what stays, and each search visits all of it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def set_aside() -> Iterator[None]:
    """Leave everything that exists by now out of the searches for cycles that are made meanwhile."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def forget_peak() -> None:
    """Have `peak` count from now on, where the system lets us."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak() -> int:
    """Most bytes that this process has held in memory at once; 0 where the system does not say.

    Not what `getrusage` says: a child has the peak of its parent there.
    """
    with suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.partition("VmHWM:")[2].split()[0]) << 10
    return 0
