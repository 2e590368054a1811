"""Patterns, elements and own types: the pairs that are tried first, and what counts as outside."""

from __future__ import annotations

import math
import unicodedata

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from dpaudit.claim import Adjacency
from dpaudit.errors import UsageError
from dpaudit.strategies import (
    Element,
    Neighbours,
    answer_patterns,
    category,
    integer,
    joint,
    list_patterns,
    neighbouring,
    neighbouring_answers,
    neighbouring_arrays,
    neighbouring_columns,
    neighbouring_lists,
    neighbouring_records,
    neighbouring_users,
    neighbouring_values,
    numbers,
    real,
    record,
    special_integers,
    special_texts,
    texts,
    value_patterns,
    vector,
)

quick = settings(max_examples=60, deadline=None)
REPLACE = Adjacency.REPLACE_ONE


def shown(pairs):
    return [(list(map(float, pair.first)), list(map(float, pair.second))) for pair in pairs]


def test_the_patterns_of_answers_are_those_of_the_paper_and_one_for_the_last():
    one = [1, 1, 1, 1, 1]
    others = [[0, 1, 1, 1, 1], [2, 1, 1, 1, 1], [2, 0, 0, 0, 0], [0, 2, 2, 2, 2], [2, 2, 0, 0, 0]]
    others += [[2] * 5, [0] * 5, [0, 0, 0, 0, 2]]
    pairs = [(one, other) for other in others] + [([1, 1, 0, 0, 0], [0, 0, 1, 1, 1])]
    assert shown(answer_patterns(5)) == [each for a, b in pairs for each in ((a, b), (b, a))]


def test_few_movable_answers_leave_the_first_two_patterns():
    up_down = [[0, 1, 1], [2, 1, 1]]
    both = [each for other in up_down for each in (([1, 1, 1], other), (other, [1, 1, 1]))]
    assert shown(answer_patterns(3, 1)) == both
    assert shown(answer_patterns(1)) == [([1], [0]), ([0], [1]), ([1], [2]), ([2], [1])]


@quick
@given(st.integers(1, 9), st.none() | st.integers(1, 12), st.floats(0.01, 100))
def test_patterns_of_answers_move_no_more_than_they_may(dimension, movable, sensitivity):
    pairs = answer_patterns(dimension, movable, sensitivity)
    for pair in pairs:
        moved = np.abs(pair.first - pair.second)
        assert 0 < moved.max() <= sensitivity * (1 + 1e-12)
        assert np.count_nonzero(moved) <= min(dimension, movable or dimension)
    assert len({(*pair.first, *pair.second) for pair in pairs}) == len(pairs)


def test_drawn_patterns_are_copies():
    strategy = neighbouring_answers(4)
    first = find(strategy, lambda p: True, settings=settings(database=None))
    first.first[:] = -7.0
    assert find(strategy, lambda p: True, settings=settings(database=None)).first.tolist() == [1.0] * 4


def test_impossible_answers_are_refused_by_value():
    for arguments, message in (((0,), "Expected dimension=0"), ((3, 0), "Expected movable=0")):
        with pytest.raises(UsageError, match=message):
            answer_patterns(*arguments)


def test_lists_start_with_nothing_and_pass_each_limit():
    pairs = [(pair.first, pair.second) for pair in list_patterns(real(0, 10).within(), Adjacency.ADD_REMOVE)]
    assert pairs[:4] == [([], [0.0]), ([0.0], []), ([], [10.0]), ([10.0], [])]
    for count in (1, 2, 3, 9, 10, 50, 127, 255):
        assert ([10.0] * count, [10.0] * (count + 1)) in pairs
    replaced = [(p.first, p.second) for p in list_patterns(real(0, 10).within(), REPLACE)]
    assert replaced[0] == ([0.0], [10.0]) and ([10.0] * 3 + [0.0], [10.0] * 4) in replaced
    assert all(first != second for first, second in replaced)


def test_sums_of_whole_numbers_fill_what_holds_them():
    pairs = [
        (pair.first, pair.second) for pair in list_patterns(integer(0, 200).within(), Adjacency.ADD_REMOVE)
    ]
    for top, rest in ((127, [127]), (255, [200, 55]), (32_767, [200] * 163 + [167])):
        assert sum(rest) == top and (rest, [*rest, 1]) in pairs
    assert not any(
        1 in second
        for _, second in ((p.first, p.second) for p in list_patterns(real(0, 10).within(), REPLACE))
    )


@quick
@given(st.sampled_from(Adjacency), st.integers(0, 6), st.integers(1, 300))
def test_patterns_keep_to_their_sizes(adjacency, least, span):
    for pair in list_patterns(integer(0, 5), adjacency, min_size=least, max_size=least + span):
        sizes = sorted((len(pair.first), len(pair.second)))
        assert least <= sizes[0] <= sizes[1] <= least + span


def test_a_domain_of_one_value_has_no_pair_to_replace():
    assert list_patterns(category("a").within(), REPLACE) == ()
    assert value_patterns(category("a").within()) == ()


def test_values_step_in_and_out_of_their_bounds():
    pairs = {(p.first, p.second): p.outside for p in value_patterns(real(0, 10), 1)}
    assert pairs[0.0, 1.0] is False and pairs[9.0, 10.0] is False and pairs[10.0, 11.0] is True
    assert {(p.first, p.second) for p in value_patterns(category("a", "b"))} >= {("a", "b"), ("b", "a")}


@quick
@given(st.data(), st.floats(-1e300, 1e300), st.floats(1e-300, 1e300))
def test_values_are_never_further_apart_than_the_step(data, low, step):
    pair = data.draw(neighbouring_values(real(low, max(low, low + 10 * step) * 1.0), step=step))
    gap = math.fsum((pair.first, -pair.second))
    assert abs(gap) <= step


