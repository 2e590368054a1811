"""How much of a record can be rebuilt from one update, with and without differential privacy.

Run `python bench/reconstruction.py`; the tables go to bench/results/reconstruction.md. `--only inversion`
runs these parts alone; a part that is run alone replaces its own section of the page. Digits, one network
of 64-32-10, the first step of the real Opacus loop; epsilons are those of 40 epochs at batches of 64 (delta
1e-5), from Opacus's own calibration. `--records` says how many records are rebuilt in each row.
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

from dpaudit.attacks.reconstruction.gradient_inversion import GradientInversion
from dpaudit.canary import Canaries, make_pool
from dpaudit.evidence import Rebuilt
from dpaudit.likeness import Score
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


PARTS: dict[str, Callable[[int, int], str]] = {"inversion": inversion}


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
