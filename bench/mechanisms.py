"""Falsify every mechanism of the benchmark, sound and broken, and compare with what is known exactly.

Run `python bench/mechanisms.py`; the tables go to bench/results/mechanisms.md. `--only svt-4,opendp/laplace`
audits these alone, and `--skip peers,libraries,planted,gross,level,cases` leaves parts out; a part that is
run alone replaces its own section of the page. `--replications` and `--searches` say how many confirmations
and whole searches the attained level is counted over. Nothing here tells an audit what it looks at. Sound
mechanisms that release floats are rounded to multiples of 1/1024 first, which is post-processing: the low
bits of a float refute them rightly, and would hide what is to be measured.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import mechanism_controls as controls
import mechanism_peers as peers
import numpy as np
from mechanism_rows import CASES, Row, audited, known, table

from dpaudit.errors import UsageError
from dpaudit.mechanism import Settings, audit_mechanism
from dpaudit.mechanism.verdicts import strongest
from dpaudit.registry import LIBRARY_MECHANISMS

RESULTS = Path(__file__).parent / "results" / "mechanisms.md"
PARTS = ("cases", "planted", "gross", "libraries", "peers", "level")
MUST_HOLD = (
    "opendp/laplace",
    "opendp/noisy-max",
    "diffprivlib/snapping",
    "diffprivlib/geometric",
    "diffprivlib/gaussian-discrete",
)
MUST_FALL = {"diffprivlib/laplace": 5.0}
PEER_SAMPLES, PEER_RUNS = 100_000, 3


def compared(row: Row, seed: int = 0) -> list[str]:
    """What each peer says on the pair that the audit found, on as many outputs as it likes up to 100,000."""
    if not row.audit.confirmations or row.audit.guarantee.delta:
        return []
    pair = strongest(row.audit.confirmations).tried.pair
    made, claim = row.case.made(), row.audit.guarantee.claimed
    cells = []
    for name, peer in peers.PEERS.items():
        if name.startswith("privacy-estimates") and not installed():
            cells.append("not installed")
            continue
        found = [
            peer(made.sample, pair.first, pair.second, claim, PEER_SAMPLES, np.random.default_rng([seed, i]))
            for i in range(PEER_RUNS)
        ]
        bounds = [each.bound for each in found if each.bound is not None]
        shown = f"{np.median(bounds):.4g}, " if bounds else ""
        flagged = sum(each.refuted for each in found)
        cells.append(f"{shown}{flagged} of {PEER_RUNS}" if all(each.applies for each in found) else "-")
    truth = "sound" if row.case.sound else "broken"
    return [f"| {row.case.title} | {truth} | {row.bound:.4g} | {' | '.join(cells)} |"]


def installed() -> bool:
    """Whether privacy-estimates and what it imports are there."""
    return all(find_spec(name) is not None for name in ("privacy_estimates", "statsmodels", "pandas"))


def library_row(name: str, seed: int) -> str:
    """One target of a library: default search, few outputs."""
    full = name in MUST_FALL
    settings = Settings(
        samples=20_000 if full else 3_000, examples=20, seconds=4.0, seed=seed, stop_early=not full
    )
    start = time.perf_counter()
    try:
        audit = audit_mechanism(known(name), name=name, settings=settings)
    except UsageError as error:
        return f"| {name} | not run | | | | {str(error)[:80]} | |"
    lower = max((each.lower for each in audit.confirmations), default=0.0)
    flagged = str(audit.verdict.status) == "REFUTED"
    right = ""
    if name in MUST_HOLD:
        right = "NO" if flagged else "yes"
    elif name in MUST_FALL:
        right = "yes" if flagged and lower >= MUST_FALL[name] else "NO"
    event = strongest(audit.confirmations).tried.event_words if audit.confirmations else "none"
    return (
        f"| {name} | {audit.verdict.status} | {time.perf_counter() - start:.1f} "
        f"| {lower:.4g} | {audit.guarantee.claimed:.4g} | {event.replace('|', '/')[:80]} | {right} |"
    )


def sections(
    parts: Sequence[str], only: set[str], seed: int, replications: tuple[int, int], processes: int
) -> list[str]:
    """All tables; cases and libraries are spread over processes."""
    lines: list[str] = []
    cases = [case for case in CASES if "cases" in parts and (not only or case.name in only)]
    rows: list[Row] = []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for row in pool.map(partial(audited, seed=seed), cases):
            rows.append(row)
            print(table([row])[-1], flush=True)
        if rows:
            met = sum(row.met for row in rows)
            lines += ["", "## Mechanisms", "", f"{met} of {len(rows)} met what was asked.", "", *table(rows)]
        if "libraries" in parts:
            names = [name for name in LIBRARY_MECHANISMS if not only or name in only]
            lines += [
                "",
                "## Libraries",
                "",
                "| target | verdict | seconds | bound | claim | event | right |",
            ]
            lines.append("|---|---|--:|--:|--:|---|---|")
            for line in pool.map(partial(library_row, seed=seed), names):
                lines.append(line)
                print(line, flush=True)
        if "peers" in parts and rows:
            lines += ["", "## Peers", "", *peers_head()]
            for found in pool.map(compared, rows):
                lines += found
    if "planted" in parts:
        lines += ["", "## Planted faults", "", *controls.planted(5)]
    if "gross" in parts:
        lines += ["", "## Gross faults", "", *controls.gross()]
    if "level" in parts:
        lines += ["", "## Level", "", *controls.attained(*replications, processes)]
    return lines


def peers_head() -> list[str]:
    """Of the table of peers."""
    return [
        f"On the pair that the audit found, {PEER_SAMPLES:,} outputs a side: median bound, and how many of "
        f"{PEER_RUNS} runs at level {peers.ALPHA} called the claim false; - where a peer cannot read the "
        "outputs. Where a mechanism is sound, each is a false alarm. Bounds of ours use the outputs of the "
        "first table, search included.",
        "",
        f"| mechanism | truth | ours | {' | '.join(peers.PEERS)} |",
        f"|---|---|--:|{'---|' * len(peers.PEERS)}",
    ]


def merged(page: Path, head: Sequence[str], lines: Sequence[str]) -> list[str]:
    """The page with the sections that were measured anew, and the others as they stood."""
    old = page.read_text(encoding="utf-8").split("\n## ")[1:] if page.exists() else []
    found = {part.partition("\n")[0]: part for part in [*old, *"\n".join(["", *lines]).split("\n## ")[1:]]}
    return [*head, *(f"## {part.rstrip()}\n" for part in found.values())]


def machine() -> str:
    """Where and with what this was measured."""
    today = datetime.datetime.now(datetime.UTC).date()
    names = ("numpy", "scipy", "scikit-learn", "hypothesis")
    parts = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{today}, {os.cpu_count()} cores, Python {platform.python_version()}, {parts}"


def main() -> None:
    """Audit, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names of mechanisms, with commas between")
    parser.add_argument("--skip", default="", help=f"parts to leave out: {', '.join(PARTS)}")
    parser.add_argument("--replications", type=int, default=1000)
    parser.add_argument("--searches", type=int, default=1000, help="of the sound control")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    only = {name for name in arguments.only.split(",") if name}
    skipped = {name for name in arguments.skip.split(",") if name}
    parts = [part for part in PARTS if part not in skipped]
    if only:
        parts = [part for part in parts if part in ("cases", "libraries", "peers")]
    replications = (arguments.replications, arguments.searches)
    start = time.perf_counter()
    lines = sections(parts, only, arguments.seed, replications, arguments.processes)
    took = time.perf_counter() - start
    head = [
        "# Mechanisms",
        "",
        machine(),
        "",
        f"All of it took {took:.0f} s in {arguments.processes} processes.",
    ]
    head += ["`(busy)` is processor time, which other work on the same machine lengthens less.", ""]
    print(f"{took:.0f} s")
    if not only or arguments.out != RESULTS:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text("\n".join(merged(arguments.out, head, lines)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
