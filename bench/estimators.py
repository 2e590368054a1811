"""CPU seconds of each estimator with a million observations, and those of jax-privacy where it is given.

Run `python bench/estimators.py`. With `--peer PYTHON`, an interpreter of an environment of its own in which
`pip install jax-privacy` was done, the peer's auditing module gets the same scores in the same run, and its
one-run bounds are compared on the same numbers of guesses. The loop of the one-run paper, which ML Privacy
Meter and others carry, is re-stated here. Results go to bench/results/estimators.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy
from scipy.special import ndtr
from scipy.stats import binom

from dpaudit.accounting import EpsilonDeltaFamily, GaussianFamily, LedgerFamily
from dpaudit.claim import Adjacency, Phase
from dpaudit.estimate import Estimate
from dpaudit.evidence import Access, KnownNull, OneRun, TwoSample
from dpaudit.stats import composition, credible, evalues, known_null, one_run, parametric, splits, two_sample
from dpaudit.stats.guessing import curve_rejects, pure_tail
from dpaudit.stats.tradeoff import Gaussian, gaussian_mu

ALPHA, DELTA, EPSILON = 0.05, 1e-5, 4.0
RESULTS = Path(__file__).parent / "results" / "estimators.md"

PEER = """
import json, sys, time
import numpy as np
from jax_privacy import auditing
scores_in, scores_out = np.load(sys.argv[1]), np.load(sys.argv[2])
alpha, delta, threshold = float(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5])
out = {"seconds": {}, "epsilon": {}, "one run": []}
def timed(name, call):
    started = time.process_time()
    out["epsilon"][name] = float(call())
    out["seconds"][name] = time.process_time() - started
auditor = None
def build():
    global auditor
    auditor = auditing.CanaryScoreAuditor(scores_in, scores_out)
    return 0.0
timed("sorting", build)
at = auditing.Explicit(threshold)
timed("Clopper-Pearson at a threshold", lambda: auditor.epsilon_clopper_pearson(
    alpha, delta, one_sided=False, threshold_strategy=at))
timed("Clopper-Pearson, all thresholds", lambda: auditor.epsilon_clopper_pearson(
    alpha, delta, one_sided=False))
timed("Clopper-Pearson, split", lambda: auditor.epsilon_clopper_pearson(
    alpha, delta, one_sided=False, threshold_strategy=auditing.Split(seed=0)))
timed("Gaussian, all thresholds", lambda: auditor.epsilon_from_gdp(alpha, delta))
timed("one run at a threshold", lambda: auditor.epsilon_one_run(alpha, delta, threshold_strategy=at))
timed("one run, f-DP, at a threshold", lambda: auditor.epsilon_one_run_fdp(
    alpha, delta, threshold_strategy=at))
for m, guesses, correct in json.loads(sys.argv[6]):
    started = time.process_time()
    bare = auditing._epsilon_one_run(0, m, guesses, correct, alpha, delta)
    middle = time.process_time()
    curve = auditing._epsilon_one_run_fdp(0, m, guesses, correct, alpha, delta)
    out["one run"].append([bare, middle - started, curve, time.process_time() - middle])
