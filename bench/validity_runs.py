"""How often bounds from ranks of whole runs claim too much: many canaries a run, and ranks within kappa.

Run `python bench/validity_runs.py`; the table goes to bench/results/validity_runs.md. Canaries of one run
share noise with the given correlation, of which the estimators know nothing.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from dpaudit.accounting import EpsilonDeltaFamily, Family, GaussianFamily
from dpaudit.check import FloatArray
from dpaudit.evidence import Access, KnownNull
from dpaudit.stats import clusters, exposure
from dpaudit.stats.tradeoff import gaussian_mu

RESULTS = Path(__file__).parent / "results" / "validity_runs.md"
ALPHA, DELTA, REFERENCES, KAPPA = 0.05, 1e-5, 199, 0.02
EPSILONS = (0.0, 1.0, 3.0)


def ranks(rng: np.random.Generator, mu: float, runs: int, each: int, correlation: float) -> FloatArray:
    """(runs, each) rank p-values of optimal scores under mu-GDP, dependent within a run."""
    shared = rng.normal(size=(runs, 1)) * math.sqrt(correlation)
    scores = mu + shared + rng.normal(size=(runs, each)) * math.sqrt(1 - correlation)
    below: FloatArray = (1.0 + rng.binomial(REFERENCES, ndtr(-scores))) / (REFERENCES + 1)
    return below


def evidence(p_values: FloatArray) -> KnownNull:
    """Of (runs, each) p-values."""
    runs, each = p_values.shape
    return KnownNull(
        p_values=p_values.ravel(),
        n_references=REFERENCES,
        unit="run",
        source="bench",
        access=Access.FINAL_MODEL,
        cluster=None if each == 1 else np.repeat(np.arange(runs), each),
    )


def claim(epsilon: float, *, bare: bool) -> Family:
    """The true claim; an epsilon of 0 is tested as one of 0.001, which allows hardly more."""
    epsilon = max(epsilon, 1e-3)
    if bare:
        return EpsilonDeltaFamily(base_epsilon=epsilon, delta=DELTA, claimed_epsilon=epsilon)
    return GaussianFamily(mu=gaussian_mu(epsilon, DELTA), delta=DELTA, claimed_epsilon=epsilon)


def cells(reps: int) -> Iterator[tuple[str, str, float, int, int]]:
    """Estimator, design, epsilon, and how many of how many bounds were above it."""
    for epsilon in EPSILONS:
        mu = gaussian_mu(epsilon, DELTA) if epsilon else 0.0
        for runs in (5, 20):
            for correlation in (0.0, 0.1, 0.5):
                rng = np.random.default_rng([runs, int(10 * correlation), int(epsilon)])
                drawn = [evidence(ranks(rng, mu, runs, 40, correlation)) for _ in range(reps)]
                design = f"{runs} runs of 40, correlation {correlation:g}"
                family = claim(epsilon, bare=False)
                for estimator in (clusters.clustered_betting, clusters.clustered):
                    found = [estimator(each, family, alpha=ALPHA).epsilon_lower or 0.0 for each in drawn]
                    above = sum(bound > max(epsilon, 1e-3) for bound in found)
                    yield estimator.__name__, design, epsilon, above, reps
        for runs in (20, 200, 5000):
            yield (
                "exposure.within",
                f"{runs} runs, worst mechanism",
                epsilon,
                *_within(epsilon, runs, 2 * reps),
            )


def _within(epsilon: float, runs: int, reps: int) -> tuple[int, int]:
    """Bounds above epsilon where as many canaries rank within kappa as a claim allows; and repetitions."""
    rng = np.random.default_rng([runs, 7, int(epsilon)])
    hits = rng.binomial(runs, min(1.0, math.exp(epsilon) * KAPPA + DELTA), reps)
    family, above = claim(epsilon, bare=True), 0
    for count, times in zip(*np.unique(hits, return_counts=True), strict=True):
        p_values = np.where(np.arange(runs) < count, KAPPA, 1.0)[:, None]
        bound = exposure.within(evidence(p_values), family, KAPPA, alpha=ALPHA).epsilon_lower or 0.0
        above += int(times) * (bound > max(epsilon, 1e-3))
    return above, reps


def main() -> None:
    """Count, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=300, help="repetitions of each cell")
    arguments = parser.parse_args()
    start = time.perf_counter()
    found = list(cells(arguments.reps))
    names = list(dict.fromkeys(row[0] for row in found))
    notes = {"clustered": " (asymptotic; does not decide)"}
    lines = [
        "# Share of bounds above the true epsilon, ranks of whole runs, nominal 5%",
        "",
        f"`bench/validity_runs.py --reps {arguments.reps}` makes this page.",
        "",
        "| estimator | repetitions | above the truth | worst cell |",
        "|---|--:|--:|--:|",
    ]
    for name in names:
        rows = [row for row in found if row[0] == name]
        above, total = sum(row[3] for row in rows), sum(row[4] for row in rows)
        worst = max(row[3] / row[4] for row in rows)
        lines.append(f"| {name}{notes.get(name, '')} | {total} | {above / total:.2%} | {worst:.1%} |")
    lines += ["", "| estimator | design | epsilon | above the truth |", "|---|---|--:|--:|"]
    lines += [
        f"| {name} | {design} | {eps:g} | {above / n:.1%} ({n}) |" for name, design, eps, above, n in found
    ]
    print("\n".join(lines))
    print(f"{time.perf_counter() - start:.0f} s")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
