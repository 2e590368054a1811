"""`assert_private`: one assertion for release functions and for records, with messages of two lines."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpaudit.errors import UsageError

if TYPE_CHECKING:
    from dpaudit.mechanism.audit import MechanismAudit
    from dpaudit.record import AuditRecord, GateResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one call of `assert_private` found.

    Attributes:
        subject: name of the function, or title of the record.
        status: REFUTED, NOT REFUTED or INCONCLUSIVE; of a gate, its status.
        reason: one sentence.
        ceiling: the most that could have been shown; None where that is not known.
    """

    subject: str
    status: str
    reason: str
    ceiling: float | None = None


@dataclass(slots=True, kw_only=True)
class AssertPrivate:
    """Callable that fails a test unless a claim stood up to an audit that could have refuted it.

    Attributes:
        policy: file of the policy for records; None for that of `folder`.
        profile: of the policy.
        samples: planned outputs of a function, for calls that say nothing else.
        seed: of audits of functions.
        folder: of the test, in which relative records and policies are looked for.
        found: what was found so far.
    """

    policy: Path | None = None
    profile: str = ""
    samples: int | None = None
    seed: int = 0
    folder: Path = field(default_factory=Path.cwd)
    found: list[Found] = field(default_factory=list)

    def __call__(self, subject: Any, **claim: Any) -> Any:
        """Audit a function, or judge a record.

        Args:
            subject: a release function or an object with `sample`; or an `AuditRecord`, or the path of one.
            **claim: of a function, as for `dpaudit.mechanism.audit_mechanism`: `epsilon`, `delta`, `domain`,
                `settings`, ... A record carries its own.

        Returns:
            The audit of the function, or the result of the gate.

        Raises:
            AssertionError: the claim is refuted, a limit is exceeded, or nothing could have shown it.
            UsageError: a wrong claim, path or policy.
        """
        __tracebackhide__ = True
        from dpaudit.record import AuditRecord

        if isinstance(subject, (str, Path, AuditRecord)):
            if claim:
                raise UsageError(
                    f"Expected a record alone, found {next(iter(claim))}=... A record has its claim."
                )
            return self._record(subject)
        return self._function(subject, claim)

    def document(self) -> bytes:
        """What was found, as JSON."""
        rows = [{**asdict(each), "ceiling": _strict(each.ceiling)} for each in self.found]
        return (json.dumps(rows, indent=1, sort_keys=True) + "\n").encode()

    def _function(self, mechanism: Any, claim: dict[str, Any]) -> MechanismAudit:
        __tracebackhide__ = True
        from dpaudit.mechanism import Settings, audit_mechanism

        given = {"settings": Settings(samples=self.samples, seed=self.seed), **claim}
        audit = audit_mechanism(mechanism, **given)
        ceiling = max((each.ceiling for each in audit.confirmations), default=None)
        status = str(audit.verdict.status)
        self.found.append(
            Found(subject=audit.mechanism, status=status, reason=audit.verdict.reason, ceiling=ceiling)
        )
        if status != "NOT REFUTED":
            raise AssertionError(_two_lines(self.found[-1], f"{audit.guarantee.words()} is claimed"))
        return audit

    def _record(self, subject: str | Path | AuditRecord) -> GateResult:
        __tracebackhide__ = True
        from dpaudit.gate import evaluate
        from dpaudit.policy import find_policy, load_policy
        from dpaudit.record import AuditRecord, load

        record = subject if isinstance(subject, AuditRecord) else load(self.folder / subject)
        rules = (
            load_policy(self.policy, self.profile) if self.policy else find_policy(self.folder, self.profile)
        )
        result = evaluate(record, rules)
        self.found.append(
            Found(subject=record.title, status=result.status, reason=result.reason, ceiling=_ceiling(record))
        )
        if result.exit_code:
            raise AssertionError(_two_lines(self.found[-1], f"dpaudit gate ends with {result.exit_code}"))
        return result


def _ceiling(record: AuditRecord) -> float | None:
    """The least ceiling over the audited targets, on the terms of their claims."""
    from dpaudit.reports import view

    found = [view.ceiling(target) for target in record.targets if target.role == "audited"]
    return min((each for each in found if each is not None), default=None)


def _strict(value: float | None) -> float | str | None:
    """JSON has no word for infinity."""
    return value if value is None or math.isfinite(value) else "Infinity"


def _two_lines(found: Found, about: str) -> str:
    """The verdict, and below it what could have been shown."""
    reason = " ".join(found.reason.split())
    ceiling = "the ceiling is not known"
    if found.ceiling is not None:
        number = f"{found.ceiling:.4g}" if math.isfinite(found.ceiling) else "unbounded"
        ceiling = f"the ceiling was {number}"
    return (
        f"{found.status}: {found.subject}: {reason}\n{about}; {ceiling}, the most this test could have shown."
    )
