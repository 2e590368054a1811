"""Where trials run: the device, and the engines. An engine only runs trials; it decides nothing."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any, Protocol

from dpaudit.errors import DpauditError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One call in one process: `run(argument)` writes its own results and returns seconds.

    Attributes:
        key: of the trial, or of the first of several.
        run: a function of a module.
        argument: of it.
        trials: how many are made; each has the time-out of one.
    """

    key: str
    run: Callable[[Any], float]
    argument: Any
    trials: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a task ended: seconds, or one line that says why not."""

    key: str
    seconds: float = 0.0
    error: str = ""
    usage: bool = False


class Engine(Protocol):
    """Runs independent tasks and yields each outcome when it is there."""

    def outcomes(self, tasks: Sequence[Task], *, workers: int, timeout: float) -> Iterator[Outcome]:
        """Run every task once; one that fails, hangs or dies costs itself alone."""
        ...


class InlineEngine:
    """In this process, one after another; no time-out. For debugging, notebooks and tests."""

    def outcomes(self, tasks: Sequence[Task], *, workers: int, timeout: float) -> Iterator[Outcome]:
        """See `Engine.outcomes`."""
        yield from map(attempt, tasks)


class LocalEngine:
    """Worker processes by Pebble: a crash, a time-out or an out-of-memory kill takes one trial with it."""

    def outcomes(self, tasks: Sequence[Task], *, workers: int, timeout: float) -> Iterator[Outcome]:
        """See `Engine.outcomes`. Starting a worker costs one import of torch."""
        from pebble import ProcessPool

        if not tasks:
            return
        count = min(workers or available_cores(), len(tasks))
        context = multiprocessing.get_context("spawn")
        with ProcessPool(max_workers=count, context=context, initializer=one_thread) as pool:
            pending: dict[Future[Outcome], Task] = {
                pool.schedule(attempt, args=[task], timeout=timeout * task.trials): task for task in tasks
            }
            try:
                while pending:
                    done, _ = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield _outcome(pending.pop(future), future, timeout)
            finally:
                if pending:
                    pool.stop()


def attempt(task: Task) -> Outcome:
    """Run a task in this process and turn whatever it raises, `sys.exit` too, into one line of text.

    Exceptions stay where they were raised: one that cannot be unpickled would end a whole pool.
    """
    try:
        return Outcome(key=task.key, seconds=task.run(task.argument))
    except (Exception, SystemExit) as error:
        return _failed(task, error)


def _outcome(task: Task, future: Future[Outcome], timeout: float) -> Outcome:
    from pebble import ProcessExpired

    try:
        return future.result()
    except TimeoutError:
        return Outcome(
            key=task.key, error=f"Expected the trial to end within {timeout:g} s; raise compute.timeout."
        )
    except ProcessExpired as error:
        return Outcome(
            key=task.key, error=f"Expected the worker to live, found it dead (exit code {error.exitcode})."
        )
    except Exception as error:
        return _failed(task, error)


def _failed(task: Task, error: BaseException) -> Outcome:
    text = str(error) if isinstance(error, DpauditError) else f"{type(error).__name__}: {error}"
    return Outcome(key=task.key, error=" ".join(text.split()), usage=isinstance(error, UsageError))


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def one_thread() -> None:
    """Keep each worker to one thread: trials are many and small, and share the cores."""
    import torch

    torch.set_num_threads(1)


def choose_device(wanted: str) -> str:
    """Turn auto, cpu or cuda into the device that is used.

    Raises:
        UsageError: cuda was asked for and is not there.
    """
    if wanted == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise UsageError(
            f"Expected a CUDA device for device='cuda', found none with torch {torch.__version__}. "
            "Use --device cpu or auto, or install a CUDA build of torch."
        )
    return "cpu"


def device_name(device: str) -> str:
    """A name for the record, such as that of the GPU."""
    if device == "cpu":
        return "cpu"
    import torch

    return f"cuda ({torch.cuda.get_device_name(0)})"
