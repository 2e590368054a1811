"""Canaries of every kind are what they are called."""

from __future__ import annotations

import numpy as np
import pytest

from dpaudit.canary import Pool, make_pool
from dpaudit.crafting import KINDS
from dpaudit.errors import UsageError

RNG = np.random.default_rng(0)
Y = np.arange(300) % 3
X = RNG.normal(size=(300, 2)) + 10 * np.stack([np.cos(2.2 * Y), np.sin(2.2 * Y)], axis=1)


def made(kind: str, n: int = 3) -> Pool:
    return make_pool(X, Y, n_canaries=n, test_fraction=0.2, rng=np.random.default_rng(1), kind=kind)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "secret"])
def test_only_canaries_are_touched(kind: str) -> None:
    pool = made(kind)
    known = {(*x, y) for x, y in zip(X.tolist(), Y.tolist(), strict=True)}
    rest = {
        (*x, y) for x, y in zip(pool.x[~pool.canary].tolist(), pool.y[~pool.canary].tolist(), strict=True)
    }
    assert pool.canary.sum() == 3 and len(rest) == 237 and rest <= known
    changed = [(*x, y) not in known for x, y in zip(pool.x[:3].tolist(), pool.y[:3].tolist(), strict=True)]
    assert any(changed) is (kind != "in-distribution")


def test_mislabelled_canaries_keep_their_features_and_blank_ones_have_none() -> None:
    features = {tuple(x) for x in X.tolist()}
    assert all(tuple(x) in features for x in made("mislabelled", 40).x.tolist())
    blank = made("blank")
    assert not blank.x[blank.canary].any() and sorted(blank.y[blank.canary]) == [0, 1, 2]


def test_adversarial_canaries_are_outliers_with_the_farthest_label() -> None:
    pool = made("adversarial", 20)
    means = np.stack([X[c == Y].mean(axis=0) for c in range(3)])
    distance = np.linalg.norm(pool.x[:, None] - means[None], axis=2)
    nearest = distance.min(axis=1)
    assert nearest[pool.canary].min() > np.quantile(nearest[~pool.canary], 0.9)
    assert np.array_equal(pool.y[pool.canary], distance[pool.canary].argmax(axis=1))


def test_impossible_kinds_are_refused() -> None:
    with pytest.raises(UsageError, match="blank"):
        made("blank", 4)
    with pytest.raises(UsageError, match="did you mean 'random'"):
        made("randon")
