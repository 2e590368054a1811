"""What each kind of access shows of one claim: white-box, chosen initial weights, and natural final models.

Run `python bench/access.py`; the table goes to bench/results/access.md and the figure to docs/access.svg. The
private model is the built-in network on scikit-learn's digits, trained by Opacus; every number is that of an
ordinary audit. `--models 1000` trains more models from chosen initial weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from figures import DOCS, RESULTS, standalone
from scipy.optimize import brentq
from zoo import machine

from dpaudit.accounting import pld_epsilon
from dpaudit.claim import Adjacency, Phase
from dpaudit.plan import parse
from dpaudit.record import AuditRecord, load
from dpaudit.reports import svg
from dpaudit.reports.drawing import BLUE, GREY, VERMILION
from dpaudit.run import Job, run

DELTA, EPOCHS, BATCHES = 1e-5, 20, 4
WAYS = {
    "replay": "white-box: noise measured in re-executed steps",
    "step-canary": "white-box: canary gradients in re-executed steps",
    "worst-case": "final models from chosen initial weights, one blank record",
    "lira": "final models, mislabelled records among natural ones",
}


def noise_for(epsilon: float) -> float:
    """Noise multiplier whose run is worth this epsilon, by PLD."""

    def excess(sigma: float) -> float:
        phase = Phase(noise_multiplier=sigma, sample_rate=1 / BATCHES, steps=EPOCHS * BATCHES)
        return pld_epsilon((phase,), DELTA, Adjacency.ADD_REMOVE, coarsest=3e-3) - epsilon

    return float(brentq(excess, 0.5, 20.0, xtol=1e-3))


def audited(sigma: float, canaries: int, attacks: dict[str, Any]) -> AuditRecord:
    """One audit of the built-in private target."""
    document = {
        "seed": 1,
        "data": {"canaries": canaries},
        "compute": {"device": "auto"},
        "recipe": {"hidden": [32], "epochs": EPOCHS, "batch_size": 220, "learning_rate": 0.5},
        "targets": [
            {"name": "private", "role": "audited", "train": "opacus", "options": {"noise_multiplier": sigma}}
        ],
        "attacks": attacks,
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        plan = parse(document, "bench/access.py")
        list(run(Job(plan=plan, plan_text="", plan_folder=out, out=out, command="bench/access.py")))
        return load(out)


def bounds(record: AuditRecord) -> dict[str, tuple[float, int]]:
    """Bound and number of observations of each attack's own line."""
    found = {}
    for estimate in record.targets[0].estimates:
        if estimate.guarantee and estimate.source in WAYS:
            shown = (estimate.epsilon_lower or 0.0, estimate.n_observations)
            found[estimate.source] = max(shown, found.get(estimate.source, shown))
    return found


def draw(rows: dict[float, dict[str, tuple[float, int]]]) -> str:
    """Each way against the claim."""
    from matplotlib.figure import Figure

    with svg.settings():
        figure = Figure(figsize=(8, 4.4), layout="constrained")
        axes = figure.subplots()
        claims = sorted(rows)
        axes.plot(claims, claims, color=VERMILION, linewidth=1, label="the claim")
        styles = (("o", "-", BLUE), ("s", "--", BLUE), ("D", "-", "black"), ("v", "--", GREY))
        for (way, words), (marker, line, color) in zip(WAYS.items(), styles, strict=True):
            shown = [rows[claim][way][0] for claim in claims]
            axes.plot(claims, shown, marker=marker, linestyle=line, color=color, label=words)
        axes.set(xlabel="Claimed epsilon (delta = 1e-5)", ylabel="Lower bound of epsilon, 95 %")
        axes.set(xlim=(0, None), ylim=(0, None))
        axes.legend(frameon=False, fontsize=9)
        said = "; ".join(
            f"claim {claim:g}: " + ", ".join(f"{way} {rows[claim][way][0]:.2f}" for way in WAYS)
            for claim in claims
        )
        return standalone(figure, "access", "What each kind of access shows of one claim", said + ".")


def main() -> None:
    """Measure, print, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--claims", default="1,2,4,10")
    parser.add_argument("--models", type=int, default=300)
    arguments = parser.parse_args()
    rows: dict[float, dict[str, tuple[float, int]]] = {}
    lines = [
        "# What each kind of access shows",
        "",
        machine(),
        "",
        "| claim | noise multiplier | way | bound | observations | seconds |",
        "|--:|--:|---|--:|--:|--:|",
    ]
    for epsilon in [float(part) for part in arguments.claims.split(",")]:
        sigma, found = noise_for(epsilon), {}
        for canaries, attacks in (
            (0, {"replay": {}}),
            (0, {"step-canary": {"replays": 60}}),
            (0, {"worst-case": {"models": arguments.models}}),
            (200, {"lira": {"shadows": 64}}),
        ):
            start = time.perf_counter()
            found |= bounds(audited(sigma, canaries, attacks))
            way, seconds = next(iter(attacks)), time.perf_counter() - start
            shown, n = found[way]
            lines.append(f"| {epsilon:g} | {sigma:.3f} | {WAYS[way]} | {shown:.2f} | {n:,} | {seconds:.0f} |")
            print(lines[-1], flush=True)
        rows[epsilon] = found
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "access.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (DOCS / "access.svg").write_text(draw(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
