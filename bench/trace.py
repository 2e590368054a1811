"""What observation costs: the digits script alone and under `dpaudit trace`, as a ratio of CPU seconds.

Run `python bench/trace.py`; the table goes to bench/results/trace.md. Accounting, judging and the report are
part of the traced runs, which therefore cost a few seconds however short the script is.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from zoo import machine

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "examples" / "train_digits.py"
RESULTS = Path(__file__).parent / "results" / "trace.md"
WAYS = {
    "alone": [],
    "traced": ["-m", "dpaudit", "trace", "--quiet"],
    "traced, --no-canaries": ["-m", "dpaudit", "trace", "--quiet", "--no-canaries"],
}


def seconds(way: list[str], epochs: int) -> tuple[float, float]:
    """CPU and wall seconds of one run in a folder of its own."""
    command = [sys.executable, "-W", "ignore", *way, str(SCRIPT), "--epochs", str(epochs)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        before, start = os.times(), time.perf_counter()
        subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
        after = os.times()
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    return spent, time.perf_counter() - start


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for _ in range(arguments.repeats):
        for name, way in WAYS.items():
            spent[name].append(seconds(way, arguments.epochs))
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in spent.items()
    }
    lines = [
        "# What observation costs",
        "",
        machine(),
        "",
        f"`examples/train_digits.py --epochs {arguments.epochs}`, medians of {arguments.repeats}; "
        f"load average {os.getloadavg()[0]:.1f} at the end.",
        "",
        "| | CPU seconds | ratio | wall seconds |",
        "|---|--:|--:|--:|",
        *(
            f"| {name} | {cpu:.1f} | {cpu / medians['alone'][0]:.2f} | {wall:.1f} |"
            for name, (cpu, wall) in medians.items()
        ),
    ]
    print("\n".join(lines))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
