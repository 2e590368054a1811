"""Every membership attack on models with and without privacy, for several numbers of shadow models.

Run `python bench/membership.py`; the table goes to bench/results/membership.md. `--fashion` is the folder
of the IDX files of Fashion-MNIST (Debian: dataset-fashion-mnist). Models are stacked shadow models.

Exit code 1 if a model without privacy does not leak, one with privacy exceeds what its claim allows, or LiRA
or RMIA falls behind a plain loop over records that does what their papers say.
"""

from __future__ import annotations

import argparse
import gzip
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dpaudit import accounting
from dpaudit.asking import Asked
from dpaudit.canary import make_pool
from dpaudit.check import FloatArray, IntArray
from dpaudit.claim import Adjacency, Claim
from dpaudit.protocols import ModelAttack, View
from dpaudit.registry import ATTACKS, build
from dpaudit.stats import roc
from dpaudit.stats.binomial import two_sided
from dpaudit.targets.ensemble.shadows import train_shadows
from dpaudit.targets.recipe import Recipe

RESULTS = Path(__file__).parent / "results" / "membership.md"
FASHION = Path("/usr/share/datasets/fashion-mnist")
TARGETS, COMPARED, COPIES, DELTA = 16, 2, 4, 1e-5
DIRECTIONS = 4
ALPHA = 1e-3
"""Share of benchmarks in which a claim that holds is said to be exceeded."""


def digits() -> tuple[FloatArray, IntArray]:
    """As images, so that they can be shifted."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return (x / 16.0).reshape(-1, 8, 8), y.astype(np.int64)


def fresh() -> tuple[FloatArray, IntArray]:
    """mnist1d, or where that is not installed scikit-learn's Gaussian clusters on a hypercube."""
    try:
        from mnist1d.data import get_dataset_args, make_dataset

        arguments = get_dataset_args()
        arguments.num_samples = 3000
        data = make_dataset(arguments)
        return np.concatenate([data["x"], data["x_test"]]), np.concatenate(
            [data["y"], data["y_test"]]
        ).astype(np.int64)
    except ImportError:
        from sklearn.datasets import make_classification

        x, y = make_classification(
            n_samples=3000, n_features=40, n_informative=12, n_classes=10, flip_y=0.05, random_state=0
        )
        return x / x.std(), y.astype(np.int64)


def fashion(folder: Path) -> tuple[FloatArray, IntArray]:
    """The first 2,000 images.

    Raises:
        FileNotFoundError: no such files.
    """
    with gzip.open(folder / "train-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), dtype=np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(folder / "train-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), dtype=np.uint8, offset=8)
    return images[:2000] / 255.0, labels[:2000].astype(np.int64)


def recipe_for(x: FloatArray, y: IntArray) -> Recipe:
    """One hidden layer of 64 units, 40 epochs of batches of 64."""
    width, classes = x[0].size, int(y.max()) + 1
    return Recipe(
        model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, classes)),
        learning_rate=0.3,
        epochs=40,
        batch_size=64,
    )


def views(x: FloatArray, y: IntArray, recipe: Recipe, models: int, seed: int) -> tuple[list[View], float]:
    """Stacked models on random halves of one pool, with all that the attacks ask for; seconds of training.

    The nearest change of the label takes hundreds of queries a record, and only targets are asked for it.
    """
    pool = make_pool(x, y, n_canaries=0, test_fraction=0.25, rng=np.random.default_rng(seed))
    draws = [pool.draw(np.random.default_rng([seed, i])) for i in range(models)]
    both = Asked(copies=COPIES, directions=DIRECTIONS, gradients=True)
    made: list[View] = []
    for part, asked in ((slice(TARGETS), both), (slice(TARGETS, None), replace(both, directions=0))):
        chosen = draws[part]
        seeds = [1000 * seed + len(made) + i for i in range(len(chosen))]
        made += train_shadows(recipe, {}, chosen, seeds, "cpu", asked)
    return made, sum(view.seconds for view in made)


def naive_lira(target: View, shadows: list[View]) -> FloatArray:
    """Record by record, one variance for all records a side (Carlini et al. 2022, Algorithm 1)."""

    def odds(view: View, i: int) -> float:
        p = np.exp(view.scores[i, view.canaries.y[i]])
        return float(np.log(p) - np.log1p(-min(p, 1 - 1e-16)))

    n = len(target.canaries.y)
    groups = [
        [[odds(s, i) for s in shadows if s.canaries.member[i] == side] for i in range(n)]
        for side in (True, False)
    ]
    spread = []
    for group in groups:
        off = [value - np.mean(values) for values in group for value in values]
        spread.append(math.sqrt(sum(o * o for o in off) / max(len(off) - sum(map(bool, group)), 1)) + 1e-12)
    found = np.full(n, np.nan)
    for i in range(n):
        if groups[0][i] and groups[1][i]:
            z = [(odds(target, i) - np.mean(groups[s][i])) / spread[s] for s in (0, 1)]
            found[i] = -0.5 * z[0] ** 2 - math.log(spread[0]) + 0.5 * z[1] ** 2 + math.log(spread[1])
    return found


