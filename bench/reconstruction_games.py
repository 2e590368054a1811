"""Games of reconstruction against what a claim allows: gradients, final models, attributes, names.

Run `python bench/reconstruction_games.py`; the tables go to bench/results/reconstruction_games.md. With
`--repeats` goes how often each game is repeated under other seeds.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq

from dpaudit.accounting import family_for, pld_epsilon
from dpaudit.attacks.reconstruction.line_up import LineUp
from dpaudit.attacks.reconstruction.prior_aware import PriorAware
from dpaudit.attacks.reconstruction.reconstructor import Reconstructor
from dpaudit.canary import Canaries, make_pool
from dpaudit.claim import Adjacency, Claim, Phase
from dpaudit.evidence import Guesses
from dpaudit.linkage.audit import Asked, audit
from dpaudit.plan import parse
from dpaudit.record import load
from dpaudit.run import Job, run
from dpaudit.stats.binomial import upper
from dpaudit.stats.family import Family
from dpaudit.stats.reconstruction import guesses, success_interval, success_limit
from dpaudit.targets.datasets import digits
from dpaudit.targets.ensemble.line_up import play
from dpaudit.targets.ensemble.reconstructor import play as reconstruct
from dpaudit.targets.observed import TrainingFunction
from dpaudit.targets.trainer import fit_opacus, fit_plain

RESULTS = Path(__file__).parent / "results" / "reconstruction_games.md"
ALPHA, DELTA = 0.05, 1e-5
EPSILONS = (1.0, 4.0, 8.0, 16.0, None)
FAULTS = ("half-noise", "noise-without-clip", "noise-divided-by-batch", "no-noise")
RECIPE: dict[str, Any] = {"hidden": (32,), "epochs": 5, "batch_size": 64, "learning_rate": 0.5}
SIZES = (10, 100, 1000)
ROWS = 1_000_000


def pool(seed: int) -> Canaries:
    rng = np.random.default_rng(seed)
    return make_pool(*digits(), n_canaries=0, test_fraction=0.1, rng=rng).draw(rng)


def ledger(sigma: float, records: int) -> tuple[Phase, ...]:
    steps = -(-records // RECIPE["batch_size"])
    return (Phase(noise_multiplier=sigma, sample_rate=1 / steps, steps=steps * RECIPE["epochs"]),)


def sigma_for(epsilon: float, records: int) -> float:
    return float(
        brentq(lambda sigma: pld_epsilon(ledger(sigma, records), DELTA) - epsilon, 0.5, 8.0, xtol=1e-2)
    )


def claimed(sigma: float, records: int) -> Family:
    steps = ledger(sigma, records)
    return family_for(Claim(epsilon=pld_epsilon(steps, DELTA), delta=DELTA, ledger=steps))


def from_gradients(
    seed: int, sigma: float | None, adjacency: str = "add-remove", **options: Any
) -> tuple[Guesses, ...]:
    attack = PriorAware(candidates=SIZES, games=2, adjacency=adjacency)
    private = (
        {}
        if sigma is None
        else {"noise_multiplier": sigma, "max_grad_norm": 1.0, "accountant": "rdp", **options}
    )
    target = TrainingFunction(
        name="bench",
        fit=fit_plain if sigma is None else fit_opacus,
        options={**RECIPE, **private},
        delta=DELTA,
    )
    view = target.train(pool(seed), seed=seed, device="cpu", attacks=(attack,))
    return tuple(each for each in view.evidence if isinstance(each, Guesses))


def from_models(seed: int, sigma: float | None, start: str) -> tuple[Guesses, ...]:
    game = LineUp(models=96, candidates=SIZES[:2], start=start)
    private = {} if sigma is None else {"noise_multiplier": sigma, "max_grad_norm": 1.0}
    fit = fit_plain if sigma is None else fit_opacus
    return play(game, fit, {**RECIPE, **private}, pool(seed), game.models, np.random.default_rng(seed), "cpu")


def row(name: str, games: list[Guesses], family: Family, seconds: float, *, control: bool) -> str:
    """Success over all repeats, the limit, and how many repeats alone were above it at alpha."""
    won, played = sum(g.successes for g in games), sum(g.trials for g in games)
    limit = success_limit(family, games[0].baseline, games[0].unit)
    refuted = sum((guesses(g, family, alpha=ALPHA).p_value or 0.0) <= ALPHA for g in games)
    lower = [guesses(g, family, alpha=ALPHA).epsilon_lower or 0.0 for g in games]
    ends = [success_interval(g, alpha=ALPHA) for g in games]
    widest = f"{min(e[0] or 0 for e in ends):.3f} to {max(e[1] or 1 for e in ends):.3f}"
    most = "-" if control else f"{float(upper(refuted, len(games), ALPHA)):.2f}"
    return (
        f"| {name} | {games[0].baseline:g} | {won / played:.4f} | {widest} | {limit:.4f} | {refuted} of "
        f"{len(games)} | {most} | {np.median(lower):.2f} | {seconds:.1f} |"
    )


HEAD = (
    "| training | kappa | success | intervals | limit 1 - f(kappa) | above it | rate at most | "
    "eps shown, median | CPU seconds |\n|---|--:|--:|---|--:|--:|--:|--:|--:|"
)


def repeated(name: str, play_one: Any, family: Family, repeats: int, *, control: bool) -> Iterator[str]:
    """A control is no true claim, whose rate has to be known: it is repeated less often."""
    repeats = max(1, repeats // 4) if control else repeats
    start = time.process_time()
    found = [play_one(seed) for seed in range(repeats)]
    seconds = (time.process_time() - start) / repeats
    for games in zip(*found, strict=True):
        yield row(name, list(games), family, seconds, control=control)


def games(repeats: int) -> Iterator[str]:
    records = int(pool(0).member.sum())
    sigmas = {epsilon: sigma_for(epsilon, records) for epsilon in EPSILONS if epsilon}
    middle = claimed(sigmas[8.0], records)
    yield "\n## From noisy gradients (`prior-aware`, one step)\n\n" + HEAD
    for epsilon in EPSILONS:
        sigma = sigmas.get(epsilon) if epsilon else None
        name = f"epsilon {epsilon:g}, sigma {sigma:.2f}" if sigma else "none, against epsilon 8"
        family = claimed(sigma, records) if sigma else middle
        yield from repeated(
            name, lambda seed, s=sigma: from_gradients(seed, s), family, repeats, control=sigma is None
        )
    steps = ledger(sigmas[8.0], records)
    swapped = family_for(
        Claim(epsilon=pld_epsilon(steps, DELTA), delta=DELTA, ledger=steps), adjacency=Adjacency.REPLACE_ONE
    )
    yield from repeated(
        "epsilon 8, replace-one",
        lambda seed: from_gradients(seed, sigmas[8.0], "replace-one"),
        swapped,
        repeats,
        control=False,
    )
    for fault in FAULTS:
        options = {"max_grad_norm": 4.0} if fault == "noise-without-clip" else {}
        yield from repeated(
            f"{fault}, against epsilon 8",
            lambda seed, f=fault, o=options: from_gradients(seed, sigmas[8.0], fault=f, **o),
            middle,
            repeats,
            control=True,
        )
    yield "\n## From final models (`line-up`, one run; 72 games a repeat)\n\n" + HEAD
    for start in ("recipe", "known", "fitted"):
        for epsilon in EPSILONS if start == "fitted" else (8.0, None):
            sigma = sigmas.get(epsilon) if epsilon else None
            yield from repeated(
                f"{'epsilon ' + format(epsilon, 'g') if sigma else 'none, against epsilon 8'}, start {start}",
                lambda seed, s=sigma, b=start: from_models(seed, s, b),
                claimed(sigma, records) if sigma else middle,
                max(1, repeats // 4),
                control=sigma is None,
            )


def rebuilt(repeats: int) -> Iterator[str]:
    """The reconstructor network: how near records come, and its games."""
    records = int(pool(0).member.sum())
    sigmas = {epsilon: sigma_for(epsilon, records) for epsilon in (1.0, 8.0, 16.0)}
    yield (
        "\n## The last record of a network (`reconstructor`, 448 shadow models, 64 games of 100 a repeat)\n\n"
        "Means over repeats. Others: with another record than its own. Above it, and eps shown, as above; - "
        "where nothing is tested.\n\n"
        "| training | start | batches | label | SSIM | others | PSNR | mean record | nearer than any known | "
        "picked | limit | above it | eps shown, median | CPU seconds |\n"
        "|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    )
    for epsilon, *setting in (
        (None, "fitted", "own", "wrong"),
        (None, "known", "own", "wrong"),
        (None, "known", "known", "own"),
        (None, "known", "own", "own"),
        (None, "recipe", "own", "wrong"),
        (16.0, "fitted", "own", "wrong"),
        (8.0, "fitted", "own", "wrong"),
        (1.0, "fitted", "own", "wrong"),
    ):
        family = claimed(sigmas[epsilon or 8.0], records)
        yield _rebuilt(epsilon, setting, sigmas.get(epsilon or 0.0), family, repeats)


def _rebuilt(
    epsilon: float | None, setting: list[str], sigma: float | None, family: Family, repeats: int
) -> str:
    spent = time.process_time()
    found = [from_weights(seed, sigma, *setting) for seed in range(repeats)]
    seconds = (time.process_time() - spent) / repeats
    scores = {
        name: np.mean(
            [[s.mean, s.blind or 0.0] for each in found for s in each[0].scores if s.name == name], 0
        )
        for name in ("ssim", "psnr", "mean record", "beyond known", "picked")
    }
    games = [each[1] for each in found if len(each) > 1]
    tested = "- | - | -"
    if games:
        bounds = [guesses(game, family, alpha=ALPHA) for game in games]
        above = sum((bound.p_value or 0.0) <= ALPHA for bound in bounds)
        shown = np.median([bound.epsilon_lower or 0.0 for bound in bounds])
        tested = f"{success_limit(family, 0.01):.3f} | {above} of {len(games)} | {shown:.2f}"
    what = "none, against epsilon 8" if epsilon is None else f"epsilon {epsilon:g}"
    return (
        f"| {what} | {' | '.join(setting)} | {scores['ssim'][0]:.2f} | {scores['ssim'][1]:.2f} | "
        f"{scores['psnr'][0]:.1f} | {scores['mean record'][0]:.1f} | {scores['beyond known'][0]:.2f} | "
        f"{scores['picked'][0]:.3f} | {tested} | {seconds:.1f} |"
    )


def from_weights(seed: int, sigma: float | None, start: str, batches: str, label: str) -> tuple[Any, ...]:
    game = Reconstructor(candidates=100, start=start, batches=batches, label=label, height=8, width=8)
    private = {} if sigma is None else {"noise_multiplier": sigma, "max_grad_norm": 1.0}
    fit = fit_plain if sigma is None else fit_opacus
    return reconstruct(game, fit, {**RECIPE, **private}, pool(seed), np.random.default_rng(seed), "cpu")


def attributes() -> Iterator[str]:
    yield (
        "\n## A sensitive column (`attribute-inference`, breast cancer, worst texture, 8 shadows)\n\n"
        "| training | members | others | imputation | over imputation | over others, means of runs | limit | "
        "seconds |\n|---|---|---|---|---|---|---|--:|"
    )
    for name, train, options in (
        ("sigma 1", "opacus", {"noise_multiplier": 1.0, "max_grad_norm": 1.0, "learning_rate": 0.01}),
        ("none", "plain", {"learning_rate": 0.001}),
    ):
        plan = parse(
            {
                "data": {"source": "breast-cancer", "canaries": 60, "test_fraction": 0.3},
                "compute": {"engine": "inline", "device": "cpu"},
                "recipe": {"hidden": [64], "epochs": 60, "batch_size": 32},
                "targets": [{"name": "t", "train": train, "options": options}],
                "attacks": {"attribute-inference": {"column": 21, "shadows": 8}},
            }
        )
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            job = Job(plan=plan, plan_text="", plan_folder=Path(folder), out=Path(folder), command="")
            list(run(job))
            rates = {(r.name, r.slice): r for r in load(job.out).targets[0].rates}
        shown = [
            rates[key]
            for key in (
                ("attribute_success", "members"),
                ("attribute_success", "others"),
                ("attribute_success", "members, by imputation"),
                ("attribute_advantage_over_imputation", "members"),
                ("attribute_advantage_over_others", "means of runs"),
            )
        ]
        cells = " | ".join(f"{r.value:.3f} ({r.lower:.3f} to {r.upper:.3f})" for r in shown)
        limit = "-" if shown[0].limit is None else f"{shown[0].limit:.3f}"
        yield f"| {name} | {cells} | {limit} | {time.perf_counter() - start:.1f} |"


def linkage() -> Iterator[str]:
    rng = np.random.default_rng(0)
    people = int(1.2 * ROWS)
    columns = [rng.integers(0, top, people).astype(str) for top in (800, 29_200, 2)]
    disease = rng.choice(12, people, p=np.r_[0.4, np.full(11, 0.6 / 11)]).astype(str)
    inside = rng.permutation(people)[:ROWS]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = zip(*(c[inside].tolist() for c in (*columns, disease)), inside.tolist(), strict=True)
        with (folder / "table.csv").open("w") as file:
            file.write("postcode,birth_date,sex,diagnosis,who\n")
            file.writelines(f"{','.join(map(str, r))}\n" for r in rows)
        with (folder / "register.csv").open("w") as file:
            file.write("name,postcode,birth_date,sex\n")
            file.writelines(
                f"{i},{','.join(r)}\n" for i, r in enumerate(zip(*(c.tolist() for c in columns), strict=True))
            )
        asked = {"table": folder / "table.csv", "quasi": ("postcode", "birth_date", "sex")}
        yield f"\n## A table without names (`dpaudit linkage`, {ROWS:,} rows)\n"
        for extra in (
            {"sensitive": "diagnosis"},
            {
                "sensitive": "diagnosis",
                "register": folder / "register.csv",
                "identity": "name",
                "truth": "who",
            },
        ):
            start, spent = time.perf_counter(), time.process_time()
            found = audit(Asked(**asked, **extra))  # type: ignore[arg-type]
            yield (
                f"- {time.perf_counter() - start:.1f} s ({time.process_time() - spent:.1f} s of one core), "
                f"{'with a register of ' + format(people, ',') if 'register' in extra else 'table alone'}: "
                f"{found.record.reason}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    warnings.filterwarnings("ignore")
    repeats = parser.parse_args().repeats
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "opacus", "dp-accounting", "numpy"))
    lines = [
        "# Games of reconstruction\n",
        f"{datetime.date.today()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}\n",
        f"Digits, 64-32-10, {RECIPE['epochs']} epochs, delta {DELTA:g}, {repeats} repeats of step games. "
        "Above it: repeats of which the exact test at 5 % refutes the claim; rate at most: the upper 95 % "
        "limit of that rate where the claim is true. Intervals: the widest of all repeats, 95 % each.",
    ]
    for line in chain(games(repeats), rebuilt(max(1, repeats // 4)), attributes(), linkage()):
        print(line, flush=True)
        lines.append(line)
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
