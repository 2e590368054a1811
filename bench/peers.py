"""How often other auditors claim more than is true, beside ours on the same scores.

Run `python bench/peers.py --peer PYTHON`, with an interpreter of an environment of its own, so that the
project never needs the peers: in it, `pip install jax-privacy opake-auditing privacy-estimates`. TF Privacy's
Katz log ratio, maximised over thresholds, is re-stated by its formula. Results go to bench/results/peers.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import validity
from scipy.special import ndtri

from dpaudit.claim import Adjacency
from dpaudit.evidence import Access, OneRun, TwoSample

ALPHA, DELTA = 0.05, 1e-5
RESULTS = Path(__file__).parent / "results" / "peers.md"
OURS = {
    "dpaudit grid": ("runs", "grid"),
    "dpaudit betting": ("runs", "betting"),
    "dpaudit one_run.epsilon_delta": ("one run", "one_run epsilon_delta"),
    "dpaudit one_run.f_dp": ("one run", "one_run f_dp"),
}
CELLS = [
    (kind, eps, n) for kind in ("Gaussian", "two values") for eps in (0.0, 1.0, 3.0) for n in (100, 1000)
]

SCRIPT = """
import json, sys, time, warnings
import numpy as np
from importlib.metadata import version
warnings.simplefilter("ignore")
versions = []
alpha, delta, budget = 0.05, 1e-5, float(sys.argv[2])
methods, missing = {}, []
try:
    from jax_privacy import auditing
    def jax(name, design, call):
        methods["jax-privacy " + name] = design, lambda a, b: call(auditing.CanaryScoreAuditor(a, b))
    versions.append("jax-privacy " + version("jax-privacy"))
    jax("epsilon_clopper_pearson, default", "runs", lambda a: a.epsilon_clopper_pearson(alpha, delta))
    jax("epsilon_from_gdp", "runs", lambda a: a.epsilon_from_gdp(alpha, delta))
    jax("epsilon_one_run, default", "one run", lambda a: a.epsilon_one_run(alpha, delta))
    jax("epsilon_one_run_fdp, default", "one run", lambda a: a.epsilon_one_run_fdp(alpha, delta))
except ImportError as error:
    missing.append(f"jax-privacy: {error}")
try:
    from opake.api.auditing.one_run._estimate import OneRunEstimate
    from opake.api.auditing.one_run._roc import get_tn_fn_counts
    def estimate(a, b):
        thresholds, tn, fn = get_tn_fn_counts(a, b)
        return OneRunEstimate(n_in=len(a), n_out=len(b), thresholds=thresholds, tn_counts=tn, fn_counts=fn,
            tp_counts=(fn[-1] - fn)[::-1], fp_counts=(tn[-1] - tn)[::-1], in_scores=a, out_scores=b)
    versions.append("opake-auditing " + version("opake-auditing"))
    methods["opake-auditing eps_delta"] = "one run", lambda a, b: estimate(a, b).eps_delta().epsilon_at(
        delta=delta, significance=alpha)
    methods["opake-auditing gdp, its default"] = "one run", lambda a, b: estimate(a, b).gdp().epsilon_at(
        delta=delta, significance=alpha)
except ImportError as error:
    missing.append(f"opake-auditing: {error}")
try:
    from privacy_estimates import AttackResults, compute_eps_lo
    versions.append("privacy-estimates " + version("privacy-estimates"))
    def counted(method):
        def call(a, b):
            tp, fp = int((a > 0.5).sum()), int((b > 0.5).sum())
            counts = AttackResults(FN=len(a) - tp, FP=fp, TN=len(b) - fp, TP=tp)
            return compute_eps_lo(counts, delta, alpha, method)
        return call
    for method in ("beta", "jeffreys", "joint-beta"):
        methods["privacy-estimates " + method + " at one threshold"] = "runs", counted(method)
except ImportError as error:
    missing.append(f"privacy-estimates: {error}")
data = np.load(sys.argv[1])
cells = json.loads(str(data["cells"]))
out = {}
for name, (design, call) in methods.items():
    out[name] = {"design": design, "shares": []}
    for i, (kind, epsilon, n) in enumerate(cells):
        started, above, made, failed = time.perf_counter(), 0, 0, 0
        if kind != "Gaussian" and ("gdp" in name or "fdp" in name):
            out[name]["shares"].append([0, 0, 0])
            continue
        key = "runs" if design == "runs" else "one"
        for a, b in zip(data[f"{key}_in{i}"], data[f"{key}_out{i}"]):
            keep = lambda x: x[~np.isnan(x)]
            try:
                above += float(call(keep(a), keep(b))) > epsilon + 0.01
            except Exception as error:
                failed += 1
            made += 1
            if time.perf_counter() - started > budget:
                break
        out[name]["shares"].append([int(above), made - failed, failed])
