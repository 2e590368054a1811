"""The figure of bounds: every lower bound of epsilon against the claim, with its ceiling and the controls."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpaudit.claim import Adjacency
from dpaudit.estimate import Estimate
from dpaudit.evidence import Access
from dpaudit.record import TargetRecord
from dpaudit.reports import numbers, svg
from dpaudit.reports.drawing import BLUE, GREY, INK, MUTED, RULE, VERMILION, Drawing, canvas, clipped_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_BARS = 9
SEES = {
    Access.LEDGER: "reads the ledger",
    Access.REPLAY: "re-executes a step",
    Access.STEP: "sees every step",
    Access.FINAL_MODEL: "sees the final model",
    Access.RELEASE: "sees what is released",
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


def draw(target: TargetRecord, controls: tuple[TargetRecord, ...], prefix: str) -> tuple[Drawing | None, ...]:
    """One figure per adjacency, the claim's own first: bounds under different ones are never compared."""
    return tuple(
        epsilon(target, adjacency, controls, f"{prefix}-{adjacency}") for adjacency in adjacencies(target)
    )


def adjacencies(target: TargetRecord) -> tuple[Adjacency, ...]:
    """The adjacencies that the evidence on a target speaks of, the claim's own first."""
    found = {estimate.adjacency for estimate in target.estimates}
    own = {target.claim.adjacency} if target.claim else set()
    return (*own, *sorted(found - own))


def bars(
    target: TargetRecord, adjacency: Adjacency, controls: tuple[TargetRecord, ...] = ()
) -> tuple[Bar, ...]:
    """The bounds under one adjacency: findings, then the strongest access first, then the controls.

    Of several estimators on one attack the largest bound and the largest ceiling are shown.
    """
    found = [_merged(group) for group in _by_attack(target, adjacency)]
    worst = _worst_finding(target, adjacency)
    if worst is not None:
        found.insert(0, worst)
    beside = [
        Bar(label=f"control {control.name}", kind="control", bound=best(control, adjacency), ceiling=None)
        for control in controls
    ]
    return (*found[: max(0, MAX_BARS - len(beside))], *beside) if found else ()


def best(target: TargetRecord, adjacency: Adjacency) -> float | None:
    """The largest guaranteed bound of a target under one adjacency; None where there is none."""
    finding = _worst_finding(target, adjacency)
    bounds = [finding.bound] if finding else []
    bounds += [e.epsilon_lower for e in target.estimates if e.guarantee and e.adjacency is adjacency]
    return max((value for value in bounds if value is not None), default=None)


def _by_attack(target: TargetRecord, adjacency: Adjacency) -> list[list[Estimate]]:
    order = list(SEES)
    groups: dict[tuple[int, str, bool], list[Estimate]] = {}
    for item in target.estimates:
        if item.adjacency is adjacency:
            name = (order.index(item.access), item.source, not item.guarantee)
            groups.setdefault(name, []).append(item)
    return [groups[name] for name in sorted(groups)]


def _merged(group: list[Estimate]) -> Bar:
    first = group[0]
    return Bar(
        label=f"{first.source}, {SEES[first.access]}",
        kind="bound" if first.guarantee else "descriptive",
        bound=max((e.epsilon_lower for e in group if e.epsilon_lower is not None), default=None),
        ceiling=max((e.ceiling for e in group if e.n_observations), default=None),
    )


def _worst_finding(target: TargetRecord, adjacency: Adjacency) -> Bar | None:
    if target.claim is not None and target.claim.adjacency is not adjacency:
        return None
    known = [(f.epsilon, f.check) for f in target.findings if f.epsilon is not None]
    if not known:
        return None
    value, check = max(known)
    return Bar(label=f"{check}, found in what ran", kind="finding", bound=value, ceiling=None)


def claimed(target: TargetRecord, adjacency: Adjacency) -> float | None:
    """The claim under one adjacency, as the estimators translated it; None without a claim."""
    if target.claim is None or target.claim.adjacency is adjacency:
        return target.claim.epsilon if target.claim else None
    known = [e.claimed_epsilon for e in target.estimates if e.adjacency is adjacency]
    return next((value for value in known if value is not None), None)


def scale(shown: tuple[Bar, ...], claim: float | None) -> float:
    """Right end of the axis: room for the claim; what lies far beyond it is clipped with an arrow."""
    values = [value for bar in shown for value in (bar.bound, bar.ceiling) if value is not None]
    finite = [value for value in values if math.isfinite(value)]
    if claim is None or claim <= 0 or not math.isfinite(claim):
        bounds = [bar.bound for bar in shown if bar.bound is not None and math.isfinite(bar.bound)]
        return 1.15 * max([*bounds, 1.0])
    near = [value for value in finite if value <= 4 * claim]
    return 1.15 * max([*near, 1.4 * claim])


def epsilon(
    target: TargetRecord, adjacency: Adjacency, controls: tuple[TargetRecord, ...], key: str
) -> Drawing | None:
    """Lower bounds against the claim, with the ceiling of each and the controls beside them."""
    shown = bars(target, adjacency, controls)
    if not shown:
        return None
    claim = claimed(target, adjacency)
    right = scale(shown, claim)
    figure, axes = canvas(height=60 + 38 * len(shown), left=14, right=18, top=26 if claim else 8, bottom=34)
    axes.set_xlim(0, right)
    axes.set_ylim(len(shown) - 0.35, -0.65)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    delta = target.claim.delta if target.claim else target.estimates[0].delta
    axes.set_xlabel(f"ε at δ {numbers.power_of_ten(delta)}, {adjacency}")
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
    title = f"ε of {target.name}, {adjacency}" + ("" if target.claim else ": no claim")
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
