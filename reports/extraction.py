"""Figures of planted secrets: how far they stand out, and how many samples bring them out of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dpaudit.estimate import Rate
from dpaudit.record import Curve, TargetRecord
from dpaudit.reports import numbers, svg
from dpaudit.reports.drawing import (
    BLUE,
    GREY,
    MUTED,
    TEAL,
    VERMILION,
    Drawing,
    canvas,
    clipped_name,
    forbid,
    key,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RANKED_FIRST, FEASIBLE = "extraction_success", "extraction_rate_"


def draw(target: TargetRecord, controls: tuple[TargetRecord, ...], prefix: str) -> tuple[Drawing | None, ...]:
    """Both figures; None where nothing was planted."""
    return exposure(target, controls, f"{prefix}-exposure"), queries(target, controls, f"{prefix}-queries")


def sentence(target: TargetRecord) -> str:
    """What was extracted from a target, to be quoted; empty where nothing was planted."""
    by_name = {rate.name: rate for rate in target.rates if not rate.fine}
    feasible = next((rate for name, rate in by_name.items() if name.startswith(FEASIBLE)), None)
    first = by_name.get(RANKED_FIRST)
    if feasible is None or first is None or not feasible.n:
        return ""
    samples = feasible.name.removeprefix(FEASIBLE).partition("_")[0]
    return (
        f"Of {numbers.many(feasible.n, 'fake secret')} planted in the training data of {target.name}, "
        f"{numbers.count(float(samples))} samples of its output bring out {_share(feasible)}, and "
        f"{_share(first)} stand out as the likeliest of all candidates; each at confidence "
        f"{numbers.level(1 - first.alpha)}{numbers.given(first.assumptions)}."
    )


def _share(rate: Rate) -> str:
    """How many, with the upper end of the share that this shows and what the claim allows."""
    allowed = "" if rate.limit is None else f"; the claim allows {numbers.percent(rate.limit)} on average"
    return (
        f"{numbers.count(round(rate.value * rate.n))} "
        f"(a share of at most {numbers.percent(rate.upper, end='upper')}{allowed})"
    )


def exposure(target: TargetRecord, controls: tuple[TargetRecord, ...], prefix: str) -> Drawing | None:
    """Share of secrets with at least so many bits of exposure, against guessing and what the claim allows."""
    measured = _of(target, "exposure")
    if measured is None:
        return None
    figure, axes = canvas(left=60, right=22)
    _axes(axes, "Exposure of a secret (bits)", (0.0, measured.x[-1]))
    _limit(axes, _of(target, "exposure-limit"))
    axes.plot(
        measured.x, [2**-x for x in measured.x], color=MUTED, linewidth=0.8, linestyle=":", label="guessing"
    )
    _shares(axes, target, controls, "exposure")
    title = f"Exposure of the secrets planted in {target.name}"
    return Drawing(
        section="reconstruction",
        title=title,
        caption="Share of planted secrets that rank within the best 2^-x of all candidates. "
        "Secrets of records that were left out show what guessing gives. " + sentence(target),
        svg=svg.inline(figure, prefix, title, _ends(measured, "bits")),
    )


def queries(target: TargetRecord, controls: tuple[TargetRecord, ...], prefix: str) -> Drawing | None:
    """Share of secrets that come out within so many samples, at the stated probability."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    measured = _of(target, "extraction")
    if measured is None:
        return None
    figure, axes = canvas(left=60, right=22)
    axes.set_xscale("log")
    _axes(axes, "Samples of the model's output (n)", (measured.x[0], measured.x[-1]))
    axes.xaxis.set_major_locator(LogLocator(base=1000))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: "1" if value == 1 else numbers.power_of_ten(value))
    )
    axes.xaxis.set_minor_locator(NullLocator())
    _limit(axes, _of(target, "extraction-limit"))
    _shares(axes, target, controls, "extraction")
    title = f"Samples that bring secrets out of {target.name}"
    return Drawing(
        section="reconstruction",
        title=title,
        caption="Share of planted secrets that come at least once among n samples, with the probability that "
        "the plan asks for, after the words that stand before them; by the probabilities of their tokens.",
        svg=svg.inline(figure, prefix, title, _ends(measured, "samples")),
    )


def _of(target: TargetRecord, kind: str) -> Curve | None:
    return next((curve for curve in target.curves if curve.kind == kind and curve.x), None)


def _axes(axes: Axes, label: str, limits: tuple[float, float]) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.set(xlim=limits, ylim=(-0.015, 1.02), xlabel=label, ylabel="Share of planted secrets")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def _limit(axes: Axes, curve: Curve | None) -> None:
    if curve is not None:
        forbid(axes, curve.x, curve.y, 1.02)
        style: dict[str, Any] = {"linewidth": 1.4, "linestyle": (0, (4, 2))}
        axes.plot(curve.x, curve.y, color=VERMILION, label="claim allows on average", **style)


def _shares(axes: Axes, target: TargetRecord, controls: tuple[TargetRecord, ...], kind: str) -> None:
    inside, outside = _of(target, kind), _of(target, f"{kind}-out")
    beside = [(control, curve) for control in controls if (curve := _of(control, kind)) is not None]
    for control, curve in beside[:1]:
        name = f"control {clipped_name(control.name, 16)}"
        axes.step(curve.x, curve.y, where="post", color=GREY, linestyle=(0, (1, 1.2)), label=name)
    if outside is not None:
        axes.step(outside.x, outside.y, where="post", color=TEAL, linestyle="--", label="records left out")
    if inside is not None:
        axes.step(inside.x, inside.y, where="post", color=BLUE, linewidth=2, label="records trained on")
    key(axes, "best")


def _ends(curve: Curve, unit: str) -> str:
    middle = len(curve.x) // 2
    said = (f"{numbers.percent(curve.y[i])} at {numbers.plain(curve.x[i])} {unit}" for i in (0, middle, -1))
    return "; ".join(said) + "."
