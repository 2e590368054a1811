"""The figures of a target: bounds against the claim, and its curves. Computed first, drawn second."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpaudit.estimate import Rate
from dpaudit.evidence import Access
from dpaudit.record import AuditRecord, TargetRecord
from dpaudit.reports import curves, numbers, svg, tables, words
from dpaudit.reports.drawing import BLUE, GREY, INK, MUTED, RULE, VERMILION, Drawing, canvas, clipped_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_BARS = 9
SEES = {
    Access.LEDGER: "reads the ledger",
    Access.REPLAY: "re-executes a step",
    Access.STEP: "sees every step",
    Access.FINAL_MODEL: "sees the final model",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One lower bound as it is drawn.

    Attributes:
        kind: "bound", "finding", "descriptive" or "control".
    """

    label: str
    kind: str
    bound: float | None
    ceiling: float | None


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
            epsilon(target, controls, f"{key}-epsilon"),
            *curves.draw(target, controls, key),
            true_positives(target, controls, f"{key}-tpr"),
        )
    return tuple(drawing for drawing in found if drawing is not None)


def bars(target: TargetRecord, controls: tuple[TargetRecord, ...]) -> tuple[Bar, ...]:
    """The bounds of a target, strongest access first, its findings, and the best bound of each control."""
    order = ["ledger", "replay", "step", "final-model"]
    ranked = sorted(target.estimates, key=lambda e: (order.index(e.access), -(e.epsilon_lower or 0.0)))
    found = [
        Bar(
            label=f"{item.source}, {SEES[item.access]}",
            kind="bound" if item.guarantee else "descriptive",
            bound=item.epsilon_lower,
            ceiling=item.ceiling if item.n_observations else None,
        )
        for item in ranked
        if target.claim is None or item.adjacency == target.claim.adjacency
    ]
    worst = max((f for f in target.findings if f.epsilon is not None), key=_epsilon_of, default=None)
    if worst is not None:
        found.insert(0, Bar(label=f"{worst.check}, found", kind="finding", bound=worst.epsilon, ceiling=None))
    beside = [
        Bar(
            label=f"control {control.name}", kind="control", bound=control.verdict.epsilon_lower, ceiling=None
        )
        for control in controls
    ]
    return (*found[: MAX_BARS - len(beside)], *beside)


def _epsilon_of(finding: object) -> float:
    value = getattr(finding, "epsilon", None)
    return -math.inf if value is None else float(value)


def scale(shown: tuple[Bar, ...], claim: float | None) -> float:
    """Right end of the axis: room for the claim; what lies far beyond it is clipped with an arrow."""
    values = [value for bar in shown for value in (bar.bound, bar.ceiling) if value is not None]
    finite = [value for value in values if math.isfinite(value)]
    if claim is None or claim <= 0 or not math.isfinite(claim):
        bounds = [bar.bound for bar in shown if bar.bound is not None and math.isfinite(bar.bound)]
        return 1.15 * max([*bounds, 1.0])
    near = [value for value in finite if value <= 4 * claim]
    return 1.15 * max([*near, 1.4 * claim])


