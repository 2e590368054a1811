"""The trials of a plan by target and kind, those that are on disk already, and the tasks for the others."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from dpaudit.commitment import salt_of
from dpaudit.plan import AuditPlan
from dpaudit.run import Job, check, specs_of, wanted
from dpaudit.stacking import tasks_of
from dpaudit.store import Store
from dpaudit.trial import TrialSpec, load_view

_NO_SALT = "00"
Group = tuple[str, str]
"""Name of a target, and kind of its trials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Trials of one kind of one target.

    Attributes:
        target: its name.
        kind: "audited", "shadow", or the name of a game.
        trials: of the plan.
        done: on disk already.
        tasks: trials of each task that is left, in their order; more than one where models are stacked.
        stacked: whether the models of a task are trained together.
        specs: trials of the first task that is left, by which the others are measured.
    """

    target: str
    kind: str
    trials: int
    done: int
    tasks: tuple[int, ...]
    stacked: bool = False
    specs: tuple[TrialSpec, ...] = ()

    @property
    def left(self) -> int:
        """Trials that are still to be made."""
        return self.trials - self.done


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """All that a run of a plan would do.

    Attributes:
        works: by target and kind, in the order in which they begin.
        order: of each task that is left, in the order of the run: the position of its work, and its trials.
    """

    works: tuple[Work, ...]
    order: tuple[tuple[int, int], ...]

    @property
    def left(self) -> int:
        """Trials that are still to be made."""
        return sum(work.left for work in self.works)


def counted(plan: AuditPlan, folder: Path) -> dict[Group, int]:
    """Trials of a plan by target and kind, without a look at any folder.

    Args:
        plan: the audit plan.
        folder: where the user's modules are.

    Raises:
        UsageError: an attack or a training function that is not there.
    """
    return dict(Counter((target.name, kind) for kind, _, _, target in wanted(plan, folder)))


def workload(job: Job, device: str) -> Workload:
    """What `run` would do with a job; its folder is read, and a damaged result in it set aside.

    Costs the reading of every result that is on disk.

    Raises:
        UsageError: the plan names something that is not there.
    """
    # Without a salt nothing is on disk, and any will do.
    specs = specs_of(job, device, check(job), salt_of(job.out) or _NO_SALT)
    store = Store(job.out)
    done = {spec.key for spec in specs if load_view(store, spec) is not None}
    groups = dict.fromkeys(_group(spec) for spec in specs)
    planned = tasks_of(job.plan, [spec for spec in specs if spec.key not in done])
    places = {group: place for place, group in enumerate(groups)}
    works = []
    for group in groups:
        ours = [(task, part) for task, part in planned if _group(part[0]) == group]
        works.append(
            Work(
                target=group[0],
                kind=group[1],
                trials=sum(_group(spec) == group for spec in specs),
                done=sum(_group(spec) == group and spec.key in done for spec in specs),
                tasks=tuple(len(part) for _, part in ours),
                stacked=bool(ours) and isinstance(ours[0][0].argument, tuple),
                specs=ours[0][1] if ours else (),
            )
        )
    return Workload(
        works=tuple(works), order=tuple((places[_group(part[0])], len(part)) for _, part in planned)
    )


def _group(spec: TrialSpec) -> Group:
    return spec.target, spec.kind
