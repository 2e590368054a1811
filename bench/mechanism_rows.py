"""The mechanisms of the benchmark, what is known of each, and one audit as a row."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpaudit.errors import UsageError
from dpaudit.mechanism import MechanismAudit, Settings, audit_mechanism
from dpaudit.mechanism.verdicts import strongest
from dpaudit.registry import LIBRARY_MECHANISMS, MECHANISMS, resolve
from dpaudit.targets.mechanisms.exact import epsilon_over
from dpaudit.targets.mechanisms.patterns import patterns

GRID = 2.0**-10


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounded:
    """A release rounded to multiples of 1/1024: post-processing that hides the low bits of floats.

    It measures the real-valued mechanism, whose privacy it cannot lessen.

    Attributes:
        inner: the mechanism.
    """

    inner: Any

    @property
    def epsilon(self) -> float:
        """Claimed of the mechanism."""
        return float(self.inner.epsilon)

    @property
    def delta(self) -> float:
        """Claimed of the mechanism."""
        return float(self.inner.delta)

    @property
    def domain(self) -> str:
        """Of the mechanism."""
        return str(self.inner.domain)

    def sample(self, data: Any, size: int, rng: np.random.Generator) -> Any:
        """Rounded outputs (size, ...)."""
        return np.rint(np.asarray(self.inner.sample(data, size, rng), dtype=np.float64) / GRID) * GRID


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A mechanism and what is asked of its audit.

    Attributes:
        name: in the table of known mechanisms.
        samples: outputs of the whole audit.
        sound: whether its claim holds.
        rounded: whether the twin on a grid is audited.
        floats: whether floats are released as they are, which has no exact epsilon.
        least: bound that is asked for; 0 for none.
        reached: bound of DP-Sniper (Bichsel et al. 2021), with its published setting.
    """

    name: str
    samples: int = 300_000
    sound: bool = True
    rounded: bool = False
    floats: bool = False
    least: float = 0.0
    reached: float | None = None

    @property
    def title(self) -> str:
        """With a mark where it is the twin."""
        return f"{self.name} (on a grid)" if self.rounded else self.name

    def made(self) -> Any:
        """The mechanism or its twin."""
        inner = known(self.name)
        return Rounded(inner=inner) if self.rounded else inner


CASES = (
    Case(name="laplace", samples=2_000_000, rounded=True, least=0.09, reached=0.0976),
    Case(name="truncated-geometric", samples=2_000_000, least=0.106, reached=0.1156),
    Case(name="noisy-hist-1", samples=5_000_000, rounded=True, least=0.09, reached=0.0978),
    Case(name="noisy-max-1", samples=5_000_000, least=0.0851, reached=0.0925),
    Case(name="noisy-max-2", samples=5_000_000, least=0.09, reached=0.0979),
    Case(name="svt-1", samples=5_000_000, least=0.0797, reached=0.0858),
    Case(name="svt-2", samples=5_000_000, least=0.0794, reached=0.0859),
    Case(name="rappor", reached=0.3008),
    Case(name="one-time-rappor", reached=0.5999),
    Case(name="laplace-parallel", rounded=True, reached=0.0350),
    Case(name="numerical-svt", rounded=True, reached=0.0345),
    Case(name="exponential"),
    Case(name="gaussian", rounded=True),
    Case(name="geometric"),
    Case(name="free-gap-svt", rounded=True),
    Case(name="noisy-hist-2", samples=2_000_000, sound=False, rounded=True, least=9.0, reached=4.602),
    Case(name="noisy-max-3", samples=8_000_000, sound=False, rounded=True, least=0.225, reached=0.2488),
    Case(name="noisy-max-4", samples=3_000_000, sound=False, rounded=True),
    Case(name="svt-3", samples=20_000_000, sound=False, rounded=True, least=0.1822, reached=0.1822),
    Case(name="svt-4", samples=10_000_000, sound=False, least=0.15, reached=0.1696),
    Case(name="svt-5", samples=5_000_000, sound=False, least=9.0, reached=1.761),
    Case(name="svt-6", samples=3_000_000, sound=False),
    Case(
        name="svt-34-parallel",
        samples=20_000_000,
        sound=False,
        rounded=True,
        least=0.2616,
        reached=0.2616,
    ),
    Case(name="prefix-sum", sound=False, rounded=True, reached=0.5774),
    Case(name="partial-sum", sound=False, rounded=True),
    Case(name="gap-svt", samples=40_000_000, sound=False, rounded=True),
    Case(name="mean-1", samples=200_000, sound=False, rounded=True),
    Case(name="mean-2", samples=2_000_000, sound=False, rounded=True),
    Case(name="gradient-step-batch-clip", samples=200_000, sound=False, rounded=True),
    Case(name="laplace", samples=40_000, sound=False, floats=True, least=4.0, reached=0.2521),
)
"""Floats are released as they are in the last one alone, whose low bits tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One audit.

    Attributes:
        case: what was audited.
        audit: what came out.
        seconds: wall clock.
        busy: seconds of processor time, which a shared machine does not lengthen.
    """

    case: Case
    audit: MechanismAudit
    seconds: float
    busy: float

    @property
    def bound(self) -> float:
        """Largest lower bound that was confirmed."""
        return max((each.lower for each in self.audit.confirmations), default=0.0)

    @property
    def event(self) -> str:
        """Of the strongest confirmation."""
        found = self.audit.confirmations
        return strongest(found).tried.event_words if found else "none"

    @property
    def met(self) -> bool:
        """Whether the verdict is right and the bound as large as asked."""
        wrong = (str(self.audit.verdict.status) == "REFUTED") is self.case.sound
        return not wrong and self.bound >= self.case.least


