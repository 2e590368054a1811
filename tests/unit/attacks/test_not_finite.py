"""Releases that overflowed are no evidence, for the claim or against it."""

import numpy as np

from dpaudit.attacks.replay import flow


def test_rounding_of_coarse_gradients_is_no_difference_in_the_noise() -> None:
    one = np.ones(100)
    assert list(flow.noise_apart(one, 1.004 * one, "two batches"))
    assert not list(flow.noise_apart(one, 1.004 * one, "two batches", rounding=0.1))
    assert list(flow.noise_apart(one, 1.1 * one, "two batches", rounding=0.1))
