"""Models with and without one record, from chosen initial weights: a fair game that sees missing noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dpaudit.attacks.membership.worst_case import WorstCase
from dpaudit.canary import make_pool
from dpaudit.evidence import TwoSample
from dpaudit.plan import AuditPlan, parse
from dpaudit.record import load
from dpaudit.run import Job, run
from dpaudit.store import Store
from dpaudit.targets.ensemble.worst_case import play
from dpaudit.targets.recipe import Recipe
from dpaudit.verdict import Status

MODULE = """
import numpy as np
import pytest
import torch

from dpaudit.targets.recipe import Recipe

RNG = np.random.default_rng(0)
Y = np.arange(120) % 2


def load():
    return RNG.normal(size=(120, 4)) + 4 * Y[:, None], Y


def model():
    return torch.nn.Linear(4, 2)


def by_hand(x, y, *, seed, device):
    return model()


recipe = Recipe(model=model, epochs=6, batch_size=30, noise_multiplier=1.5, learning_rate=0.1)
plain = Recipe(model=model, epochs=6, batch_size=30, learning_rate=0.1)
"""


def plan(module: str, targets: dict[str, float]) -> AuditPlan:
    document = {
        "data": {"source": f"{module}:load", "canaries": 0},
        "compute": {"engine": "inline", "device": "cpu"},
        "targets": [
            {"name": name, "role": "audited", "train": f"{module}:{name}", "claim": {"epsilon": epsilon}}
            for name, epsilon in targets.items()
        ],
        "attacks": {"worst-case": {"models": 70}},
    }
    return parse(document, "a test")


@pytest.mark.slow
def test_a_run_plays_in_two_trials_refutes_training_without_noise_and_resumes(tmp_path: Path) -> None:
    (tmp_path / "worst_case_own.py").write_text(MODULE)
    job = Job(
        plan=plan("worst_case_own", {"recipe": 9.0, "plain": 1.0, "by_hand": 1.0}),
        plan_text="",
        plan_folder=tmp_path,
        out=tmp_path / "audit",
        command="",
    )
    list(run(job))
    first = load(job.out)
    good, bad, other = first.targets
    assert (good.verdict.status, bad.verdict.status) == (Status.NOT_REFUTED, Status.REFUTED)
    assert bad.verdict.decided_by == "worst-case" and good.estimates[0].n_observations == 70
    assert [row.status for row in first.coverage if row.attack == "worst-case"] == [
        "RUN",
        "RUN",
        "NOT APPLICABLE",
    ]
    assert not other.estimates
    games = [trial for trial in first.trials if trial.kind == "worst-case"]
    assert len(games) == 4
    Store(job.out).path(games[0].key).unlink()
    list(run(job))
    again = load(job.out)
    assert [trial.status for trial in again.trials].count("finished") == 1
    assert again.targets[0].estimates == first.targets[0].estimates


def test_scores_tell_who_was_in_by_the_noise_alone() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    canaries = make_pool(
        rng.normal(size=(120, 4)) + 4 * y[:, None], y, n_canaries=0, test_fraction=0.1, rng=rng
    ).draw(rng)
    coins = np.arange(60) % 2 == 0

    def apart(noise: float) -> float:
        recipe = Recipe(
            model=lambda: torch.nn.Linear(4, 2),
            epochs=8,
            batch_size=200,
            noise_multiplier=noise,
            learning_rate=0.1,
        )
        scores = play(WorstCase(), recipe, {}, canaries, coins, list(range(60)), "cpu")
        spread = np.sqrt((scores[coins].var(ddof=1) + scores[~coins].var(ddof=1)) / 2)
        return float((scores[coins].mean() - scores[~coins].mean()) / spread)

    # Full batches: what the whole run releases is a Gaussian with mu = sqrt(8) / noise, and no more shows.
    mu = np.sqrt(8) / 2.0
    assert abs(apart(2.0) - mu) < 3 * np.sqrt(4 / 60 * (1 + mu**2 / 8))


def test_a_clip_bkd_canary_lies_where_the_others_do_not() -> None:
    others = np.random.default_rng(0).normal(size=(50, 6)) * np.array([5, 4, 3, 2, 1, 0.01])
    record = WorstCase(canary="clip-bkd").features(others)
    assert abs(np.linalg.norm(record) - np.linalg.norm(others, axis=1).max()) < 1e-9
    assert abs(record[5]) > 0.99 * np.linalg.norm(record)


def test_evidence_of_two_samples_survives_the_disk(tmp_path: Path) -> None:
    from dpaudit.claim import Adjacency
    from dpaudit.evidence import Access

    kept = TwoSample(
        scores_in=np.array([1.0, 2.0]),
        scores_out=np.array([0.0]),
        source="worst-case",
        access=Access.FINAL_MODEL,
        adjacency=Adjacency.ADD_REMOVE,
    )
    Store(tmp_path).save("a" * 32, {"evidence": (kept,)})
    (back,) = Store(tmp_path).load("a" * 32)["evidence"]
    assert np.array_equal(back.scores_in, kept.scores_in) and back.adjacency is kept.adjacency
