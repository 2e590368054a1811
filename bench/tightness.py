"""How much of a true epsilon each estimator shows: medians on exact Gaussian claims, beside their targets.

Run `python bench/tightness.py`: tables go to bench/results/tightness.md, the figure to docs/tightness.svg.
Scores are those of a tight attack on a Gaussian mechanism of the claimed epsilon at delta = 1e-5, so that
nothing is missing but observations. A cell stops after `--seconds`, whatever the repetitions so far.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import figures
import numpy as np
from references import RANK_TARGETS, TARGETS
from scipy.special import ndtr, ndtri

from dpaudit.accounting import EpsilonDeltaFamily, GaussianFamily
from dpaudit.claim import Adjacency
from dpaudit.estimate import Estimate
from dpaudit.evidence import Access, KnownNull, OneRun, TwoSample
from dpaudit.stats import credible, evalues, known_null, one_run, parametric, splits, two_sample
from dpaudit.stats.binomial import lower, upper
from dpaudit.stats.guessing import accuracy_allowed, curve_rejects, pure_tail
from dpaudit.stats.inversion import epsilon_at
from dpaudit.stats.ranks import normal_score, sum_law
from dpaudit.stats.tradeoff import Gaussian, gaussian_mu

ALPHA, DELTA = 0.05, 1e-5
REFERENCES = 100_000
RESULTS = Path(__file__).parent / "results" / "tightness.md"
FIGURE = Path(__file__).parent.parent / "docs" / "tightness.svg"
DRAWN_EPSILON = 8
DRAWN = {
    "fixed": "known null, fixed",
    "anytime": "known null, anytime",
    "e": "runs, betting, learned",
    "e*": "runs, betting, planned",
    "ggrid": "runs, grid, Gaussian claim",
    "grid": "runs, grid, (ε, δ)",
    "bet": "runs, betting, (ε, δ)",
    "MMC default": "one run, Gaussian claim",
    "SNJ default": "one run, (ε, δ)",
}

Cell = tuple[float, float, int]
"""Median, its Monte-Carlo error, repetitions."""

MEANING = {
    "CP*": "Clopper-Pearson at the best threshold, both directions, (epsilon, delta)",
    "split": "split sample, (epsilon, delta)",
    "multi": "median of 33 split samples, (epsilon, delta)",
    "grid": "order-statistic grid, (epsilon, delta)",
    "ZB": "joint-beta posterior at the best threshold: credible, not a guarantee",
    "bet": "certified betting that learns, (epsilon, delta), anytime",
    "gCP*": "as CP*, Gaussian claim",
    "gsplit": "as split, Gaussian claim",
    "gmulti": "as multi, Gaussian claim",
    "ggrid": "as grid, Gaussian claim",
    "e*": "certified betting with the right plan, Gaussian claim, anytime",
    "e": "certified betting that learns, Gaussian claim, anytime",
    "t": "normal scores, non-central t: not a guarantee",
    "SNJ": "one run, (epsilon, delta), best number of guesses",
    "SNJ default": "one run, (epsilon, delta), default numbers of guesses",
    "SNJ expected": "as SNJ, if as many guesses are right as expected, which the reference assumes",
    "MMC expected": "as MMC, likewise",
    "MMC": "one run, Gaussian claim, best number of guesses",
    "MMC default": "one run, Gaussian claim, default numbers of guesses",
}


def families(epsilon: float, adjacency: Adjacency) -> tuple[GaussianFamily, EpsilonDeltaFamily]:
    """The Gaussian and the bare family around a claim, which itself is left out: only bounds are wanted."""
    mu = gaussian_mu(epsilon, DELTA)
    return (
        GaussianFamily(mu=mu, delta=DELTA, adjacency=adjacency),
        EpsilonDeltaFamily(base_epsilon=epsilon, delta=DELTA, adjacency=adjacency),
    )


def best_threshold(epsilon: float, n: int, *, bare: bool) -> float:
    """Where Clopper-Pearson would show most if counts were their expectations; an oracle."""
    mu, t = gaussian_mu(epsilon, DELTA), np.linspace(-2, 6, 161)
    tpr = lower(np.floor(n * ndtr(mu - t)), n, ALPHA / 4)
    fpr = upper(np.ceil(n * ndtr(-t)), n, ALPHA / 4)
    value = np.log(np.maximum(tpr - DELTA, 1e-300) / fpr) if bare else ndtri(tpr) - ndtri(fpr)
    return float(t[np.argmax(value)])


def two_sample_methods(epsilon: int, m: int) -> dict[str, Callable[[np.random.Generator], Estimate]]:
    mu, n = gaussian_mu(epsilon, DELTA), m // 2
    gaussian, bare = families(epsilon, Adjacency.ADD_REMOVE)
    at = {kind: best_threshold(epsilon, n, bare=kind) for kind in (True, False)}
    plan = evalues.ScorePlan(centre=mu / 2, spread=1.0, mu=mu)

    def drawn(rng: np.random.Generator) -> TwoSample:
        return TwoSample(
            scores_in=rng.normal(mu, 1.0, n),
            scores_out=rng.normal(size=n),
            source="tightness",
            access=Access.FINAL_MODEL,
        )

    return {
        "CP*": lambda r: two_sample.at_threshold(drawn(r), bare, at[True], alpha=ALPHA),
        "split": lambda r: splits.split_sample(drawn(r), bare, alpha=ALPHA, rng=r),
        "multi": lambda r: splits.multi_split(drawn(r), bare, alpha=ALPHA, rng=r),
        "grid": lambda r: two_sample.grid(drawn(r), bare, alpha=ALPHA),
        "ZB": lambda r: credible.joint_beta(drawn(r), bare, at[True], alpha=ALPHA),
        "bet": lambda r: evalues.anytime(drawn(r), bare, alpha=ALPHA),
        "gCP*": lambda r: two_sample.at_threshold(drawn(r), gaussian, at[False], alpha=ALPHA),
        "gsplit": lambda r: splits.split_sample(drawn(r), gaussian, alpha=ALPHA, rng=r),
        "gmulti": lambda r: splits.multi_split(drawn(r), gaussian, alpha=ALPHA, rng=r),
        "ggrid": lambda r: two_sample.grid(drawn(r), gaussian, alpha=ALPHA),
        "e*": lambda r: evalues.anytime(drawn(r), gaussian, alpha=ALPHA, plan=plan),
        "e": lambda r: evalues.anytime(drawn(r), gaussian, alpha=ALPHA),
        "t": lambda r: parametric.gauss_t(drawn(r), gaussian, alpha=ALPHA),
    }


def one_run_methods(epsilon: int, m: int) -> dict[str, Callable[[np.random.Generator], Estimate] | float]:
    mu = gaussian_mu(epsilon, DELTA)
    gaussian, bare = families(epsilon, Adjacency.REPLACE_ONE)

    def drawn(rng: np.random.Generator) -> OneRun:
        inside = rng.random(m) < 0.5
        return OneRun(
            scores=rng.normal(size=m) + mu * inside,
            included=inside,
            source="tightness",
            access=Access.FINAL_MODEL,
        )

    (for_bare, bare_bound), (for_curve, curve_bound) = expected_counts(epsilon, m)
    return {
        "SNJ": lambda r: one_run.epsilon_delta(drawn(r), bare, alpha=ALPHA, guesses=for_bare),
        "SNJ default": lambda r: one_run.epsilon_delta(drawn(r), bare, alpha=ALPHA),
        "MMC": lambda r: one_run.f_dp(drawn(r), gaussian, alpha=ALPHA, guesses=for_curve),
        "MMC default": lambda r: one_run.f_dp(drawn(r), gaussian, alpha=ALPHA),
        "SNJ expected": bare_bound,
        "MMC expected": curve_bound,
    }


def expected_counts(epsilon: int, m: int) -> tuple[tuple[int, float], tuple[int, float]]:
    """Best number of guesses, and its bound, if as many are right as is expected: bare and Gaussian claim."""
    law = Gaussian(mu=gaussian_mu(epsilon, DELTA))
    made = np.unique(np.geomspace(2, m, 60).astype(np.int64))
    right = np.round(made * accuracy_allowed(law, canaries=m, guesses=made)).astype(np.int64)
    level = np.full(made.size, ALPHA)

    def refuted(e: np.ndarray, bare: bool) -> np.ndarray:
        each = range(made.size)
        if bare:
            return np.array(
                [
                    pure_tail(e[i], DELTA, canaries=m, guesses=made[[i]], correct=right[[i]])[0] < ALPHA
                    for i in each
                ]
            )
        return np.array(
            [
                curve_rejects(
                    Gaussian(mu=gaussian_mu(float(e[i]), DELTA)),
                    canaries=m, guesses=made[[i]], correct=right[[i]], level=level[[i]],
                )[0]
                for i in each
            ]
        )  # fmt: skip

    found = []
    for bare in (True, False):
        low, high = np.zeros(made.size), np.full(made.size, 2.0 * epsilon + 2)
        for _ in range(14):
            middle = (low + high) / 2
            beyond = refuted(middle, bare)
            low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
        found.append((int(made[low.argmax()]), float(low.max())))
    return found[0], found[1]


def rank_methods(epsilon: int, m: int) -> dict[str, Callable[[np.random.Generator], Estimate] | Cell]:
    gaussian, _ = families(epsilon, Adjacency.ADD_REMOVE)

    def drawn(rng: np.random.Generator) -> KnownNull:
        above = rng.binomial(REFERENCES, ndtr(-rng.normal(gaussian.mu, 1.0, m)))
        return KnownNull(
            p_values=(1 + above) / (REFERENCES + 1),
            n_references=REFERENCES,
            unit="run",
            source="tightness",
            access=Access.FINAL_MODEL,
        )

    return {
        "fixed": fixed_ranks(gaussian, m),
        "anytime": lambda r: known_null.anytime(drawn(r), gaussian, alpha=ALPHA),
    }


def fixed_ranks(family: GaussianFamily, m: int) -> Cell:
    """Bound of the median sum of normal scores, which is the median bound, since it rises with the sum."""
    rng, reps = np.random.default_rng(m), max(200, 200_000 // m)
    above = rng.binomial(REFERENCES, ndtr(-rng.normal(family.mu, 1.0, reps * m)))
    sums = normal_score((1 + above) / (REFERENCES + 1), REFERENCES).reshape(reps, m).sum(axis=1)
    beside = 0.5 / reps**0.5
    low, middle, high = (
        epsilon_at(lambda s, t=t: sum_law([family.curve(s)], [m], REFERENCES).at_least(t), family, ALPHA)
        for t in np.quantile(sums, [0.5 - beside, 0.5, 0.5 + beside])
    )
    return middle, (high - low) / 2, reps


def median(
    method: Callable[[np.random.Generator], Estimate] | float | Cell, reps: int, seconds: float, seed: int
) -> tuple[float, float, int]:
    """Median bound, its Monte-Carlo error (1.25 sd / sqrt(reps)), and the repetitions; numbers are exact."""
    if isinstance(method, float):
        return method, 0.0, 1
    if isinstance(method, tuple):
        return method
    values: list[float] = []
    started = time.perf_counter()
    while len(values) < reps and (len(values) < 3 or time.perf_counter() - started < seconds):
        values.append(method(np.random.default_rng([seed, len(values)])).epsilon_lower or 0.0)
    return float(np.median(values)), 1.25 * float(np.std(values)) / len(values) ** 0.5, len(values)


def cell(found: tuple[float, float, int], target: float | None) -> str:
    value, error, reps = found
    if not error and reps == 1:
        return f"{value:.2f}" + ("" if target is None else f" / {target:.2f}")
    beside = "" if target is None else f" / {target:.2f}"
    return f"{value:.2f} ±{error:.2f} ({reps}){beside}"


def table(title: str, names: list[str], rows: list[list[str]]) -> str:
    lines = [f"## {title}", "", "| eps | m | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 2)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


@dataclass(slots=True)
class Found:
    """What is reported: rows of tables, points of the figure, and what falls short of its reference."""

    parts: list[str] = field(default_factory=list)
    drawn: dict[str, dict[int, tuple[float, float | None]]] = field(default_factory=dict)
    short: list[str] = field(default_factory=list)

    def note(
        self, epsilon: int, m: int, name: str, value: tuple[float, float, int], target: float | None
    ) -> str:
        """Keep one cell for all of these; returns its text."""
        text = cell(value, target)
        if epsilon == DRAWN_EPSILON and name in DRAWN:
            self.drawn.setdefault(DRAWN[name], {})[m] = (value[0], target)
        if target is not None and target - value[0] > max(3 * value[1], 0.02):
            self.short.append(f"{name} at epsilon {epsilon}, m {m}: {text}")
        print(f"eps {epsilon} m {m} {name}: {text}", flush=True)
        return text


def measure(options: argparse.Namespace) -> Found:
    result = Found()
    for title, methods_of, sizes in (
        ("Half of m runs with the canary, half without; and one run of m canaries", None, options.sizes),
        ("Known-null ranks: m observations, all with the canary", rank_methods, [10, 30, 100, 1000, 10_000]),
    ):
        rows: list[list[str]] = []
        names: list[str] = []
        for epsilon in (1, 2, 4, 8):
            for m in sizes:
                methods = (
                    methods_of(epsilon, m)
                    if methods_of
                    else {**two_sample_methods(epsilon, m), **one_run_methods(epsilon, m)}
                )
                methods = {k: v for k, v in methods.items() if not options.only or k in options.only}
                names = list(methods)
                targets = (
                    TARGETS[epsilon, m]
                    if methods_of is None
                    else dict(zip(("fixed", "anytime"), RANK_TARGETS[epsilon, m], strict=True))
                )
                targets |= {f"{name} expected": targets[name] for name in ("SNJ", "MMC") if name in targets}
                row = [str(epsilon), str(m)]
                for name, method in methods.items():
                    value = median(method, options.reps, options.seconds, epsilon * m)
                    row.append(result.note(epsilon, m, name, value, targets.get(name)))
                rows.append(row)
        if names:
            result.parts.append(table(title, names, rows))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--reps", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10.0, help="per cell")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--only", nargs="+", help="names of estimators")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()
    found = measure(options)
    text = [
        "# Tightness on exact Gaussian claims",
        "",
        f"Median lower bound at {1 - ALPHA:.0%}, delta = {DELTA:g}; ± Monte-Carlo error of the median",
        "(repetitions) / reference figure, which 200 repetitions of other code gave. `bench/tightness.py`",
        f"makes this page; this one with at most {options.seconds:g} s per cell.",
        "",
        *found.parts,
        "## Below the reference by more than three errors and 0.02",
        "",
        *([f"- {line}" for line in found.short] or ["None."]),
        "",
        "## Columns",
        "",
        *(f"- **{name}**: {meaning}" for name, meaning in MEANING.items()),
    ]
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text("\n".join(text) + "\n")
    options.figure.write_text(figures.medians(found.drawn, DRAWN_EPSILON))


if __name__ == "__main__":
    main()
