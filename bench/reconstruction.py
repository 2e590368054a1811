"""How much of a record can be rebuilt from one update, with and without differential privacy.

Run `python bench/reconstruction.py`; the tables go to bench/results/reconstruction.md. `--only inversion`
or `--only weights` runs that part alone; a part that is run alone replaces its own section of the page.
Digits, one network of 64-32-10, the first step of the real Opacus loop; epsilons are those of 40 epochs at
batches of 64 (delta 1e-5), from Opacus's own calibration.
`--records` says how many records are rebuilt in each row.
"""

from __future__ import annotations

import argparse
import math
import platform
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from opacus.accountants.utils import get_noise_multiplier
from scipy.optimize import brentq
from scipy.special import ndtr

from dpaudit.attacks.reconstruction.gradient_inversion import GradientInversion
from dpaudit.attacks.reconstruction.informed import Informed
from dpaudit.attacks.reconstruction.model_inversion import ModelInversion
from dpaudit.canary import Canaries, make_pool
from dpaudit.evidence import Rebuilt
from dpaudit.likeness import Score
from dpaudit.protocols import View
from dpaudit.targets.convex import fit_convex
from dpaudit.targets.datasets import digits
from dpaudit.targets.observed import TrainingFunction
from dpaudit.targets.trainer import fit_opacus, fit_plain

RESULTS = Path(__file__).parent / "results" / "reconstruction.md"
EPSILONS = (1.0, 4.0, 8.0, 16.0)
BATCHES = (1, 2, 4, 8, 16)
PROTECTED = (4, 16)
CLIP_ALONE = 1e-6
NOISES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
EPOCHS, BATCH, DELTA = 40, 64, 1e-5
TARGET = 0.9


def pool(seed: int) -> Canaries:
    x, y = digits()
    rng = np.random.default_rng(seed)
    return make_pool(x, y, n_canaries=0, test_fraction=0.1, rng=rng).draw(rng)


def inverted(
    canaries: Canaries, noise: float | None, attack: GradientInversion, seed: int
) -> tuple[list[Rebuilt], float]:
    """What was rebuilt of real records at the first step, and the seconds it took."""
    fit: Callable[..., Any] = fit_plain if noise is None else fit_opacus
    options: dict[str, Any] = {"epochs": 1, "batch_size": BATCH}
    if noise is not None:
        options |= {"noise_multiplier": noise, "accountant": "rdp"}
    start = time.perf_counter()
    target = TrainingFunction(name="digits", fit=fit, delta=DELTA, options=options)
    view = target.train(canaries, seed=seed, device="cpu", attacks=(attack,))
    found = [e for e in view.evidence if isinstance(e, Rebuilt) and e.real]
    return found, time.perf_counter() - start


def cell(found: Rebuilt, name: str, *, blind: bool = False) -> str:
    score: Score | None = next((s for s in found.scores if s.name == name), None)
    if score is None or score.lower is None or score.upper is None:
        return "-"
    digits_ = 1 if name.startswith("psnr") else 2
    text = f"{score.mean:.{digits_}f} ({score.lower:.{digits_}f} to {score.upper:.{digits_}f})"
    return f"{text}, others {score.blind:.{digits_}f}" if blind and score.blind is not None else text


def row(label: str, found: Rebuilt, seconds: float) -> str:
    cells = (cell(found, "ssim", blind=True), cell(found, "rebuilt"), cell(found, "psnr", blind=True))
    more = (cell(found, "features"), cell(found, "labels"))
    return f"| {label} | {found.method} | {' | '.join((*cells, *more))} | {seconds:.1f} |"


HEAD = (
    "| {0} | attack | SSIM | SSIM >= 0.9 | PSNR, dB | features | labels | seconds, all attacks |\n"
    "|---|---|---|---|---|---|---|---|"
)


