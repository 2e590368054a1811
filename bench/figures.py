"""The two figures of docs/estimators.md: drawn by the benchmarks, and again from their pages by this file."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from dpaudit.reports import svg
from dpaudit.reports.drawing import BLUE, GREY, VERMILION

ALPHA = 0.05
RESULTS, DOCS = Path(__file__).parent / "results", Path(__file__).parent.parent / "docs"
_COUNTED = re.compile(r"([\d.]+)% \((\d+)\)")
_MEDIAN = re.compile(r"([\d.]+)(?: ±[\d.]+ \(\d+\))?(?: / ([\d.]+))?")


def standalone(figure: Any, key: str, title: str, description: str) -> str:
    drawn = svg.inline(figure, key, title, description)
    width, height = figure.get_size_inches() * 72
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
    style = "<style>svg{background:#fff}text{font-family:DejaVu Sans,Verdana,sans-serif}</style>"
    first, rest = drawn.split(">", 1)
    return head + first.removeprefix("<svg ") + ">" + style + rest + "\n"


def levels(cells: dict[str, list[tuple[int, int]]]) -> str:
    """Shares of false alarms: a dot per cell, a bar for all repetitions of an estimator together."""
    from matplotlib.figure import Figure

    with svg.settings():
        figure = Figure(figsize=(8, 0.9 + 0.36 * len(cells)), layout="constrained")
        axes = figure.subplots()
        said = []
        for row, (name, found) in enumerate(cells.items()):
            made = [(errors / n, n) for errors, n in found if n]
            together = sum(errors for errors, _ in found) / max(sum(n for _, n in found), 1)
            wrong = [(e / n - ALPHA) > 3 * math.sqrt(ALPHA * (1 - ALPHA) / n) for e, n in found if n]
            colors = [VERMILION if bad else GREY for bad in wrong]
            axes.scatter(
                [100 * s for s, _ in made], [row] * len(made), s=10, c=colors, alpha=0.6, linewidths=0
            )
            axes.plot([100 * together] * 2, [row - 0.3, row + 0.3], color=BLUE, linewidth=2.5)
            said.append(f"{name} {together:.1%}")
        axes.axvline(100 * ALPHA, color=VERMILION, linewidth=1)
        axes.set(yticks=range(len(cells)), yticklabels=list(cells), ylim=(len(cells) - 0.5, -0.5))
        axes.set(
            xlim=(-0.3, None),
            xlabel="Bounds above the true epsilon, % (line: nominal; bar: all repetitions; dot: one cell)",
        )
        title = "How often each estimator claims more than is true"
        return standalone(figure, "validity", title, "; ".join(said) + ".")


def medians(rows: dict[str, dict[int, tuple[float, float | None]]], epsilon: float) -> str:
    """Median bounds against the number of observations, and the figures they are held against.

    Args:
        rows: estimator to observations to (median, target or None).
        epsilon: the true one.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    with svg.settings():
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        axes = figure.subplots()
        colors = colormaps["tab20"].colors
        for i, (name, values) in enumerate(rows.items()):
            at = sorted(values)
            color = colors[i % len(colors)]
            axes.plot(at, [values[m][0] for m in at], color=color, label=name, linewidth=1.6, marker=".")
            goals = [(m, target) for m in at if (target := values[m][1]) is not None]
            axes.plot([m for m, _ in goals], [t for _, t in goals], "x", color=color, markersize=6)
        axes.axhline(epsilon, color=VERMILION, linewidth=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set(xlabel="Observations", ylabel="Median lower bound of epsilon", ylim=(0, None))
        figure.legend(loc="outside right upper", frameon=False, fontsize=9)
        said = "; ".join(
            f"{n}: " + ", ".join(f"{v[0]:.2f} at {m}" for m, v in r.items()) for n, r in rows.items()
        )
        title = f"What each estimator shows of a true epsilon of {epsilon:g}; crosses are reference figures"
        return standalone(figure, "tightness", title, said + ".")


def _tables(path: Path) -> list[dict[str, str]]:
    """Rows of the tables of a page, by column."""
    head, rows = None, []
    for line in path.read_text().splitlines() if path.exists() else []:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            head = None
        elif head is None:
            head = cells
        elif not line.startswith("|---"):
            rows.append(dict(zip(head, cells, strict=True)))
    return rows


def main() -> None:
    """Draw both again, tightness from all of its pages; the page with more repetitions comes last."""
    from tightness import DRAWN, DRAWN_EPSILON

    cells: dict[str, list[tuple[int, int]]] = {}
    for row in _tables(RESULTS / "validity.md"):
        for name in list(row)[3:] if "scores" in row else []:
            found = _COUNTED.fullmatch(row[name])
            if found:
                n = int(found[2])
                cells.setdefault(name, []).append((round(float(found[1]) / 100 * n), n))
    (DOCS / "validity.svg").write_text(levels(cells))
    shown: dict[str, dict[int, tuple[float, float | None]]] = {}
    for page in ("tightness.md", "tightness_ranks.md", "tightness_bets.md"):
        for row in _tables(RESULTS / page):
            for name, label in DRAWN.items():
                found = _MEDIAN.fullmatch(row.get(name, ""))
                if found and row["eps"] == str(DRAWN_EPSILON):
                    goal = float(found[2]) if found[2] else None
                    shown.setdefault(label, {})[int(row["m"])] = (float(found[1]), goal)
    (DOCS / "tightness.svg").write_text(medians(shown, DRAWN_EPSILON))


if __name__ == "__main__":
    main()
