"""What accountants made of their histories is asked of them, as far as they can say."""

from __future__ import annotations

import math

import pytest
from opacus.accountants import PRVAccountant, RDPAccountant

from dpaudit.targets.books import Books


@pytest.mark.parametrize(("sigma", "least"), [(0.02, 1e4), (0.0, math.inf)])
def test_a_grid_that_would_never_be_done_is_left_to_renyi(sigma: float, least: float) -> None:
    accountant = PRVAccountant()
    books = Books()
    books.open(accountant)
    accountant.history = [(sigma, 0.1, 100)]
    assert books.epsilon(1e-5) >= least


def test_a_common_history_is_asked_of_its_own_accountant() -> None:
    accountant = PRVAccountant()
    books = Books()
    books.open(accountant)
    accountant.history = [(1.0, 0.1, 100)]
    assert books.epsilon(1e-5) == accountant.get_epsilon(1e-5)


def test_a_history_that_another_accountant_goes_on_from_counts_once() -> None:
    first, second = RDPAccountant(), RDPAccountant()
    books = Books()
    books.open(first)
    books.open(second)
    with books.watch():
        for _ in range(20):
            first.step(noise_multiplier=1.0, sample_rate=0.1)
        second.load_state_dict(first.state_dict())
        second.history = list(second.history)
        for _ in range(10):
            second.step(noise_multiplier=1.0, sample_rate=0.1)
    assert books.accountants == (second,)
    assert sum(phase.steps for phase in books.told()) == 30
    assert books.before() == ()
    assert books.epsilon(1e-5) == second.get_epsilon(1e-5)
