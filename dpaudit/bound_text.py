"""A bound in words: one line an estimator, what was refused and why, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from textwrap import fill

from dpaudit.claim import Claim
from dpaudit.estimate import Estimate
from dpaudit.record import AuditRecord
from dpaudit.scoring.eligibility import Line, Refused
from dpaudit.scoring.scores import Scores
from dpaudit.verdict import Status

wrapped = partial(fill, width=100, break_long_words=False, break_on_hyphens=False)
_HEADINGS = ("estimator", "bound", "ceiling", "detectable", "alpha", "decides")


def describe(record: AuditRecord, scores: Scores, lines: Sequence[Line], refused: Sequence[Refused]) -> str:
    """The whole of it, at most 100 characters wide."""
    target = record.targets[0]
    rows = [_row(line, estimate) for line, estimate in zip(lines, target.estimates, strict=True)]
    whys = {line.estimator: line.why for line in lines}
    before = [
        f"{scores.name}: {scores.described()}. Scores supplied, training not observed.",
        *(f"Note: {note}." for note in scores.notes),
        _claim(target.claim),
    ]
    after = [
        *(f"Used, {name}: {why}." for name, why in whys.items()),
        *(f"Not used, {each.name}: {each.why}." for each in refused),
        *_beside(lines, target.estimates, target.verdict.status is Status.REFUTED),
        *(f"The control was {'' if t.caught else 'not '}caught." for t in record.targets[1:]),
    ]
    parts = [
        *(wrapped(text) for text in before),
        "",
        *aligned((_HEADINGS, *rows)),
        "",
        *(wrapped(text, subsequent_indent="  ") for text in after),
        "",
        wrapped(f"{target.verdict.status}: {target.verdict.reason}"),
    ]
    return "\n".join(parts)


def _beside(lines: Sequence[Line], estimates: Sequence[Estimate], refuted: bool) -> list[str]:
    """What lines that do not decide are worth, and whether one of them exceeds the claim."""
    described = [line.name for line in lines if line.descriptive]
    found = [f"No guarantee, whatever it shows: {' and '.join(described)}."] if described else []
    pairs = zip(lines, estimates, strict=True)
    beside = [e for line, e in pairs if not line.weight and not line.descriptive]
    if not beside:
        return found
    found.append(
        f"{'Other lines' if described else 'Lines'} with decides = no hold if the whole run is a Gaussian "
        f"mechanism, each at alpha {beside[0].alpha:g}."
    )
    above = [e for e in beside if e.p_value is not None and e.p_value <= e.alpha]
    if above and not refuted:
        most = max(above, key=lambda e: e.epsilon_lower or 0.0)
        found.append(
            f"Beside the verdict: {most.source} puts epsilon at {number(most.epsilon_lower, down=True)}, "
            "above the claim. If that is of a Gaussian mechanism, or of DP-SGD with known settings, say so "
            "before scoring: then that line decides too."
        )
    return found


def _claim(claim: Claim | None) -> str:
    if claim is None:
        return "Claim: none."
    return (
        f"Claim: epsilon {claim.epsilon:.4g} at delta {claim.delta:g}, {claim.adjacency} neighbours, "
        f"per {claim.unit} ({claim.source})."
    )


def _row(line: Line, estimate: Estimate) -> tuple[str, ...]:
    return (
        line.name,
        number(estimate.epsilon_lower, down=True),
        number(estimate.ceiling),
        number(estimate.detectable),
        f"{estimate.alpha:.2g}",
        "yes" if line.weight else "no",
    )


def number(value: float | None, *, down: bool = False) -> str:
    """An epsilon to two decimals, rounded down where it is a bound."""
    if value is None:
        return "-"
    if math.isinf(value):
        return "inf"
    return f"{math.floor(value * 100) / 100 if down else value:.2f}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as text with columns of one width, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
