"""Tests of the law of noise: each lets normal noise pass and sees one departure from it."""

import numpy as np
import pytest

from dpaudit.stats import noise_law

RNG = np.random.default_rng(7)
directions = noise_law.directions
Z = RNG.standard_normal((30, 500))


def test_normal_noise_passes_all():
    assert noise_law.normal(Z.ravel()) > 1e-3
    assert noise_law.uncorrelated_steps([directions(Z)]) > 1e-3
    assert noise_law.independent_coordinates(Z) > 1e-3
    earlier = np.stack([noise_law.largest(z) for z in Z[1:]])
    assert noise_law.same_values(earlier, noise_law.largest(Z[0]), rounding=1e-4) is None
    assert not noise_law.tied(noise_law.largest(Z[0]))


@pytest.mark.parametrize(
    "other",
    [
        RNG.uniform(-np.sqrt(3), np.sqrt(3), 15000),
        RNG.laplace(0, np.sqrt(0.5), 15000),
        RNG.standard_t(5, 15000),
    ],
    ids=["uniform", "laplace", "student"],
)
def test_another_law_is_seen(other):
    assert noise_law.normal(other) < 1e-6


def test_a_law_that_is_cut_off_is_seen():
    values = RNG.standard_normal(15000)
    assert not noise_law.tied(noise_law.largest(values))
    rounded = np.clip(values, -3, 3) * (1 + 1e-7 * RNG.standard_normal(15000))
    assert noise_law.tied(noise_law.largest(rounded))


def test_reused_noise_is_seen_whatever_the_distance_in_time():
    reused = Z.copy()
    reused[25] = -reused[3] + 0.5 * RNG.standard_normal(500)
    assert noise_law.uncorrelated_steps([directions(reused)]) < 1e-6
    split = [directions(part) for part in np.split(reused * np.repeat([1, 50], 250), 2, axis=1)]
    assert noise_law.uncorrelated_steps(split) < 1e-6


def test_noise_that_two_parameters_share_is_seen():
    other = 0.7 * Z + 0.7 * RNG.standard_normal(Z.shape)
    assert noise_law.shared(directions(Z), directions(other)) < 1e-6
    assert noise_law.shared(directions(Z), directions(RNG.standard_normal(Z.shape))) > 1e-3


@pytest.mark.parametrize("sizes", [(1, 2, 3), (40,), (80, 8, 2)])
def test_products_of_directions_keep_their_level_whatever_the_sizes(sizes):
    products = sum(
        (directions(RNG.standard_normal((200_000, d))) * directions(RNG.standard_normal((200_000, d)))).sum(1)
        for d in sizes
    )
    total = np.abs(products)
    for level in (0.05, 1e-2, 1e-3):
        attained = np.mean([noise_law.product_p_value(v, sum(sizes)) <= level for v in total[:20_000]])
        print(f"sizes {sizes}: attained {attained:.2g} at {level:g}")
        assert attained <= level


def test_draws_without_noise_have_no_direction():
    assert noise_law.directions(np.zeros((3, 4))) is None


def test_noise_that_coordinates_share_is_seen():
    shared = Z + 0.5 * RNG.standard_normal((30, 1))
    assert noise_law.independent_coordinates(shared) < 1e-6
    smooth = Z + 0.5 * np.roll(Z, 3, axis=1)
    assert noise_law.independent_coordinates(smooth) < 1e-6


def test_the_same_values_in_another_order_and_with_another_sign_are_known():
    again = -RNG.permutation(Z[0])
    earlier = np.stack([noise_law.largest(z) for z in Z])
    assert noise_law.same_values(earlier, noise_law.largest(again), rounding=1e-4) == 0


def test_each_test_keeps_its_level():
    rejected = [
        min(
            noise_law.normal(z.ravel()) < 0.05,
            noise_law.uncorrelated_steps([directions(z)]) < 0.05,
        )
        for z in RNG.standard_normal((200, 6, 200))
    ]
    assert np.mean(rejected) <= 0.1
