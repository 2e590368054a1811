"""Draw in worker processes: what hangs or crashes beyond Python's reach costs a process, and is an output."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
import time
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from dpaudit.backend import available_cores
from dpaudit.errors import UsageError
from dpaudit.outputs import Outputs, joined
from dpaudit.targets.releases.calls import Call
from dpaudit.targets.releases.drawing import Key, Stretch, outputs_of, pieces
from dpaudit.targets.releases.reading import DIED, OUT_OF_TIME, Failure, read

_SECONDS_OF_A_TASK = 0.25
_START = 30.0


class WorkerDrawer:
    """Draws in processes, which live as long as the audit. A context manager.

    Starting them costs one import of numpy and of the mechanism's module.
    """

    def __init__(self, call: Call, *, timeout: float = 10.0, workers: int = 0) -> None:
        """Start them.

        Args:
            call: a mechanism that can be imported by name.
            timeout: seconds for one call.
            workers: 0 for one per core, at most four.

        Raises:
            UsageError: the mechanism cannot be imported in another process.
        """
        from pebble import ProcessPool

        self.timeout = timeout
        self._count = workers or min(available_cores(), 4)
        try:
            self._call = pickle.dumps(call)
        except Exception as error:
            raise UsageError(
                f"Expected a mechanism that another process can import, found: {error}. "
                "Move it to the top of a module, or draw in this process with workers=0."
            ) from None
        self._pool = ProcessPool(
            max_workers=self._count,
            context=multiprocessing.get_context("spawn"),
            initializer=_prepare,
            initargs=[list(sys.path)],
        )
        self._seconds = 1e-4

    def __enter__(self) -> WorkerDrawer:
        """The drawer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all workers at once."""
        self._pool.stop()
        self._pool.join()

    def draw(self, data: Any, size: int, key: Key) -> Outputs:
        """See `Drawer`."""
        length = max(1, min(int(_SECONDS_OF_A_TASK / self._seconds), -(-size // self._count)))
        start = time.perf_counter()
        pending = [(stretch, self._schedule(data, stretch)) for stretch in pieces(size, key, length)]
        found = joined([self._outputs(data, stretch, future) for stretch, future in pending])
        spent = (time.perf_counter() - start) * self._count / size
        self._seconds = max(0.5 * (self._seconds + spent), 1e-7)
        return found

    def _schedule(self, data: Any, stretch: Stretch) -> Future[Outputs]:
        length = stretch.stop - stretch.start
        # A stretch may be slower than the last one was; a single output may not.
        allowed = 1.5 * self.timeout + (_START + 50 * self._seconds * length if length > 1 else 0.0)
        future: Future[Outputs] = self._pool.schedule(
            _task, args=[self._call, pickle.dumps(data), stretch, self.timeout], timeout=allowed
        )
        return future

    def _outputs(self, data: Any, stretch: Stretch, future: Future[Outputs]) -> Outputs:
        from pebble import ProcessExpired

        try:
            return future.result()
        except TimeoutError:
            return self._singly(data, stretch, OUT_OF_TIME)
        except ProcessExpired:
            return self._singly(data, stretch, DIED)

    def _singly(self, data: Any, stretch: Stretch, failure: Failure) -> Outputs:
        """Draw what took a worker down again, one output at a time, to see which of them did."""
        if stretch.stop - stretch.start == 1:
            return read([failure])
        singles = [Stretch(key=stretch.key, start=i, stop=i + 1) for i in range(stretch.start, stretch.stop)]
        pending = [(single, self._schedule(data, single)) for single in singles]
        return joined([self._outputs(data, single, future) for single, future in pending])


_LOADED: dict[bytes, Call] = {}


def _prepare(path: list[str]) -> None:
    """Find modules where the parent process does."""
    sys.path[:] = path


def _task(call: bytes, data: bytes, stretch: Stretch, timeout: float) -> Outputs:
    """Both were pickled by the parent process a moment ago; nothing comes from a file."""
    if call not in _LOADED:
        _LOADED[call] = pickle.loads(call)
    return outputs_of(_LOADED[call], pickle.loads(data), stretch, timeout)
