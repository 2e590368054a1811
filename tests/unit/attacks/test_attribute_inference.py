"""A column guessed from a model's answers: right where the model remembers, and no better elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dpaudit import attribute_rates
from dpaudit.accounting import EpsilonDeltaFamily
from dpaudit.attacks.attribute_inference import AttributeInference
from dpaudit.attribute import Attribute
from dpaudit.canary import Canaries, make_pool
from dpaudit.claim import Adjacency
from dpaudit.errors import UsageError
from dpaudit.plan import AuditPlan, parse
from dpaudit.protocols import View
from dpaudit.record import load
from dpaudit.run import Job, run
from dpaudit.stats import binomial
from dpaudit.stats.reconstruction import success_limit

PLAN = parse(
    {
        "data": {"source": "breast-cancer", "canaries": 20, "test_fraction": 0.3},
        "compute": {"engine": "inline", "device": "cpu"},
        "recipe": {"hidden": [4], "epochs": 2, "batch_size": 64},
        "targets": [{"name": "t", "train": "plain"}],
        "attacks": {"attribute-inference": {"column": 4, "bins": 2}},
    }
)


def pool(rng: np.random.Generator) -> Canaries:
    """Records whose first column has nothing to do with the others, 0, 1 or 2."""
    x = rng.normal(size=(800, 4))
    x[:, 0] = rng.integers(0, 3, 800)
    return make_pool(x, rng.integers(0, 2, 800), n_canaries=0, test_fraction=0.25, rng=rng).draw(rng)


def view(canaries: Canaries, rng: np.random.Generator, remembers: float) -> View:
    """A model that is surer of the label of a member by so much where the column is as it was."""
    n = len(canaries.y)
    gain = rng.normal(scale=0.3, size=(3, n)) - 1.5
    levels = np.arange(3.0)[:, None]
    gain = gain + remembers * (canaries.member & (canaries.x[:, 0] == levels))
    own = np.minimum(gain, -1e-3)
    other = np.log(-np.expm1(own))
    label = np.where(canaries.y == 1, own, other)
    answers = np.stack([np.log(-np.expm1(np.minimum(label, -1e-9))), label], axis=2)
    return View(
        canaries=canaries,
        scores=answers[0],
        test_accuracy=0.5,
        train_accuracy=0.5,
        n_parameters=1,
        claim=None,
        substituted=answers,
    )


def rates(attack: AttributeInference, views: list[View], plan: AuditPlan = PLAN) -> dict:
    family = EpsilonDeltaFamily(base_epsilon=1.0, delta=1e-5, adjacency=Adjacency.REPLACE_ONE)
    found = attribute_rates.of(attack, attack.name, views, plan, family)
    return {(rate.name, rate.slice): rate for rate in found}  # type: ignore[misc]


def test_levels_are_nearest_and_values_are_put_in_turn() -> None:
    x = np.array([[0.1, 5.0], [0.9, 6.0], [2.2, 7.0]])
    given = Attribute(column=0, values=(2.0, 0.0, 1.0))
    levels = given.levels(x)
    assert levels.tolist() == [0.0, 1.0, 2.0]
    assert given.of(x, levels).tolist() == [np.abs(levels - value).argmin() for value in x[:, 0]]
    copies = list(given.changed(x, levels))
    assert [copy[:, 0].tolist() for copy in copies] == [[0.0] * 3, [1.0] * 3, [2.0] * 3]
    assert all((copy[:, 1] == x[:, 1]).all() for copy in copies) and given.without(x).tolist() == [
        [5],
        [6],
        [7],
    ]
    assert Attribute(column=1, bins=2).levels(np.arange(40.0).reshape(20, 2)).tolist() == [11.0, 29.0]


@pytest.mark.parametrize(
    ("attribute", "message"),
    [({"column": 2}, r"column=2 in \[0, 1\]"), ({"column": 0}, "at least 2 values")],
)
def test_a_column_that_is_not_there_or_has_one_value_is_refused(attribute: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Attribute(**attribute).levels(np.ones((9, 2)))


def test_what_is_remembered_is_guessed_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    canaries = pool(rng)
    attack = AttributeInference(values=(0, 1, 2))
    remembered = rates(attack, [view(canaries, rng, 1.4)])
    inside = remembered["attribute_success", "members"]
    assert inside.value > 0.9 and inside.lower > inside.limit
    assert remembered["attribute_advantage_over_imputation", "members"].lower > 0.3
    assert remembered["attribute_advantage_over_others", "members and others"].lower > 0.2
    family = EpsilonDeltaFamily(base_epsilon=1.0, delta=1e-5, adjacency=Adjacency.REPLACE_ONE)
    others = remembered["attribute_success", "others"]
    baseline = binomial.two_sided(round(others.value * others.n), others.n, others.alpha)[1]
    assert inside.limit == success_limit(family, float(baseline)) and baseline == others.upper
    forgotten = rates(attack, [view(canaries, rng, 0.0)])
    assert abs(forgotten["attribute_advantage_over_others", "members and others"].value) < 0.15
    assert {where for name, where in forgotten if name == "attribute_success"} >= {
        "class 0",
        "outlier decile",
    }


def test_intervals_of_the_advantage_keep_their_level_without_one() -> None:
    rng, missed, runs = np.random.default_rng(1), 0, 60
    attack, plan = AttributeInference(values=(0, 1, 2)), PLAN.model_copy(update={"alpha": 0.5})
    for _ in range(runs):
        found = rates(attack, [view(pool(rng), rng, 0.0)], plan)
        rate = found["attribute_advantage_over_others", "members and others"]
        missed += not rate.lower <= 0.0 <= rate.upper
        level = rate.alpha
    print(f"attained {missed / runs:.3f} at {level:.3f}")
    assert missed / runs <= level + 3 * np.sqrt(level / runs)


def test_the_posterior_is_that_of_a_loop() -> None:
    rng = np.random.default_rng(2)
    canaries = pool(rng)
    target, shadows = view(canaries, rng, 1.0), [view(canaries, rng, 0.0) for _ in range(2)]
    attack = AttributeInference(values=(0, 1, 2), shadows=2)
    (scores,) = attack.scores([target], shadows)
    imputed = attack._imputed(canaries, np.arange(3.0))
    for i in range(0, len(scores), 37):
        y, truth = canaries.y[i], int(canaries.x[i, 0])
        evidence = [
            target.substituted[v, i, y] - np.mean([s.substituted[v, i, y] for s in shadows]) for v in range(3)
        ]
        weights = np.exp(imputed[i]) * np.exp(evidence)
        assert scores[i] == pytest.approx(np.log(weights[truth] / weights.sum()) - imputed[i, truth])


def test_run_means_see_what_single_models_see() -> None:
    rng = np.random.default_rng(3)
    draws = [pool(np.random.default_rng(5))]
    base = draws[0]
    for seed in range(7):
        member = np.random.default_rng(seed).permutation(base.member)
        draws.append(replace(base, member=member))
    found = rates(AttributeInference(values=(0, 1, 2), shadows=4), [view(d, rng, 1.4) for d in draws])
    mean = found["attribute_advantage_over_others", "means of runs"]
    assert mean.n == 4 and mean.lower > 0.3
    # Whatever is told, and be it of groups, shares one alpha; the baseline is an end of one of them.
    assert len(found) > 6 and sum(rate.alpha for rate in found.values()) <= PLAN.alpha * (1 + 1e-9)


def test_models_without_answers_and_too_few_shadows_have_no_rates() -> None:
    rng = np.random.default_rng(4)
    silent = replace(view(pool(rng), rng, 0.0), substituted=np.zeros((0, 0, 0)))
    assert rates(AttributeInference(), [silent]) == {}
    assert np.isnan(AttributeInference().scores([silent], ())).all()
    assert rates(AttributeInference(shadows=4), [view(pool(rng), rng, 0.0)]) == {}


def test_a_run_asks_its_model_and_covers_the_attack(tmp_path) -> None:
    job = Job(plan=PLAN, plan_text="", plan_folder=tmp_path, out=tmp_path / "audit", command="")
    list(run(job))
    record = load(job.out)
    rows = {row.attack: row.status for row in record.coverage}
    assert rows["attribute-inference"] == "RUN" and "attribute inference" not in rows
    assert {rate.name for rate in record.targets[0].rates} >= {"attribute_success"}
    assert not any(rate.name == "auc" for rate in record.targets[0].rates)
