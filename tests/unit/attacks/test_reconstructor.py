"""The reconstructor: fitted as a loop would, near where nothing hides the record, lost where noise does."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.linear_model import Ridge

from dpaudit import measure
from dpaudit.accounting import family_for, pld_epsilon
from dpaudit.asking import Game, LineUp, Reconstructs
from dpaudit.attacks.reconstruction import radial
from dpaudit.attacks.reconstruction.reconstructor import Reconstructor
from dpaudit.canary import make_pool
from dpaudit.claim import Claim, Phase
from dpaudit.errors import UsageError
from dpaudit.evidence import Guesses, Rebuilt
from dpaudit.plan import parse
from dpaudit.plan_prospects import of_plan
from dpaudit.record import load
from dpaudit.reports import rebuilt as told
from dpaudit.run import Job, run
from dpaudit.stats.reconstruction import guesses
from dpaudit.targets.ensemble.line_up import fresh
from dpaudit.targets.ensemble.reconstructor import play
from dpaudit.targets.ensemble.training import train_ensemble
from dpaudit.targets.models import mlp
from dpaudit.targets.recipe import Recipe

RNG = np.random.default_rng(0)
Y = np.arange(300) % 2
POINTS = RNG.normal(size=(300, 12)) + Y[:, None]
POOL = make_pool(POINTS, Y, n_canaries=0, test_fraction=0.1, rng=np.random.default_rng(3)).draw(
    np.random.default_rng(4)
)
LEDGER = (Phase(noise_multiplier=4.0, sample_rate=1.0, steps=6),)
MODULE = """
import numpy as np
import torch

from dpaudit.targets.recipe import Recipe

RNG = np.random.default_rng(0)
Y = np.arange(200) % 2


def load():
    return RNG.normal(size=(200, 9)) + Y[:, None], Y


def model():
    return torch.nn.Linear(9, 2)


def by_hand(x, y, *, seed, device):
    return model()


def network():
    return torch.nn.Sequential(torch.nn.Linear(9, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))


plain = Recipe(model=network, epochs=6, batch_size=200, learning_rate=0.5)
"""


def recipe(noise: float | None) -> Recipe:
    return Recipe(
        model=lambda: mlp(12, (8,), 2), epochs=6, batch_size=400, noise_multiplier=noise, learning_rate=0.5
    )


def played(noise: float | None, seed: int = 6, **options: object) -> tuple[Guesses | Rebuilt, ...]:
    attack = Reconstructor(**{"models": 40, "shadows": 80, "candidates": [4, 30], **options})  # type: ignore[arg-type]
    return play(attack, recipe(noise), {}, POOL, np.random.default_rng(seed), "cpu")


def score(found: tuple[Guesses | Rebuilt, ...], name: str) -> float:
    return next(each.mean for each in found[0].scores if each.name == name)  # type: ignore[union-attr]


def test_left_out_errors_are_those_of_a_loop_that_leaves_each_model_out() -> None:
    known, wanted = RNG.normal(size=(14, 20)), RNG.normal(size=(14, 3))
    known, wanted = known - known.mean(axis=0), wanted - wanted.mean(axis=0)
    kernel = known @ known.T
    least = np.inf
    for penalty in radial._PENALTIES * np.linalg.eigvalsh(kernel).mean():
        apart = []
        for out in range(14):
            kept = np.arange(14) != out
            ridge = Ridge(alpha=penalty).fit(known[kept], wanted[kept])
            apart.append(ridge.predict(known[[out]])[0] - wanted[out])
        if np.mean(np.square(apart)) < least:
            least, whole = float(np.mean(np.square(apart))), Ridge(alpha=penalty).fit(known, wanted)
    error, layer = radial._ridge(kernel, wanted)
    assert error == pytest.approx(least, rel=1e-6)
    assert np.allclose(kernel @ layer, whole.predict(known), atol=1e-6)


def test_a_bent_map_is_learned_and_what_is_not_finite_yields_the_mean_record() -> None:
    inside = RNG.normal(size=(300, 2))
    weights = np.concatenate([inside, np.tanh(inside @ RNG.normal(size=(2, 20)))], axis=1)
    records = np.stack([inside[:, 0] * inside[:, 1], inside[:, 0] ** 2], axis=1)
    weights[250], weights[3] = np.nan, np.inf
    found = radial.rebuild(weights[:250], records[:250], weights[250:])
    error = np.mean((found[1:] - records[251:]) ** 2) / np.var(records[251:])
    assert error < 0.02
    kept = np.arange(250) != 3
    assert np.allclose(found[0], records[:250][kept].mean(axis=0))


def test_real_loops_are_rebuilt_by_what_was_learned_from_stacked_shadow_models() -> None:
    """Full batches from known weights: the targets come from the recipe's own loop, one by one."""
    start = fresh(recipe(None))
    same = replace(recipe(None), model=lambda: copy.deepcopy(start))
    x, others = POINTS[:100].astype(np.float32), POINTS[100:].astype(np.float32)
    member = np.ones((170, 270), dtype=bool)
    member[:, 100:] = np.eye(170, dtype=bool)
    labels = np.concatenate([Y[:100], np.zeros(170, dtype=np.int64)])
    shadows = train_ensemble(same, np.concatenate([x, others])[:270], labels, member, [0] * 170, public=100)
    known = np.concatenate([v.flatten(1).double().numpy() for v in shadows.values.values()], axis=1)
    released = []
    for number in range(170, 182):
        model = same(np.concatenate([x, others[[number]]]), np.append(Y[:100], 0), seed=1, device="cpu")
        released.append(torch.cat([p.detach().flatten().double() for p in model.parameters()]).numpy())
    found = radial.rebuild(known, others[:170].astype(np.float64), np.stack(released))
    wanted = others[170:182]
    error = np.mean((found - wanted) ** 2)
    assert error < 0.5 * np.mean((others[:170].mean(axis=0) - wanted) ** 2)


