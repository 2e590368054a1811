"""`dpaudit.canary`: the draw is exact in size, fair to each record, and bound by its commitment."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpaudit.canary import Canaries, Pool, given_pool, make_pool
from dpaudit.errors import UsageError


def pool(n=60, n_canaries=10, seed=0) -> Pool:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 4)), rng.integers(0, 3, n)
    y[0] = 2
    return make_pool(x, y, n_canaries=n_canaries, test_fraction=0.1, rng=rng)


@settings(max_examples=50)
@given(n=st.integers(20, 90), canaries=st.integers(0, 9), seed=st.integers(0, 2**32 - 1))
def test_every_draw_takes_exactly_half_of_each_group(n, canaries, seed):
    records = pool(n, canaries, seed)
    drawn = records.draw(np.random.default_rng(seed))
    assert drawn.member[drawn.canary].sum() == canaries // 2
    assert drawn.member[~drawn.canary].sum() == (len(records.y) - canaries) // 2
    assert len(drawn.train_x) == len(drawn.train_y) == drawn.member.sum()


def test_each_record_is_in_about_half_of_the_draws():
    records = pool(n=100, n_canaries=20)
    rng = np.random.default_rng(1)
    counts = sum(records.draw(rng).member.astype(int) for _ in range(2000))
    # Binomial(2000, 1/2) stays within six standard deviations (6 * 22.4) for each of 90 records.
    assert np.all(np.abs(counts - 1000) < 134)


def test_equal_seeds_draw_equal_members_and_others_do_not():
    records = pool()
    first, again, other = (records.draw(np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first.member, again.member)
    assert not np.array_equal(first.member, other.member)


def changed(part: np.ndarray) -> np.ndarray:
    copy = part.copy()
    copy.flat[-1] = 1 - copy.flat[-1]
    return copy


@pytest.mark.parametrize("name", ["x", "y", "member", "canary"])
def test_the_commitment_changes_with_any_change_of_the_draw(name):
    drawn = pool().draw(np.random.default_rng(0))
    other = replace(
        drawn, **{name: changed(getattr(drawn, name).astype(float)).astype(getattr(drawn, name).dtype)}
    )
    assert other.commitment() != drawn.commitment()


def test_the_commitment_changes_with_the_shape_of_equal_bytes():
    drawn = pool().draw(np.random.default_rng(0))
    assert replace(drawn, x=drawn.x.reshape(len(drawn.x), 2, 2)).commitment() != drawn.commitment()


def test_the_commitment_says_nothing_of_records_outside_the_game():
    drawn = pool().draw(np.random.default_rng(0))
    assert replace(drawn, test_x=drawn.test_x + 1).commitment() == drawn.commitment()


@pytest.mark.parametrize(
    "name", [f.name for f in fields(Pool) if f.name not in ("groups", "member", "secrets")]
)
def test_the_hash_of_a_pool_changes_with_any_of_its_parts(name):
    records = pool()
    part = getattr(records, name)
    other = replace(records, **{name: changed(part.astype(float)).astype(part.dtype)})
    assert other.sha256() != records.sha256()


def test_the_hash_of_a_pool_changes_with_the_members_where_they_are_given():
    records = pool()
    hashes = {replace(records, member=m).sha256() for m in (None, records.canary, ~records.canary)}
    assert len(hashes) == 3


def test_groups_of_a_given_pool_are_those_that_both_sides_have():
    x = np.arange(120.0).reshape(60, 2)
    sides = [(x + 1000 * side, np.arange(60) % 2) for side in (0, 1)]
    groups = ({"own": sides[0][0][:, 0], "left": np.zeros(60)}, {"own": sides[1][0][:, 0]})
    made = given_pool(*sides, test_fraction=0.2, rng=np.random.default_rng(0), groups=groups)
    assert set(made.groups) == {"own"}
    assert np.array_equal(made.as_given().groups["own"], made.x[:, 0])


def test_groups_follow_their_records_and_nothing_is_trained_on_them():
    x, y = np.arange(60.0)[:, None], np.arange(60) % 3
    made = make_pool(
        x, y, n_canaries=6, test_fraction=0.1, rng=np.random.default_rng(0), groups={"own": np.arange(60)}
    )
    drawn = made.draw(np.random.default_rng(1))
    assert np.array_equal(drawn.groups["own"], drawn.x[:, 0])
    assert replace(made, groups={}).sha256() == made.sha256()


def test_canaries_have_a_wrong_label_and_nobody_else_has():
    n = 200
    x = np.arange(n, dtype=float)[:, None]
    y = np.arange(n) % 5
    made = make_pool(x, y, n_canaries=50, test_fraction=0.1, rng=np.random.default_rng(0))
    true = made.x[:, 0].astype(int) % 5
    assert np.array_equal(made.y != true, made.canary)
    assert made.canary.sum() == 50
    assert set(made.y) <= set(range(5))


def test_a_pool_and_its_test_records_share_no_record_and_lose_none():
    x = np.arange(100, dtype=float)[:, None]
    made = make_pool(x, np.arange(100) % 2, n_canaries=4, test_fraction=0.25, rng=np.random.default_rng(0))
    assert len(made.test_x) == 25
    assert sorted([*made.x[:, 0], *made.test_x[:, 0]]) == list(range(100))


def test_the_training_part_is_the_members_only():
    drawn = pool().draw(np.random.default_rng(0))
    assert isinstance(drawn, Canaries)
    assert np.array_equal(drawn.train_x, drawn.x[drawn.member])
    assert np.array_equal(drawn.train_y, drawn.y[drawn.member])


@pytest.mark.parametrize(
    ("n", "classes", "canaries", "message"),
    [
        (19, 2, 0, "at least 20 records and 2 classes, found 19 and 2"),
        (40, 1, 0, "at least 20 records and 2 classes, found 40 and 1"),
        (40, 2, 19, "data.canaries=19 to be at most half of the pool of 36 records"),
    ],
)
def test_a_pool_that_is_too_small_is_refused(n, classes, canaries, message):
    with pytest.raises(UsageError, match=message):
        make_pool(
            np.zeros((n, 1)),
            np.arange(n) % classes,
            n_canaries=canaries,
            test_fraction=0.1,
            rng=np.random.default_rng(0),
        )