def naive_rmia(target: View, shadows: list[View]) -> FloatArray:
    """Record by record and z by z, gamma = 2 (Zarifzadeh et al. 2024, section 3), p(x) the mean reference."""
    test_y = target.canaries.test_y
    lead = []
    for z, label in enumerate(test_y):
        beside = np.mean([math.exp(s.test_scores[z, label]) for s in shadows])
        lead.append(math.exp(target.test_scores[z, label]) / beside)
    found = np.zeros(len(target.canaries.y))
    for i, label in enumerate(target.canaries.y):
        beside = np.mean([math.exp(s.scores[i, label]) for s in shadows])
        ratio = math.exp(target.scores[i, label]) / beside
        found[i] = sum(ratio / other >= 2.0 for other in lead) / len(lead)
    return found


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    data: str
    target: str
    attack: str
    shadows: int
    auc: float
    at_1: float | None
    at_01: float | None
    seconds: float
    exceeded: bool = False


def measured(scores: FloatArray, targets: list[View]) -> tuple[float, float | None, float | None]:
    """AUC, the mean over targets; TPR at 1 % and 0.1 % FPR over the records of all of them."""
    member = np.stack([v.canaries.member for v in targets])
    known = np.isfinite(scores)
    areas = [roc.auc(s[k], m[k], alpha=0.05)[0] for s, k, m in zip(scores, known, member, strict=True)]
    found = [roc.tpr_at_fpr(scores[known], member[known], fpr, alpha=0.05) for fpr in (0.01, 0.001)]
    return (float(np.mean(areas)), *(f[0] if f else None for f in found))  # type: ignore[return-value]


def exceeds(scores: FloatArray, targets: list[View], claim: Claim | None, tests: int) -> bool:
    """Whether a TPR is above 1 - f(FPR) beyond chance, at thresholds set by the first half of the targets."""
    if claim is None:
        return False
    family = accounting.family_for(claim, adjacency=Adjacency.REPLACE_ONE, delta=DELTA)
    curve = family.curve(family.claimed_scale)
    half = len(targets) // 2
    tuned, fresh_ = scores[:half], scores[half:]
    member = np.stack([v.canaries.member for v in targets])[half:]
    for quantile in (0.5, 0.9, 0.99):
        threshold = np.nanquantile(tuned, quantile)
        hits = [int((fresh_[side] >= threshold).sum()) for side in (member, ~member)]
        sizes = [int(np.isfinite(fresh_[side]).sum()) for side in (member, ~member)]
        low = float(two_sided(hits[0], sizes[0], ALPHA / tests)[0])
        high = float(two_sided(hits[1], sizes[1], ALPHA / tests)[1])
        if low > float(curve.tpr(np.array([high]))[0]):
            return True
    return False


def attacks() -> Iterator[tuple[str, ModelAttack]]:
    """Each of the registry, and LiRA with several queries."""
    small = {"boundary-distance": {"directions": DIRECTIONS}, "augmentation-vote": {"queries": COPIES + 1}}
    for name in ATTACKS:
        attack = build("attack", name, ATTACKS, small.get(name, {}))
        if isinstance(attack, ModelAttack):
            yield name, attack
    yield f"lira, {COPIES + 1} queries", build("attack", "lira", ATTACKS, {"queries": COPIES + 1})


def rows(
    data: str, name: str, targets: list[View], shadows: list[View], claim: Claim | None, counts: list[int]
) -> Iterator[Row]:
    tests = 3 * 2 * 20 * len(counts)
    for label, attack in attacks():
        for count in counts if attack.shadows else [0]:
            start = time.perf_counter()
            scores = attack.scores(targets, shadows[:count])
            seconds = time.perf_counter() - start
            if not np.isfinite(scores).any():
                continue
            auc, at_1, at_01 = measured(scores, targets)
            yield Row(
                data=data,
                target=name,
                attack=label,
                shadows=count,
                auc=auc,
                at_1=at_1,
                at_01=at_01,
                seconds=seconds / len(targets),
                exceeded=exceeds(scores, targets, claim, tests),
            )
    for label, naive in (("lira, plain loop", naive_lira), ("rmia, plain loop", naive_rmia)):
        for count in counts:
            start = time.perf_counter()
            scores = np.stack([naive(target, shadows[:count]) for target in targets[:COMPARED]])
            seconds = (time.perf_counter() - start) / COMPARED
            if np.isfinite(scores).any():
                auc, at_1, at_01 = measured(scores, targets[:COMPARED])
                yield Row(
                    data=data, target=name, attack=label, shadows=count, auc=auc, at_1=at_1, at_01=at_01,
                    seconds=seconds,
                )  # fmt: skip
    # The same four targets, for a fair comparison with the loops.
    for label in ("lira", "rmia"):
        attack = build("attack", label, ATTACKS, {})
        for count in counts:
            scores = attack.scores(targets[:COMPARED], shadows[:count])
            if np.isfinite(scores).any():
                auc, at_1, at_01 = measured(scores, targets[:COMPARED])
                yield Row(
                    data=data, target=name, attack=f"{label}, same targets", shadows=count,
                    auc=auc, at_1=at_1, at_01=at_01, seconds=0.0,
                )  # fmt: skip


