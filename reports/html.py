"""The report as one HTML file: no script, no network, and the same bytes for the same record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dpaudit.record import AuditRecord, Curve, GateResult
from dpaudit.reports import figures, numbers, svg, view, words
from dpaudit.reports.drawing import Drawing
from dpaudit.reports.tables import Table

if TYPE_CHECKING:
    import jinja2

PAGE_BUDGET = 480_000
RAW_BUDGET = 60_000
RAW_ROWS = 20
# A tick would say more than the verdict does.
_GLYPHS = {"bad": "✕", "open": "?", "good": "✓", "quiet": "·", "NOT REFUTED": "○", "WARN": "!", "WAIVED": "~"}
_TONES = {
    "bad": ("REFUTED", "FAIL", "ABOVE LIMIT", "NOT CAUGHT", "CONTRADICTED"),
    "good": ("NOT REFUTED", "PASS", "WITHIN LIMIT", "CAUGHT", "HIGH ENOUGH", "RUN", "RECOMPUTED", "CHECKED"),
    "quiet": ("NOT APPLICABLE", "NO LIMIT", "TOO FEW", "DECLARED"),
}


def render(record: AuditRecord, gate: GateResult | None = None) -> str:
    """Write the report.

    Args:
        record: the audit.
        gate: what a policy said of it; None leaves the verdicts to stand alone.
    """
    page = view.page(record, gate)
    template = environment().get_template("page.html")
    raw = raw_tables(record)
    empty: dict[str, tuple[Drawing, ...]] = {target.anchor: () for target in page.targets}
    without = template.render(page=page, drawings=empty, left_out=len(empty), raw=raw, styles="")
    classes: dict[str, str] = {}
    drawings = _drawings(record, page, classes, PAGE_BUDGET - len(without.encode()))
    left_out = sum(target.anchor not in drawings for target in page.targets)
    styles = "".join(f".{name}{{{style}}}\n" for style, name in classes.items())
    return template.render(
        page=page, drawings={**empty, **drawings}, left_out=left_out, raw=raw, styles=styles
    )


def environment() -> jinja2.Environment:
    """Where the templates of the pages are; everything put into them is escaped."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["tone"] = tone
    made.filters["glyph"] = lambda status: _GLYPHS[status if status in _GLYPHS else tone(status)]
    made.filters["narrow"] = _narrow
    made.filters["tight"] = lambda text: text.replace(" %", "\N{NO-BREAK SPACE}%")
    return made


def tone(status: str) -> str:
    """How a status word is set: "bad", "good", "quiet", or "open" for everything that is not settled."""
    return next((name for name, words in _TONES.items() if status in words), "open")


def _narrow(table: Table) -> bool:
    """Whether a table of short cells would only be pulled apart by the full width."""
    return len(table.columns) <= 7 and all(len(text) <= 24 for row in table.rows for text in row)


def _drawings(
    record: AuditRecord, page: view.PageView, classes: dict[str, str], room: int
) -> dict[str, tuple[Drawing, ...]]:
    """The figures by target, as long as there is room for all of a target's; their styles as classes."""
    found: dict[str, tuple[Drawing, ...]] = {}
    for shown, target in zip(page.targets, words.shown(record), strict=True):
        drawn = tuple(
            replace(drawing, svg=svg.classed(drawing.svg, classes))
            for drawing in figures.draw(record, target, shown.anchor)
        )
        declared = sum(len(style) + len(name) + 4 for style, name in classes.items())
        room -= sum(len(drawing.svg.encode()) + len(drawing.caption) + 200 for drawing in drawn)
        if room < declared:
            break
        found[shown.anchor] = drawn
    return found


def raw_tables(record: AuditRecord) -> tuple[Table, ...]:
    """The curves over all records as numbers, thinned; the record has every point and every group."""
    found, size = [], 0
    for target in record.targets:
        for curve in target.curves:
            table = _curve_table(target.name, curve)
            size += sum(len(text) + 10 for row in table.rows for text in row)
            if table.rows and curve.slice == "all" and size <= RAW_BUDGET:
                found.append(table)
    return tuple(found)


def _curve_table(name: str, curve: Curve) -> Table:
    step = max(1, -(-len(curve.x) // RAW_ROWS))
    columns = [("x", "number"), ("y", "number")]
    series = [curve.x, curve.y]
    if curve.lower and curve.upper:
        columns += [("from", "number"), ("to", "number")]
        series += [curve.lower, curve.upper]
    return Table(
        caption=f"{name}: {curve.kind} of {curve.source} ({curve.slice})",
        columns=tuple(columns),
        rows=tuple(
            tuple(numbers.plain(column[i]) for column in series) for i in range(0, len(curve.x), step)
        ),
    )