print(json.dumps(out))
"""
COUNTS = ((100, 50, 46), (1000, 140, 125), (1000, 1000, 700), (100_000, 1600, 1500), (1_000_000, 5000, 4700))


def drawn(n: int) -> tuple[TwoSample, OneRun, KnownNull]:
    rng = np.random.default_rng(0)
    mu = gaussian_mu(EPSILON, DELTA)
    two = TwoSample(
        scores_in=rng.normal(mu, 1.0, n),
        scores_out=rng.normal(size=n),
        source="bench",
        access=Access.FINAL_MODEL,
    )
    inside = rng.random(n) < 0.5
    one = OneRun(
        scores=rng.normal(size=n) + mu * inside,
        included=inside,
        source="bench",
        access=Access.FINAL_MODEL,
        adjacency=Adjacency.ADD_REMOVE,
    )
    above = rng.binomial(10_000, ndtr(-rng.normal(mu, 1.0, n)))
    ranks = KnownNull(
        p_values=(1 + above) / 10_001,
        n_references=10_000,
        unit="run",
        source="bench",
        access=Access.FINAL_MODEL,
    )
    return two, one, ranks


def ours(two: TwoSample, one: OneRun, ranks: KnownNull) -> dict[str, Callable[[], Estimate]]:
    mu = gaussian_mu(EPSILON, DELTA)
    gaussian = GaussianFamily(mu=mu, delta=DELTA, claimed_epsilon=EPSILON)
    bare = EpsilonDeltaFamily(base_epsilon=EPSILON, delta=DELTA, claimed_epsilon=EPSILON)
    rng = np.random.default_rng(1)
    return {
        "two_sample.at_threshold": lambda: two_sample.at_threshold(two, bare, 2.0, alpha=ALPHA),
        "two_sample.grid, (epsilon, delta)": lambda: two_sample.grid(two, bare, alpha=ALPHA),
        "two_sample.grid, Gaussian": lambda: two_sample.grid(two, gaussian, alpha=ALPHA),
        "splits.split_sample": lambda: splits.split_sample(two, bare, alpha=ALPHA, rng=rng),
        "credible.joint_beta": lambda: credible.joint_beta(two, bare, 2.0, alpha=ALPHA),
        "parametric.gauss_t": lambda: parametric.gauss_t(two, gaussian, alpha=ALPHA),
        "evalues.anytime, Gaussian": lambda: evalues.anytime(two, gaussian, alpha=ALPHA),
        "evalues.anytime, (epsilon, delta)": lambda: evalues.anytime(two, bare, alpha=ALPHA),
        "one_run.epsilon_delta": lambda: one_run.epsilon_delta(one, bare, alpha=ALPHA),
        "one_run.f_dp": lambda: one_run.f_dp(one, gaussian, alpha=ALPHA),
        "known_null.fixed": lambda: known_null.fixed(ranks, gaussian, alpha=ALPHA),
        "known_null.anytime": lambda: known_null.anytime(ranks, gaussian, alpha=ALPHA),
        "splits.multi_split, 11": lambda: splits.multi_split(two, bare, alpha=ALPHA, rng=rng),
        **with_a_ledger(two, one, ranks),
    }


def with_a_ledger(two: TwoSample, one: OneRun, ranks: KnownNull) -> dict[str, Callable[[], Estimate]]:
    """500 Poisson-sampled steps, composed anew for every curve that a search asks for."""
    ledger = (Phase(noise_multiplier=0.82, sample_rate=0.02, steps=500),)

    def family(adjacency: Adjacency = Adjacency.ADD_REMOVE) -> LedgerFamily:
        composition.curve.cache_clear()
        composition.composed.cache_clear()
        return LedgerFamily(ledger=ledger, delta=DELTA, adjacency=adjacency, claimed_epsilon=EPSILON)

    return {
        "two_sample.grid, ledger": lambda: two_sample.grid(two, family(), alpha=ALPHA),
        "evalues.anytime, ledger": lambda: evalues.anytime(two, family(), alpha=ALPHA),
        "one_run.f_dp, ledger": lambda: one_run.f_dp(one, family(), alpha=ALPHA),
        "known_null.fixed, ledger": lambda: known_null.fixed(ranks, family(), alpha=ALPHA),
        "known_null.anytime, ledger": lambda: known_null.anytime(ranks, family(), alpha=ALPHA),
    }


def published_loop(m: int, guesses: int, correct: int) -> float:
    """The one-run paper's own code, as several tools carry it: a loop over right guesses, 30 times over."""
    low, high = 0.0, 40.0
    for _ in range(30):
        middle = (low + high) / 2
        q = 1 / (1 + math.exp(-middle))
        beta, most, total = binom.sf(correct - 1, guesses, q), 0.0, 0.0
        for i in range(1, correct + 1):
            total += binom.pmf(correct - i, guesses, q)
            most = max(most, total / i)
        low, high = (middle, high) if beta + 2 * m * DELTA * most < ALPHA else (low, middle)
    return low


def our_one_run(m: int, guesses: int, correct: int) -> tuple[float, float, float, float]:
    """Bounds and seconds on given counts, without evidence around them."""

    def bisect(rejected: Callable[[float], bool]) -> float:
        low, high = 0.0, 40.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if rejected(middle) else (low, middle)
        return low

    made, right = np.array([guesses]), np.array([correct])
    started = time.process_time()
    bare = bisect(lambda e: bool(pure_tail(e, DELTA, canaries=m, guesses=made, correct=right)[0] <= ALPHA))
    middle = time.process_time()
    curve = bisect(
        lambda e: bool(
            curve_rejects(
                Gaussian(mu=gaussian_mu(e, DELTA)),
                canaries=m,
                guesses=made,
                correct=right,
                level=np.array([ALPHA]),
            )[0]
        )
    )
    return bare, middle - started, curve, time.process_time() - middle


