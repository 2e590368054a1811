"""What could be shown, before anything is trained: the same numbers that the audit then has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dpaudit.bound import bound
from dpaudit.claim import Claim, Phase
from dpaudit.errors import UsageError
from dpaudit.plan import AttackPlan, AuditPlan, parse
from dpaudit.plan_prospects import of_plan
from dpaudit.prospects import Prospect, Sizes, first_size, of_designs, simulate
from dpaudit.scoring.eligibility import Terms
from dpaudit.scoring.scores import Design
from dpaudit.stats.tradeoff import gaussian_mu

CLAIM = Claim(epsilon=8.0, delta=1e-5)
LEDGER = (Phase(noise_multiplier=1.5, sample_rate=0.05, steps=200),)


def test_bisection_finds_the_first_size() -> None:
    sizes = (1, 2, 5, 10, 20)
    for least in (*sizes, 3, 30):
        expected = next((size for size in sizes if size >= least), None)
        assert first_size(sizes, lambda size, least=least: size >= least) == expected  # type: ignore[misc]


@pytest.mark.parametrize("design", Design)
def test_simulated_scores_have_their_design(design: Design) -> None:
    scores = simulate(design, 30, 20, mu=1.0, rng=np.random.default_rng(0))
    assert scores.design is design


@pytest.fixture(scope="module")
def imagined() -> list[Prospect]:
    return of_designs(CLAIM, Sizes(observations=60, runs=3, references=10), alpha=0.05)


def test_ceilings_are_those_of_the_bound(imagined: list[Prospect]) -> None:
    found = {each.name: each for each in imagined}
    rng = np.random.default_rng(4)
    mu = gaussian_mu(8.0, 1e-5)
    for design, size, records in (
        (Design.KNOWN_NULL, 60, 10),
        (Design.ONE_RUN, 60, 1),
    ):
        scores = simulate(design, size, records, mu=mu, rng=rng)
        result = bound(scores, epsilon=8, terms=Terms(gaussian=True))
        for estimate in result.estimates:
            prospect = found[f"{design}: {estimate.source}"]
            assert prospect.alpha == pytest.approx(estimate.alpha)
            assert prospect.ceiling == pytest.approx(estimate.ceiling, rel=0.02)


def test_correct_code_is_not_expected_to_show_more_than_the_claim(imagined: list[Prospect]) -> None:
    for each in imagined:
        assert each.expected is not None
        assert each.ceiling is not None
        assert each.expected <= min(each.ceiling, 8.5)


def plan(train: str = "opacus", **target: object) -> AuditPlan:
    return parse(
        {
            "data": {"source": "breast-cancer", "canaries": 40},
            "recipe": {"hidden": [8], "epochs": 3, "batch_size": 32},
            "targets": [{"name": "t", "train": train, **target}],
            "attacks": {
                "replay": {},
                "step-canary": {"references": 50, "replays": 2},
                "prior-aware": {},
                "loss-threshold": {},
                "lira": {"shadows": 4},
            },
        }
    )


def test_a_plan_of_the_built_in_training(tmp_path: Path) -> None:
    ((planned, prospects),) = of_plan(plan(), tmp_path).values()
    (phase,) = planned.claim.ledger
    assert phase.steps == 3 * round(1 / phase.sample_rate)
    assert planned.parameters == (30 * 8, 8, 8 * 2, 2)
    by_name = {each.name: each for each in prospects}
    assert set(by_name) == {"replay", "step-canary", "prior-aware", "loss-threshold", "lira"}
    assert by_name["step-canary"].observations == f"{3 * phase.steps:,} steps"
    assert sum(each.alpha for each in prospects) <= 0.05
    for each in prospects:
        if each.ceiling is not None and each.expected is not None:
            assert each.expected <= each.ceiling


def test_a_plan_of_other_training_needs_its_steps_or_a_claim(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--claim-noise-multiplier"):
        of_plan(plan("mine:fit"), tmp_path)
    ((_, told),) = of_plan(plan("mine:fit"), tmp_path, LEDGER).values()
    assert next(each for each in told if each.name == "step-canary").ceiling is not None
    ((_, declared),) = of_plan(plan("mine:fit", claim={"epsilon": 3.0}), tmp_path).values()
    by_name = {each.name: each for each in declared}
    assert "steps are not known" in by_name["step-canary"].note
    assert by_name["loss-threshold"].claimed is not None


def test_too_few_runs_are_said(tmp_path: Path) -> None:
    by_runs = plan().attacks["loss-threshold"].model_copy(update={"design": "runs"})
    few = plan().model_copy(update={"attacks": {"loss-threshold": by_runs}})
    ((_, (only,)),) = of_plan(few, tmp_path).values()
    assert only.note == "too few runs for a bound"


def test_a_game_says_what_its_models_could_show(tmp_path: Path) -> None:
    def prospect(models: int) -> Prospect:
        played = plan().model_copy(update={"attacks": {"worst-case": AttackPlan(weight=1.0, models=models)}})
        ((_, (only,)),) = of_plan(played, tmp_path).values()
        return only

    few, many = prospect(100), prospect(2000)
    assert (few.observations, many.observations) == ("100 models of its own", "2000 models of its own")
    assert few.expected is not None and many.expected is not None and many.claimed is not None
    assert few.expected < many.expected
    # The median of five draws of what is true at best: close to it with many, and hardly above.
    assert 0.6 * many.claimed < many.expected < 1.1 * many.claimed
