"""A matplotlib figure as inline SVG: the same bytes for the same figure, small, and with words for all."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 420
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dpaudit",
    "font.family": ["DejaVu Sans"],
    "font.size": 10.0,
    "text.parse_math": False,
    "text.usetex": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#5b6470",
    "axes.labelcolor": "#39424e",
    "axes.linewidth": 0.8,
    "axes.unicode_minus": False,
    "xtick.color": "#5b6470",
    "ytick.color": "#5b6470",
    "xtick.labelcolor": "#39424e",
    "ytick.labelcolor": "#39424e",
    "hatch.linewidth": 0.6,
    "path.simplify": False,
}


# Ids of groups, a style rule for every element of the page, and fonts that the page chooses are left out.
_REWRITES = tuple(
    (re.compile(pattern, re.DOTALL), replacement)
    for pattern, replacement in (
        (r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", ""),
        (r'<g id="[^"]*"', "<g"),
        (r"<defs>\s*</defs>|<g>\s*</g>", ""),
        (r' transform="rotate\(-0 [^"]*"', ""),
        (r"font: ([\d.]+px)[^;\"]*", r"font-size: \1"),
        (r"font-family:[^;\"]*;?", ""),
        (r'xlink:href="#', 'href="#'),
        (r"\s*\n\s*", "\n"),
    )
)
_COORDINATES = re.compile(r'\b(?:d|x|y|x1|y1|x2|y2|width|height|transform)="[^"]*"')
# Words of a user never are in a style; what looks as if they were stays an attribute, where it is escaped.
_STYLE = re.compile(r' style="([\w#().,:;% -]*)"')
_LONG = re.compile(r"-?\d+\.\d{2,}")
# The page needs the text of a figure alone; whoever exports figures asks for the figures as well.
_KEPT: ContextVar[dict[str, Figure] | None] = ContextVar("figures kept", default=None)


def settings() -> Any:
    """Context in which figures are made: matplotlib's defaults and ours, whatever the user's own style is."""
    import matplotlib

    # To look at the backend loads all of pyplot, which no figure here is made with.
    defaults = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}
    return matplotlib.rc_context({**defaults, **_SETTINGS})


@contextmanager
def keeping() -> Iterator[dict[str, Figure]]:
    """Context in which every figure that `inline` writes is kept too, by its key."""
    kept: dict[str, Figure] = {}
    token = _KEPT.set(kept)
    try:
        yield kept
    finally:
        _KEPT.reset(token)


def inline(figure: Figure, key: str, title: str, description: str) -> str:
    """Write a figure as SVG to be placed in a page.

    Args:
        figure: made within `settings()`.
        key: prefix of every id, unique in the page.
        title: accessible name.
        description: what the figure shows, in words.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    if (kept := _KEPT.get()) is not None:
        kept[key] = figure
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    body = buffer.getvalue()
    body = body[body.index(">", body.index("<svg")) + 1 :]
    for pattern, replacement in _REWRITES:
        body = pattern.sub(replacement, body)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{key}-", body)
    body = _COORDINATES.sub(_compact, body)
    width, height = figure.get_size_inches() * 72
    return (
        f'<svg class="figure" role="img" viewBox="0 0 {width:g} {height:g}" '
        f'aria-labelledby="{key}-title {key}-desc">\n'
        f'<title id="{key}-title">{html.escape(title)}</title>'
        f'<desc id="{key}-desc">{html.escape(description)}</desc>{body}'
    ).strip()


def classed(text: str, classes: dict[str, str]) -> str:
    """An inline SVG whose styles are classes: the few that matplotlib writes come back in every figure.

    Args:
        text: from `inline`.
        classes: names by style, to which new ones are added; the page declares them once.
    """

    def name(match: re.Match[str]) -> str:
        return f' class="{classes.setdefault(match[1], f"s{len(classes)}")}"'

    return _STYLE.sub(name, text)


def _compact(match: re.Match[str]) -> str:
    """Shorter numbers, and no repeated letter where a path has straight lines only."""
    text = _LONG.sub(_shorten, match.group())
    return text if "C" in text or "Q" in text else text.replace("\nL ", " ")


def _shorten(match: re.Match[str]) -> str:
    """A tenth of a point is finer than the eye."""
    return f"{float(match.group()):.1f}".removesuffix(".0")
