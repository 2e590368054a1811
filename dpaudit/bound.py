"""A bound from scores made anywhere: read, estimate by what the design allows, judge, record.

from dpaudit.bound import bound
result = bound("scores.csv", epsilon=8, delta=1e-5)
print(result)
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from dpaudit import __version__, accounting, ledger
from dpaudit.bound_text import describe
from dpaudit.claim import Adjacency, Claim
from dpaudit.estimate import Estimate, Rate
from dpaudit.evidence import Access
from dpaudit.judge import EXIT, verdict
from dpaudit.measure import label
from dpaudit.plan import canonical
from dpaudit.record import (
    RECORD_NAME,
    SCHEMA_VERSION,
    Accounted,
    AuditRecord,
    Check,
    Coverage,
    Curve,
    Provenance,
    TargetRecord,
    dump,
)
from dpaudit.scoring.eligibility import Line, Refused, Terms, lines
from dpaudit.scoring.files import read
from dpaudit.scoring.scores import AS_FOUND, DESIGN_WORDS, Design, Reading, Scores
from dpaudit.stats import roc
from dpaudit.stats.multiplicity import split
from dpaudit.store import write_atomic
from dpaudit.verdict import Status, Verdict

SUPPLIED = "scores supplied, training not observed"
AS_USUAL = Terms()
"""alpha 0.05, add-remove neighbours, nothing assumed of the mechanism."""

_ENVIRONMENT = ("numpy", "scipy", "dp-accounting")
_POINTS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What some scores say of a claim. Printing it says it in words.

    Attributes:
        scores: as they were understood.
        lines: estimators that ran, in the order of the estimates of the record.
        refused: estimators that did not, and why.
        record: the audit record, like that of any other audit.
    """

    scores: Scores
    lines: tuple[Line, ...]
    refused: tuple[Refused, ...]
    record: AuditRecord

    @property
    def verdict(self) -> Verdict:
        """The judgement on the claim."""
        return self.record.targets[0].verdict

    @property
    def epsilon_lower(self) -> float | None:
        """The largest bound that decides; None if there is none."""
        return self.verdict.epsilon_lower

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        """One estimate for each line."""
        return self.record.targets[0].estimates

    def write(self, folder: str | Path) -> Path:
        """Write `record.json` and `report.html`, and return the path of the report."""
        # The report needs a template engine, which a number in a notebook does without.
        from dpaudit.reports import html

        folder = Path(folder)
        write_atomic(folder / RECORD_NAME, dump(self.record))
        write_atomic(folder / "report.html", html.render(self.record).encode())
        return folder / "report.html"

    def __str__(self) -> str:
        """The table of lines, what was refused, and the verdict."""
        return describe(self.record, self.scores, self.lines, self.refused)


def bound(
    source: str | Path | Scores,
    *,
    epsilon: float | None = None,
    delta: float = 1e-5,
    reading: Reading = AS_FOUND,
    terms: Terms = AS_USUAL,
    control: str | Path | Scores | None = None,
    command: str = "",
) -> Bound:
    """Bound epsilon from scores, and test the claim if there is one.

    Args:
        source: a file of scores (CSV, npz, Parquet; see `score_files`), or scores.
        epsilon: the claimed one; None takes that of `terms.ledger`, or without a ledger claims nothing.
        delta: of the claim, in [0, 1).
        reading: what the file does not say of itself, such as its direction.
        terms: what is tested and how, such as the claimed noise multiplier.
        control: scores of a run without protection, which must be refuted for silence to count.
        command: what was typed, for the record.

    Raises:
        UsageError: the scores, the claim or the terms are not what is expected.
    """
    started = time.perf_counter()
    # The record holds floats, and `epsilon=8` is what people write.
    epsilon, delta = None if epsilon is None else float(epsilon), float(delta)
    scores = source if isinstance(source, Scores) else read(Path(source), reading)
    claim = _claim(epsilon, delta, scores.unit, terms)
    found, refused = lines(scores, claim, delta, terms)
    targets = [_target(scores, claim, found, terms, role="audited")]
    coverage = _coverage(targets[0].name, found, refused)
    if control is not None:
        twin = control if isinstance(control, Scores) else read(Path(control), reading)
        again, _ = lines(twin, claim, delta, terms)
        targets.append(_target(twin, claim, again, terms, role="control"))
        targets[0] = _in_light_of(targets[0], targets[1])
    judged = targets[0].verdict
    options = _options(epsilon, delta, reading, terms)
    record = AuditRecord(
        schema_version=SCHEMA_VERSION,
        title=f"Bound from {scores.name}",
        alpha=terms.alpha,
        delta=delta,
        status=judged.status,
        reason=judged.reason,
        exit_code=EXIT[judged.status],
        plan={"bound": options},
        plan_toml="",
        targets=tuple(targets),
        coverage=coverage,
        trials=(),
        provenance=_provenance(scores, options, terms, command, time.perf_counter() - started),
    )
    return Bound(scores=scores, lines=found, refused=refused, record=record)


