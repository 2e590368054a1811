"""A record made again from its own plan, and what came out differently."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path

from dpaudit import commitment
from dpaudit.address import Place
from dpaudit.comparison import Comparison, Row, compare
from dpaudit.documents import contents
from dpaudit.errors import UsageError
from dpaudit.plan import AuditPlan, parse
from dpaudit.record import AuditRecord, load
from dpaudit.run import Job
from dpaudit.store import write_atomic


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """A record beside its repetition.

    Attributes:
        record: the repetition.
        differing: verdicts and numbers that are not the same, and those that only one of them has.
        compared: how many numbers and verdicts were compared.
        notes: what else differs: code, packages, environment, data.
        missing: trials of the repetition that are lost.
    """

    record: AuditRecord
    differing: tuple[Row, ...]
    compared: int
    notes: tuple[str, ...]
    missing: int

    @property
    def exit_code(self) -> int:
        """0 the same, 1 something differs, 4 trials are missing."""
        return 4 if self.missing else 1 if self.differing else 0


def job_of(record: AuditRecord, folder: Place, out: Place, beside: Path | None) -> Job:
    """The job that makes a record again in `out`, with the salt of `folder`, so that data can be compared.

    Args:
        record: made by `dpaudit run`.
        folder: of that record.
        out: another folder.
        beside: where the user's own modules lie; None for the place of the plan that the record names.

    Raises:
        UsageError: the record is of another command, or `out` is its own folder.
    """
    plan = _plan(record)
    if out.resolve() == folder.resolve():
        raise UsageError(f"Expected another folder than {folder}, found it. A record is not written over.")
    if (salt := commitment.salt_of(folder)) is not None:
        write_atomic(out / commitment.SALT_NAME, contents(folder / commitment.SALT_NAME))
        assert commitment.salt_of(out) == salt
    return Job(
        plan=plan,
        plan_text=record.plan_toml,
        plan_folder=(beside or _place(record.provenance.command)).resolve(),
        out=out,
        command=record.provenance.command,
        policy_sha256=record.provenance.policy_sha256,
    )


def repetition(record: AuditRecord, out: Place, *, tolerance: float = 1e-6) -> Repetition:
    """Compare a record with what its job wrote into `out`.

    Args:
        record: the first one.
        out: folder of the second.
        tolerance: relative difference of two numbers that counts as none.
    """
    again = load(out)
    found: Comparison = compare(record, again)
    return Repetition(
        record=again,
        differing=tuple(row for row in found.rows if not _same(row, tolerance)),
        compared=sum(row.comparable and row.before is not None for row in found.rows),
        notes=found.notes,
        missing=sum(trial.status not in ("cached", "finished") for trial in again.trials),
    )


def _same(row: Row, tolerance: float) -> bool:
    if isinstance(row.before, float | int) and isinstance(row.after, float | int):
        return row.before == row.after or math.isclose(row.before, row.after, rel_tol=tolerance)
    return row.comparable and row.before == row.after


def _plan(record: AuditRecord) -> AuditPlan:
    words = record.provenance.command.split()
    if len(words) < 2 or words[1] != "run" or "targets" not in record.plan:
        raise UsageError(
            f"Expected a record of `dpaudit run`, found one of {' '.join(words[:2])!r}. "
            f"Run its own command again and use `dpaudit diff`: {record.provenance.command}"
        )
    return parse(record.plan, "the plan of the record")


def _place(command: str) -> Path:
    """The folder of the plan that a command names, if it is still there, else the current one."""
    try:
        named = [Path(word) for word in shlex.split(command)[2:] if word.endswith(".toml")]
    except ValueError:
        named = []
    return named[0].parent if named and named[0].is_file() else Path.cwd()
