"""A linkage audit: read, count, match, guess, and put it all into a record."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from dpaudit import __version__
from dpaudit.check import IntArray, in_range
from dpaudit.errors import UsageError
from dpaudit.estimate import Rate
from dpaudit.evidence import Access, Finding
from dpaudit.linkage import words
from dpaudit.linkage.classes import Classes, classes_of
from dpaudit.linkage.columns import Source, read
from dpaudit.linkage.disclosure import Guessed, from_noisy_counts, from_table, halves
from dpaudit.linkage.register import Matches, match
from dpaudit.plan import canonical
from dpaudit.record import SCHEMA_VERSION, AuditRecord, Check, Coverage, Provenance, TargetRecord
from dpaudit.stats.binomial import two_sided, upper
from dpaudit.stats.tradeoff import EpsilonDelta
from dpaudit.verdict import Status, Verdict

_INTERVALS = 8
"""At most so many intervals share alpha."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be looked at.

    Attributes:
        table: CSV or Parquet.
        quasi: columns that others may know of a person.
        sensitive: column that nobody should learn; or None.
        register: file in which others find persons by the same columns; or None.
        identity: column of the register with the name of each person.
        truth: column of the table with the right name, for whoever measures; or None.
        epsilon: of the noisy counts that stand beside the table.
        k: the table is said to have at least so many records in each class; 0 for nothing said.
        alpha: what all intervals together may miss with.
        seed: of the halves and of the noise.
    """

    table: Path
    quasi: tuple[str, ...]
    sensitive: str | None = None
    register: Path | None = None
    identity: str | None = None
    truth: str | None = None
    epsilon: float = 1.0
    k: int = 0
    alpha: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be looked at.

        Raises:
            UsageError: no columns, a register without names, a truth without a register, or a number out of
                range.
        """
        in_range("number of quasi-identifiers", len(self.quasi), 1, 50, remedy="Name them with --quasi.")
        in_range("epsilon", self.epsilon, 0.0, 1e3, open_low=True)
        in_range("k", self.k, 0, 1e9)
        in_range("alpha", self.alpha, 0.0, 1.0, open_low=True, open_high=True)
        if (self.register is None) != (self.identity is None):
            raise UsageError(
                "Expected --register and --identity together, found one of them. Name the file, and its "
                "column with the name of each person."
            )
        if self.truth is not None and self.register is None:
            raise UsageError("Expected --register beside --truth, found none. Name the register.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found.

    Attributes:
        classes: of records that look alike.
        matches: with the register; None without one.
        guessed: sensitive values, from the table and from noisy counts; empty without such a column.
        limit: of the latter for people who are in, by epsilon; None without them.
    """

    classes: Classes
    matches: Matches | None
    guessed: tuple[Guessed, ...]
    limit: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Linkage:
    """What was found, and the record of it."""

    found: Found
    record: AuditRecord


def audit(asked: Asked, *, command: str = "") -> Linkage:
    """Look at a table.

    A million rows take a few seconds. Nothing of any row enters the record.

    Raises:
        UsageError: files or columns that are not there.
    """
    started = time.perf_counter()
    extra = [name for name in (asked.sensitive, asked.truth) if name is not None]
    table = read(asked.table, [*asked.quasi, *extra])
    quasi = {name: table.columns[name].codes for name in asked.quasi}
    sensitive = None if asked.sensitive is None else table.columns[asked.sensitive].codes
    register = None
    matches = None
    if asked.register is not None and asked.identity is not None:
        register = read(asked.register, [*asked.quasi, asked.identity])
        matches = match(table, register, asked.quasi, identity=asked.identity, truth=asked.truth)
    guessed = () if sensitive is None else _guessed(quasi, sensitive, asked)
    found = Found(
        classes=classes_of(quasi, sensitive),
        matches=matches,
        guessed=guessed,
        limit=_limit(guessed, asked),
    )
    sources = [table] if register is None else [table, register]
    seconds = time.perf_counter() - started
    return Linkage(found=found, record=_record(found, asked, _provenance(sources, asked, command, seconds)))


def _guessed(quasi: dict[str, IntArray], sensitive: IntArray, asked: Asked) -> tuple[Guessed, ...]:
    if len(sensitive) < 2:
        return ()
    rng = np.random.default_rng(asked.seed)
    inside = halves(len(sensitive), rng)
    noisy = from_noisy_counts(quasi, sensitive, inside, asked.epsilon, rng)
    return (from_table(quasi, sensitive, inside), *(() if noisy is None else (noisy,)))


def _limit(guessed: tuple[Guessed, ...], asked: Asked) -> float | None:
    """Largest success with people who are in that epsilon allows, by the upper limit of that with others."""
    noisy = next((each for each in guessed if each.release != "table"), None)
    if noisy is None:
        return None
    baseline = upper(noisy.right_out, noisy.people_out, asked.alpha / _INTERVALS)
    return float(EpsilonDelta(epsilon=asked.epsilon, delta=0.0).tpr(np.atleast_1d(baseline))[0])


def _rates(found: Found, asked: Asked) -> Iterator[Rate]:
    each = asked.alpha / _INTERVALS

    def of(
        name: str,
        part: int,
        whole: int,
        where: str,
        *,
        exact: bool,
        limit: float | None = None,
        fine: bool = False,
    ) -> Rate:
        low, high = two_sided(part, whole, each) if exact else (None, None)
        return Rate(
            name=name,
            value=part / whole,
            lower=None if low is None else float(low),
            upper=None if high is None else float(high),
            alpha=each,
            source="linkage",
            slice=where,
            n=whole,
            limit=limit,
            fine=fine,
        )

    seen = found.classes
    yield of("unique_rate", seen.alone, seen.records, "table", exact=False)
    if seen.known is not None:
        yield of("attribute_disclosed_rate", seen.known, seen.records, "classes of one value", exact=False)
    if found.matches is not None:
        matched = found.matches
        known = matched.right is not None
        if matched.right is not None:
            yield of("reidentification_success", matched.right, matched.records, "all records", exact=True)
            if matched.one:
                yield of("reidentification_success", matched.right, matched.one, "of those named", exact=True)
        yield of("one_match_unique_rate", matched.one, matched.records, "register", exact=not known)
    for guess in found.guessed:
        limit = found.limit if guess.release != "table" else None
        inside, outside = f"{guess.release}, people in it", f"{guess.release}, people not in it"
        yield of("attribute_success", guess.right_in, guess.people_in, inside, exact=True, limit=limit)
        # What people give away who are not in it is no leak of the table, whatever a policy allows.
        yield of("attribute_success", guess.right_out, guess.people_out, outside, exact=True, fine=True)


def _record(found: Found, asked: Asked, provenance: Provenance) -> AuditRecord:
    findings = tuple(_findings(found.classes, asked))
    status = Status.REFUTED if findings else Status.NOT_REFUTED if asked.k else Status.INCONCLUSIVE
    sentence = words.sentence(found.classes, found.matches, found.guessed, found.limit, asked.epsilon)
    if findings:
        sentence = f"Expected {findings[0].expected}, measured {findings[0].measured}. {sentence}"
    target = TargetRecord(
        name=asked.table.stem,
        role="audited",
        description=f"table of {found.classes.records:,} records, by {', '.join(asked.quasi)}",
        claim=None,
        recomputed=(),
        test_accuracy=None,
        train_accuracy=None,
        n_parameters=0,
        alpha=asked.alpha,
        estimates=(),
        rates=tuple(_rates(found, asked)),
        findings=findings,
        curves=(),
        checklist=tuple(_checklist(found, asked)),
        verdict=Verdict(status=status, reason=sentence, decided_by="linkage"),
    )
    return AuditRecord(
        schema_version=SCHEMA_VERSION,
        title=f"Linkage of {asked.table.name}",
        alpha=asked.alpha,
        delta=0.0,
        status=status,
        reason=sentence,
        exit_code=1 if findings else 0,
        plan={"linkage": _options(asked)},
        plan_toml="",
        targets=(target,),
        coverage=tuple(_coverage(found, asked)),
        trials=(),
        provenance=provenance,
    )


def _findings(seen: Classes, asked: Asked) -> Iterator[Finding]:
    if seen.smallest < asked.k:
        yield Finding(
            check="k-anonymity",
            where=", ".join(asked.quasi),
            expected=f"at least {asked.k} records in every class",
            measured=f"{seen.smallest} in the smallest",
            epsilon=None,
            remedy="Leave out or coarsen columns; or release noisy counts instead of rows.",
            source="linkage",
            access=Access.RELEASE,
        )


def _checklist(found: Found, asked: Asked) -> Iterator[Check]:
    for name, detail in words.checks(found.classes, found.matches, asked.sensitive):
        yield Check(name=name, state="checked", detail=detail)
    for name, detail in words.caveats(found.matches, asked.truth is not None, bool(found.guessed)):
        yield Check(name=name, state="unknown", detail=detail)


def _coverage(found: Found, asked: Asked) -> Iterator[Coverage]:
    rows = {
        "classes of records": (True, "counted"),
        "linkage with a register": (found.matches is not None, "exact matches; name --register"),
        "re-identification against the truth": (asked.truth is not None, "exact interval; name --truth"),
        "attribute inference": (bool(found.guessed), "from rows and from noisy counts; name --sensitive"),
    }
    for name, (ran, how) in rows.items():
        reason = how.partition(";")[0] if ran else how.rpartition("; ")[2]
        yield Coverage(
            attack=name,
            target=asked.table.stem,
            status="RUN" if ran else "NOT RUN",
            access=Access.RELEASE,
            reason=reason,
        )


def _options(asked: Asked) -> dict[str, object]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(asked).items()}


def _provenance(sources: list[Source], asked: Asked, command: str, seconds: float) -> Provenance:
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        dpaudit_version=__version__,
        command=command or "dpaudit.linkage.audit(...)",
        plan_sha256=hashlib.sha256(canonical(_options(asked)).encode()).hexdigest(),
        data_sha256=hashlib.sha256("".join(each.sha256 for each in sources).encode()).hexdigest(),
        code_sha256="",
        canary_commitment="",
        seed=asked.seed,
        device="none: nothing was trained",
        engine="none",
        environment={
            "python": platform.python_version(),
            "platform": platform.platform(),
            **{name: importlib.metadata.version(name) for name in ("numpy", "scipy")},
        },
        seconds=seconds,
    )
