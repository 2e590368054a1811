"""How often each estimator claims more than is true: repetitions on mechanisms of exactly known epsilon.

Run `python bench/validity.py --reps 200`; the table goes to bench/results/validity.md. A bound is above the
truth exactly when the true claim is refuted, so that only that test is made, without the search for a bound.
A row stops after `--seconds`, whatever the repetitions so far.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import ndtr
from scipy.stats import laplace

from dpaudit.accounting import EpsilonDeltaFamily, GaussianFamily
from dpaudit.claim import Adjacency
from dpaudit.estimate import Estimate
from dpaudit.evidence import Access, KnownNull, OneRun, TwoSample
from dpaudit.stats import credible, evalues, known_null, one_run, parametric, splits, two_sample
from dpaudit.stats.family import Family
from dpaudit.stats.tradeoff import gaussian_mu

ALPHA, DELTA, REFERENCES = 0.05, 1e-5, 10_000
RESULTS = Path(__file__).parent / "results" / "validity.md"
NOT_GUARANTEED = ("joint_beta", "gauss_t")
Evidence = KnownNull | OneRun | TwoSample


@dataclass(frozen=True, slots=True, kw_only=True)
class Mechanism:
    """Scores of n releases with (True) or without the canary, and P(score without >= x)."""

    draw: Callable[[np.random.Generator, int, bool], np.ndarray]
    at_least: Callable[[np.ndarray], np.ndarray]


def mechanism(name: str, epsilon: float) -> Mechanism:
    """Scores that are exactly of the epsilon they say, save that rounding loses a little."""
    mu = gaussian_mu(epsilon, DELTA) if epsilon else 0.0
    right = 1 / (1 + math.exp(-epsilon))
    return {
        "Gaussian": Mechanism(
            draw=lambda rng, n, inside: rng.normal(mu * inside, 1.0, n), at_least=lambda x: ndtr(-x)
        ),
        "Gaussian, rounded": Mechanism(
            draw=lambda rng, n, inside: np.round(rng.normal(mu * inside, 1.0, n)),
            at_least=lambda x: ndtr(0.5 - x),
        ),
        "Laplace": Mechanism(
            draw=lambda rng, n, inside: rng.laplace(epsilon * inside, 1.0, n), at_least=laplace.sf
        ),
        "two values": Mechanism(
            draw=lambda rng, n, inside: (rng.random(n) < (right if inside else 1 - right)).astype(np.float64),
            at_least=lambda x: np.where(x > 0, 1 - right, 1.0),
        ),
    }[name]


def true_family(name: str, epsilon: float, adjacency: Adjacency) -> Family:
    """The claim that the mechanism meets with equality, where rounding loses nothing."""
    if name.startswith("Gaussian") and epsilon:
        mu = gaussian_mu(epsilon, DELTA)
        return GaussianFamily(mu=mu, delta=DELTA, adjacency=adjacency, claimed_epsilon=epsilon)
    if name.startswith("Gaussian"):
        # A family has no member without any leak; this one has next to none.
        return GaussianFamily(mu=1e-4, delta=DELTA, adjacency=adjacency)
    base = max(epsilon, 1e-9)
    return EpsilonDeltaFamily(base_epsilon=base, delta=0.0, adjacency=adjacency, claimed_epsilon=epsilon)


def two_sample_evidence(scores: Mechanism, rng: np.random.Generator, n: int) -> TwoSample:
    inside, outside = scores.draw(rng, n // 2, True), scores.draw(rng, n // 2, False)
    return TwoSample(scores_in=inside, scores_out=outside, source="validity", access=Access.FINAL_MODEL)


def one_run_evidence(scores: Mechanism, rng: np.random.Generator, n: int) -> OneRun:
    inside = rng.random(n) < 0.5
    drawn = np.where(inside, scores.draw(rng, n, True), scores.draw(rng, n, False))
    return OneRun(scores=drawn, included=inside, source="validity", access=Access.FINAL_MODEL)


def ranks(scores: Mechanism, rng: np.random.Generator, n: int) -> KnownNull:
    """Ranks among references of their own; ties count against the canary, as `KnownNull` says."""
    above = rng.binomial(REFERENCES, scores.at_least(scores.draw(rng, n, True)))
    return KnownNull(
        p_values=(1 + above) / (REFERENCES + 1),
        n_references=REFERENCES,
        unit="run",
        source="validity",
        access=Access.FINAL_MODEL,
    )


def estimators() -> dict[str, tuple[Callable[..., Evidence], Callable[..., Estimate]]]:
    """Name to what is drawn and what is asked of it; each takes evidence, family and a generator."""

    def plain(estimator: Callable[..., Estimate]) -> Callable[..., Estimate]:
        return lambda e, f, rng: estimator(e, f, alpha=ALPHA)

    return {
        "grid": (two_sample_evidence, plain(two_sample.grid)),
        "at_threshold": (
            two_sample_evidence,
            lambda e, f, rng: two_sample.at_threshold(e, f, 0.5, alpha=ALPHA),
        ),
        "split_sample": (
            two_sample_evidence,
            lambda e, f, rng: splits.split_sample(e, f, alpha=ALPHA, rng=rng),
        ),
        "multi_split": (
            two_sample_evidence,
            lambda e, f, rng: splits.multi_split(e, f, alpha=ALPHA, rng=rng, splits=9),
        ),
        "betting": (two_sample_evidence, plain(evalues.anytime)),
        "gauss_t": (two_sample_evidence, plain(parametric.gauss_t)),
        "joint_beta": (
            two_sample_evidence,
            lambda e, f, rng: credible.joint_beta(e, f, 0.5, alpha=ALPHA),
        ),
        "one_run epsilon_delta": (one_run_evidence, plain(one_run.epsilon_delta)),
        "one_run f_dp": (one_run_evidence, plain(one_run.f_dp)),
        "known_null fixed": (ranks, plain(known_null.fixed)),
        "known_null anytime": (ranks, plain(known_null.anytime)),
    }


def leave_out_searches() -> None:
    """Tests of the claim without the searches for bounds, which cost thirty times as much."""
    for module in (evalues, known_null, one_run, parametric, splits):
        vars(module)["epsilon_at"] = lambda *_: 0.0
        vars(module)["detectable_epsilon"] = lambda *_: None
    vars(one_run)["_detectable"] = lambda *_: None
    vars(two_sample)["_epsilon"] = lambda *_: 0.0
    vars(two_sample)["detectable_epsilon"] = lambda *_: None


def above_truth(found: Estimate, epsilon: float) -> bool:
    if found.p_value is not None:
        return found.p_value <= ALPHA
    return (found.epsilon_lower or 0.0) > epsilon + 1e-9


def share_above(
    name: str, kind: str, epsilon: float, n: int, reps: int, seconds: float
) -> tuple[float, int] | None:
    """Share of repetitions above the truth, and their number; None where there is nothing to test."""
    evidence_of, estimate = estimators()[name]
    scores = mechanism(kind, epsilon)
    adjacency = Adjacency.REPLACE_ONE if evidence_of is one_run_evidence else Adjacency.ADD_REMOVE
    family = true_family(kind, epsilon, adjacency)
    if family.claimed_epsilon is None:
        # Without a claim no p-value is handed out: the claim of no leak at all is named here.
        family = GaussianFamily(mu=1e-4, delta=DELTA, adjacency=adjacency, claimed_epsilon=1e-4)
    if name == "gauss_t" and family.delta == 0:
        return None
    errors, made, started = 0, 0, time.perf_counter()
    while made < reps and (made < 20 or time.perf_counter() - started < seconds):
        rng = np.random.default_rng([n, made, round(epsilon)])
        errors += above_truth(estimate(evidence_of(scores, rng, n), family, rng), epsilon)
        made += 1
    return errors / made, made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--reps", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=4.0, help="per estimator and row")
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 200, 5000])
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    leave_out_searches()
    names = list(estimators())
    lines = ["| scores | eps | n | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 3)]
    worst: dict[str, tuple[float, int]] = dict.fromkeys(names, (0.0, 1))
    for kind in ("Gaussian", "Gaussian, rounded", "Laplace", "two values"):
        for epsilon in (0.0, 1.0, 3.0):
            for n in options.sizes:
                row = [kind, f"{epsilon:g}", str(n)]
                for name in names:
                    found = share_above(name, kind, epsilon, n, options.reps, options.seconds)
                    row.append("" if found is None else f"{found[0]:.1%} ({found[1]})")
                    if found is not None:
                        worst[name] = max(worst[name], found)
                print(" | ".join(row), flush=True)
                lines.append("| " + " | ".join(row) + " |")
    limits = [
        f"- {name}: at most {share:.1%} of {made} in any row; {ALPHA:.0%} + 3 standard errors is "
        f"{ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / made):.1%}"
        + (" (no guarantee is claimed)" if name in NOT_GUARANTEED else "")
        for name, (share, made) in worst.items()
    ]
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(
        f"# Share of bounds above the true epsilon, nominal {ALPHA:.0%}\n\n"
        "Repetitions in brackets. Mechanisms meet their claim with equality (rounded scores: nearly).\n"
        "n is the number of observations. `bench/validity.py` makes this page.\n\n"
        + "\n".join(lines)
        + "\n\n"
        + "\n".join(limits)
        + "\n"
    )
    print("\n".join(limits))


if __name__ == "__main__":
    main()
