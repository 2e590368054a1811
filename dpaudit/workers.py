"""Trials in worker processes: one that hangs, grows, floods the terminal or dies costs itself alone.

Each worker has pipes of its own. In a pool whose workers share one, a worker that is killed with the pipe in
its hands leaves the others waiting for ever.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from dpaudit.backend import Outcome, Task, attempt, available_cores, failed, one_thread
from dpaudit.memory import GIB, held_by, of_the_machine

SHOWN = 1 << 16
"""Bytes of what one trial prints that are passed on."""
_READS = 64
_READY = "ready"
_START = 600.0
"""Seconds that a worker may take to start; the import of torch on a busy machine takes some."""
_LOOK = 0.25
"""Seconds between two looks at the memory that the workers hold."""


@dataclass(slots=True)
class _Worker:
    """A process, what it answers and prints, and what it is doing."""

    process: BaseProcess
    pipe: Connection
    printed: Connection
    started: bool = False
    task: Task | None = None
    deadline: float = 0.0
    shown: int = 0

    def stop(self) -> None:
        """Kill it, and what it has started itself."""
        with suppress(OSError):
            if self.process.pid and os.getpgid(self.process.pid) == self.process.pid:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self.printed.close()


class LocalEngine:
    """Worker processes, which live as long as the audit unless a trial costs one its life."""

    def outcomes(
        self, tasks: Sequence[Task], *, workers: int, timeout: float, memory: float = 0.0
    ) -> Iterator[Outcome]:
        """See `Engine.outcomes`. Starting a worker costs one import of torch."""
        count = min(workers or available_cores(), len(tasks))
        crew = _Crew(limit=memory * GIB, timeout=timeout)
        todo = deque(tasks)
        # Before multiprocessing's own, which would wait for workers that somebody's exception left at work.
        atexit.register(crew.stop)
        try:
            while todo or crew.busy():
                while todo and (worker := crew.idle(count)) is not None:
                    crew.give(worker, todo.popleft())
                yield from crew.answers()
        finally:
            crew.stop()
            atexit.unregister(crew.stop)


class _Crew:
    """The workers of one audit and their limits."""

    def __init__(self, *, limit: float, timeout: float):
        self._workers: list[_Worker] = []
        self._limit = limit
        self._timeout = timeout
        self._together = 0.9 * of_the_machine()

    def busy(self) -> list[_Worker]:
        """Those at work."""
        return [worker for worker in self._workers if worker.task is not None]

    def idle(self, count: int) -> _Worker | None:
        """One without work, started if there are fewer than `count`."""
        free = next((worker for worker in self._workers if worker.task is None), None)
        if free is None and len(self._workers) < count:
            free = _start()
            self._workers.append(free)
        return free

    def stop(self) -> None:
        """Kill all."""
        while self._workers:
            self._workers.pop().stop()

    def give(self, worker: _Worker, task: Task) -> None:
        """Hand a task to a worker without one."""
        worker.task, worker.shown = task, 0
        worker.deadline = time.monotonic() + _START
        if worker.started:
            self._send(worker, task)

    def answers(self) -> Iterator[Outcome]:
        """Wait for what comes first: an answer, an end, a deadline, or a look at the memory."""
        busy = self.busy()
        patience = min(min(worker.deadline for worker in busy) - time.monotonic(), _LOOK)
        ends: list[Connection] = [end for worker in busy for end in (worker.pipe, worker.printed)]
        ready = wait(ends, timeout=max(patience, 0.0))
        for worker in busy:
            if worker.printed in ready:
                _pass_on(worker)
            if worker.pipe in ready:
                yield from self._answer(worker)
            elif time.monotonic() >= worker.deadline and not worker.pipe.poll():
                yield self._lose(worker, _out_of_time(worker, self._timeout))
        yield from self._look()

    def _send(self, worker: _Worker, task: Task) -> None:
        """Only to one that is up: the pipe is shorter than some tasks, and nobody else reads it."""
        worker.deadline = time.monotonic() + self._timeout * task.trials
        # A worker that is dead already is noticed where its answer is read.
        with suppress(OSError):
            worker.pipe.send(task)

    def _answer(self, worker: _Worker) -> Iterator[Outcome]:
        task = worker.task
        assert task is not None
        try:
            answer = worker.pipe.recv()
        except Exception:
            # The end of the pipe; or bytes that are no answer, from code that wrote into it.
            worker.process.join(1.0)
            code = worker.process.exitcode
            what = "out of reach" if code is None else f"dead (exit code {code})"
            yield self._lose(worker, f"Expected the worker to live, found it {what}.")
            return
        if answer == _READY:
            worker.started = True
            self._send(worker, task)
            return
        _pass_on(worker)
        worker.task = None
        if self._limit and held_by(worker.process.pid) > self._limit / 2:
            self._remove(worker)  # What one trial left behind is not the next one's.
        yield answer

    def _lose(self, worker: _Worker, error: str) -> Outcome:
        task = worker.task
        assert task is not None
        _pass_on(worker)
        self._remove(worker)
        return Outcome(key=task.key, error=error)

    def _remove(self, worker: _Worker) -> None:
        worker.stop()
        self._workers.remove(worker)

    def _look(self) -> Iterator[Outcome]:
        """End the trial that holds more memory than it may, or the largest where all hold too much."""
        held = {id(worker): held_by(worker.process.pid) for worker in self.busy()}
        for worker in self.busy():
            if self._limit and held[id(worker)] > self._limit:
                yield self._lose(worker, _too_much(held[id(worker)], self._limit, "the trial"))
        if self._together and sum(held.values()) > self._together and (left := self.busy()):
            largest = max(left, key=lambda worker: held[id(worker)])
            error = _too_much(sum(held.values()), self._together, "all workers together")
            yield self._lose(largest, error)


def _too_much(held: float, limit: float, who: str) -> str:
    return (
        f"Expected {who} to hold at most {limit / GIB:.3g} GiB, found {held / GIB:.3g} GiB. "
        "Mend the leak, use fewer workers or raise compute.memory."
    )


def _out_of_time(worker: _Worker, timeout: float) -> str:
    if not worker.started:
        return f"Expected a worker to start within {_START:g} s. Free the machine and run again."
    return f"Expected the trial to end within {timeout:g} s; raise compute.timeout."


def _pass_on(worker: _Worker) -> None:
    """Show on stderr what a trial printed, up to a limit; the rest is read and dropped."""
    for _ in range(_READS):  # Of a flood no more at once: the others are looked at in between.
        if not worker.printed.poll():
            return
        try:
            text = os.read(worker.printed.fileno(), SHOWN)
        except OSError:
            return
        if not text:
            return
        part = text[: max(SHOWN - worker.shown, 0)]
        if part:
            sys.stderr.write(part.decode("utf-8", "replace"))
        if worker.shown <= SHOWN < worker.shown + len(text):
            sys.stderr.write("\n[dpaudit: this trial prints more, which is not shown]\n")
        worker.shown += len(text)


def _start() -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    printed, prints = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(theirs, prints, os.getpid(), one_thread), daemon=False)
    resource_tracker.ensure_running()  # which would lift the mask if it were started under it
    # The child inherits this: Ctrl-C ends the audit, which ends it, and not its imports halfway.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    theirs.close()
    prints.close()
    return _Worker(process=process, pipe=ours, printed=printed)


def _serve(pipe: Connection, prints: Connection, parent: int, prepare: Callable[[], object]) -> None:
    """Run tasks until the pipe closes or the audit ends."""
    os.setsid()
    _end_with(parent)
    for stream in (1, 2):
        os.dup2(prints.fileno(), stream)
    prints.close()
    # Spawned itself, and no reason for the trial's own processes to be: DataLoader workers would import
    # torch once more in every epoch, and leave their semaphores behind when they are killed.
    multiprocessing.set_start_method(None, force=True)
    prepare()
    pipe.send(_READY)
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            outcome = attempt(task)
        except KeyboardInterrupt as error:
            outcome = failed(task, error)  # Nobody at a keyboard reaches a worker.
        for written in (sys.stdout, sys.stderr):
            with suppress(Exception):
                written.flush()
        pipe.send(outcome)


def _end_with(parent: int) -> None:
    """End this process when the audit does, however that ends, so that no trial goes on for nobody."""
    if sys.platform == "linux":
        import ctypes

        set_death_signal = 1
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
