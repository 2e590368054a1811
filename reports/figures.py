"""The figures of a target: bounds against the claim, and its curves. Computed first, drawn second."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpaudit.evidence import Access
from dpaudit.record import AuditRecord, TargetRecord
from dpaudit.reports import curves, numbers, svg, words
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
        found = (epsilon(target, controls, f"{key}-epsilon"), *curves.draw(target, controls, key))
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
    figure, axes = canvas(height=58 + 37 * len(shown), left=6, right=14, top=26 if claim else 8, bottom=34)
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
    title = (
        f"ε of {target.name} against its claim" if target.claim else f"ε of {target.name}, which has no claim"
    )
    return Drawing(
        section="epsilon",
        title=title,
        caption=(
            "Bars are lower bounds; the thin line reaches to the ceiling, the most that the attack could have "
            "shown. An arrow points beyond the scale."
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
    axes.text(0, row - 0.16, clipped_name(bar.label, 44), color=INK, va="center")
    axes.text(right, row - 0.16, _bound_words(bar), color=colour, va="center", ha="right", fontweight="bold")


def _bound_words(bar: Bar) -> str:
    if bar.bound is None or math.isnan(bar.bound):
        return numbers.NO_DATA
    text = f"≥ {numbers.epsilon(bar.bound, end='lower')}" if math.isfinite(bar.bound) else numbers.UNBOUNDED
    return f"{text} (descriptive)" if bar.kind == "descriptive" else text
