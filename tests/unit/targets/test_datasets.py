"""Data sources: pairs, or pairs with groups that follow their records."""

import numpy as np
import pytest

from dpaudit.errors import UsageError
from dpaudit.targets.datasets import load

X, Y = np.arange(120.0).reshape(60, 2), np.arange(60) % 2


def test_a_pair_has_no_groups():
    x, y, groups, secrets = load(lambda: (X, Y))
    assert (x.shape, y.shape, groups, secrets) == ((60, 2), (60,), {}, None)


def test_groups_stay_with_their_records_where_duplicates_go():
    x, _, groups, _ = load(
        lambda: (np.concatenate([X, X[:5]]), np.r_[Y, Y[:5]], {"ward": np.r_[X[:, 0], X[:5, 0]] // 40})
    )
    assert len(x) == 60
    assert np.array_equal(groups["ward"], x[:, 0] // 40)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([1, 2], "groups to map names to 60 values, found list"),
        ({"ward": np.zeros(3)}, r"group 'ward' to have shape \(60,\), found \(3,\)"),
        ({"ward": np.arange(60)}, "group 'ward' to have at most 50 values, found 60"),
    ],
)
def test_a_group_that_does_not_fit_is_an_error(groups, message):
    with pytest.raises(UsageError, match=message):
        load(lambda: (X, Y, groups))


def test_users_may_be_as_many_as_records():
    assert len(np.unique(load(lambda: (X, Y, {"user": np.arange(60)}))[2]["user"])) == 60


def test_something_else_is_an_error():
    with pytest.raises(UsageError, match=r"\(x, y\) or \(x, y, groups\)"):
        load(lambda: X)