print(json.dumps({"methods": out, "missing": missing, "versions": versions}))
"""


def drawn(reps: int) -> dict[str, np.ndarray]:
    """Rows of scores with and without the canary, of separate runs and of one run, padded with nan."""
    arrays: dict[str, np.ndarray] = {"cells": np.array(json.dumps(CELLS))}
    for i, (kind, epsilon, n) in enumerate(CELLS):
        scores, rng = validity.mechanism(kind, epsilon), np.random.default_rng([7, i])
        for key in ("runs", "one"):
            coins = rng.random((reps, n)) < 0.5 if key == "one" else np.tile(np.arange(n) < n // 2, (reps, 1))
            size = reps * n
            inside, outside = (scores.draw(rng, size, side).reshape(reps, n) for side in (True, False))
            arrays[f"{key}_in{i}"] = np.where(coins, inside, np.nan)
            arrays[f"{key}_out{i}"] = np.where(coins, np.nan, outside)
    return arrays


def katz_log(inside: np.ndarray, outside: np.ndarray) -> float:
    """TF Privacy's bound: the largest over thresholds of log(TPR / FPR) less z standard errors of it."""
    thresholds = np.unique(outside)
    tp = (inside[:, None] > thresholds).sum(axis=0)
    fp = (outside[:, None] > thresholds).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(1 / tp - 1 / inside.size + 1 / fp - 1 / outside.size)
        bound = np.log(tp / inside.size) - np.log(fp / outside.size) + ndtri(ALPHA) * error
    usable = bound[(tp > 0) & (fp > 0)]
    return max(0.0, float(usable.max())) if usable.size else 0.0


def ask(python: str, arrays: dict[str, np.ndarray], budget: float) -> dict[str, object]:
    """What the peers' interpreter counts on the same scores."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.npz"
        np.savez(path, **arrays)
        done = subprocess.run(
            [python, "-c", SCRIPT, str(path), str(budget)], capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def our_shares(design: str, name: str, arrays: dict[str, np.ndarray]) -> list[tuple[int, int, int]]:
    """Refuted true claims among the same rows of scores."""
    estimate = validity.estimators()[name][1]
    key = "runs" if design == "runs" else "one"
    shares = []
    for i, (kind, epsilon, _) in enumerate(CELLS):
        adjacency = Adjacency.ADD_REMOVE if key == "runs" else Adjacency.REPLACE_ONE
        family = validity.claimed_family(kind, epsilon, adjacency)
        pairs = list(zip(arrays[f"{key}_in{i}"], arrays[f"{key}_out{i}"], strict=True))
        above = 0
        for inside, outside in pairs:
            evidence: OneRun | TwoSample
            if key == "runs":
                evidence = TwoSample(
                    scores_in=inside[~np.isnan(inside)],
                    scores_out=outside[~np.isnan(outside)],
                    source="peers",
                    access=Access.FINAL_MODEL,
                )
            else:
                included = ~np.isnan(inside)
                evidence = OneRun(
                    scores=np.where(included, inside, outside),
                    included=included,
                    source="peers",
                    access=Access.FINAL_MODEL,
                )
            found = estimate(evidence, family, np.random.default_rng(0))
            above += validity.above_truth(found, epsilon)
        shares.append((above, len(pairs), 0))
    return shares


def _katz_shares(arrays: dict[str, np.ndarray]) -> list[tuple[int, int, int]]:
    shares = []
    for i, (_, epsilon, _n) in enumerate(CELLS):
        pairs = zip(arrays[f"runs_in{i}"], arrays[f"runs_out{i}"], strict=True)
        bounds = [katz_log(a[~np.isnan(a)], b[~np.isnan(b)]) for a, b in pairs]
        shares.append((sum(bound > epsilon for bound in bounds), len(bounds), 0))
    return shares


def table(methods: dict[str, dict[str, object]]) -> list[str]:
    head = [f"{kind}, eps {epsilon:g}, n {n}" for kind, epsilon, n in CELLS]
    lines = ["| method | design | " + " | ".join(head) + " |", "|" + "---|" * (len(head) + 2)]
    for name, row in methods.items():
        shares = row["shares"]
        assert isinstance(shares, list)
        cells = [f"{above / made:.0%} ({made})" if made else "" for above, made, _ in shares]
        lines.append(f"| {name} | {row['design']} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peer", help="an interpreter with the peers installed")
    parser.add_argument("--reps", type=int, default=300, help="per cell")
    parser.add_argument("--seconds", type=float, default=3.0, help="per cell and peer")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.peer is None:
        print("No interpreter given (--peer), hence no peers measured.")
        return
    arrays = drawn(options.reps)
    found = ask(options.peer, arrays, options.seconds)
    theirs, versions, missing = found["methods"], found["versions"], found["missing"]
    assert isinstance(theirs, dict) and isinstance(versions, list) and isinstance(missing, list)
    theirs["TF Privacy's Katz log ratio, all thresholds"] = {"design": "runs", "shares": _katz_shares(arrays)}
    validity.leave_out_searches()
    ours: dict[str, dict[str, object]] = {
        name: {"design": design, "shares": our_shares(design, of, arrays)}
        for name, (design, of) in OURS.items()
    }
    text = [
        f"# Bounds above the true epsilon, nominal {ALPHA:.0%}: other auditors and ours on the same scores",
        "",
        f"{', '.join(versions)}; settings are their defaults. *At one threshold* is 0.5, fixed beforehand.",
        "Repetitions in brackets (a slow method stops early). Empty: the method assumes a Gaussian one.",
        "A peer counts when it is more than 0.01 above the truth, the precision of some of their searches.",
        "*Two values* is randomised response, whose scores are all ties. `bench/peers.py` makes this page.",
        "",
        *table({**theirs, **ours}),
        *(f"\nNot installed: {line}" for line in missing),
    ]
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text("\n".join(text) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