def known(name: str) -> Any:
    """A mechanism by its name, of the project or of a library."""
    return resolve("mechanism", name, {**MECHANISMS, **LIBRARY_MECHANISMS})()


def audited(case: Case, seed: int, *, stop_early: bool = False, samples: int | None = None) -> Row:
    """Audit one case with the usual number of pairs."""
    start, busy = time.perf_counter(), time.process_time()
    settings = Settings(samples=samples or case.samples, seed=seed, stop_early=stop_early)
    audit = audit_mechanism(case.made(), name=case.title, settings=settings)
    return Row(
        case=case,
        audit=audit,
        seconds=time.perf_counter() - start,
        busy=time.process_time() - busy,
    )


def exact(mechanism: Any) -> tuple[float | None, float | None]:
    """Exact epsilon at the claimed delta: over the published patterns, and over all neighbours."""
    inner = getattr(mechanism, "inner", mechanism)
    return _over_patterns(inner), _over_all(inner)


def _over_patterns(inner: Any) -> float | None:
    if not hasattr(inner, "pair_epsilon") or not hasattr(inner, "dimension"):
        return None
    try:
        return epsilon_over(inner, patterns(inner.dimension), inner.delta)
    except UsageError:
        return None


def _over_all(inner: Any) -> float | None:
    try:
        found = inner.exact_epsilon(inner.delta) if hasattr(inner, "exact_epsilon") else None
    except UsageError:
        found = None
    return getattr(inner, "epsilon_limit", None) if found is None else found


def table(rows: list[Row]) -> list[str]:
    """Markdown rows."""
    lines = [
        "| mechanism | seconds | (busy) | outputs | bound | exact: patterns / all | claim | asked "
        "| DP-Sniper | verdict | met | event |",
        "|---|--:|--:|--:|--:|---|--:|--:|--:|---|---|---|",
    ]
    for row in rows:
        case, audit = row.case, row.audit
        some, every = exact(case.made()) if not case.floats else (None, math.inf)
        lines.append(
            f"| {case.title} | {row.seconds:.1f} | {row.busy:.1f} | {audit.outputs:,} | {row.bound:.4f} "
            f"| {number(some)} / {number(every)} | {number(audit.guarantee.claimed)} "
            f"| {number(case.least or None)} | {number(case.reached)} | {audit.verdict.status} "
            f"| {'yes' if row.met else 'NO'} | {row.event.replace('|', '/')[:70]} |"
        )
    return lines


def number(value: float | None) -> str:
    """Four digits, or a dash."""
    return "-" if value is None else f"{value:.4g}"
