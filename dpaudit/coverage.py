"""Which attacks ran on a target, and why the others did not."""

from __future__ import annotations

from collections.abc import Mapping

from dpaudit import extraction, membership, rebuilding, recovery
from dpaudit.asking import Extracts, Game, LineUp, Rebuilds, Reconstructs
from dpaudit.evidence import NOT_TRIED, Guesses, Note, Rebuilt, TwoSample
from dpaudit.plan import AuditPlan
from dpaudit.protocols import ModelAttack, StepAttack, View
from dpaudit.record import Coverage
from dpaudit.trial import attacks_of


def coverage(plan: AuditPlan, target: str, runs: Mapping[int, View]) -> list[Coverage]:
    """Which attacks of the plan ran on a target, and which that dpaudit has were not asked for."""
    audited = runs.get(0)
    rows = []
    for name, attack in attacks_of(plan).items():
        status, reason = "RUN", "in the training run"
        if audited is None:
            status, reason = "NOT RUN", "the training run was lost"
        elif isinstance(attack, StepAttack) and not _rode(attack, audited):
            status, reason = "NOT APPLICABLE", _why_not(attack, audited)
        elif isinstance(attack, (Game, LineUp, Reconstructs)):
            status, reason = _played(attack, audited)
        elif isinstance(attack, Extracts):
            status, reason = extraction.ran(attack, runs)
        elif isinstance(attack, Rebuilds):
            status, reason = rebuilding.ran(attack, audited)
        elif isinstance(attack, ModelAttack):
            status, reason = membership.ran(attack, runs)
        rows.append(Coverage(attack=name, target=target, status=status, access=attack.access, reason=reason))
    if not any(isinstance(attack, Extracts) for attack in attacks_of(plan).values()):
        rows.append(extraction.not_asked(target, audited))
    return rows + rebuilding.not_asked(plan, target)


def _played(game: Game | LineUp | Reconstructs, audited: View) -> tuple[str, str]:
    scores = [e for e in audited.evidence if isinstance(e, TwoSample) and e.source == game.name]
    counts = [e for e in audited.evidence if isinstance(e, Guesses) and e.source in _tests(game)]
    if counts:
        return "RUN", f"{counts[0].trials} games, each with a model of its own"
    if scores:
        return "RUN", f"{scores[0].scores_in.size + scores[0].scores_out.size} models of its own"
    if any(isinstance(e, Rebuilt) and e.source == game.name for e in audited.evidence):
        return "RUN", "models of its own, whose order of batches was known"
    return "NOT APPLICABLE", "the training function declares no recipe by which many models could be trained"


def _tests(attack: StepAttack | Game | LineUp | Reconstructs) -> tuple[str, ...]:
    return recovery.tests_of(attack, attack.name)


def _rode(attack: StepAttack, view: View) -> bool:
    found = [e for e in view.evidence if getattr(e, "source", None) in _tests(attack)]
    return any(not (isinstance(e, Note) and e.check == NOT_TRIED) for e in found)


def _why_not(attack: StepAttack, view: View) -> str:
    """In the attack's own words, if it has any."""
    own = [e for e in view.evidence if isinstance(e, Note) and e.source == attack.name]
    return own[0].measured if own else "no step with per-record gradients was seen"