def _claim(epsilon: float | None, delta: float, unit: str, terms: Terms) -> Claim | None:
    source = "declared"
    if epsilon is None:
        if not terms.ledger:
            return None
        epsilon = accounting.pld_epsilon(terms.ledger, delta, terms.adjacency)
        source = "PLD accounting of the declared steps"
    return Claim(
        epsilon=epsilon, delta=delta, adjacency=terms.adjacency, unit=unit, ledger=terms.ledger, source=source
    )


def _target(
    scores: Scores, claim: Claim | None, found: tuple[Line, ...], terms: Terms, *, role: str
) -> TargetRecord:
    shares = split(terms.alpha, {line.name: line.weight for line in found if line.weight})
    estimates = tuple(line.estimate(shares.get(line.name, terms.alpha)) for line in found)
    weights = {label(e): line.weight for line, e in zip(found, estimates, strict=True) if line.weight}
    recomputed = _recomputed(claim)
    findings = ledger.contradictions(claim, claim.ledger if claim else ())
    judged = verdict(claim, estimates, findings, weights, terms.alpha, 0)
    if claim is None:
        judged = replace(judged, reason="Nothing is claimed: these are bounds and no verdict.")
    return TargetRecord(
        name=Path(scores.name).stem if role == "audited" else f"{Path(scores.name).stem} (control)",
        role=role,
        description=f"{SUPPLIED}: {scores.described()}",
        claim=claim,
        recomputed=recomputed,
        test_accuracy=None,
        train_accuracy=None,
        n_parameters=0,
        alpha=terms.alpha,
        estimates=estimates,
        rates=tuple(_rates(scores, terms.alpha)),
        findings=findings,
        curves=tuple(_curves(scores, claim, terms)),
        checklist=tuple(_checklist(scores, claim, recomputed, terms)),
        verdict=judged,
        caught=judged.status is Status.REFUTED if role == "control" else None,
    )


def _recomputed(claim: Claim | None) -> tuple[Accounted, ...]:
    """Epsilon of the claimed steps, by accountants that need no training framework."""
    if claim is None or not claim.ledger:
        return ()
    rows = [("PLD", each, accounting.pld_epsilon(claim.ledger, claim.delta, each)) for each in Adjacency]
    rdp = accounting.rdp_epsilon(claim.ledger, claim.delta)
    if rdp is not None:
        rows.append(("RDP", Adjacency.ADD_REMOVE, rdp))
    return tuple(
        Accounted(accountant=name, adjacency=each, epsilon=float(epsilon), delta=claim.delta)
        for name, each, epsilon in rows
    )


def _in_light_of(audited: TargetRecord, control: TargetRecord) -> TargetRecord:
    """Silence about the audited scores counts only if the control was caught."""
    if control.caught or audited.verdict.status is not Status.NOT_REFUTED:
        return audited
    reason = f"The control was not caught, so that silence means nothing. {audited.verdict.reason}"
    return replace(audited, verdict=replace(audited.verdict, status=Status.INCONCLUSIVE, reason=reason))


def _coverage(target: str, found: tuple[Line, ...], refused: tuple[Refused, ...]) -> tuple[Coverage, ...]:
    rows = [(line.name, "RUN", line.why) for line in found]
    rows += [(each.name, "NOT APPLICABLE", each.why) for each in refused]
    return tuple(
        Coverage(attack=name, target=target, status=status, access=Access.FINAL_MODEL, reason=why)
        for name, status, why in rows
    )