def epsilon(target: TargetRecord, controls: tuple[TargetRecord, ...], key: str) -> Drawing | None:
    """Lower bounds against the claim, with the ceiling of each and the controls beside them."""
    shown = bars(target, controls)
    if not shown:
        return None
    claim = target.claim.epsilon if target.claim else None
    right = scale(shown, claim)
    figure, axes = canvas(height=60 + 38 * len(shown), left=14, right=14, top=26 if claim else 8, bottom=34)
    axes.set_xlim(0, right)
    axes.set_ylim(len(shown) - 0.35, -0.65)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("ε" if target.claim is None else f"ε at δ {numbers.power_of_ten(target.claim.delta)}")
    for row, bar in enumerate(shown):
        _bar(axes, row, bar, right, claim)
    if claim is not None and claim <= right:
        axes.axvline(claim, color=VERMILION, linewidth=1.6, linestyle=(0, (4, 2)), zorder=4)
        axes.annotate(
            f"claim {numbers.epsilon(claim)}",
            (claim, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            color=VERMILION,
            fontweight="bold",
        )
    values = "; ".join(f"{bar.label}: {_bound_words(bar)}" for bar in shown)
    versus = "no claim" if claim is None else f"the claim {numbers.epsilon(claim)}"
    title = f"ε of {target.name}" + (" against its claim" if target.claim else ", which has no claim")
    return Drawing(
        section="epsilon",
        title=title,
        caption=(
            "Bars are lower bounds; the thin line reaches to the ceiling, the most that the attack could "
            "have shown. An arrow points beyond the scale."
        ),
        svg=svg.inline(figure, key, title, f"Lower bounds of epsilon against {versus}. {values}."),
    )


def _bar(axes: Axes, row: int, bar: Bar, right: float, claim: float | None) -> None:
    above = claim is not None and bar.bound is not None and bar.bound > claim and bar.kind != "control"
    colour = GREY if bar.kind in ("control", "descriptive") else VERMILION if above else BLUE
    y = row + 0.16
    if bar.ceiling is not None:
        end = min(bar.ceiling, right)
        axes.plot([0, end], [y, y], color=RULE, linewidth=2.2, solid_capstyle="butt", zorder=1)
        marker = ">" if bar.ceiling > right else "|"
        axes.plot([end], [y], marker=marker, color=MUTED, markersize=7, clip_on=False, zorder=2)
    if bar.bound is not None and not math.isnan(bar.bound):
        end = min(max(bar.bound, 0.0), right)
        hatch = {"control": "\\\\\\\\", "descriptive": "----"}.get(bar.kind, "////" if above else "")
        axes.barh(
            [y],
            [end],
            height=0.26,
            color="#ffffff" if hatch else colour,
            edgecolor=colour,
            hatch=hatch,
            zorder=3,
        )
        marker = ">" if bar.bound > right else "d"
        axes.plot([end], [y], marker=marker, color=colour, markersize=7, clip_on=False, zorder=5)
    legible = {"facecolor": "#ffffff", "edgecolor": "none", "pad": 1.0}
    axes.text(0, row - 0.17, clipped_name(bar.label, 44), color=INK, va="center", bbox=legible, zorder=6)
    style: dict[str, Any] = {"color": colour, "va": "center", "ha": "right", "fontweight": "bold"}
    axes.text(right, row - 0.17, _bound_words(bar), bbox=legible, zorder=6, **style)


def _bound_words(bar: Bar) -> str:
    if bar.bound is None or math.isnan(bar.bound):
        return numbers.NO_DATA
    text = f"≥ {numbers.epsilon(bar.bound, end='lower')}" if math.isfinite(bar.bound) else numbers.UNBOUNDED
    return f"{text} (descriptive)" if bar.kind == "descriptive" else text


def true_positives(target: TargetRecord, controls: tuple[TargetRecord, ...], key: str) -> Drawing | None:
    """TPR at the small FPRs with intervals, beside what the claim allows and what the control showed."""
    shown = [rate for rate in tables.worst_first(target.rates) if rate.name.startswith("tpr_at_fpr_")]
    if not shown:
        return None
    shown = shown[:MAX_BARS]
    figure, axes = canvas(height=76 + 30 * len(shown), left=128, right=22, top=30)
    values = [v for rate in shown for v in (rate.value, rate.lower, rate.limit) if v]
    low = max(curves.FLOOR, min([*values, 0.01]) * 0.7)
    axes.set(xscale="log", xlim=(low, 1), xlabel="True-positive rate", ylim=(len(shown) - 0.4, -0.6))
    curves.percent_axis(axes.xaxis)
    axes.set_yticks(range(len(shown)), [_rate_label(rate) for rate in shown])
    axes.tick_params(axis="y", length=0)
    for row, rate in enumerate(shown):
        _interval(axes, row, rate, low)
        beside = [other for control in controls for other in control.rates if _same(other, rate)]
        if beside:
            value = max(low, *(other.value for other in beside))
            name = "control" if row == 0 else None
            axes.plot([value], [row], marker="D", color=GREY, fillstyle="none", linestyle="", label=name)
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=9, borderaxespad=0.2
    )
    words_ = "; ".join(f"{_rate_label(rate)}: {numbers.rate(rate.name, rate.value)}" for rate in shown)
    title = f"Members of {target.name} found at few false alarms"
    return Drawing(
        section="membership",
        title=title,
        caption="True-positive rate at a fixed false-positive rate, the worst group of each first.",
        svg=svg.inline(figure, key, title, f"{words_}."),
    )


def _interval(axes: Axes, row: int, rate: Rate, low: float) -> None:
    if rate.lower is not None and rate.upper is not None:
        axes.plot([max(rate.lower, low), max(rate.upper, low)], [row, row], color=BLUE, linewidth=2.4)
    label = ("measured", "claim allows") if row == 0 else (None, None)
    axes.plot([max(rate.value, low)], [row], marker="o", color=BLUE, linestyle="", label=label[0])
    if rate.limit is not None:
        style: dict[str, Any] = {"marker": "|", "markersize": 16, "markeredgewidth": 2, "linestyle": ""}
        axes.plot([max(rate.limit, low)], [row], color=VERMILION, label=label[1], **style)


def _same(other: Rate, rate: Rate) -> bool:
    return (other.name, other.source, other.slice) == (rate.name, rate.source, rate.slice)


def _rate_label(rate: Rate) -> str:
    at = tables.metric_name(rate.name).removeprefix("TPR ")
    return at if rate.slice == "all" else f"{at}, {clipped_name(rate.slice, 12)}"
