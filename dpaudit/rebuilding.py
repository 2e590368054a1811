"""What attacks rebuild of a target's data, in the run and from its final model: it tests no claim."""

from __future__ import annotations

from dpaudit.asking import Rebuilds
from dpaudit.evidence import Access, Rebuilt
from dpaudit.plan import AuditPlan
from dpaudit.protocols import View
from dpaudit.record import Coverage
from dpaudit.trial import attacks_of

CLASSES = {
    "attribute inference": "attribute-inference",
    "gradient inversion": "gradient-inversion",
    "class representatives (model inversion)": "model-inversion",
    "the last unknown record (informed adversary)": "informed",
    "the last unknown record of a network (reconstructor)": "reconstructor",
    "training data from the weights of the final model": "kkt-reconstruction",
}
"""What a plan may leave out, and the attack that does it."""


def rebuilt(plan: AuditPlan, view: View | None) -> tuple[Rebuilt, ...]:
    """Everything that was rebuilt from one audited run; costs what the attacks on its final model cost."""
    if view is None:
        return ()
    found = [each for each in view.evidence if isinstance(each, Rebuilt)]
    for attack in attacks_of(plan).values():
        if isinstance(attack, Rebuilds):
            made = attack.rebuilt(view)
            found += [] if isinstance(made, str) else made
    return tuple(found)


def ran(attack: Rebuilds, view: View) -> tuple[str, str]:
    """Whether the attack rebuilt anything, and otherwise why not."""
    made = attack.rebuilt(view)
    return ("NOT APPLICABLE", made) if isinstance(made, str) else ("RUN", "the final model")


def not_asked(plan: AuditPlan, target: str) -> list[Coverage]:
    """Rows of what the plan does not name."""
    return [
        Coverage(
            attack=what,
            target=target,
            status="NOT RUN",
            access=Access.STEP if what == "gradient inversion" else Access.FINAL_MODEL,
            reason="not part of this plan",
        )
        for what, name in CLASSES.items()
        if name not in plan.attacks
    ]