def test_it_wins_without_noise_and_stays_below_the_limit_of_a_claim_that_holds() -> None:
    family = family_for(Claim(epsilon=pld_epsilon(LEDGER, 1e-5), delta=1e-5, ledger=LEDGER))
    sound, broken = played(4.0), played(0.02)
    for found in (sound, broken):
        assert [(each.trials, each.baseline) for each in found[1:]] == [(40, 1 / 4), (40, 1 / 30)]  # type: ignore[union-attr]
    assert all((guesses(each, family, alpha=0.01).p_value or 0) > 0.01 for each in sound[1:])  # type: ignore[arg-type]
    assert all((guesses(each, family, alpha=0.01).p_value or 0) < 1e-4 for each in broken[1:])  # type: ignore[arg-type]
    assert score(broken, "psnr") > score(broken, "mean record") + 2 > score(sound, "psnr") + 1
    assert score(broken, "picked") > 0.5 > score(sound, "picked")


def test_weights_that_know_nothing_win_one_game_in_n() -> None:
    attack = Reconstructor(candidates=[2, 5], shadows=40)
    secrets = RNG.integers(5, size=2000)
    found = attack.reconstructed(
        RNG.normal(size=(40, 6)),
        RNG.normal(size=(40, 3)),
        RNG.normal(size=(2000, 6)),
        RNG.normal(size=(5, 3)),
        secrets,
        np.random.default_rng(1),
    )
    for each in found[1:]:
        print(f"1 of {1 / each.baseline:.0f}: attained {each.successes / each.trials:.4f}")  # type: ignore[union-attr]
        assert 1e-4 < binom.cdf(each.successes, each.trials, each.baseline) < 1 - 1e-4  # type: ignore[union-attr]


def test_known_batches_are_told_and_test_nothing_and_each_candidate_comes_once() -> None:
    (found,) = played(None, batches="known", start="known", label="own")
    assert isinstance(found, Rebuilt) and "order of batches known; own label" in found.subject
    assert found.scores[0].n == 30
    assert score((found,), "psnr") > score((found,), "mean record") + 2
    unknown = played(None, start="recipe")
    assert score(unknown, "psnr") < score(unknown, "mean record") + 1 and len(unknown) == 3


def test_pictures_are_kept_only_where_they_are_asked_for() -> None:
    size = {"height": 3, "width": 4}
    assert not played(None, **size)[0].panels  # type: ignore[union-attr]
    attack = Reconstructor(models=9, shadows=20, candidates=20, **size).with_records()  # type: ignore[arg-type]
    shown = play(attack, recipe(None), {}, POOL, np.random.default_rng(0), "cpu")[0]
    assert [panel.row for panel in shown.panels].count("original") == 8  # type: ignore[union-attr]
    assert {each.name for each in shown.scores} > {"ssim", "rebuilt", "psnr"}  # type: ignore[union-attr]


def test_it_is_a_game_of_its_own_kind_and_refuses_what_cannot_be_played() -> None:
    attack = Reconstructor()
    assert isinstance(attack, Reconstructs) and not isinstance(attack, Game | LineUp)
    with pytest.raises(UsageError, match="whoever knows the seed knows both"):
        Reconstructor(batches="known", start="recipe")
    with pytest.raises(UsageError, match="Ask for fewer candidates"):
        played(None, candidates=134)


def test_a_run_plays_it_in_one_trial_and_the_report_says_what_came_back(tmp_path: Path) -> None:
    (tmp_path / "reconstructor_own.py").write_text(MODULE)
    document = {
        "data": {"source": "reconstructor_own:load", "canaries": 0},
        "compute": {"engine": "inline", "device": "cpu"},
        "targets": [
            {"name": name, "train": f"reconstructor_own:{name}", "claim": {"epsilon": 1.0}}
            for name in ("plain", "by_hand")
        ],
        "attacks": {"reconstructor": {"models": 70, "shadows": 50, "candidates": [3, 12]}},
    }
    plan = parse(document, "a test")
    assert measure.weights(plan) == {"reconstructor, 1 of 3": 0.5, "reconstructor, 1 of 12": 0.5}
    assert {each.observations for each in of_plan(plan, tmp_path)["plain"][1]} == {"70 games"}
    job = Job(plan=plan, plan_text="", plan_folder=tmp_path, out=tmp_path / "audit", command="")
    list(run(job))
    record = load(job.out)
    stacked, by_hand = record.targets
    assert [(rate.source, rate.n) for rate in stacked.rates] == [
        ("reconstructor, 1 of 3", 70),
        ("reconstructor, 1 of 12", 70),
    ]
    assert stacked.verdict.status == "REFUTED"  # type: ignore[union-attr]
    assert not by_hand.rates and not by_hand.rebuilt
    assert "that of the mean of the records it knows of" in told.sentence(stacked)
    rows = {row.target: row.status for row in record.coverage if row.attack == "reconstructor"}
    assert rows == {"plain": "RUN", "by_hand": "NOT APPLICABLE"}


def test_a_plan_in_which_it_tests_nothing_gives_it_no_share_and_says_so(tmp_path: Path) -> None:
    attacks = {"reconstructor": {"batches": "known", "start": "known"}, "loss-threshold": {}}
    plan = parse({"targets": [{"name": "t", "train": "opacus"}], "attacks": attacks})
    assert measure.weights(plan) == {"loss-threshold": plan.attacks["loss-threshold"].weight}
