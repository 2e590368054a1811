"""The report as one HTML file: no script, no network, and the same bytes for the same record."""

from __future__ import annotations

from pathlib import Path

from dpaudit.record import AuditRecord, Curve, GateResult
from dpaudit.reports import figures, numbers, view
from dpaudit.reports.drawing import Drawing
from dpaudit.reports.tables import Table

FIGURE_BUDGET = 330_000
RAW_ROWS = 24
# A tick would say more than the verdict does.
_GLYPHS = {"bad": "✕", "open": "?", "good": "✓", "quiet": "·", "NOT REFUTED": "○", "WARN": "!", "WAIVED": "~"}
_TONES = {
    "bad": ("REFUTED", "FAIL", "ABOVE LIMIT", "NOT CAUGHT", "TOO LOW"),
    "good": ("NOT REFUTED", "PASS", "WITHIN LIMIT", "CAUGHT", "HIGH ENOUGH", "RUN", "RECOMPUTED", "CHECKED"),
    "quiet": ("NOT APPLICABLE", "NO LIMIT", "DECLARED"),
}


def render(record: AuditRecord, gate: GateResult | None = None) -> str:
    """Write the report.

    Args:
        record: the audit.
        gate: what a policy said of it; None leaves the verdicts to stand alone.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["tone"] = tone
    environment.filters["glyph"] = lambda status: _GLYPHS[status if status in _GLYPHS else tone(status)]
    environment.filters["narrow"] = _narrow
    page = view.page(record, gate)
    drawings, left_out = _drawings(record, page)
    return environment.get_template("page.html").render(
        page=page, drawings=drawings, left_out=left_out, raw=raw_tables(record)
    )


def tone(status: str) -> str:
    """How a status word is set: "bad", "good", "quiet", or "open" for everything that is not settled."""
    return next((name for name, words in _TONES.items() if status in words), "open")


def _narrow(table: Table) -> bool:
    """Whether a table of short cells would only be pulled apart by the full width."""
    return len(table.columns) <= 7 and all(len(text) <= 24 for row in table.rows for text in row)


def _drawings(record: AuditRecord, page: view.PageView) -> tuple[dict[str, tuple[Drawing, ...]], int]:
    """The figures by target, until the page would grow too large, and the number of targets without."""
    by_name = {target.name: target for target in record.targets}
    found: dict[str, tuple[Drawing, ...]] = {}
    size = left_out = 0
    for shown in page.targets:
        if size > FIGURE_BUDGET:
            found[shown.anchor] = ()
            left_out += 1
            continue
        found[shown.anchor] = figures.draw(record, by_name[shown.name], shown.anchor)
        size += sum(len(drawing.svg) for drawing in found[shown.anchor])
    return found, left_out


def raw_tables(record: AuditRecord) -> tuple[Table, ...]:
    """The curves behind the figures as numbers, thinned; the record has every point."""
    return tuple(
        _curve_table(target.name, curve) for target in record.targets for curve in target.curves if curve.x
    )


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
