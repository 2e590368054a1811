"""Records of successive releases as one page without script: bound, claim and rates over time. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpaudit.errors import UsageError
from dpaudit.record import RECORD_NAME, AuditRecord, TargetRecord, load
from dpaudit.reports import numbers, tables, view, words
from dpaudit.reports.drawing import BLUE, INK, VERMILION, Drawing
from dpaudit.reports.jsonview import number
from dpaudit.reports.tables import Table

if TYPE_CHECKING:
    from dpaudit.estimate import Rate

_RATES = ("tpr_at_fpr_0.01", "auc")
_DRAWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One record of the folder: its name there, and what it says."""

    name: str
    record: AuditRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What one release says of one target."""

    release: str
    date: str
    target: TargetRecord

    @property
    def rates(self) -> dict[str, Rate]:
        """The worst attack and wide slice by metric."""
        found: dict[str, Rate] = {}
        for rate in tables.worst_first(tuple(r for r in self.target.rates if not r.fine)):
            if not math.isnan(rate.value):
                found.setdefault(rate.name, rate)
        return found


def releases(folder: Path) -> tuple[Release, ...]:
    """Every record below `folder`, by the time of its audit.

    Raises:
        UsageError: none there, or one of them cannot be read.
    """
    found = [
        Release(name=_written(file.parent.relative_to(folder).as_posix()), record=load(file))
        for file in sorted(folder.rglob(RECORD_NAME))
    ]
    if not found:
        raise UsageError(
            f"Expected records below {folder}, found none. Keep one folder for each release in it."
        )
    return tuple(sorted(found, key=lambda item: (item.record.provenance.created, item.name)))


def _written(name: str) -> str:
    """The name of a folder without the bytes that are no UTF-8, which a page cannot hold."""
    return name.encode(errors="replace").decode()


def points(found: Sequence[Release]) -> dict[str, tuple[Point, ...]]:
    """What was said of each audited target, in order of time."""
    rows: dict[str, list[Point]] = {}
    for release in found:
        for target in words.audited(release.record):
            point = Point(release=release.name, date=release.record.provenance.created, target=target)
            rows.setdefault(target.name, []).append(point)
    return {name: tuple(row) for name, row in rows.items()}


def document(found: Sequence[Release]) -> dict[str, Any]:
    """The same numbers for a program."""
    return {
        name: [
            {
                "release": point.release,
                "date": point.date,
                "status": view.status_of(point.target),
                "epsilon_claimed": number(point.target.claim.epsilon if point.target.claim else None),
                "epsilon_lower": number(point.target.verdict.epsilon_lower),
                "ceiling": number(view.ceiling(point.target)),
                "rates": {
                    key: {
                        "value": number(rate.value),
                        "lower": number(rate.lower),
                        "upper": number(rate.upper),
                        "source": rate.source,
                        "slice": rate.slice,
                    }
                    for key, rate in point.rates.items()
                },
            }
            for point in row
        ]
        for name, row in points(found).items()
    }


def table(name: str, row: Sequence[Point]) -> Table:
    """One line for each release of a target."""
    rates = [key for key in _RATES if any(key in point.rates for point in row)]
    return Table(
        caption=f"{name}, release by release",
        columns=(
            ("Release", "text"),
            ("Date", "text"),
            ("Status", "status"),
            ("Claim", "text"),
            ("Lower bound of ε", "number"),
            ("Ceiling", "number"),
            *((tables.metric_name(key), "number") for key in rates),
        ),
        rows=tuple(
            (
                point.release,
                point.date[:10],
                view.status_of(point.target),
                words.claim(point.target),
                numbers.epsilon(point.target.verdict.epsilon_lower, end="lower"),
                numbers.epsilon(view.ceiling(point.target)),
                *(_rate(point, key) for key in rates),
            )
            for point in row
        ),
    )


def render(found: Sequence[Release], *, title: str) -> str:
    """Write the page; equal records give equal bytes. Of each target the last 60 releases are drawn."""
    from dpaudit.reports.html import environment

    rows = points(found)
    return (
        environment()
        .get_template("trend.html")
        .render(
            title=_written(title),
            count=numbers.many(len(found), "record"),
            first=found[0].record.provenance.created[:10],
            last=found[-1].record.provenance.created[:10],
            targets=[
                {
                    "anchor": f"target-{index}",
                    "name": name,
                    "status": view.status_of(row[-1].target),
                    "drawings": drawings(name, row[-_DRAWN:], f"target-{index}"),
                    "table": table(name, row),
                }
                for index, (name, row) in enumerate(rows.items(), start=1)
            ],
        )
    )


def drawings(name: str, row: Sequence[Point], key: str) -> tuple[Drawing, ...]:
    """Epsilon over the releases, and each rate with its interval."""
    found = [_epsilon(name, row, f"{key}-epsilon")]
    for index, metric in enumerate(_RATES):
        if any(metric in point.rates for point in row):
            found.append(_over_time(name, row, metric, f"{key}-rate-{index}"))
    return tuple(found)


def _epsilon(name: str, row: Sequence[Point], key: str) -> Drawing:
    from dpaudit.reports import drawing, svg

    claimed = [(i, p.target.claim.epsilon) for i, p in enumerate(row) if p.target.claim]
    lower = [(i, p.target.verdict.epsilon_lower) for i, p in enumerate(row)]
    shown = [(i, value) for i, value in lower if value is not None and math.isfinite(value)]
    with svg.settings():
        figure, axes = drawing.canvas(bottom=76)
        if claimed:
            axes.plot(*zip(*claimed, strict=True), color=INK, linestyle="--", marker="_", label="claim")
        if shown:
            axes.plot(*zip(*shown, strict=True), color=BLUE, marker="o", label="lower bound")
        for i, value in lower:
            if value == math.inf:
                axes.annotate("unbounded", (i, 0), color=VERMILION, rotation=90, fontsize=8)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("epsilon")
        _ticks(axes, row)
        if claimed or shown:
            drawing.key(axes, "best")
        picture = svg.inline(figure, key, f"Epsilon of {name} over its releases", _told(row))
    caption = "A lower bound above the claim refutes it. One that falls shows less, not that less leaks."
    return Drawing(section="epsilon", title="Epsilon by release", caption=caption, svg=picture)


def _over_time(name: str, row: Sequence[Point], metric: str, key: str) -> Drawing:
    from dpaudit.reports import drawing, svg

    title = tables.metric_name(metric)
    rates = [(i, point.rates[metric]) for i, point in enumerate(row) if metric in point.rates]
    with svg.settings():
        figure, axes = drawing.canvas(bottom=76)
        axes.plot([i for i, _ in rates], [rate.value for _, rate in rates], color=BLUE, marker="o")
        for i, rate in rates:
            if rate.lower is not None and rate.upper is not None:
                axes.plot([i, i], [rate.lower, rate.upper], color=BLUE, linewidth=1.2)
        axes.set_ylabel(title)
        _ticks(axes, row)
        words_of = ", ".join(f"{row[i].release} {numbers.rate(metric, rate.value)}" for i, rate in rates)
        picture = svg.inline(figure, key, f"{title} of {name} over its releases", words_of)
    caption = "The worst attack and wide group of each release; lines are intervals, where there are any."
    return Drawing(section="membership", title=f"{title} by release", caption=caption, svg=picture)


def _ticks(axes: Any, row: Sequence[Point]) -> None:
    """Names below the axis, thinned where there are many."""
    from dpaudit.reports.drawing import clipped_name

    step = max(1, -(-len(row) // 12))
    places = range(0, len(row), step)
    axes.set_xticks(list(places), [clipped_name(row[i].release, 14) for i in places], rotation=40, ha="right")
    axes.set_xlim(-0.5, len(row) - 0.5)


def _told(row: Sequence[Point]) -> str:
    return ", ".join(
        f"{point.release}: {words.claim(point.target)}, lower bound "
        f"{numbers.epsilon(point.target.verdict.epsilon_lower, end='lower')}"
        for point in row
    )


def _rate(point: Point, metric: str) -> str:
    if metric not in point.rates:
        return numbers.NO_DATA
    rate = point.rates[metric]
    value = numbers.rate(metric, rate.value)
    if rate.lower is None and rate.upper is None:
        return value
    return f"{value} ({numbers.interval(metric, rate.lower, rate.upper)})"