def noise_of(epsilon: float, records: int) -> float:
    rate = 1 / math.ceil(records / BATCH)
    steps = EPOCHS * math.ceil(records / BATCH)
    found = get_noise_multiplier(
        target_epsilon=epsilon, target_delta=DELTA, sample_rate=rate, steps=steps, accountant="prv"
    )
    return float(found)


def by_epsilon(canaries: Canaries, records: int, seed: int) -> Iterator[str]:
    yield HEAD.format("epsilon (noise)")
    attack = GradientInversion(records=records, height=8, width=8, iterations=150, restarts=1)
    settings: list[tuple[str, float | None]] = [("none: plain SGD", None), ("none: clip alone", CLIP_ALONE)]
    settings += [(f"{e:g}", noise_of(e, int(canaries.member.sum()))) for e in reversed(EPSILONS)]
    for label, noise in settings:
        found, seconds = inverted(canaries, noise, attack, seed)
        shown = f"{label} ({noise:.2f})" if noise is not None and noise > 1e-3 else label
        yield from (row(shown, each, seconds) for each in found if each.condition == "as released")


def by_batch(canaries: Canaries, records: int, seed: int) -> Iterator[str]:
    yield HEAD.format("records in the update, epsilon")
    at_eight = noise_of(8.0, int(canaries.member.sum()))
    for batch in BATCHES:
        attack = GradientInversion(
            records=records // batch * batch, batch=batch, height=8, width=8, iterations=300, restarts=2
        )
        protected = (("none, clip alone", CLIP_ALONE), ("8", at_eight)) if batch in PROTECTED else ()
        for label, noise in (("none", None), *protected):
            found, seconds = inverted(canaries, noise, attack, seed)
            released = (each for each in found if each.condition == "as released")
            yield from (row(f"{batch}, {label}", each, seconds) for each in released)


def by_noise(canaries: Canaries, records: int, seed: int) -> Iterator[str]:
    yield (
        "| noise multiplier | read off, PSNR without a box, dB | no-prior bound, dB "
        "| Inverting Gradients, PSNR, dB | Inverting Gradients, SSIM |\n|---|---|---|---|---|"
    )
    attack = GradientInversion(records=records, height=8, width=8, iterations=150, restarts=1)
    for noise in NOISES:
        found, _ = inverted(canaries, noise, attack, seed)
        released = {each.method: each for each in found if each.condition == "as released"}
        read, angle = released["read off the first layer"], released["Inverting Gradients"]
        bound = next(s.bound for s in read.scores if s.bound is not None)
        cells = (cell(read, "psnr, no box"), f"{bound:.1f}", cell(angle, "psnr", blind=True))
        yield f"| {noise:g} | {' | '.join(cells)} | {cell(angle, 'ssim', blind=True)} |"


def single(canaries: Canaries, seed: int) -> str:
    """The target: mean SSIM of single records without privacy."""
    attack = GradientInversion(records=64, height=8, width=8, iterations=150, restarts=1)
    found, seconds = inverted(canaries, None, attack, seed)
    score = next(s for e in found if e.method == "Inverting Gradients" for s in e.scores if s.name == "ssim")
    reached = "reached" if score.mean >= TARGET else "missed"
    return (
        f"Inverting Gradients on {score.n} single digits without privacy: mean SSIM {score.mean:.3f} "
        f"({score.lower:.3f} to {score.upper:.3f}), target {TARGET}: {reached}; "
        f"{seconds:.1f} s with the other attacks."
    )


INTRODUCTION = """## Gradient inversion

One update of the first step, as the real optimizer releases it, on a batch of the client's records alone.
Means over records with 95 % intervals; "others" compares the same pictures with those of another update.
All attacks of one row took the seconds of that row together."""
BESIDE = """### Beside the bound without a prior

The bound is the expected PSNR of the best reconstruction without a prior, N(x, sigma^2 |x|^2 I)
(arXiv:2402.12861). A guess that knows the range of pixels can lie above it."""


