"""Trials as tasks of a Ray cluster, on as many machines as it has. Needs the extra `ray`."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dpaudit.backend import Outcome, Task
from dpaudit.errors import UsageError, one_line
from dpaudit.workers import LocalEngine

_RETRIES = 3
"""Times that a trial runs again whose worker or machine was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayEngine:
    """One Ray task for each, which has the limits of `LocalEngine` on the machine where it runs.

    A task that is lost with its worker or machine runs again. All machines must see the folder of the plan
    under the same path, and the record under the same path or address, and have dpaudit installed.

    Attributes:
        address: of a running cluster, such as "10.0.0.1:6379" or "auto"; empty starts one on this machine.
        gpus: GPUs that a trial takes; fractions share one.
    """

    address: str = ""
    gpus: float = 0.0

    def outcomes(
        self, tasks: Sequence[Task], *, workers: int, timeout: float, memory: float = 0.0
    ) -> Iterator[Outcome]:
        """See `Engine.outcomes`. With 0 workers, as many at once as the cluster has cores.

        Raises:
            UsageError: Ray is not installed, or the cluster cannot be reached.
        """
        if not tasks:
            return
        ray = _imported()
        ours = not ray.is_initialized()
        if ours:
            _connect(ray, self.address)
        remote = ray.remote(max_retries=_RETRIES, num_cpus=1, num_gpus=self.gpus)(run_one)
        todo, at_work = deque(tasks), dict[Any, Task]()
        try:
            while todo or at_work:
                while todo and (not workers or len(at_work) < workers):
                    task = todo.popleft()
                    at_work[remote.remote(task, timeout, memory)] = task
                for reference in ray.wait(list(at_work), num_returns=1)[0]:
                    yield _answer(ray, reference, at_work.pop(reference))
        finally:
            for reference in at_work:
                with suppress(Exception):
                    ray.cancel(reference, force=True)
            if ours:
                ray.shutdown()


def run_one(task: Task, timeout: float, memory: float) -> Outcome:
    """Run a task in a worker process of its own, on the machine that Ray chose."""
    (outcome,) = LocalEngine().outcomes([task], workers=1, timeout=timeout, memory=memory)
    return outcome


def _answer(ray: Any, reference: Any, task: Task) -> Outcome:
    try:
        outcome: Outcome = ray.get(reference)
    except ray.exceptions.RayError as error:
        words = one_line(str(error).strip().partition("\n")[0])
        return Outcome(key=task.key, error=f"Expected Ray to run the trial, found: {words}")
    return outcome


def _imported() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Before the import, which reads it.
    try:
        import ray
    except ImportError:
        raise UsageError(
            "Expected Ray for the engine 'ray', found it not installed. Run: pip install 'dpaudit[ray]'"
        ) from None
    return ray


def _connect(ray: Any, address: str) -> None:
    here: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **here)
    except Exception as error:
        raise UsageError(
            f"Expected a Ray cluster at {address or 'this machine'}, found: {one_line(str(error))[:300]}. "
            "Start it with `ray start --head`, or name its address."
        ) from None
