"""False alarms end to end: complete audits of correct Opacus training under the default plan.

    python bench/audits.py --audits 500 --processes 2

Each audit is what `dpaudit run` does with the default plan, its controls left out: trials, attacks,
judgement and record in a folder of its own, under a seed of its own, by the real Opacus engine, sampler and
accountant. The data are small (400 digits) and training is short; shadow models are stacked as they always
are. The recipe turns with the seed. An audit is a false alarm if it ends REFUTED. Outcomes are appended to
`--log` as they come, one JSON line each, so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import multiprocessing
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
import torch

sys.path.insert(0, str(Path(__file__).parent))
from zoo import machine

from dpaudit.plan import default_toml, read
from dpaudit.record import RECORD_NAME, load
from dpaudit.run import Job, run
from dpaudit.stats.binomial import upper

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "audits.md"
LOG = HERE / "results" / "audits.jsonl"
ALPHA = 0.05

# How Opacus is used: every pair of these is a correct use. The seed picks one in turn.
MODES = ("hooks", "functorch", "ghost")
ACCOUNTANTS = ("prv", "rdp")
NOISES = (0.7, 1.0, 1.5, 4.0)
USES = tuple(itertools.product(NOISES, MODES, ACCOUNTANTS))


def small_digits() -> tuple[Any, Any]:
    """400 of scikit-learn's digits."""
    from dpaudit.targets.datasets import digits

    x, y = digits()
    return x[:400], y[:400]


def options(seed: int) -> dict[str, Any]:
    """The correct use of Opacus that this seed audits."""
    noise, mode, accountant = USES[seed % len(USES)]
    return {
        "noise_multiplier": noise,
        "max_grad_norm": 1.0,
        "accountant": accountant,
        "grad_sample_mode": mode,
    }


def plan_text(seed: int) -> str:
    """The default plan with this seed's target alone, small data and a short training."""
    document = tomlkit.parse(default_toml()).unwrap()
    document["title"] = "A correct use of Opacus"
    document["seed"] = seed
    document["alpha"] = ALPHA
    document["data"] |= {"source": "audits:small_digits", "canaries": 40}
    document["recipe"] |= {"epochs": 6, "batch_size": 24, "hidden": [16]}
    document["compute"] |= {"device": "cpu", "engine": "inline"}
    document["targets"] = [
        {"name": "private", "role": "audited", "train": "opacus", "options": options(seed)}
    ]
    return tomlkit.dumps(document)


def audit(seed: int) -> dict[str, Any]:
    """One complete audit: what came out, by what, and what it took."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    started, busy = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.toml"
        path.write_text(plan_text(seed), encoding="utf-8")
        plan, text = read(path, [])
        out = Path(folder) / "audit"
        for _ in run(Job(plan=plan, plan_text=text, plan_folder=HERE, out=out, command="bench/audits.py")):
            pass
        record = load(out / RECORD_NAME)
    verdict = record.targets[0].verdict
    return {
        "seed": seed,
        "use": options(seed),
        "status": str(verdict.status),
        "by": verdict.decided_by or "",
        "reason": verdict.reason,
        "lower": verdict.epsilon_lower,
        "lost": sum(trial.status == "lost" for trial in record.trials),
        "seconds": round(time.perf_counter() - started, 2),
        "busy": round(time.process_time() - busy, 2),
    }


def finished(log: Path) -> Iterator[dict[str, Any]]:
    """Outcomes of an earlier start; a line cut short by a kill is made again."""
    if not log.is_file():
        return
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def page(outcomes: Sequence[Mapping[str, Any]], command: str) -> str:
    """The results as Markdown."""
    accused = [o for o in outcomes if o["status"] == "REFUTED"]
    n = len(outcomes)
    allowed = ALPHA + 3 * (ALPHA * (1 - ALPHA) / n) ** 0.5
    limit = upper(len(accused), n, 0.05)
    kinds = Counter(o["status"] for o in outcomes)
    lines = [
        "# Complete audits of correct training",
        "",
        machine(),
        "",
        f"`{command}`: the default plan without its controls, on 400 digits; seeds {outcomes[0]['seed']} to "
        f"{outcomes[-1]['seed']}, each with its own draw, training, shadow models and recipe. One line for "
        "each audit is in `audits.jsonl`.",
        "",
        f"- refuted: {len(accused)} of {n}, {len(accused) / n:.4f} (at most {limit:.4f} with 95 % confidence)"
        f" at alpha = {ALPHA}; with three standard errors, {allowed:.4f} would be too many",
        f"- not refuted: {kinds['NOT REFUTED']}; inconclusive: {kinds['INCONCLUSIVE']}; "
        f"audits that lost a trial: {sum(o['lost'] > 0 for o in outcomes)}",
        f"- processor seconds for each: median {statistics.median(o['busy'] for o in outcomes):.1f}",
        "",
        "| noise multiplier | gradients | accountant | audits | refuted | not refuted | inconclusive |",
        "|--:|---|---|--:|--:|--:|--:|",
    ]
    for noise, mode, accountant in USES:
        use = {"noise_multiplier": noise, "grad_sample_mode": mode, "accountant": accountant}
        mine = Counter(o["status"] for o in outcomes if use.items() <= o["use"].items())
        lines.append(
            f"| {noise} | {mode} | {accountant} | {mine.total()} | {mine['REFUTED']} | {mine['NOT REFUTED']} "
            f"| {mine['INCONCLUSIVE']} |"
        )
    lines += [line for o in accused for line in ("", f"Seed {o['seed']}, by {o['by']}: {o['reason']}")]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Audit, log and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--audits", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--log", type=Path, default=LOG)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.audits)
    made = {o["seed"]: o for o in finished(arguments.log) if o["seed"] in seeds}
    missing = [seed for seed in seeds if seed not in made]
    arguments.log.parent.mkdir(parents=True, exist_ok=True)
    with (
        multiprocessing.get_context("spawn").Pool(arguments.processes) as pool,
        arguments.log.open("a", encoding="utf-8") as log,
    ):
        for outcome in pool.imap_unordered(audit, missing):
            made[outcome["seed"]] = outcome
            log.write(json.dumps(outcome) + "\n")
            log.flush()
            print(f"{len(made)} of {len(seeds)}: seed {outcome['seed']} {outcome['status']}", flush=True)
    command = f"python bench/audits.py --audits {arguments.audits} --first {arguments.first}"
    text = page([made[seed] for seed in seeds], command)
    arguments.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
