"""Batches that were chosen blindly are not accused, and those that were chosen by their content are."""

import numpy as np

from dpaudit.stats.selection import chosen_by


def test_blind_choices_keep_their_level() -> None:
    rng, level, runs = np.random.default_rng(0), 0.05, 400
    below = 0
    for _ in range(runs):
        features = rng.poisson([20.0, 2.0, 0.05], (60, 3))
        below += chosen_by(features, rng.random(60) < rng.random())[0] <= level
    # At most 5 %: 40 of 400 has probability below 1e-4.
    assert below < 40


def test_a_choice_by_one_feature_names_it() -> None:
    features = np.random.default_rng(1).poisson([20.0, 6.0], (80, 2))
    p, which = chosen_by(features, features[:, 1] >= 5)
    assert p < 1e-5 and which == 1


def test_three_of_many_are_too_few_to_tell() -> None:
    features = np.arange(100)[:, None]
    assert chosen_by(features, features[:, 0] > 96)[0] > 0.01
    assert chosen_by(features, np.ones(100, dtype=bool)) == (1.0, 0)
