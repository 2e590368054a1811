"""`dpaudit.errors`: the exit code is a property of the error, and a wrong name gets the nearest right one."""

import pytest

from dpaudit.errors import DpauditError, TrialError, UsageError, nearest
from dpaudit.store import StoreError


@pytest.mark.parametrize(("error", "code"), [(UsageError, 2), (TrialError, 4), (StoreError, 4)])
def test_each_error_carries_its_exit_code(error, code):
    assert issubclass(error, DpauditError)
    assert error("x").exit_code == code


def test_nearest_names_the_one_close_spelling():
    assert nearest("step_canary", ["lira", "replay", "step-canary"]) == "did you mean 'step-canary'?"


def test_nearest_lists_everything_when_nothing_is_close():
    assert nearest("zzz", ["replay", "lira"]) == "known: lira, replay."
