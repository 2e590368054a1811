"""Events to a progress bar on stderr, with time left; silent when stderr is not a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dpaudit.events import Analysing, Event, RunFinished, RunStarted, TrialFinished, TrialLost


def follow(events: Iterable[Event], *, quiet: bool = False) -> RunFinished | None:
    """Consume the events of a run; lost trials are said in any case.

    Returns:
        The last event, if the run came to its end.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    finished = None
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bar:
        task = bar.add_task("preparing", total=None)
        for event in events:
            match event:
                case RunStarted():
                    bar.update(task, total=event.trials, description=f"training on {event.device}")
                case TrialFinished():
                    bar.update(task, advance=1, description=f"training {event.target}")
                case TrialLost():
                    bar.update(task, advance=1)
                    console.print(f"lost: {event.target} ({event.kind}): {event.error}", markup=False)
                case Analysing():
                    bar.update(task, description=f"judging {', '.join(event.targets)}", total=None)
                case RunFinished():
                    finished = event
    return finished
