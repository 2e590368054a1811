"""Draw in worker processes: what hangs or crashes beyond Python's reach costs a process, and is an output.

Each worker has a pipe of its own. A pool whose workers share one can wait forever when one of them dies with
the pipe in its hands, and here dying is what some mechanisms do.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from types import TracebackType
from typing import Any

from dpaudit.backend import available_cores
from dpaudit.errors import UsageError
from dpaudit.outputs import Outputs, joined
from dpaudit.targets.releases.calls import Call
from dpaudit.targets.releases.drawing import Key, Stretch, outputs_of, pieces
from dpaudit.targets.releases.reading import DIED, OUT_OF_TIME, Failure, read

_SECONDS_OF_A_TASK = 0.25
_READY = "ready"
_IMPORTABLE = "Expected a mechanism that another process can import"
_INSTEAD = "Move it to the top of a module, or draw in this process (--inline, workers=0)."
_START = 60.0
"""Seconds that a worker may take to start and to import the mechanism."""


@dataclass(slots=True)
class _Worker:
    """A process, its pipe, and what it is doing."""

    process: BaseProcess
    pipe: Connection
    started: bool = False
    stretch: Stretch | None = None
    deadline: float = 0.0

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class WorkerDrawer:
    """Draws in processes, which live as long as the audit. A context manager.

    Starting them costs one import of numpy and of the mechanism's module.
    """

    def __init__(self, call: Call, *, timeout: float = 10.0, workers: int = 0) -> None:
        """Prepare them; they start with the first draw.

        Args:
            call: a mechanism that can be imported by name.
            timeout: seconds for one call.
            workers: 0 for one per core, at most four.

        Raises:
            UsageError: the mechanism cannot be imported in another process.
        """
        self.timeout = timeout
        self._count = workers or min(available_cores(), 4)
        self._workers: list[_Worker] = []
        self._seconds = 1e-4
        self._call = call
        try:
            ForkingPickler.dumps(call)
        except Exception as error:
            raise UsageError(f"{_IMPORTABLE}, found: {error}. {_INSTEAD}") from None

    def __enter__(self) -> WorkerDrawer:
        """Return the drawer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all workers at once."""
        while self._workers:
            self._workers.pop().stop()

    def draw(self, data: Any, size: int, key: Key) -> Outputs:
        """See `Drawer`."""
        length = max(1, min(int(_SECONDS_OF_A_TASK / self._seconds), -(-size // self._count)))
        start = time.perf_counter()
        todo = deque(pieces(size, key, length))
        done: dict[int, Outputs] = {}
        try:
            while todo or any(worker.stretch for worker in self._workers):
                self._hand_out(todo, data)
                self._collect(todo, done)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        spent = (time.perf_counter() - start) * self._count / size
        self._seconds = max(0.5 * (self._seconds + spent), 1e-7)
        return joined([done[first] for first in sorted(done)])

    def _hand_out(self, todo: deque[Stretch], data: Any) -> None:
        """Give every idle worker something to do, and start workers as long as some are missing."""
        while todo:
            idle = next((worker for worker in self._workers if worker.stretch is None), None)
            if idle is None:
                if len(self._workers) >= self._count:
                    return
                idle = self._start()
            stretch = todo.popleft()
            length = stretch.stop - stretch.start
            # A stretch may be slower than the last one was; a single output may not.
            allowed = 1.5 * self.timeout + (_START + 50 * self._seconds * length if length > 1 else 0.0)
            idle.stretch = stretch
            idle.deadline = time.monotonic() + allowed + (0.0 if idle.started else _START)
            try:
                idle.pipe.send((data, stretch))
            except OSError:
                idle.deadline = 0.0

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._call, self.timeout), daemon=True)
        resource_tracker.ensure_running()  # which would lift the mask if it were started under it
        # The child inherits this: Ctrl-C ends the audit, which ends it, and not its imports halfway.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        worker = _Worker(process=process, pipe=ours)
        self._workers.append(worker)
        return worker

    def _collect(self, todo: deque[Stretch], done: dict[int, Outputs]) -> None:
        """Wait for the next answer, end or deadline of a worker, and note what it means."""
        busy = [worker for worker in self._workers if worker.stretch is not None]
        if not busy:
            return
        patience = min(worker.deadline for worker in busy) - time.monotonic()
        ready = wait([worker.pipe for worker in busy], timeout=max(patience, 0.0))
        for worker in busy:
            stretch = worker.stretch
            if stretch is None:
                continue
            if worker.pipe in ready:
                self._answer(worker, stretch, todo, done)
            elif time.monotonic() >= worker.deadline:
                self._lose(worker, stretch, OUT_OF_TIME, todo, done)

    def _answer(
        self, worker: _Worker, stretch: Stretch, todo: deque[Stretch], done: dict[int, Outputs]
    ) -> None:
        try:
            answer = worker.pipe.recv()
        except (EOFError, OSError):
            if not worker.started:
                raise UsageError(f"{_IMPORTABLE}, found that it cannot. {_INSTEAD}") from None
            self._lose(worker, stretch, DIED, todo, done)
            return
        if answer == _READY:
            worker.started = True
        elif isinstance(answer, str):
            raise UsageError(answer)
        else:
            worker.stretch = None
            done[stretch.start] = answer

    def _lose(
        self,
        worker: _Worker,
        stretch: Stretch,
        failure: Failure,
        todo: deque[Stretch],
        done: dict[int, Outputs],
    ) -> None:
        """Blame the one output, or draw a stretch again one by one to see which output is to blame."""
        worker.stop()
        self._workers.remove(worker)
        if stretch.stop - stretch.start == 1:
            done[stretch.start] = read([failure])
            return
        singles = pieces(stretch.stop - stretch.start, stretch.key, 1)
        shifted = [
            Stretch(key=s.key, start=s.start + stretch.start, stop=s.stop + stretch.start) for s in singles
        ]
        todo.extendleft(reversed(shifted))


def _serve(pipe: Connection, call: Call, timeout: float) -> None:
    """Answer stretches until the pipe closes."""
    pipe.send(_READY)
    while True:
        try:
            data, stretch = pipe.recv()
        except (EOFError, OSError):
            return
        except Exception as error:
            pipe.send(f"Expected data that another process can import, found: {error}. {_INSTEAD}")
            continue
        try:
            answer: Outputs | str = outputs_of(call, data, stretch, timeout)
        except UsageError as error:
            answer = str(error)
        pipe.send(answer)