# --- elements --------------------------------------------------------------------------------------

ELEMENTS = {
    "real": real(0, 10),
    "unbounded": real(),
    "half": real(5),
    "point": real(3, 3),
    "integer": integer(-3, 200),
    "natural": integer(0),
    "huge": integer(2**63 - 2, 2**63 - 1),
    "category": category("f", "m", "unseen"),
    "codes": category(1, 5),
    "text": texts(4),
    "joint": joint([real(0, 1), integer(0, 5), texts(2)]),
    "record": record({"a": real(0, 1), "b": category(1, 2)}),
    "vector": vector(real(0, 1), 3),
    "long vector": vector(integer(0, 5), 40),
    "long text vector": vector(texts(3), 20),
}


@pytest.mark.parametrize("name", ELEMENTS)
@quick
@given(data=st.data())
def test_an_element_knows_what_lies_inside_of_it(name, data):
    one = ELEMENTS[name]
    assert one.contains(data.draw(one.inside))
    assert all(map(one.contains, one.edges)) and one.edges
    assert not any(map(one.contains, one.strange))
    if one.outside is not None:
        assert not one.contains(data.draw(one.outside))
    kept = one.within()
    assert kept.outside is None and kept.strange == () and one.contains(data.draw(kept.every))


def test_outside_values_break_one_field_only():
    one = joint([real(0, 1), real(0, 1)])
    odd = find(one.outside, lambda row: math.isnan(row[1]), settings=settings(database=None))
    assert 0 <= odd[0] <= 1


def test_bounds_the_wrong_way_round_are_refused():
    for make in (real, integer):
        with pytest.raises(UsageError, match="Expected low=3"):
            make(3, 1)


def test_special_integers_are_at_the_limits_of_dtypes():
    found = special_integers(0, 1000)
    for value in (-1, 0, 1000, 1001, 127, 128, -128, -129, 255, 256, 32768, 2**31 - 1, 2**31, 2**53 + 1):
        assert value in found
    assert min(found) == -(2**63) and max(found) == 2**63 - 1
    np.array(found, dtype=np.int64)


def test_special_texts_are_what_they_are_said_to_be():
    found = special_texts()
    assert {"", "\0", "nan", "None", "1e309"} <= set(found) and max(map(len, found)) >= 10_000
    assert any(unicodedata.combining(c) for text in found for c in text)
    assert any(unicodedata.bidirectional(c) in ("R", "RLO") for text in found for c in text)
    assert any(ord(c) > 0xFFFF for text in found for c in text)
    assert any(len(text) == 21 for text in special_texts(20))


# --- containers of plain strategies ----------------------------------------------------------------


@quick
@given(
    st.one_of(
        neighbouring_lists(numbers(0, 1), max_size=5),
        neighbouring_arrays(numbers(0, 1), columns=2, max_size=5),
        neighbouring_records({"x": numbers(0, 1)}, max_size=5),
        neighbouring_users(numbers(0, 1), inside=True),
        neighbouring_values(numbers(0, 1)),
    )
)
def test_of_a_plain_strategy_nothing_is_outside(pair):
    assert pair.outside is False


@quick
@given(neighbouring_columns({"age": integer(0, 120), "pay": numbers(0, 1), "sex": category("f", "m")}))
def test_columns_have_one_length_and_their_own_dtype(pair):
    for table in (pair.first, pair.second):
        assert {name: column.dtype.kind for name, column in table.items()} == {
            "age": "i",
            "pay": "f",
            "sex": "O",
        }
        assert len({len(column) for column in table.values()}) == 1
    assert abs(len(pair.first["age"]) - len(pair.second["age"])) == 1


@quick
@given(neighbouring_lists(real(0, 10), adjacency=REPLACE, max_size=20))
def test_replaced_records_differ(pair):
    assert repr(pair.first) != repr(pair.second)


@quick
@given(neighbouring_records({"x": integer(0, 5)}))
def test_records_are_not_shared_within_a_pair(pair):
    every = [*pair.first, *pair.second]
    assert len({id(row) for row in every}) == len(every)


# --- a type of one's own ---------------------------------------------------------------------------


@quick
@given(
    neighbouring(
        st.frozensets(st.integers(0, 9)),
        lambda drawn: st.integers(0, 12).map(lambda value: drawn ^ {value}),
        contains=lambda drawn: max(drawn, default=0) < 10,
    )
)
def test_own_types_differ_by_one_edit_and_know_their_domain(pair):
    assert isinstance(pair, Neighbours) and pair.index == -1
    (moved,) = pair.first ^ pair.second
    assert pair.outside is (moved > 9)


def test_own_types_come_in_both_orders():
    pairs = neighbouring(st.just(0), lambda value: st.just(value + 1), adjacency=REPLACE)
    for order in ((0, 1), (1, 0)):
        found = find(pairs, lambda p, order=order: (p.first, p.second) == order)
        assert found.adjacency is REPLACE


def test_a_pair_can_be_swapped_and_converted_and_keeps_what_is_said_of_it():
    pair = Neighbours(first=[1], second=[1, 2], index=1, adjacency=REPLACE, outside=True)
    back = pair.swapped().mapped(tuple)
    assert (back.first, back.second, back.index, back.adjacency, back.outside) == (
        (1, 2),
        (1,),
        1,
        REPLACE,
        True,
    )


def test_an_element_of_a_plain_strategy_contains_everything():
    assert Element(inside=st.integers()).contains("anything")