def failures(found: list[Row]) -> Iterator[str]:
    """What must not be."""
    by = {(r.data, r.target, r.attack, r.shadows): r for r in found}
    for row in found:
        where = f"{row.attack} with {row.shadows} shadows on {row.data}, {row.target}"
        if row.exceeded:
            yield f"{where}: more than the claim allows"
        for name in ("lira", "rmia"):
            if row.attack == f"{name}, plain loop":
                ours = by[row.data, row.target, f"{name}, same targets", row.shadows]
                if ours.auc < row.auc - 0.01:
                    yield f"{where}: AUC {row.auc:.4f}, ours {ours.auc:.4f}"
    for data in {r.data for r in found}:
        best = max(r.auc for r in found if r.data == data and r.target == "no privacy")
        if best < 0.55:
            yield f"{data}: the model without privacy does not leak (AUC {best:.3f})"


def page(found: list[Row], notes: list[str], command: str) -> str:
    lines = ["# Membership attacks", "", f"`{command}` makes this page.", "", *notes, ""]
    lines += ["| data | target | attack | shadows | AUC | TPR at 1 % FPR | TPR at 0.1 % FPR | ms a target |"]
    lines += ["|---|---|---|--:|--:|--:|--:|--:|"]
    percent: Callable[[float | None], str] = lambda v: "no data" if v is None else f"{100 * v:.2f} %"  # noqa: E731
    for r in found:
        cost = f"{1000 * r.seconds:.1f}" if r.seconds else "—"
        lines.append(
            f"| {r.data} | {r.target} | {r.attack} | {r.shadows or '—'} | {r.auc:.3f} | {percent(r.at_1)} | "
            f"{percent(r.at_01)} | {cost} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fashion", type=Path, default=FASHION)
    parser.add_argument("--shadows", type=int, nargs="+", default=[1, 2, 4, 16, 32])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)  # Products this small are slower in two threads.
    sources = {"digits": digits, "fresh draws": fresh, "Fashion-MNIST": lambda: fashion(options.fashion)}
    found: list[Row] = []
    notes = [
        f"{TARGETS} targets each; AUC is their mean, TPR is over the records of all. The loops are "
        f"measured on {COMPARED} targets, beside ours on the same.",
        "",
    ]
    for data, source in sources.items():
        try:
            x, y = source()
        except FileNotFoundError as error:
            notes.append(f"- {data} was skipped: no {error.filename}.")
            continue
        plain = recipe_for(x, y)
        for name, recipe in (
            ("no privacy", plain),
            ("DP", replace(plain, noise_multiplier=2.0, learning_rate=0.5)),
        ):
            made, seconds = views(x, y, recipe, TARGETS + max(options.shadows), seed=len(found))
            claim = _claim(made[0])
            epsilon = f", ε {claim.epsilon:.2f} (replace-one, δ {DELTA:g})" if claim else ""
            notes.append(
                f"- {data}, {name}: {len(made)} models in {seconds:.1f} s; train accuracy "
                f"{np.mean([v.train_accuracy for v in made]):.3f}, test "
                f"{np.mean([v.test_accuracy for v in made]):.3f}{epsilon}"
            )
            print(notes[-1], flush=True)
            found += rows(data, name, made[:TARGETS], made[TARGETS:], claim, options.shadows)
    wrong = list(failures(found))
    notes += [f"- FAILED: {line}" for line in wrong] or [
        "- Nothing exceeded its claim, and no loop was ahead."
    ]
    options.out.write_text(page(found, notes, "python bench/membership.py"))
    print(options.out.read_text())
    if wrong:
        raise SystemExit(1)


def _claim(view: View) -> Claim | None:
    """What the accountant says of the private recipe, under the neighbouring relation of the draw."""
    if not view.ledger:
        return None
    epsilon = accounting.pld_epsilon(view.ledger, DELTA, Adjacency.REPLACE_ONE)
    return Claim(epsilon=epsilon, delta=DELTA, adjacency=Adjacency.REPLACE_ONE, ledger=view.ledger)


if __name__ == "__main__":
    main()
