"""The user's code, executed once more where it must leave nothing behind: in a process that ends with it."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

_CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate")
_LEAVES = ("shutil.", "subprocess.", "socket.connect", "sqlite3.connect", "os.system", "os.posix_spawn")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class WouldWriteError(RuntimeError):
    """The code would have written a file, or have talked to another process."""


def in_a_child(work: Callable[[], Any], *, seconds: float) -> Any:
    """What a function returns that runs in a copy of this process; None where it raises or takes longer.

    The copy opens no file for writing, renames none and starts no process: such a call raises in it. Where a
    system cannot copy processes nothing runs.

    Args:
        work: returns what JSON can hold.
        seconds: after which it is stopped.
    """
    if not hasattr(os, "fork"):
        return None
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of threads: the child starts none and ends without a word.
        child = os.fork()
    if not child:
        _run(work, write)
    os.close(write)
    try:
        answer = _answer(read, time.monotonic() + seconds)
    finally:
        os.close(read)
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return json.loads(answer) if answer else None


def _answer(read: int, deadline: float) -> bytes:
    """What comes through a pipe until it closes; nothing if that is too late."""
    parts: list[bytes] = []
    while select.select([read], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(read, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)
    return b""


def _run(work: Callable[[], Any], write: int) -> None:
    """Answer, and end without cleaning up: what is open is the parent's."""
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        torch.set_num_threads(1)  # Threads that the parent had do not live here.
        sys.addaudithook(_refuse)
        # It opens files without telling Python.
        torch.serialization._open_zipfile_writer = _refused  # type: ignore[assignment]
        os.write(write, json.dumps(work()).encode())
    finally:
        os._exit(0)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    writes = event == "open" and _writes(*arguments[1:3])
    if writes or event in _CHANGES or event.startswith(_LEAVES):
        raise WouldWriteError(event)


def _refused(*_: Any, **__: Any) -> None:
    raise WouldWriteError("torch.save")


def _writes(mode: Any, flags: Any) -> bool:
    return bool(set(mode or "") & set("wax+")) or bool((flags or 0) & _WRITING)
