"""What an audit shows of the reference run: 10,000 records, sample rate 0.02, 500 steps, noise multiplier 1.

Run `python bench/reference.py`; the table goes to bench/results/reference.md. Each step is executed again
with canaries at frozen weights, so that a run of 500 steps gives 50,500 observations.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import machine, records

from dpaudit.accounting import family_for, pld_epsilon
from dpaudit.attacks.replay import ReplayAttack
from dpaudit.attacks.step_canary import StepCanary
from dpaudit.evidence import KnownNull, Replay
from dpaudit.stats import known_null, noise
from dpaudit.targets.observe import Observation, observe

RESULTS = Path(__file__).parent / "results" / "reference.md"
ALPHA, DELTA = 0.05, 1e-5


def train(replays: int) -> Observation:
    """Ten epochs of a small network under observation."""
    rng = np.random.default_rng(0)
    attacks = (StepCanary(references=1000, replays=replays, coordinates=2048), ReplayAttack(steps=6))
    x = torch.randn(10_000, 20)
    data = TensorDataset(x, (x[:, 0] > 0).long())
    with observe(attacks, records(0), rng) as seen:
        model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))
        private, optimizer, loader = PrivacyEngine().make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            data_loader=DataLoader(data, batch_size=200),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
        )
        for _ in range(10):
            for features, labels in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(private(features), labels).backward()
                optimizer.step()
    return seen


def main() -> None:
    """Train, bound, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replays", type=int, default=100, help="re-executions of each step")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    start = time.perf_counter()
    seen = train(arguments.replays)
    claim = seen.claim(DELTA)
    assert claim is not None
    family, true = family_for(claim), pld_epsilon(claim.ledger, DELTA)
    found = []
    for evidence in seen.evidence():
        if isinstance(evidence, KnownNull):
            found += [known_null.fixed(evidence, family, alpha=ALPHA)]
            found += [known_null.anytime(evidence, family, alpha=ALPHA)]
        elif isinstance(evidence, Replay):
            found += [noise.replay(evidence, family, alpha=ALPHA)]
    lines = [
        "# The reference run",
        "",
        machine(),
        "",
        f"{true:.3f} is the epsilon of what ran by PLD, {claim.epsilon:.3f} what the accountant claims, at "
        f"delta {DELTA:g}; bounds at alpha = {ALPHA} each. {time.perf_counter() - start:.0f} s in all.",
        "",
        "| bound | observations | epsilon at least | of the true one |",
        "|---|--:|--:|--:|",
        *(
            f"| {e.method} | {e.n_observations:,} | {e.epsilon_lower or 0:.3f} | "
            f"{(e.epsilon_lower or 0) / true:.3f} |"
            for e in found
        ),
    ]
    print("\n".join(lines))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