def inversion(records: int, seed: int) -> str:
    canaries = pool(seed)
    parts = (
        INTRODUCTION,
        single(canaries, seed),
        "### One record in the update",
        "\n".join(by_epsilon(canaries, records, seed)),
        "### Several records in the update",
        "\n".join(by_batch(canaries, records, seed)),
        BESIDE,
        "\n".join(by_noise(canaries, records, seed)),
    )
    return "\n\n".join(parts)


WEIGHTS = """## From the final model

No share of alpha, no bound of epsilon: what follows describes. Means with 95 % intervals, over ten classes
or over records. Class representatives (Fredrikson et al. 2015) stand beside the nearest record of their class
that was trained on, and the nearest of as many that were not."""
LAST_RECORD = """### The last unknown record of a linear model

Multinomial logistic regression on {n} digits, weight decay {decay:g}, by the closed form (arXiv:2201.04845).
Output perturbation adds Gaussian noise to the optimum, for the sensitivity 2 L / (n lambda) of replacing one
record (Chaudhuri et al. 2011, arXiv:0912.0071; L = sqrt(2 * 65), which no gradient of a record in the unit
box exceeds), at delta {delta:g} (Balle and Wang 2018, arXiv:1805.06530). The smaller noises have no useful
epsilon."""
DECAY = 0.01
LEAST_NOISES = (1e-6, 1e-4, 1e-2)


def one_a_class(seed: int) -> Canaries:
    """Of each digit one picture that is trained on and one that is not."""
    x, y = digits()
    order = np.random.default_rng(seed).permutation(len(x))
    chosen = [order[y[order] == digit][:2] for digit in range(10)]
    kept = np.array(chosen).T.ravel()
    member, canary = np.repeat([True, False], 10), np.zeros(20, dtype=bool)
    return Canaries(x=x[kept], y=y[kept], member=member, canary=canary, test_x=x[:50], test_y=y[:50])


def trained(
    canaries: Canaries, fit: Callable[..., Any], attack: ModelInversion | Informed, seed: int, **o: Any
) -> View:
    target = TrainingFunction(name="digits", fit=fit, delta=DELTA, options=o, asked=attack.asked)
    return target.train(canaries, seed=seed, device="cpu")


