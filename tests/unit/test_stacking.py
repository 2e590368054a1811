"""Which trials become one task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dpaudit.plan import parse
from dpaudit.stacking import FEWEST, MOST, execute_stack, tasks_of
from dpaudit.trial import AUDITED, SHADOW, TrialSpec, execute


def plan(workers: int) -> Any:
    return parse(
        {
            "compute": {"workers": workers},
            "targets": [
                {"name": "private", "train": "opacus", "options": {"grad_sample_mode": "ghost"}},
                {"name": "broken", "train": "opacus", "options": {"fault": "no-noise"}},
                {"name": "plain", "train": "plain"},
            ],
            "attacks": {"lira": {}},
        }
    )


def specs(audit: Any, shadows: int) -> list[TrialSpec]:
    return [
        TrialSpec(
            key=f"{target.name}-{index}",
            target=target.name,
            kind=SHADOW if index else AUDITED,
            index=index,
            plan=audit,
            plan_folder=Path(),
            out=Path(),
            device="cpu",
        )
        for index in range(shadows + 1)
        for target in audit.targets
    ]


@pytest.mark.parametrize(
    ("workers", "shadows", "sizes"),
    [
        (2, 6, [6]),
        (1, 40, [40]),
        (2, 40, [20, 20]),
        (8, 40, [FEWEST, FEWEST, 40 - 2 * FEWEST]),
        (2, 2 * MOST + 10, [MOST, MOST, 10]),
    ],
)
def test_shadows_of_a_stackable_target_share_tasks_and_others_have_their_own(workers, shadows, sizes):
    audit = plan(workers)
    wanted = specs(audit, shadows)
    planned = tasks_of(audit, wanted)
    assert sorted(spec.key for _, part in planned for spec in part) == sorted(spec.key for spec in wanted)
    for target in ("private", "plain"):
        stacks = [(t, p) for t, p in planned if p[0].target == target and p[0].kind == SHADOW]
        assert [len(part) for _, part in stacks] == sizes
        assert all(task.run is execute_stack and task.trials == len(part) for task, part in stacks)
    alone = [(t, p) for t, p in planned if p[0].target == "broken" or p[0].kind == AUDITED]
    assert len(alone) == shadows + 3
    assert all(task.run is execute and task.trials == len(part) == 1 for task, part in alone)
    assert [part[0].kind for _, part in planned[:3]] == [AUDITED] * 3


def test_the_keys_of_tasks_are_distinct():
    audit = plan(2)
    keys = [task.key for task, _ in tasks_of(audit, specs(audit, 100))]
    assert len(set(keys)) == len(keys)
