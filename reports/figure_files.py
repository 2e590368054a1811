"""Figures of a record as files, for papers and slides: the same bytes for the same record."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from dpaudit.record import AuditRecord
from dpaudit.reports import figures, svg, words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 300
_NAME = 60


def render(record: AuditRecord, formats: tuple[str, ...] = ("svg",)) -> dict[str, bytes]:
    """Draw every figure that the page of a record has.

    Text stays text (SVG) or an embedded font (PDF); PNG has 300 dots per inch. No file says when or on which
    machine it was made. Needs a fraction of a second for each figure and format.

    Args:
        record: the audit.
        formats: of `FORMATS`.

    Returns:
        Contents by file name, `TARGET-FIGURE.FORMAT`.
    """
    found: dict[str, bytes] = {}
    for number, target in enumerate(words.shown(record), start=1):
        key = f"target-{number}"
        with svg.keeping() as kept:
            figures.draw(record, target, key)
        for name, figure in kept.items():
            stem = _free(f"{_plain(target.name)}{_plain(name.removeprefix(key), '-')}", found, formats)
            for format_ in formats:
                found[f"{stem}.{format_}"] = _written(figure, format_)
    return found


def _plain(text: str, start: str = "") -> str:
    """What every file system takes: letters, digits and hyphens."""
    return start + (re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:_NAME] or "target")


def _free(stem: str, taken: dict[str, bytes], formats: tuple[str, ...]) -> str:
    """The name, or the name with a number where two targets are spelt alike."""
    number, name = 1, stem
    while any(f"{name}.{format_}" in taken for format_ in formats):
        number += 1
        name = f"{stem}-{number}"
    return name


def _written(figure: Figure, format_: str) -> bytes:
    with svg.settings():
        # On a slide of any colour a figure without a background cannot be read.
        figure.patch.set_visible(True)
        figure.patch.set_facecolor("white")
        buffer = io.BytesIO()
        FORMATS[format_](figure, buffer)
    return buffer.getvalue()


def _svg(figure: Figure, buffer: io.BytesIO) -> None:
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": "dpaudit"})


def _png(figure: Figure, buffer: io.BytesIO) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(DOTS_PER_INCH)
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": "dpaudit"})


def _pdf(figure: Figure, buffer: io.BytesIO) -> None:
    from matplotlib import rc_context
    from matplotlib.backends.backend_pdf import FigureCanvasPdf

    # Type 42 is what journals take: type 3 fonts are refused by many.
    with rc_context({"pdf.fonttype": 42}):
        figure.set_dpi(72)
        nobody = {"CreationDate": None, "Creator": "dpaudit", "Producer": "dpaudit"}
        FigureCanvasPdf(figure).print_pdf(buffer, metadata=nobody)


FORMATS: dict[str, Callable[[Figure, io.BytesIO], None]] = {"svg": _svg, "png": _png, "pdf": _pdf}
