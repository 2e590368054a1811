"""Figures of what was measured over a range: ROC, trade-off, scores, the bound over time, reconstruction."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dpaudit.record import Curve, TargetRecord
from dpaudit.reports import numbers, svg
from dpaudit.reports.drawing import (
    BLUE,
    GREY,
    MUTED,
    SERIES,
    VERMILION,
    Drawing,
    canvas,
    clipped_name,
    forbid,
    key,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

MAX_LINES = 4
MAX_POINTS = 72
FEW = 12
FLOOR = 1e-4


def draw(target: TargetRecord, controls: tuple[TargetRecord, ...], prefix: str) -> tuple[Drawing | None, ...]:
    """Every figure of the curves of a target; None where the record has no data for one."""
    return (
        anytime(target, f"{prefix}-anytime"),
        roc(target, controls, f"{prefix}-roc"),
        trade_off(target, f"{prefix}-tradeoff"),
        histogram(target, f"{prefix}-scores"),
        reconstruction(target, controls, f"{prefix}-reconstruction"),
    )


def of_kind(target: TargetRecord, kind: str) -> tuple[Curve, ...]:
    """The curves of a kind over all records; over groups where there is no other."""
    found = tuple(curve for curve in target.curves if curve.kind == kind and len(curve.x))
    chosen = tuple(curve for curve in found if curve.slice == "all") or found
    return tuple(curve if kind.startswith("histogram") else _thin(curve) for curve in chosen[:MAX_LINES])


def _thin(curve: Curve) -> Curve:
    """At most `MAX_POINTS` points, the first and the last among them."""
    last = len(curve.x) - 1
    if last < MAX_POINTS:
        return curve
    kept = [round(index * last / (MAX_POINTS - 1)) for index in range(MAX_POINTS)]
    x, y, lower, upper = (
        tuple(series[index] for index in kept) if series else ()
        for series in (curve.x, curve.y, curve.lower, curve.upper)
    )
    return replace(curve, x=x, y=y, lower=lower, upper=upper)


def roc(target: TargetRecord, controls: tuple[TargetRecord, ...], prefix: str) -> Drawing | None:
    """TPR against FPR on logarithmic axes, with bands and the region that the claim forbids."""
    measured, claimed = of_kind(target, "roc"), of_kind(target, "claimed-roc")
    if not measured:
        return None
    beside = [(control, curve) for control in controls for curve in of_kind(control, "roc")[:1]]
    smallest = [x for curve in measured for x in curve.x if x > 0]
    low = max(FLOOR, min([*smallest, 1e-2]))
    figure, axes = canvas(left=60, right=22)
    _logarithmic(axes, low, "False-positive rate", "True-positive rate")
    for curve in claimed[:1]:
        x, y = _above(curve.x, curve.y, low)
        forbid(axes, x, y, 1.0)
        axes.plot(x, y, color=VERMILION, linewidth=1.4, linestyle=(0, (4, 2)), label="claim allows at most")
    axes.plot([low, 1], [low, 1], color=MUTED, linewidth=0.8, linestyle=":", label="guessing")
    _lines(axes, measured, low)
    for control, curve in beside[:1]:
        _beside(axes, control, curve, low)
    key(axes, "lower right")
    title = f"Membership in {target.name}: ROC"
    return Drawing(
        section="membership",
        title=title,
        caption="Logarithmic axes. No attack reaches the hatched region if the claim holds."
        if claimed
        else "Logarithmic axes. There is no claim to compare with.",
        svg=svg.inline(figure, prefix, title, f"{_read_off(measured)} {_read_off(claimed)}".strip()),
    )


def trade_off(target: TargetRecord, prefix: str) -> Drawing | None:
    """FNR against FPR with the claimed trade-off curve f."""
    measured, claimed = of_kind(target, "roc"), of_kind(target, "claimed-roc")
    if not measured or not claimed:
        return None
    figure, axes = canvas()
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="False-positive rate", ylabel="False-negative rate")
    bound = claimed[0]
    forbid(axes, (0.0, *bound.x), 0.0, (1 - bound.y[0], *(1 - y for y in bound.y)))
    axes.plot(
        bound.x,
        [1 - y for y in bound.y],
        color=VERMILION,
        linewidth=1.4,
        linestyle=(0, (4, 2)),
        label="claimed f",
    )
    axes.plot([0, 1], [1, 0], color=MUTED, linewidth=0.8, linestyle=":", label="guessing")
    for curve, (colour, marker, dash) in zip(measured, SERIES, strict=False):
        every = max(1, len(curve.x) // 8)
        axes.plot(
            curve.x,
            [1 - y for y in curve.y],
            color=colour,
            linestyle=dash,
            marker=marker,
            markersize=4,
            markevery=every,
            label=clipped_name(curve.source, 22),
        )
        if curve.lower and curve.upper:
            flipped = ([1 - y for y in curve.upper], [1 - y for y in curve.lower])
            axes.fill_between(curve.x, *flipped, color=colour, alpha=0.16, linewidth=0)
    key(axes, "upper right")
    title = f"Membership in {target.name}: trade-off"
    return Drawing(
        section="membership",
        title=title,
        caption="The two error rates of an attack. A curve inside the hatched region contradicts the claim.",
        svg=svg.inline(figure, prefix, title, f"{_read_off(measured)} {_read_off(claimed)}"),
    )


def histogram(target: TargetRecord, prefix: str) -> Drawing | None:
    """Scores of members and non-members of the first attack that has both."""
    inside = of_kind(target, "histogram-in")
    outside = {curve.source: curve for curve in of_kind(target, "histogram-out")}
    pair = next(((curve, outside[curve.source]) for curve in inside if curve.source in outside), None)
    if pair is None:
        return None
    member, other = pair
    figure, axes = canvas(height=240)
    axes.set(xlabel=f"Score of {clipped_name(member.source, 24)}", ylabel="Density")
    axes.fill_between(
        other.x, 0, other.y, step="mid", facecolor="none", edgecolor=GREY, hatch="\\\\\\\\", linewidth=0
    )
    axes.step(other.x, other.y, where="mid", color=GREY, linestyle="--", label="not a member (hatched)")
    axes.fill_between(member.x, 0, member.y, step="mid", color=BLUE, alpha=0.2, linewidth=0)
    axes.step(member.x, member.y, where="mid", color=BLUE, label="member (filled)")
    axes.set_ylim(0, 1.3 * max(*member.y, *other.y, 1e-9))
    key(axes, "upper left")
    title = f"Scores of {member.source} on {target.name}"
    return Drawing(
        section="membership",
        title=title,
        caption="The further the two apart, the easier members are told from others.",
        svg=svg.inline(
            figure, prefix, title, f"Mean score of members {_mean(member)}, of non-members {_mean(other)}."
        ),
    )


def anytime(target: TargetRecord, prefix: str) -> Drawing | None:
    """The lower bound as observations come in, valid whenever one stops."""
    measured = of_kind(target, "anytime")
    if not measured:
        return None
    claim = target.claim.epsilon if target.claim else None
    finite = [y for curve in measured for y in curve.y if math.isfinite(y)]
    top = 1.2 * max([*finite, claim or 0.0, 0.5])
    figure, axes = canvas(height=240)
    axes.set(xlabel="Observations", ylabel="Lower bound of ε", ylim=(0, top))
    axes.set_xlim(0, max(curve.x[-1] for curve in measured) or 1)
    for curve, (colour, marker, dash) in zip(measured, SERIES, strict=False):
        y = [min(value, top) for value in curve.y]
        every = max(1, len(y) // 8)
        axes.step(
            curve.x,
            y,
            where="post",
            color=colour,
            linestyle=dash,
            marker=marker,
            markersize=4,
            markevery=every,
            label=clipped_name(curve.source, 24),
        )
    if claim is not None and math.isfinite(claim):
        axes.axhline(claim, color=VERMILION, linewidth=1.4, linestyle=(0, (4, 2)))
        place: dict[str, Any] = {"va": "bottom", "ha": "right", "transform": axes.get_yaxis_transform()}
        label = f"claim {numbers.epsilon(claim)}"
        axes.text(0.99, claim, label, color=VERMILION, fontweight="bold", **place)
    key(axes, "lower right")
    clipped = any(value > top for curve in measured for value in curve.y)
    title = f"Bound of {target.name} over its observations"
    ends = "; ".join(
        f"{c.source}: {numbers.epsilon(c.y[-1], end='lower')} after {c.x[-1]:g}" for c in measured
    )
    return Drawing(
        section="epsilon",
        title=title,
        caption="The bound holds wherever one stops looking."
        + (" Unbounded values are drawn at the upper edge." if clipped else ""),
        svg=svg.inline(figure, prefix, title, f"Lower bound of epsilon, at the end {ends}."),
    )


def reconstruction(target: TargetRecord, controls: tuple[TargetRecord, ...], prefix: str) -> Drawing | None:
    """Success at reconstruction against what the claim allows, 1 - f(kappa)."""
    measured, limit = of_kind(target, "reconstruction"), of_kind(target, "reconstruction-limit")
    if not measured:
        return None
    low = max(FLOOR, min([x for curve in measured for x in curve.x if x > 0], default=1e-2) * 0.8)
    figure, axes = canvas(left=60, right=22)
    _logarithmic(axes, low, "Best guess without the release (κ)", "Success")
    for curve, dash in zip(limit, ((4, 2), (1, 1), (6, 1), (2, 3)), strict=False):
        x, y = _above(curve.x, curve.y, low)
        if len(limit) == 1:
            forbid(axes, x, y, 1.0)
        words = "limit 1 - f(κ)" if len(limit) == 1 else f"limit, {curve.source}"
        axes.plot(x, y, color=VERMILION, linewidth=1.4, linestyle=(0, dash), label=words)
    axes.plot([low, 1], [low, 1], color=MUTED, linewidth=0.8, linestyle=":", label="guessing")
    _lines(axes, measured, low)
    for control in controls[:1]:
        for curve in of_kind(control, "reconstruction")[:1]:
            _beside(axes, control, curve, low)
    key(axes, "lower right")
    title = f"Reconstruction from {target.name}"
    return Drawing(
        section="reconstruction",
        title=title,
        caption="Success at naming the record among candidates, against guessing and what the claim allows.",
        svg=svg.inline(figure, prefix, title, f"{_read_off(measured)} {_read_off(limit)}".strip()),
    )


def _logarithmic(axes: Axes, low: float, x: str, y: str) -> None:
    axes.set(xscale="log", yscale="log", xlim=(low, 1), ylim=(low, 1), xlabel=x, ylabel=y)
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)


def percent_axis(axis: Axis) -> None:
    """Label a logarithmic axis with plain percentages."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g} %"))
    axis.set_minor_locator(NullLocator())