def by_representatives(canaries: Canaries, seed: int) -> Iterator[str]:
    yield (
        "| data, epsilon | test accuracy | SSIM, nearest trained on | nearest not trained on "
        "| correlation, nearest trained on | nearest not trained on | own class average | other averages |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    attack = ModelInversion(height=8, width=8)
    single, long = one_a_class(seed), {"epochs": 300, "batch_size": 10}
    n = int(canaries.member.sum())
    private = [(f"digits, {e:g}", canaries, noise_of(e, n), {"epochs": EPOCHS}) for e in (8.0, 1.0)]
    for label, data, noise, options in (
        ("digits, none", canaries, None, {"epochs": EPOCHS}),
        *private,
        ("one record a class, none", single, None, long),
        ("one record a class, noise 2", single, 2.0, long),
    ):
        more = {} if noise is None else {"noise_multiplier": noise, "accountant": "rdp"}
        view = trained(data, fit_plain if noise is None else fit_opacus, attack, seed, **options, **more)
        made = attack.rebuilt(view)
        assert not isinstance(made, str)
        blind = {s.name: f"{s.blind:.2f}" for s in made[0].scores if s.blind is not None}
        cells = [f"{cell(made[0], s)} | {blind[s]}" for s in ("ssim", "correlation", "average")]
        yield f"| {label} | {view.test_accuracy:.2f} | {' | '.join(cells)} |"


def gaussian_std(epsilon: float, sensitivity: float) -> float:
    """Noise of the Gaussian mechanism at DELTA, by its exact profile."""

    def excess(std: float) -> float:
        a, b = sensitivity / (2 * std), epsilon * std / sensitivity
        return float(ndtr(a - b) - math.exp(epsilon) * ndtr(-a - b)) - DELTA

    return float(brentq(excess, 1e-3 * sensitivity, 1e3 * sensitivity))


def perturbed(x: np.ndarray, y: np.ndarray, *, seed: int, device: str, noise: float) -> torch.nn.Module:
    model = fit_convex(x, y, seed=seed, device=device, weight_decay=DECAY)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(noise * torch.randn_like(weights))
    return model


def by_last_record(canaries: Canaries, seed: int) -> Iterator[str]:
    yield "| training | test accuracy | SSIM | SSIM >= 0.9 | PSNR, dB | labels |\n|---|---|---|---|---|---|"
    x = canaries.train_x
    sensitivity = 2 * math.sqrt(2 * (x.shape[1] + 1)) / (len(x) * DECAY)
    exact, free = Informed(height=8, width=8, weight_decay=DECAY), Informed(height=8, width=8)
    stds = [(f"noise {s:g}", s) for s in LEAST_NOISES]
    stds += [
        (f"epsilon {e:g}, noise {gaussian_std(e, sensitivity):.2f}", gaussian_std(e, sensitivity))
        for e in (8.0, 1.0)
    ]
    rows: list[tuple[str, Callable[..., Any], Informed, dict[str, Any]]] = [
        ("the optimum", fit_convex, exact, {"weight_decay": DECAY}),
        ("the optimum, regulariser not known", fit_convex, free, {"weight_decay": DECAY}),
        *((f"output perturbation, {label}", perturbed, exact, {"noise": std}) for label, std in stds),
        (
            f"plain SGD, {EPOCHS} epochs, far from the optimum",
            fit_plain,
            free,
            {"hidden": (), "epochs": EPOCHS},
        ),
    ]
    for label, fit, attack, options in rows:
        view = trained(canaries, fit, attack, seed, **options)
        made = attack.rebuilt(view)
        assert not isinstance(made, str)
        cells = (
            cell(made[0], "ssim", blind=True),
            cell(made[0], "rebuilt"),
            cell(made[0], "psnr", blind=True),
        )
        yield f"| {label} | {view.test_accuracy:.2f} | {' | '.join(cells)} | {cell(made[0], 'labels')} |"


def weights(records: int, seed: int) -> str:
    """What comes out of final models; `records` has no part in it."""
    canaries = pool(seed)
    parts = (
        WEIGHTS,
        "### Class representatives (qualitative)",
        "\n".join(by_representatives(canaries, seed)),
        LAST_RECORD.format(n=int(canaries.member.sum()), decay=DECAY, delta=DELTA),
        "\n".join(by_last_record(canaries, seed)),
    )
    return "\n\n".join(parts)


PARTS: dict[str, Callable[[int, int], str]] = {"inversion": inversion, "weights": weights}


def replaced(page: str, section: str) -> str:
    """The page with a section of the same heading replaced, or with a new one at the end."""
    heading = section.splitlines()[0]
    pattern = rf"^{re.escape(heading)}\n.*?(?=^## |\Z)"
    if re.search(pattern, page, flags=re.MULTILINE | re.DOTALL):
        return (
            re.sub(pattern, lambda _: section + "\n\n", page, flags=re.MULTILINE | re.DOTALL).rstrip() + "\n"
        )
    return f"{page.rstrip()}\n\n{section}\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="parts to run")
    parser.add_argument("--records", type=int, default=16)
    parser.add_argument("--seed", type=int, default=2026)
    chosen = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    title = "# Reconstruction\n\nMade by `bench/reconstruction.py`."
    page = RESULTS.read_text() if RESULTS.exists() else f"{title}\n"
    for name in chosen.only.split(","):
        section = PARTS[name](chosen.records, chosen.seed)
        made = f"Seed {chosen.seed}, one thread of {platform.machine()}, torch {torch.__version__}."
        page = replaced(page, f"{section}\n\n{made}")
    RESULTS.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
