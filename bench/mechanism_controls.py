"""False alarms, planted faults and gross ones: the counts beside the table of mechanisms."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
from mechanism_rows import Rounded, known

from dpaudit.domains import parse
from dpaudit.mechanism import Settings, audit_mechanism
from dpaudit.mechanism.confirmation import CONFIRM_STAGE
from dpaudit.mechanism.pairs import Screen, counted, expected_rate
from dpaudit.stats.binomial import upper
from dpaudit.stats.event_test import refutes
from dpaudit.stats.guarantees import ApproximateDP
from dpaudit.targets.releases.calls import call_of
from dpaudit.targets.releases.drawing import InlineDrawer

ALPHA = 0.01
PLANTED = ("no-lower-clip", "nan", "empty", "true-count", "int8", "quiet-cap", "half-scale")
GROSS = ("noisy-hist-2", "planted-half-scale", "svt-5")
SHARP = ("randomised-response", "truncated-geometric", "geometric", "noisy-max-2", "laplace")
"""Sound mechanisms on whose patterns an event lies on the claimed line or near it: the hardest nulls."""
_CHOSEN, _CONFIRMED = 20_000, 400
_SMALL = Settings(samples=4_000, examples=30)


def planted(seeds: int) -> list[str]:
    """Each planted fault under several seeds, with default settings."""
    lines = ["| planted fault | found | median seconds | pairs tried | outputs a side in confirmation |"]
    lines.append("|---|--:|--:|--:|--:|")
    for name in PLANTED:
        audits = [audit_mechanism(known(f"planted-{name}"), settings=Settings(seed=s)) for s in range(seeds)]
        found = sum(str(audit.verdict.status) == "REFUTED" for audit in audits)
        sides = [a.confirmations[0].counts.trials if a.confirmations else 0 for a in audits]
        lines.append(
            f"| {name} | {found} of {seeds} | {np.median([a.seconds for a in audits]):.2f} "
            f"| {np.median([a.examples for a in audits]):.0f} | {np.median(sides):.0f} |"
        )
        print(lines[-1], flush=True)
    return lines


def gross() -> list[str]:
    """Gross faults with default settings: how soon."""
    lines = ["| gross fault | verdict | seconds | outputs a side in confirmation |", "|---|---|--:|--:|"]
    for name in GROSS:
        start = time.perf_counter()
        made = known(name)
        audit = audit_mechanism(Rounded(inner=made) if name.startswith("noisy") else made)
        trials = audit.confirmations[0].counts.trials if audit.confirmations else 0
        lines.append(f"| {name} | {audit.verdict.status} | {time.perf_counter() - start:.2f} | {trials:,} |")
        print(lines[-1], flush=True)
    return lines


def searched(seed: int) -> bool:
    """Whether one whole search of the sound control ends in an accusation."""
    settings = Settings(samples=_SMALL.samples, examples=_SMALL.examples, seed=seed)
    return str(audit_mechanism(known("planted-control"), settings=settings).verdict.status) == "REFUTED"


def above(name: str, replications: Sequence[int]) -> int:
    """How many bounds of one fixed event exceed the exact epsilon.

    The event is chosen once; each confirmation sees outputs of its own, and is that of a full audit, which
    looks once. The claim is set to the exact epsilon, so that a refutation is a bound above it.
    """
    made = known(name)
    if name == "laplace":
        made = Rounded(inner=made)
    inner = getattr(made, "inner", made)
    claim = ApproximateDP(claimed=inner.exact_epsilon())
    pair = parse(made.domain, inside=True).patterns[0]
    screen = Screen(drawer=InlineDrawer(call=call_of(made)), guarantee=claim, size=_CHOSEN, root=10**6)
    tried = screen.look(pair)
    if tried.choice is None:
        return 0
    wrong = 0
    line = claim.line(claim.claimed, expected_rate(tried.choice.counts))
    for root in replications:
        screen.root = root
        fresh = screen.samples(tried, CONFIRM_STAGE, _CONFIRMED)
        wrong += refutes(counted(tried.choice, fresh.first, fresh.second), line, ALPHA)
    return wrong


def attained(replications: int, searches: int, processes: int) -> list[str]:
    """The share of bounds above the truth, by mechanism, and of false alarms of whole searches."""
    parts = [range(i, replications, processes) for i in range(processes)]
    lines = ["| what | wrong | of | level attained (95 % upper limit) | stated |", "|---|--:|--:|--:|--:|"]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for name in SHARP:
            wrong = sum(pool.map(partial(above, name), parts))
            lines.append(counted_line(f"bound above exact: {name}", wrong, replications))
            print(lines[-1], flush=True)
        wrong = sum(pool.map(searched, range(searches), chunksize=10))
        lines.append(counted_line("false alarms: search of planted-control", wrong, searches))
        print(lines[-1], flush=True)
    return lines


def counted_line(what: str, wrong: int, of: int) -> str:
    """One count with its limit."""
    limit = float(upper(wrong, of, 0.05))
    return f"| {what} | {wrong} | {of} | {wrong / of:.4f} ({limit:.4f}) | {ALPHA} |"