def _shown(scores: Scores) -> Scores:
    """The scores whose ROC is shown: of the first run where runs have many, else all."""
    if scores.design in (Design.INDEPENDENT_RUNS, Design.KNOWN_NULL) or scores.n_runs == 1:
        return scores
    both = np.bincount(scores.run[scores.member], minlength=scores.n_runs) > 0
    both &= np.bincount(scores.run[~scores.member], minlength=scores.n_runs) > 0
    if not both.any():
        return scores
    first = scores.run == int(np.argmax(both))
    of_first = None if scores.slices is None else replace(scores.slices, codes=scores.slices.codes[first])
    return replace(
        scores,
        score=scores.score[first],
        member=scores.member[first],
        run=np.zeros(int(first.sum()), np.int64),
        cluster=np.zeros(int(first.sum()), np.int64),
        slices=of_first,
    )


def _rates(scores: Scores, alpha: float) -> Iterator[Rate]:
    """Disclosure by slice; each interval at alpha over the number of slices."""
    shown = _shown(scores)
    groups = {"all": np.ones(shown.score.size, dtype=np.bool_)}
    if shown.slices is not None:
        groups |= {name: shown.slices.codes == i for i, name in enumerate(shown.slices.names)}
    for name, mask in groups.items():
        yield from roc.rates(
            shown.score[mask], shown.member[mask], source="scores", alpha=alpha / len(groups), slice=name
        )


def _curves(scores: Scores, claim: Claim | None, terms: Terms) -> Iterator[Curve]:
    shown = _shown(scores)
    band = roc.band(shown.score, shown.member, alpha=terms.alpha)
    yield Curve(
        kind="roc",
        source="scores",
        x=tuple(band.fpr.tolist()),
        y=tuple(band.tpr.tolist()),
        lower=tuple(band.lower.tolist()),
        upper=tuple(band.upper.tolist()),
    )
    seen = roc.histogram(shown.score, shown.member)
    for kind, density in (("histogram-in", seen.inside), ("histogram-out", seen.outside)):
        yield Curve(kind=kind, source="scores", x=tuple(seen.centre.tolist()), y=tuple(density.tolist()))
    if claim is not None:
        shape = "auto" if terms.ledger or terms.gaussian else "epsilon-delta"
        family = accounting.family_for(claim, adjacency=terms.inserted or terms.adjacency, shape=shape)
        fpr = np.geomspace(1e-4, 1.0, _POINTS)
        allowed = family.curve(family.claimed_scale).tpr(fpr)
        yield Curve(kind="claimed-roc", source="claim", x=tuple(fpr.tolist()), y=tuple(allowed.tolist()))


def _checklist(
    scores: Scores, claim: Claim | None, recomputed: tuple[Accounted, ...], terms: Terms
) -> Iterator[Check]:
    yield Check(name="training", state="unknown", detail=SUPPLIED)
    yield Check(name="sampling design", state="declared", detail=DESIGN_WORDS[scores.design])
    yield Check(
        name="records not in", state="declared", detail=f"{terms.inserted or terms.adjacency} neighbours"
    )
    if claim is not None:
        yield Check(name="unit of privacy", state="declared", detail=claim.unit)
        yield Check(name="adjacency", state="declared", detail=str(claim.adjacency))
        yield Check(
            name="epsilon",
            state="recomputed" if recomputed else "declared",
            detail=f"claimed {claim.epsilon:.4g}"
            + (f" for {ledger.describe(claim.ledger)}" if claim.ledger else ""),
        )
    for note in scores.notes:
        yield Check(name="rows", state="checked", detail=note)


def _options(epsilon: float | None, delta: float, reading: Reading, terms: Terms) -> dict[str, object]:
    """Everything that was declared, as the record keeps it."""
    return {"epsilon": epsilon, "delta": delta, "reading": asdict(reading), "terms": asdict(terms)}


def _provenance(
    scores: Scores, options: dict[str, object], terms: Terms, command: str, seconds: float
) -> Provenance:
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        dpaudit_version=__version__,
        command=command or "dpaudit.bound.bound(...)",
        plan_sha256=hashlib.sha256(canonical(options).encode()).hexdigest(),
        data_sha256=scores.sha256,
        code_sha256="",
        canary_commitment="",
        seed=terms.seed,
        device="none: nothing was trained",
        engine="none",
        environment={
            "python": platform.python_version(),
            "platform": platform.platform(),
            **{name: importlib.metadata.version(name) for name in _ENVIRONMENT},
        },
        seconds=seconds,
    )