def _lines(axes: Axes, measured: tuple[Curve, ...], low: float) -> None:
    for curve, (colour, marker, dash) in zip(measured, SERIES, strict=False):
        x, y = _above(curve.x, curve.y, low)
        every = max(1, len(x) // 8)
        name = curve.source if curve.slice == "all" else f"{curve.source}, {curve.slice}"
        axes.plot(x, y, color=colour, linestyle=dash, marker=marker, markersize=4, markevery=every,
                  label=clipped_name(name, 24))  # fmt: skip
        if curve.lower and curve.upper and len(x) <= FEW:
            _, under = _above(curve.x, curve.lower, low)
            _, over = _above(curve.x, curve.upper, low)
            axes.vlines(x, under, over, color=colour, linewidth=2.2, alpha=0.5)
        elif curve.lower and curve.upper:
            _, under = _above(curve.x, curve.lower, low)
            _, over = _above(curve.x, curve.upper, low)
            axes.fill_between(x, under, over, color=colour, alpha=0.16, linewidth=0)


def _beside(axes: Axes, control: TargetRecord, curve: Curve, low: float) -> None:
    x, y = _above(curve.x, curve.y, low)
    style: dict[str, Any] = {"linestyle": (0, (1, 1.2)), "marker": "x", "markersize": 4, "linewidth": 1.3}
    every = max(1, len(x) // 8)
    name = f"control {clipped_name(control.name, 16)}"
    axes.plot(x, y, color=GREY, markevery=every, label=name, clip_on=len(x) > FEW, **style)


def _above(
    x: tuple[float, ...], y: tuple[float, ...], low: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The points that can be seen; ordinates below the axis lie on it."""
    kept = [(a, max(b, low)) for a, b in zip(x, y, strict=True) if a >= low / 2]
    return tuple(a for a, _ in kept), tuple(b for _, b in kept)


def _read_off(found: tuple[Curve, ...]) -> str:
    """The ordinate nearest to 1 % of each curve, in words."""
    parts = []
    for curve in found:
        x, y = min(
            zip(curve.x, curve.y, strict=True), key=lambda point: abs(math.log10(max(point[0], 1e-9)) + 2)
        )
        parts.append(f"{curve.source}: {numbers.percent(y)} at {numbers.percent(x)}.")
    return " ".join(parts)


def _mean(curve: Curve) -> str:
    total = sum(curve.y)
    if not total > 0:
        return numbers.NO_DATA
    return numbers.plain(sum(x * y for x, y in zip(curve.x, curve.y, strict=True)) / total)
