"""One run as a game of fair coins: the coins are fair, null scores show nothing, leaks show, N stays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpaudit.canary import make_pool
from dpaudit.check import FloatArray
from dpaudit.claim import Adjacency
from dpaudit.designs import paired_coins
from dpaudit.evidence import Access
from dpaudit.protocols import View
from dpaudit.stats import one_run
from dpaudit.stats.family import GaussianFamily

POOL = make_pool(
    np.zeros((460, 2)),
    np.arange(460) % 2,
    n_canaries=200,
    test_fraction=0.05,
    rng=np.random.default_rng(0),
)


@dataclass(frozen=True, kw_only=True)
class Given:
    """An attack whose scores are the first column of the view."""

    name: str = "given"
    access: Access = Access.FINAL_MODEL
    shadows: int = 0

    def scores(self, targets, shadows):
        return np.stack([view.scores[:, 0] for view in targets])


def view(rng: np.random.Generator, leak: float) -> View:
    canaries = POOL.draw(rng)
    scores: FloatArray = rng.normal(size=(len(canaries.y), 1)) + leak * canaries.member[:, None]
    return View(
        canaries=canaries,
        scores=scores,
        test_accuracy=1.0,
        train_accuracy=1.0,
        n_parameters=1,
        claim=None,
    )


def bound(seed: int, leak: float, family: GaussianFamily) -> float:
    rng = np.random.default_rng(seed)
    coins = paired_coins(Given(), [view(rng, leak)], rng)
    assert coins is not None
    return one_run.f_dp(coins, family, alpha=0.05).epsilon_lower or 0.0


def test_each_pair_is_a_fair_coin_of_canaries_alone() -> None:
    counts = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        coins = paired_coins(Given(), [view(rng, 3.0)], rng)
        assert coins is not None and coins.scores.shape == (100,)
        counts.append(int(coins.included.sum()))
        assert np.mean((coins.scores > 0) == coins.included) > 0.9
    assert abs(np.mean(counts) - 50) < 4 * 5 / np.sqrt(40)


def test_scores_that_know_nothing_show_nothing_and_leaks_show() -> None:
    family = GaussianFamily(mu=1.0, delta=1e-5, adjacency=Adjacency.REPLACE_ONE)
    false = sum(bound(seed, 0.0, family) > 0 for seed in range(200))
    print(f"attained level of one-run pairs on null scores: {false / 200:.3f} at 0.05")
    assert false <= 0.05 * 200 + 3 * np.sqrt(200 * 0.05 * 0.95)
    assert bound(1, 4.0, family) > 2.0


def test_a_score_that_is_not_a_number_counts_for_neither() -> None:
    rng = np.random.default_rng(2)
    seen = view(rng, 50.0)
    seen.scores[::2] = np.nan
    coins = paired_coins(Given(), [seen], rng)
    assert coins is not None and np.isfinite(coins.scores).all() and (coins.scores == 0).sum() > 40
