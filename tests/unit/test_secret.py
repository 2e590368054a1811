"""Planted secrets: their spaces, their places, and candidates that are exchangeable with them."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.stats import chisquare

from dpaudit.canary import make_pool
from dpaudit.errors import UsageError
from dpaudit.secret import Format, Secrets

NAMES = Format(name="name", slots=(((1, 2, 9), (1, 9), (3, 9)), ((4,), (5, 6))))


def test_a_format_spells_every_secret_once():
    said = [tuple(row[row >= 0].tolist()) for row in NAMES.spelled(np.arange(NAMES.size))]
    assert sorted(said) == sorted(a + b for a, b in product(*NAMES.slots))
    assert NAMES.longest == 5


def test_alternatives_that_begin_one_another_are_refused():
    with pytest.raises(UsageError, match="begins another"):
        Format(name="name", slots=(((1,), (1, 2)),))


@pytest.mark.parametrize("count", [1, 3, 5])
def test_others_are_distinct_and_never_the_secret(count):
    rng = np.random.default_rng(0)
    for number in range(NAMES.size):
        found = NAMES.others(number, count, rng)
        assert len(set(found.tolist())) == count and number not in found


def test_others_of_a_large_space_are_distinct():
    card = Format(name="card", slots=(tuple((digit,) for digit in range(10)),) * 16)
    found = card.others(5, 4000, np.random.default_rng(0))
    assert len(np.unique(found)) == 4000 and found.max() < card.size
    few = Format(name="few", slots=card.slots[:3]).others(5, 200, np.random.default_rng(0))
    assert len(np.unique(few)) == 200 and 5 not in few


def places(n=6, length=9):
    x = np.full((n, length), -1.0)
    x[:, :6] = [0, 7, 1, 9, 4, 8]
    kind = np.where(np.arange(n) < n - 1, 0, -1)
    return x, Secrets.at((NAMES,), kind, np.full(n, 2), np.full(n, 5))


def test_planting_replaces_what_stood_there_and_keeps_the_rest():
    x, secrets = places()
    made, planted = secrets.plant(x, np.arange(3), np.random.default_rng(3))
    assert planted.planted.tolist() == [0, 1, 2] and (made[3:] == x[3:]).all()
    for row, padded in zip(planted.planted, planted.spelled(), strict=True):
        said = padded[padded >= 0].tolist()
        assert made[row][made[row] >= 0].tolist() == [0, 7, *said, 8]
        assert made[row, planted.start[row] : planted.stop[row]].tolist() == said
    assert planted.references == 5


def test_a_record_without_a_place_or_room_is_an_error():
    x, secrets = places()
    with pytest.raises(UsageError, match="found none in 1 of 6"):
        secrets.plant(x, np.arange(6), np.random.default_rng(0))
    with pytest.raises(UsageError, match="Expected room"):
        secrets.plant(x[:, :6], np.arange(5), np.random.default_rng(1))
    for seed in range(5):  # Whichever secret is drawn: its candidates would not fit.
        with pytest.raises(UsageError, match=f"Expected room for {2 + NAMES.longest} tokens"):
            short = replace(secrets, stop=np.full(6, 1 + NAMES.longest))
            short.plant(x[:, : 1 + NAMES.longest], np.arange(5), np.random.default_rng(seed))
    with pytest.raises(UsageError, match="token before each secret, found none in record 4"):
        early = replace(secrets, start=np.where(np.arange(6) == 4, 0, secrets.start))
        early.plant(x, np.arange(5), np.random.default_rng(1))


@pytest.mark.parametrize("references", [2, 5])
def test_given_its_candidates_every_one_is_as_likely_to_be_the_secret(references):
    """Of all draws with the same set of candidates, each of them is the planted one equally often."""
    x, secrets = places(n=3)
    rng, counts = np.random.default_rng(7), {}
    for _ in range(2000):
        _, planted = secrets.plant(x, np.arange(2), rng)
        own = int(planted.number[0])
        others = planted.formats[0].spelled(np.arange(NAMES.size)).tolist()
        numbers = [others.index(row) for row in planted.candidates(0, references).tolist()]
        assert numbers[0] == own
        counts.setdefault(frozenset(numbers), []).append(own)
    p_values = [
        chisquare([owns.count(number) for number in numbers]).pvalue
        for numbers, owns in counts.items()
        if len(owns) > 60
    ]
    assert len(p_values) > 0 and min(p_values) > 0.001 / len(p_values)


def test_every_draw_of_a_pool_plants_anew_and_only_canaries():
    x, secrets = places(n=60)
    x[:, 1] = np.arange(60) % 7 + 10  # Records differ, and every one but the last has a place.
    secrets = Secrets.at((NAMES,), np.zeros(60), secrets.start, secrets.stop)
    y = np.arange(60) % 2
    pool = make_pool(
        x, y, n_canaries=20, test_fraction=0.2, rng=np.random.default_rng(0), kind="secret", secrets=secrets
    )
    first, second = (pool.draw(np.random.default_rng(seed)) for seed in (1, 2))
    assert np.flatnonzero(first.canary).tolist() == first.secrets.planted.tolist()
    assert (first.x[~first.canary] == second.x[~second.canary]).all()
    assert (first.secrets.number[first.canary] != second.secrets.number[second.canary]).any()
    other = replace(NAMES, name="another")
    assert replace(pool, secrets=replace(pool.secrets, formats=(other,))).sha256() != pool.sha256()
    assert first.commitment() == pool.draw(np.random.default_rng(1)).commitment() != second.commitment()


def test_secret_canaries_need_places():
    with pytest.raises(UsageError, match='canary_kind = "secret"'):
        make_pool(
            np.random.default_rng(0).random((40, 3)),
            np.arange(40) % 2,
            n_canaries=4,
            test_fraction=0.1,
            rng=np.random.default_rng(0),
            kind="secret",
        )
