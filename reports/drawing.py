"""What all figures share: colours that colour-blind readers tell apart, the canvas, the drawing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpaudit.reports import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE = "#1d2733", "#5b6470", "#c3ccd6"
BLUE, VERMILION, GREY, TEAL, PURPLE = "#0b5fa5", "#b23c0b", "#6a7280", "#00735c", "#8a3f7c"
SERIES = ((BLUE, "o", "-"), (TEAL, "s", "--"), (PURPLE, "^", "-."), ("#7a5c00", "D", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A figure that is ready for the page.

    Attributes:
        section: "epsilon", "membership", "reconstruction" or "rebuilt".
        title: what it shows.
        caption: how to read it.
        svg: the inline SVG.
    """

    section: str
    title: str
    caption: str
    svg: str


def canvas(
    *, height: float = 300, left: float = 48, right: float = 12, top: float = 8, bottom: float = 40
) -> tuple[Figure, Axes]:
    """A figure of the page's width with margins in points, on no background of its own."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(svg.WIDTH / 72, height / 72))
    figure.patch.set_visible(False)
    axes = figure.add_axes(
        (
            left / svg.WIDTH,
            bottom / height,
            1 - (left + right) / svg.WIDTH,
            1 - (top + bottom) / height,
        )
    )
    axes.patch.set_visible(False)
    return figure, axes


def clipped_name(name: str, length: int) -> str:
    """A name that fits its place; the tables have it in full."""
    return name if len(name) <= length else name[: length - 1] + "…"


def forbid(
    axes: Axes, x: tuple[float, ...], low: tuple[float, ...] | float, high: tuple[float, ...] | float
) -> None:
    """Hatch the region that the claim forbids."""
    axes.fill_between(
        x, low, high, facecolor="#fbeee8", edgecolor="#dca58c", hatch="////", linewidth=0, zorder=0
    )


def key(axes: Axes, where: str) -> None:
    """Name the lines inside the axes, with their markers and dashes."""
    axes.legend(loc=where, frameon=True, framealpha=0.92, edgecolor="none", fontsize=9, handlelength=2.6)
