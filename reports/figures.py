"""The figures of a target: bounds against the claim, curves, and true positives at few false alarms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dpaudit.estimate import Rate
from dpaudit.record import AuditRecord, TargetRecord
from dpaudit.reports import bounds, course, curves, extraction, numbers, rebuilt, svg, tables, words
from dpaudit.reports.drawing import BLUE, GREY, INK, VERMILION, Drawing, canvas, clipped_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_RATES = 6


def draw(record: AuditRecord, target: TargetRecord, key: str) -> tuple[Drawing, ...]:
    """Every figure that the record has data for, as inline SVG.

    Args:
        record: for the controls that stand beside the target.
        target: the target shown.
        key: prefix of the ids in the SVG, unique in the page.
    """
    controls = tuple(other for other in words.controls(record) if other is not target)
    with svg.settings():
        found = (
            *bounds.draw(target, controls, f"{key}-epsilon"),
            *curves.draw(target, controls, key),
            *extraction.draw(target, controls, f"{key}-extraction"),
            course.draw(target, f"{key}-course"),
            true_positives(target, controls, f"{key}-tpr"),
            rebuilt.draw(target, controls, f"{key}-rebuilt"),
            *rebuilt.draw_released(target, f"{key}-released"),
        )
    return tuple(drawing for drawing in found if drawing is not None)


def true_positives(target: TargetRecord, controls: tuple[TargetRecord, ...], key: str) -> Drawing | None:
    """TPR at the small FPRs with intervals, beside what the claim allows and what the controls showed."""
    shown = [rate for rate in tables.worst_first(target.rates) if rate.name.startswith("tpr_at_fpr_")]
    if not shown:
        return None
    shown = shown[:MAX_RATES]
    figure, axes = canvas(height=80 + 34 * len(shown), left=14, right=22, top=26)
    values = [v for rate in shown for v in (rate.value, rate.lower, rate.limit) if v]
    low = max(curves.FLOOR, min([*values, 0.01]) * 0.7)
    axes.set(
        xscale="log", xlim=(low, 1), xlabel="True-positive rate", ylim=(len(shown) - 0.4, -0.7), yticks=[]
    )
    axes.spines["left"].set_visible(False)
    curves.percent_axis(axes.xaxis)
    for row, rate in enumerate(shown):
        _interval(axes, row, rate, low)
        beside = [other.value for control in controls for other in control.rates if _same(other, rate)]
        if beside:
            name = "control" if row == 0 else None
            style: dict[str, Any] = {"marker": "D", "fillstyle": "none", "linestyle": ""}
            axes.plot([max(low, *beside)], [row + 0.14], color=GREY, label=name, **style)
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=9, borderaxespad=0.1
    )
    values_ = "; ".join(f"{_rate_label(rate)}: {numbers.rate(rate.name, rate.value)}" for rate in shown)
    title = f"Members of {target.name} found at few false alarms"
    return Drawing(
        section="membership",
        title=title,
        caption="True-positive rate at a fixed false-positive rate, the worst group of each first.",
        svg=svg.inline(figure, key, title, f"{values_}."),
    )


def _interval(axes: Axes, row: int, rate: Rate, low: float) -> None:
    y = row + 0.14
    axes.text(low, row - 0.24, clipped_name(_rate_label(rate), 52), color=INK, va="center")
    if rate.lower is not None and rate.upper is not None:
        axes.plot([max(rate.lower, low), max(rate.upper, low)], [y, y], color=BLUE, linewidth=2.4)
    measured, allowed = ("measured", "claim allows") if row == 0 else (None, None)
    axes.plot([max(rate.value, low)], [y], marker="o", color=BLUE, linestyle="", label=measured)
    if rate.limit is not None:
        style: dict[str, Any] = {"marker": "|", "markersize": 14, "markeredgewidth": 2, "linestyle": ""}
        axes.plot([max(rate.limit, low)], [y], color=VERMILION, label=allowed, **style)


def _same(other: Rate, rate: Rate) -> bool:
    return (other.name, other.source, other.slice) == (rate.name, rate.source, rate.slice)


def _rate_label(rate: Rate) -> str:
    at = tables.metric_name(rate.name).removeprefix("TPR ")
    return f"{at}, {rate.source}" if rate.slice == "all" else f"{at}, {rate.source}, {rate.slice}"
