"""Games of one of n: counted as a loop would, at the level that is stated, and lost by what is broken."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom

from dpaudit import measure
from dpaudit.accounting import family_for, pld_epsilon
from dpaudit.attacks.reconstruction.line_up import LineUp
from dpaudit.attacks.reconstruction.prior_aware import PriorAware
from dpaudit.attacks.reconstruction.tally import Tally
from dpaudit.canary import make_pool
from dpaudit.claim import Adjacency, Claim, Phase
from dpaudit.errors import UsageError
from dpaudit.evidence import Access, Guesses
from dpaudit.plan import parse
from dpaudit.protocols import RowArray
from dpaudit.record import load
from dpaudit.run import Job, run
from dpaudit.stats.reconstruction import guesses, success_limit
from dpaudit.targets.ensemble.line_up import play
from dpaudit.targets.recipe import Recipe
from tests.training import canaries

SIZES = (4, 50)
MODULE = """
import numpy as np
import torch

from dpaudit.targets.recipe import Recipe

RNG = np.random.default_rng(0)
Y = np.arange(120) % 2


def load():
    return RNG.normal(size=(120, 40)) + Y[:, None], Y


def model():
    return torch.nn.Linear(40, 2)


def by_hand(x, y, *, seed, device):
    return model()


plain = Recipe(model=model, epochs=10, batch_size=30, learning_rate=2.0)
"""
LEDGER = (Phase(noise_multiplier=1.0, sample_rate=1.0, steps=1),)


@dataclass
class Gaussian:
    """A step of the Gaussian mechanism on records with orthogonal gradients at the clipping norm."""

    rng: np.random.Generator
    sigma: float
    claimed: float = 1.0
    optimizer: int = 0
    index: int = 0
    phase: int = 0
    sizes: tuple[int, ...] = (64,)
    max_grad_norm: float = 1.0
    batch: RowArray = field(default_factory=lambda: 3 * np.eye(8, 64, dtype=np.float32))

    @property
    def noise_multiplier(self) -> float:
        return self.claimed

    def rows(self) -> RowArray:
        return self.batch

    def release(
        self,
        *,
        insert: RowArray | None = None,
        remove: int | None = None,
        noise: bool = True,
        frozen: bool = False,
    ) -> RowArray:
        rows = self.batch if remove is None else np.delete(self.batch, remove, axis=0)
        rows = rows if insert is None else np.concatenate([rows, insert[None]])
        clipped = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1.0)
        drawn = self.rng.normal(scale=self.sigma, size=64) * noise
        return np.asarray(clipped.sum(axis=0) + drawn, dtype=np.float32)


def rode(
    sigma: float, steps: int, seed: int, adjacency: str = "add-remove", n: tuple[int, ...] = SIZES
) -> dict[str, Guesses]:
    rng = np.random.default_rng(seed)
    attack = PriorAware(candidates=list(n), games=1, adjacency=adjacency)
    session = attack.begin(canaries(), rng)
    for _ in range(steps):
        session.observe(Gaussian(rng, sigma))  # type: ignore[arg-type]
    return {each.source: each for each in session.evidence()}


def test_a_tally_counts_as_a_loop_does() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(300, 20))
    tally = Tally((3, 20))
    tally.count(scores, rng)
    small, large = tally.evidence("x", Access.STEP, "run")
    assert small.successes == sum(row[0] == max(row[:3]) for row in scores.tolist())
    assert large.successes == sum(row[0] == max(row) for row in scores.tolist())
    assert (small.baseline, large.baseline, large.trials) == (1 / 3, 1 / 20, 300)
    assert (small.source, large.source) == ("x, 1 of 3", "x, 1 of 20")


def test_ties_and_what_is_no_number_win_as_chance_does() -> None:
    rng = np.random.default_rng(1)
    for scores in (np.zeros((4000, 5)), np.full((4000, 5), np.nan)):
        tally = Tally((5,))
        tally.count(scores, rng)
        (found,) = tally.evidence("x", Access.STEP, "run")
        assert 1e-4 < binom.cdf(found.successes, 4000, 0.2) < 1 - 1e-4


@pytest.mark.parametrize("attack", [PriorAware, LineUp])
def test_a_number_of_candidates_is_asked_for_once(attack: type[PriorAware] | type[LineUp]) -> None:
    with pytest.raises(UsageError, match="found one twice"):
        attack(candidates=[10, 10])


@pytest.mark.parametrize("wrong", [1, [10, 1], [], 20_000])
def test_impossible_sizes_are_refused(wrong: int | list[int]) -> None:
    with pytest.raises(UsageError, match="candidates"):
        PriorAware(candidates=wrong)


@pytest.mark.parametrize("adjacency", ["add-remove", "replace-one"])
def test_games_of_a_sound_step_keep_the_level(adjacency: str) -> None:
    """Attained level over 60 audits at 5 %; both sizes are tests of their own."""
    family = family_for(
        Claim(epsilon=pld_epsilon(LEDGER, 1e-5), delta=1e-5, ledger=LEDGER), adjacency=Adjacency(adjacency)
    )
    limits = {n: success_limit(family, 1 / n, "step") for n in SIZES}
    refuted = dict.fromkeys(SIZES, 0)
    for seed in range(60):
        for each, n in zip(rode(1.0, 20, seed, adjacency).values(), SIZES, strict=True):
            refuted[n] += binom.sf(each.successes - 1, each.trials, limits[n]) <= 0.05
    print(f"attained level {adjacency}: {refuted} of 60")
    assert all(count <= binom.ppf(0.999, 60, 0.05) for count in refuted.values())


def test_half_the_noise_is_found_by_both_sizes_and_both_relations() -> None:
    for adjacency in ("add-remove", "replace-one"):
        family = family_for(
            Claim(epsilon=pld_epsilon(LEDGER, 1e-5), delta=1e-5, ledger=LEDGER),
            adjacency=Adjacency(adjacency),
        )
        found = rode(0.25, 100, 5, adjacency)
        for each in found.values():
            estimate = guesses(each, family, alpha=0.05)
            assert each.adjacency == adjacency and estimate.p_value is not None
            assert estimate.p_value < 1e-3 and (estimate.epsilon_lower or 0) > estimate.claimed_epsilon  # type: ignore[operator]


def test_success_among_orthogonal_records_is_that_of_the_likeliest() -> None:
    """Probability that a unit shift over noise of deviation 1 wins against 3 others, by quadrature."""
    from scipy.integrate import quad
    from scipy.stats import norm

    right = quad(lambda z: norm.pdf(z - 1.0) * norm.cdf(z) ** 3, -8, 9)[0]
    (found,) = rode(1.0, 1500, 9, n=(4,)).values()
    assert found.source == "prior-aware"
    assert 1e-3 < binom.cdf(found.successes, found.trials, right) < 1 - 1e-3


Y = np.arange(160) % 2
POINTS = np.random.default_rng(2).normal(size=(160, 40)) + Y[:, None]
POOL = make_pool(POINTS, Y, n_canaries=0, test_fraction=0.1, rng=np.random.default_rng(3)).draw(
    np.random.default_rng(4)
)


def lined_up(noise: float, models: int, **options: object) -> tuple[Guesses, ...]:
    recipe = Recipe(
        model=lambda: torch.nn.Linear(40, 2),
        epochs=6,
        batch_size=200,
        noise_multiplier=noise,
        learning_rate=0.1,
    )
    attack = LineUp(models=models, candidates=[3, 12], **options)  # type: ignore[arg-type]
    return play(attack, recipe, {}, POOL, models, np.random.default_rng(6), "cpu")


def test_a_line_up_stays_below_the_limit_of_its_claim_and_above_that_of_another() -> None:
    ledger = (Phase(noise_multiplier=4.0, sample_rate=1.0, steps=6),)
    family = family_for(Claim(epsilon=pld_epsilon(ledger, 1e-5), delta=1e-5, ledger=ledger))
    sound, broken = lined_up(4.0, 80, start="fitted"), lined_up(0.4, 80, start="fitted")
    for each in (*sound, *broken):
        assert each.unit == "run" and each.trials == 60 and each.adjacency is Adjacency.ADD_REMOVE
    assert all((guesses(each, family, alpha=0.01).p_value or 0) > 0.01 for each in sound)
    assert min(guesses(each, family, alpha=0.01).p_value or 1 for each in broken) < 1e-4


def test_other_labels_and_starts_are_played_and_too_many_candidates_refused() -> None:
    for options in ({"label": "own"}, {"start": "recipe"}):
        once, again = lined_up(2.0, 12, **options), lined_up(2.0, 12, **options)
        assert [each.trials for each in once] == [9, 9] and once == again
    with pytest.raises(UsageError, match="Ask for fewer candidates"):
        play(
            LineUp(candidates=90),
            Recipe(model=torch.nn.Identity),
            {},
            POOL,
            4,
            np.random.default_rng(0),
            "cpu",
        )


def test_a_run_plays_line_ups_in_two_trials_and_says_where_none_can_be(tmp_path: Path) -> None:
    (tmp_path / "line_up_own.py").write_text(MODULE)
    document = {
        "data": {"source": "line_up_own:load", "canaries": 0},
        "compute": {"engine": "inline", "device": "cpu"},
        "targets": [
            {"name": name, "train": f"line_up_own:{name}", "claim": {"epsilon": 1.0}}
            for name in ("plain", "by_hand")
        ],
        "attacks": {
            "line-up": {"models": 80, "candidates": [3, 12]},
            "prior-aware": {"candidates": [4, 40]},
        },
    }
    plan = parse(document, "a test")
    assert measure.weights(plan) == {
        "line-up, 1 of 3": 0.5,
        "line-up, 1 of 12": 0.5,
        "prior-aware, 1 of 4": 0.5,
        "prior-aware, 1 of 40": 0.5,
    }
    job = Job(plan=plan, plan_text="", plan_folder=tmp_path, out=tmp_path / "audit", command="")
    list(run(job))
    record = load(job.out)
    stacked, by_hand = record.targets
    assert {(rate.source, rate.n) for rate in stacked.rates if rate.source.startswith("line")} == {
        ("line-up, 1 of 3", 60),
        ("line-up, 1 of 12", 60),
    }
    assert stacked.verdict.status == "REFUTED" and stacked.verdict.decided_by.startswith("line-up")  # type: ignore[union-attr]
    assert sum(estimate.alpha for estimate in stacked.estimates) <= record.alpha / 2 + 1e-12
    assert not any(rate.source.startswith("line") for rate in by_hand.rates)
    rows = {row.target: row.status for row in record.coverage if row.attack == "line-up"}
    assert rows == {"plain": "RUN", "by_hand": "NOT APPLICABLE"}
