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

THREADS = {
    "one thread": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    "as many threads as there are cores": {},
}


def seconds(way: list[str], epochs: int, threads: dict[str, str]) -> tuple[float, float]:
    """CPU and wall seconds of one run in a folder of its own."""
    command = [sys.executable, "-W", "ignore", *way, str(SCRIPT), "--epochs", str(epochs)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **threads}
    with tempfile.TemporaryDirectory() as folder:
        before, start = os.times(), time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
        wall, after = time.perf_counter() - start, os.times()
    if done.returncode not in (0, 1):  # One audit in twenty may refute what is right.
        raise SystemExit(done.stderr.decode())
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    return spent, wall


def table(epochs: int, repeats: int, threads: dict[str, str]) -> list[str]:
    """Markdown rows: medians, and ratios to the script alone."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for _ in range(repeats):
        for name, way in WAYS.items():
            spent[name].append(seconds(way, epochs, threads))
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in spent.items()
    }
    cpu, wall = medians["alone"]
    lines = ["| | CPU seconds | ratio | wall seconds | ratio |", "|---|--:|--:|--:|--:|"]
    for name, (own, took) in medians.items():
        lines.append(f"| {name} | {own:.1f} | {own / cpu:.2f} | {took:.1f} | {took / wall:.2f} |")
    return lines


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    lines = ["# What observation costs", "", machine(), ""]
    for words, threads in THREADS.items():
        rows = table(arguments.epochs, arguments.repeats, threads)
        what = f"`examples/train_digits.py --epochs {arguments.epochs}`"
        lines.append(f"{what}, medians of {arguments.repeats}, {words}:")
        lines += ["", *rows, ""]
    lines.append(f"Load average {os.getloadavg()[0]:.1f} at the end.")
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
