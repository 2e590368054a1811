"""Where trials run: the device, and the engines. An engine only runs trials; it decides nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from dpaudit.errors import DpauditError, UsageError, one_line


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

    def outcomes(
        self, tasks: Sequence[Task], *, workers: int, timeout: float, memory: float = 0.0
    ) -> Iterator[Outcome]:
        """Run every task once; one that fails, hangs, grows or dies costs itself alone.

        Args:
            tasks: independent of each other.
            workers: at once; 0 for one a core.
            timeout: seconds that each trial of a task may take.
            memory: GiB that one worker may hold; 0 for what the machine has, over all of them.
        """
        ...


class InlineEngine:
    """In this process, one after another; no limits. For debugging, notebooks and tests."""

    def outcomes(
        self, tasks: Sequence[Task], *, workers: int, timeout: float, memory: float = 0.0
    ) -> Iterator[Outcome]:
        """See `Engine.outcomes`."""
        yield from map(attempt, tasks)


def attempt(task: Task) -> Outcome:
    """Run a task in this process and turn whatever it raises, `sys.exit` too, into one line of text.

    Exceptions stay where they were raised: one that cannot be unpickled would end a whole pool. A task that
    leaves the folder it was started in is brought back.
    """
    folder = os.getcwd()
    try:
        return Outcome(key=task.key, seconds=task.run(task.argument))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return failed(task, error)
    finally:
        with suppress(OSError):
            os.chdir(folder)


def failed(task: Task, error: BaseException) -> Outcome:
    """The outcome of a task that raised: one line, of bounded length and without control characters."""
    try:
        text = str(error) if isinstance(error, DpauditError) else f"{type(error).__name__}: {error}"
    except Exception:
        text = f"{type(error).__name__}, which cannot be put into words"
    return Outcome(key=task.key, error=one_line(text), usage=isinstance(error, UsageError))


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


def gpus_here(device: str) -> int:
    """GPUs of this machine; none where trials do not train on one."""
    if device == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()


def gpu_memory(device: str) -> tuple[int, int]:
    """Most bytes of the GPU that this process has taken, and bytes that the GPU has; zeros without a GPU.

    The first are what torch's allocator reserved at most, and what is in use beside it now: the context of
    CUDA, and whatever other processes hold. They are too many on a GPU that others use too.
    """
    if device == "cpu":
        return 0, 0
    import torch

    free, total = torch.cuda.mem_get_info()
    beside = total - free - torch.cuda.memory_reserved()
    return torch.cuda.max_memory_reserved() + max(beside, 0), total