def peer(python: str, two: TwoSample, timeout: float) -> dict[str, object] | str:
    """The peer's figures on the same scores, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("in.npy", "out.npy")]
        for path, scores in zip(paths, (two.scores_in, two.scores_out), strict=True):
            np.save(path, scores)
        arguments = [str(ALPHA), str(DELTA), "2.0", json.dumps(COUNTS)]
        try:
            done = subprocess.run(
                [python, "-c", PEER, *map(str, paths), *arguments],
                capture_output=True,
                text=True,
                timeout=timeout,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            detail = getattr(error, "stderr", "") or str(error)
            return f"no figures from the peer: {str(detail).strip().splitlines()[-1]}"
        result: dict[str, object] = json.loads(done.stdout)
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=1_000_000, help="of either kind")
    parser.add_argument("--peer", help="an interpreter with jax-privacy installed")
    parser.add_argument("--timeout", type=float, default=900.0, help="of the peer, in seconds")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    two, one, ranks = drawn(options.size)
    lines = ["| estimator | seconds | bound |", "|---|---|---|"]
    for name, call in ours(two, one, ranks).items():
        started = time.process_time()
        found = call()
        lines.append(f"| {name} | {time.process_time() - started:.2f} | {found.epsilon_lower:.3f} |")
        print(lines[-1], flush=True)
    lines += ["", "## jax-privacy on the same scores", ""]
    theirs = (
        "no interpreter given (`--peer`)"
        if options.peer is None
        else peer(options.peer, two, options.timeout)
    )
    if isinstance(theirs, str):
        lines.append(theirs)
    else:
        lines += peer_tables(theirs)
    options.output.parent.mkdir(exist_ok=True)
    lines += loops()
    text = "\n".join(lines)
    print(text)
    options.output.write_text(
        f"# CPU seconds with {options.size:,} scores of each kind\n\nA Gaussian mechanism of epsilon "
        f"{EPSILON:g} at delta = {DELTA:g}. An estimate is a bound, a test, a ceiling and "
        f"what is detectable.\n`bench/estimators.py` makes this page.\n\n{machine(load)}\n\n{text}\n"
    )


def machine(load: float) -> str:
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), of which one is used here; load average {load:.1f} "
        f"when it started, that is, by others. Python {platform.python_version()}, numpy {np.__version__}, "
        f"scipy {scipy.__version__}."
    )


def loops() -> list[str]:
    lines = [
        "",
        "## The published one-run loop on given counts, delta = 1e-5",
        "",
        "| canaries | guesses | right | loop, s | ours, s | ratio | bounds |",
        "|---|---|---|---|---|---|---|",
    ]
    for m, guesses, correct in COUNTS:
        started = time.process_time()
        bound = published_loop(m, guesses, correct)
        seconds = time.process_time() - started
        ours_bound, ours_seconds, *_ = our_one_run(m, guesses, correct)
        lines.append(
            f"| {m} | {guesses} | {correct} | {seconds:.2f} | {ours_seconds:.4f} "
            f"| {seconds / ours_seconds:.0f} | {bound:.4f}, {ours_bound:.4f} |"
        )
    return lines


def peer_tables(theirs: dict[str, object]) -> list[str]:
    seconds, epsilon, counts = theirs["seconds"], theirs["epsilon"], theirs["one run"]
    assert isinstance(seconds, dict) and isinstance(epsilon, dict) and isinstance(counts, list)
    lines = ["| jax-privacy | seconds | bound |", "|---|---|---|"]
    lines += [f"| {name} | {seconds[name]:.2f} | {epsilon[name]:.3f} |" for name in seconds]
    lines += [
        "",
        "One run on given counts: bound (jax-privacy's), and its seconds over ours.",
        "",
        "| canaries | guesses | right | (epsilon, delta) | ratio | f-DP | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for (m, guesses, correct), them in zip(COUNTS, counts, strict=True):
        us = our_one_run(m, guesses, correct)
        lines.append(
            f"| {m} | {guesses} | {correct} | {us[0]:.4f} ({them[0]:.4f}) | {them[1] / us[1]:.1f} "
            f"| {us[2]:.4f} ({them[2]:.4f}) | {them[3] / us[3]:.1f} |"
        )
    return lines


if __name__ == "__main__":
    main()
