"""The user's code, executed once more where it must leave nothing behind: what it would write is refused."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

_CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate")
_LEAVES = ("shutil.", "subprocess.", "socket.connect", "sqlite3.connect", "os.system", "os.posix_spawn")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_here = threading.local()


class WouldWriteError(RuntimeError):
    """The code would have written a file, or have talked to another process."""


@contextmanager
def unwritten() -> Iterator[None]:
    """Let nothing that this thread executes open a file for writing, rename one, or start a process.

    Raises:
        WouldWriteError: inside, in place of what was about to happen.
    """
    _listen()
    serialization: Any = torch.serialization
    writer = serialization._open_zipfile_writer

    def refused(*arguments: Any, **keywords: Any) -> Any:
        """Opens files without telling Python; other threads may."""
        if getattr(_here, "busy", False):
            raise WouldWriteError("torch.save")
        return writer(*arguments, **keywords)

    serialization._open_zipfile_writer, _here.busy = refused, True
    try:
        yield
    finally:
        serialization._open_zipfile_writer = writer
        _here.busy = False


@cache
def _listen() -> None:
    """Once for the process: an audit hook cannot be taken away again."""

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if not getattr(_here, "busy", False):
            return
        writes = event == "open" and _writes(*arguments[1:3])
        if writes or event in _CHANGES or event.startswith(_LEAVES):
            raise WouldWriteError(event)

    sys.addaudithook(heard)


def _writes(mode: Any, flags: Any) -> bool:
    return bool(set(mode or "") & set("wax+")) or bool((flags or 0) & _WRITING)
