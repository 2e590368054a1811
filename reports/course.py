"""Epsilon over the course of training: what the accountant said, what it was, and what was shown."""

from __future__ import annotations

import math
from typing import Any

from dpaudit.record import Curve, TargetRecord
from dpaudit.reports import numbers, svg
from dpaudit.reports.curves import of_kind
from dpaudit.reports.drawing import BLUE, GREY, TEAL, VERMILION, Drawing, canvas, clipped_name, key

_LINES: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("epsilon-recomputed", "recomputed by PLD", BLUE, {"linestyle": "-", "marker": "o", "markersize": 3}),
    # Slow accountants were asked a few times only: lines between their answers would run below the curve.
    ("epsilon-reported", "reported", VERMILION, {"linestyle": "none", "marker": "D", "markersize": 5}),
    ("epsilon-lower", "shown at least", TEAL, {"linestyle": "-.", "drawstyle": "steps-post"}),
)


def draw(target: TargetRecord, prefix: str) -> Drawing | None:
    """Reported, recomputed and shown epsilon against steps; None where the record has no such curves."""
    found: list[tuple[Curve, str, str, dict[str, Any]]] = [
        (curve, name, colour, style)
        for kind, name, colour, style in _LINES
        for curve in of_kind(target, kind)
    ]
    if not found:
        return None
    finite = [y for curve, *_ in found for y in curve.y if math.isfinite(y)]
    top = 1.25 * max([*finite, 0.5])
    figure, axes = canvas(height=240)
    axes.set(xlabel="Noisy steps", ylabel="ε so far", ylim=(0, top))
    axes.set_xlim(0, max(curve.x[-1] for curve, *_ in found) or 1)
    several = sum(curve.kind == "epsilon-reported" for curve, *_ in found) > 1
    for curve, name, colour, style in found:
        label = f"{name}: {clipped_name(curve.source, 20)}" if several and name == "reported" else name
        axes.plot(curve.x, [min(y, top) for y in curve.y], color=colour, label=label, **style)
    if target.claim is not None and target.claim.epsilon < top:
        axes.axhline(target.claim.epsilon, color=GREY, linewidth=0.9, linestyle=":")
        place: dict[str, Any] = {"va": "bottom", "ha": "left", "transform": axes.get_yaxis_transform()}
        axes.text(
            0.01, target.claim.epsilon, f"claim {numbers.epsilon(target.claim.epsilon)}", color=GREY, **place
        )
    key(axes, "best")
    title = f"Epsilon of {target.name} over the course of training"
    return Drawing(
        section="epsilon",
        title=title,
        caption="Reported marks below the recomputed line mean that the accountant was told too little. "
        "What the canaries showed by then is about the whole run: it stays below a claim that holds.",
        svg=svg.inline(figure, prefix, title, f"At the end: {_ends([curve for curve, *_ in found])}."),
    )


def _ends(curves: list[Curve]) -> str:
    words = {kind: name for kind, name, *_ in _LINES}
    return "; ".join(
        f"{words[c.kind]} ({c.source}) {numbers.epsilon(c.y[-1])} after {numbers.count(c.x[-1])} steps"
        for c in curves
    )
