"""Domains as text: every form draws neighbours of its domain, and what is wrong is said in one line."""

from __future__ import annotations

import math
import sys
from collections import Counter
from functools import cache
from types import ModuleType

import numpy as np
import pytest
from hypothesis import Phase as HypothesisPhase
from hypothesis import assume, find, given, settings
from hypothesis import strategies as st

from dpaudit.claim import Adjacency
from dpaudit.domain_forms import CONTAINERS, ELEMENTS
from dpaudit.domains import parse
from dpaudit.errors import UsageError
from dpaudit.strategies import Neighbours, neighbouring

quick = settings(max_examples=40, deadline=None)
search = settings(
    max_examples=200, database=None, deadline=None, derandomize=True, phases=[HypothesisPhase.generate]
)
shrink = settings(max_examples=2000, database=None, deadline=None, derandomize=True)

FLOAT = "float(0, 10)"
LISTS = {
    f"list({FLOAT})": lambda x: 0 <= x <= 10,
    "list(float())": math.isfinite,
    "list(float(0, inf), min_size=2, max_size=6)": lambda x: 0 <= x < math.inf,
    "list(float(low=-1e-3, high=+2.5), max_size=1)": lambda x: -1e-3 <= x <= 2.5,
    "list(int(0, 5), max_size=50)": lambda x: 0 <= x <= 5,
    "list(int())": lambda x: True,
    "list(int(high=127))": lambda x: x <= 127,
    "list(bool())": lambda x: isinstance(x, bool),
    'list(category("f", "m"))': lambda x: x in ("f", "m"),
    "list(category(1, None, 2.5, True))": lambda x: (
        (type(x), x) in [(int, 1), (type(None), None), (float, 2.5), (bool, True)]
    ),
    "list(text())": lambda x: isinstance(x, str),
    "list(text(max_size=3))": lambda x: len(x) <= 3,
    "list(tuple(float(0, 1), int(0, 5)))": lambda x: 0 <= x[0] <= 1 and 0 <= x[1] <= 5,
    "list(array(float(0, 1), columns=2))": lambda x: ((x >= 0) & (x <= 1)).all() and x.shape == (2,),
    'list(tuple(tuple(bool()), category("a")))': lambda x: isinstance(x[0][0], bool) and x[1] == "a",
}
TABLES = {
    "array(float(0, 1))": lambda x: 0 <= x <= 1,
    "array(float(0, 1), columns=3)": lambda x: all(0 <= v <= 1 for v in x),
    "array(tuple(float(0, 1), int(0, 5)))": lambda x: 0 <= x[0] <= 1 and 0 <= x[1] <= 5,
    "array(text(), columns=2, max_size=4)": lambda x: all(isinstance(v, str) for v in x),
    'records(age=int(0, 120), sex=category("f", "m"))': lambda x: 0 <= x[0] <= 120 and x[1] in ("f", "m"),
    "columns(age=int(0, 120), pay=float(0, 1), min_size=1, max_size=9)": lambda x: (
        0 <= x[0] <= 120 and 0 <= x[1] <= 1
    ),
}
USERS = ["users(float(0, 1), max_records=3)", "users(int(0, 5), max_users=4)"]
VALUES = {
    "value(int(0, 5))": lambda x: 0 <= x <= 5,
    "value(float(-10, 10), step=1)": lambda x: -10 <= x <= 10,
    "value(float(0, 0.5), step=1)": lambda x: 0 <= x <= 0.5,
    "value(int(0, 5), step=2)": lambda x: 0 <= x <= 5,
    'value(category("a", "b", "c"))': lambda x: x in ("a", "b", "c"),
    "value(text(max_size=0))": lambda x: x == "",
}


@cache
def parsed(text, adjacency, inside):
    return parse(text, adjacency=adjacency, inside=inside)


def rows(data):
    """Records of a data set in any form, as values that can be counted; an independent reading."""
    if isinstance(data, dict):
        data = list(zip(*(column.tolist() for column in data.values()), strict=True))
    if isinstance(data, np.ndarray):
        data = data.tolist()
    return [tuple(row.values()) if isinstance(row, dict) else row for row in data]


def counted(records):
    return Counter(map(repr, records))


def distance(pair):
    """Records only in the one and only in the other data set, by multisets, whatever their order."""
    one, other = counted(rows(pair.first)), counted(rows(pair.second))
    return (one - other).total(), (other - one).total()


def numeric(row):
    return tuple(row) if isinstance(row, list) else row


def asserted(pair, adjacency, contains, inside):
    assert pair.adjacency is adjacency
    if adjacency is Adjacency.ADD_REMOVE:
        assert distance(pair) in [(1, 0), (0, 1)]
    else:
        assert distance(pair) in [(1, 1), (0, 0)]
    drawn = [numeric(row) for data in (pair.first, pair.second) for row in rows(data)]
    assert pair.outside is not all(map(contains, drawn))
    if inside:
        assert not pair.outside


@pytest.mark.parametrize("text", [*LISTS, *TABLES])
@quick
@given(data=st.data(), adjacency=st.sampled_from(Adjacency), inside=st.booleans())
def test_what_is_drawn_are_neighbours(text, data, adjacency, inside):
    pairs = parsed(text, adjacency, inside).pairs
    asserted(data.draw(pairs), adjacency, {**LISTS, **TABLES}[text], inside)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("adjacency", Adjacency)
@pytest.mark.parametrize("text", [*LISTS, *TABLES])
def test_what_is_tried_first_are_neighbours(text, adjacency, inside):
    domain = parse(text, adjacency=adjacency, inside=inside)
    for pair in domain.patterns:
        asserted(pair, adjacency, {**LISTS, **TABLES}[text], inside)
    assert domain.adjacency is adjacency and domain.text == text


def by_user(data):
    return {user: counted(value for other, value in data if other == user) for user, _ in data}


@pytest.mark.parametrize("text", USERS)
@quick
@given(data=st.data(), adjacency=st.sampled_from(Adjacency), inside=st.booleans())
def test_users_differ_in_all_rows_of_one_user(text, data, adjacency, inside):
    most = 3 if "max_records=3" in text else 5
    high = 1 if "float" in text else 5
    domain = parse(text, adjacency=adjacency, inside=inside)
    for pair in [data.draw(domain.pairs), *domain.patterns]:
        one, other = (
            {u: counted(v for w, v in d if w == u) for u, _ in d} for d in (pair.first, pair.second)
        )
        moved = {user for user in {*one, *other} if one.get(user) != other.get(user)}
        assert len(moved) == 1 or (adjacency is Adjacency.REPLACE_ONE and not moved)
        assert len({*one} ^ {*other}) == (1 if adjacency is Adjacency.ADD_REMOVE else 0)
        staying = [[row for row in each if row[0] not in moved] for each in (pair.first, pair.second)]
        assert repr(staying[0]) == repr(staying[1])
        larger = max((pair.first, pair.second), key=len)
        assert not moved or larger[pair.index][0] in moved
        values = [v for each in (pair.first, pair.second) for _, v in each]
        over = any(count.total() > most for each in (one, other) for count in each.values())
        assert pair.outside is (over or not all(0 <= v <= high for v in values))
        assert not (inside and pair.outside)


@pytest.mark.parametrize("text", VALUES)
@quick
@given(data=st.data(), inside=st.booleans())
def test_values_are_any_two_or_near_ones(text, data, inside):
    domain = parse(text, inside=inside)
    for pair in [data.draw(domain.pairs), *domain.patterns]:
        assert pair.adjacency is Adjacency.REPLACE_ONE
        assert pair.outside is not all(map(VALUES[text], (pair.first, pair.second)))
        assert not (inside and pair.outside)
        if "step=" in text:
            apart = int(text[-2])
            assert abs(math.fsum((pair.first, -pair.second))) <= apart
        if "int" in text:
            assert isinstance(pair.first, int) and isinstance(pair.second, int)


@pytest.mark.parametrize("movable", [None, 1, 3])
@quick
@given(data=st.data())
def test_answers_move_within_their_limits(movable, data):
    domain = parse(f"answers(6, sensitivity=0.5, movable={movable})", adjacency=Adjacency.ADD_REMOVE)
    for pair in [data.draw(domain.pairs), *domain.patterns]:
        moved = np.abs(pair.first - pair.second)
        assert moved.shape == (6,) and moved.max() <= 0.5 * (1 + 1e-9)
        assert np.count_nonzero(moved) <= (movable or 6)
        assert pair.adjacency is Adjacency.ADD_REMOVE


def test_arrays_have_the_dtype_of_their_elements():
    kinds = {"float(0, 1)": "f", "int(0, 5)": "i", "bool()": "b", "text()": "O", "category(1, 2)": "i"}
    for element, kind in kinds.items():
        pair = parse(f"array({element})").patterns[0]
        assert pair.first.shape == (0,) and pair.second.shape == (1,)
        assert pair.first.dtype.kind == pair.second.dtype.kind == kind


def test_the_relation_is_the_usual_one_unless_stated():
    assert parse("list(bool())").adjacency is Adjacency.ADD_REMOVE
    assert parse("answers(3)").adjacency is Adjacency.REPLACE_ONE


def test_a_domain_says_in_words_what_it_holds():
    summary = parse(f"list({FLOAT}, max_size=50)").summary
    assert "a number in [0, 10]" in summary and "0 to 50 records" in summary and "one more" in summary
    assert "outside" in summary and "outside" not in parse(f"list({FLOAT})", inside=True).summary
    assert "[0, 1234567]" in parse("list(float(0, 1234567))").summary
    assert "at most 1 away" in parse("value(float(0, 3), step=1)").summary


def test_a_pair_and_its_reverse_share_no_data():
    one, other = parse("records(x=float(0, 1))", adjacency=Adjacency.REPLACE_ONE).patterns[4:6]
    for record in one.first:
        record["x"] = 7.0
    assert all(record["x"] != 7.0 for each in (one.second, other.first, other.second) for record in each)


# --- finding and shrinking -------------------------------------------------------------------------

CONDITIONS = {
    "empty": ("list(float(0, 10))", lambda p: not p.first or not p.second),
    "one record": ("list(float(0, 10))", lambda p: min(len(p.first), len(p.second)) == 1),
    "three at the cap": ("list(float(0, 10))", lambda p: p.first.count(10) >= 3 and not p.outside),
    "run beyond int8": ("list(int(0, 5))", lambda p: max(Counter(p.first).values(), default=0) > 127),
    "255 and 256": ("list(int(0, 5))", lambda p: {len(p.first), len(p.second)} == {255, 256}),
    "nan differs": (
        "list(float(0, 10))",
        lambda p: any(map(math.isnan, p.second)) and not any(map(math.isnan, p.first)),
    ),
    "below": ("list(float(0, 10))", lambda p: any(x < -0.5 for x in p.first) and len(p.second) > 2),
    "dtype limit": ("list(int(0, 1000))", lambda p: 128 in p.first or 128 in p.second),
    "duplicates": ("list(float(0, 10))", lambda p: len(p.first) == 2 and p.first[0] == p.first[1]),
    "empty text": ("list(text())", lambda p: "" in p.second),
    "text that reads as missing": ("list(text())", lambda p: {"nan", "None", "NA"} & {*p.first}),
    "unseen category": (
        'columns(a=category("f", "m"))',
        lambda p: p.outside and not {*p.first["a"], *p.second["a"]} <= {"f", "m"},
    ),
    "too many rows of a user": (
        "users(float(0, 1), max_records=3)",
        lambda p: max(Counter(u for u, _ in p.second).values(), default=0) >= 30,
    ),
    "many users": ("users(float(0, 1))", lambda p: len({u for u, _ in p.second}) >= 128),
    "a step out": ("value(float(0, 1), step=1)", lambda p: {p.first, p.second} == {1.0, 2.0}),
    "first answer 2, rest 0": ("answers(4)", lambda p: list(p.second) == [2, 0, 0, 0]),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_planted_conditions_are_drawn_within_200_examples(name):
    text, holds = CONDITIONS[name]
    find(parse(text).pairs, holds, settings=search)


@pytest.mark.parametrize(
    ("text", "holds", "smallest"),
    [
        ("list(float(0, 10))", lambda p: True, ([], [0.0])),
        ("list(int(0, 5))", lambda p: len(p.first) > len(p.second), ([0], [])),
        ("list(float(0, 10))", lambda p: any(x >= 1 for x in p.second), ([], [1.0])),
        ("list(float(0, 10))", lambda p: any(map(math.isnan, p.second)), ([], [math.nan])),
        ("list(int(0, 50))", lambda p: max(p.second, default=0) > 30, ([], [31])),
        ("list(int(0, 5))", lambda p: len(p.first) >= 3, ([0, 0, 0], [0, 0, 0, 0])),
        ("list(text())", lambda p: p.outside is False, ([], [""])),
        ("users(float(0, 1))", lambda p: True, ([], [(0, 0.0)])),
        ("value(int(0, 5))", lambda p: True, (0, 5)),
        ("value(float(-10, 10), step=1)", lambda p: p.first != p.second, (0.0, 1.0)),
        ("records(a=int(0, 5), b=bool())", lambda p: p.second, ([], [{"a": 0, "b": False}])),
    ],
)
def test_what_is_found_shrinks_to_the_smallest_readable_pair(text, holds, smallest):
    found = find(parse(text).pairs, holds, settings=shrink)
    assert repr((found.first, found.second)) == repr(smallest)


# --- errors ----------------------------------------------------------------------------------------

ERRORS = [
    ("lst(float(0, 1))", r"Expected a known domain, found 'lst': did you mean 'list'\?"),
    ("list(flaot(0, 1))", r"Expected a known element, found 'flaot': did you mean 'float'\?"),
    ("float(0, 1)", r"found the element float\(0, 1\)\. Write value\(float\(0, 1\)\).*or list\("),
    ("list", r"Expected a domain such as list.*found 'list'\. Write list\(\.\.\.\)"),
    ("list(0, 1)", r"Expected the element of list to be an element, found 0\."),
    ("list()", r"Expected list\(element, min_size=0, max_size=300\), found list\(\): missing"),
    ("list(int(), 1, 2, 3)", r"Expected list\(.*\), found .*too many"),
    ("list(list(int()))", r"Expected an element inside of the domain, found the data set list\(int\(\)\)"),
    ("list(int(), max_siz=3)", r"found 'max_siz': did you mean 'max_size'\?"),
    ("list(int(), max_size=3, max_size=4)", r"found 'max_size' twice"),
    ("list(int(), max_size=0)", r"Expected max_size=0 in \[1, 100000\]\. Choose"),
    ("list(int(), max_size=2.5)", r"Expected max_size to be a whole number, found 2\.5"),
    ("list(int(), min_size=6, max_size=5)", r"Expected min_size=6 in \[0, 5\]"),
    ("list(int(), min_size=True)", r"Expected min_size to be a whole number, found True"),
    ("list(float(2, 1))", r"Expected low=2\.0 in \[-inf, 1\.0\]\. Write the lower bound first"),
    ("list(float(nan, 1))", r"Expected low to be a number, found nan"),
    ("list(float(inf, inf))", r"Expected a finite number between low and high, found inf"),
    ('list(float("a"))', r"Expected low to be a number, found 'a'"),
    ("list(float(int()))", r"Expected low to be a number, found an integer in"),
    (f"list(float(0, {10**400}))", r"Expected high to fit a float"),
    ("list(int(5, 0))", r"Expected low=5 in \[-inf, 0\]\. Write the lower bound first"),
    ("list(int(0.5))", r"Expected low to be a whole number, found 0\.5"),
    (f"list(int(0, {2**63}))", r"Expected high=9223372036854775808 in"),
    ("list(bool(1))", r"Expected bool\(\), found bool\(1\)"),
    ("list(bool(a=1))", r"Expected bool\(\), found 'a': it takes no named"),
    ("list(category())", r"Expected category to name its values, found none"),
    ("list(category(int()))", r"Expected the values of category to be constants, found an integer"),
    ('list(category(["f", "m"]))', r"found \"\['f', 'm'\]\""),
    ("list(text(max_size=-1))", r"Expected max_size=-1 in \[0,"),
    ("list(tuple())", r"Expected tuple to have elements, found none"),
    ("list(tuple(1))", r"Expected an element of tuple to be an element, found 1"),
    ("array(float(0, 1), columns=0)", r"Expected columns=0 in \[1, 1000\]"),
    ("list(array(float(0, 1)))", r"Expected array\(element, columns\), found .*missing"),
    ("records()", r"Expected records to have fields, found none\. Write records\("),
    ("records(int())", r"Expected records\(min_size=0, max_size=300, name=element\.\.\.\), found records"),
    ("columns(age=3)", r"Expected age to be an element, found 3"),
    ("users(float(0, 1), max_records=0)", r"Expected max_records=0 in \[1, 10000\]"),
    ("value(int(), step=0.5)", r"Expected step to be a whole number, found 0\.5"),
    ("value(text(), step=1)", r"Expected step with a float or an int, found a text"),
    ('value(category("a", "b"), step=1)', r"Expected step with a float or an int"),
    ("value(float(), step=0)", r"Expected step=0\.0 in \(0\.0, inf\)"),
    ("answers(0)", r"Expected dimension=0 in \[1, 10000\]"),
    ("answers(3, movable=4)", r"Expected movable=4 in \[1, 3\]"),
    ("answers(3, sensitivity=0)", r"Expected sensitivity=0\.0 in \(0\.0,"),
    ("list(float(0, 1)", r"Expected a domain such as list\(float\(0, 10\)\), found .*never closed"),
    ("", r"Expected a domain such as"),
    ("list(*float(0, 1))", r"found \*\. Write every argument out"),
    ("list(**float(0, 1))", r"found \*\*\. Write every argument out"),
    ("__import__('os').system('true')", r"Expected a domain such as .* Only calls with constants are read"),
    ("list((lambda: 1)())", r"Only calls with constants are read"),
    ("[1]", r"Expected a domain such as"),
    ("list(float(0, 1 + 1))", r"found '1 \+ 1'"),
    ("list(float(0, 1))" + " " * 20_000 + "x", r"at most 10000 characters, found"),
    ("no_such_module_of_mine:pairs", r"Expected domain 'no_such_module_of_mine:pairs' to import"),
    ("math:py", r"Expected math to have 'py', found none: did you mean 'pi'\?"),
    ("math:pi", r"Expected math:pi to be a Hypothesis strategy of neighbours, found float"),
    ("math:sqrt", r"Expected math:sqrt to give a strategy when called without arguments, found TypeError"),
]


@pytest.mark.parametrize(("text", "message"), ERRORS, ids=[text[:40] for text, _ in ERRORS])
def test_what_is_wrong_is_said_in_one_line(text, message):
    with pytest.raises(UsageError, match=message) as caught:
        parse(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_single_value_cannot_be_removed():
    with pytest.raises(UsageError, match=r"Expected adjacency replace-one for value\(\.\.\.\)"):
        parse("value(int(0, 5))", adjacency=Adjacency.ADD_REMOVE)


WORDS = [*CONTAINERS, *ELEMENTS]
TOKENS = [
    *WORDS,
    *"(())=-*.[] ",
    "\n",
    ", ",
    "0",
    "1",
    "1e-3",
    "'a'",
    "max_size",
    "columns",
    "step",
    "movable",
]
TOKENS += ["inf", "nan", "None", "True", "lambda"]


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(TOKENS), max_size=14).map("".join)))
def test_any_text_is_read_or_refused_by_a_usage_error(text):
    assume(":" not in text)
    try:
        domain = parse(text)
    except UsageError as error:
        assert str(error)
    else:
        assert domain.summary


LEAVES = ["float(0, 1)", "float()", "int(0, 5)", "int()", "bool()", "text(2)", 'category("a", 1)']
FORMS = [
    "list({})",
    "array({})",
    "array(array({}, columns=2), columns=20)",
    "columns(a={0})",
    "users({})",
    "value({})",
]
elements = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"tuple({', '.join(parts)})"),
    max_leaves=4,
)


@quick
@given(st.data(), elements, st.sampled_from(FORMS))
def test_any_element_goes_into_any_data_set(data, one, form):
    pair = data.draw(parse(form.format(one)).pairs)
    assert isinstance(pair, Neighbours)


@pytest.mark.parametrize(
    "text",
    ["array(float(0, 1), columns=1000)", "list(array(int(0, 5), columns=500))", "answers(10000)"],
)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_wide_data_is_drawn_too(text, data):
    pair = data.draw(parsed(text, None, False).pairs)
    for each in (pair.first, pair.second):
        assert np.shape(each)[-1] in (0, 500, 1000, 10_000)
    if "list" in text:
        rows_of = [*pair.first, *pair.second]
        assert pair.outside is any(((row < 0) | (row > 5)).any() for row in rows_of)


# --- the user's own --------------------------------------------------------------------------------


@pytest.fixture
def mine(monkeypatch):
    module = ModuleType("my_domain")
    module.tuples = st.just(([], [1]))
    module.pairs = neighbouring(st.just(3), lambda x: st.just(x + 1), contains=lambda x: x < 4)
    module.function = lambda: module.tuples
    module.needs = lambda size: module.tuples
    module.triples = st.just((1, 2, 3))
    monkeypatch.setitem(sys.modules, "my_domain", module)


@pytest.mark.parametrize("name", ["tuples", "function"])
def test_tuples_of_ones_own_are_wrapped(mine, name):
    domain = parse(f"my_domain:{name}", adjacency=Adjacency.REPLACE_ONE)
    pair = find(domain.pairs, lambda p: True, settings=shrink)
    assert (pair.first, pair.second, pair.adjacency) == ([], [1], Adjacency.REPLACE_ONE)
    assert domain.patterns == () and f"my_domain:{name}" in domain.summary
    assert parse(f"my_domain:{name}").adjacency is Adjacency.ADD_REMOVE


def test_pairs_of_ones_own_are_kept_as_they_are(mine):
    pair = find(parse("my_domain:pairs").pairs, lambda p: True, settings=shrink)
    assert (pair.first, pair.second, pair.outside) == (3, 4, True)


def test_a_module_is_found_in_the_folder_given(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_graphs_7.py").write_text(
        "from hypothesis import strategies as st\npairs = st.just((1, 2))\n"
    )
    assert find(parse("my_graphs_7:pairs", path=tmp_path).pairs, lambda p: True).second == 2


def test_other_things_of_ones_own_are_refused(mine):
    with pytest.raises(UsageError, match=r"called without arguments, found TypeError.*Give every argument"):
        parse("my_domain:needs")
    with pytest.raises(UsageError, match=r"Expected my_domain:triples to draw Neighbours or 2-tuples, found"):
        find(parse("my_domain:triples").pairs, lambda p: True)


def test_frames_need_pandas_and_say_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"Expected pandas for frame\(\.\.\.\), found none\. Run `pip"):
        parse("frame(age=int(0, 120))")


def test_frames_are_made_of_the_columns(monkeypatch):
    stub = ModuleType("pandas")
    stub.DataFrame = lambda columns: ("frame", columns)
    monkeypatch.setitem(sys.modules, "pandas", stub)
    name, columns = parse("frame(age=int(0, 120))").patterns[2].second
    assert name == "frame" and columns["age"].tolist() == [120]


def test_frames_are_frames_where_pandas_is_installed():
    pandas = pytest.importorskip("pandas")
    frame = parse('frame(age=int(0, 120), sex=category("f", "m"))').patterns[0].second
    assert isinstance(frame, pandas.DataFrame) and frame.shape == (1, 2)


def test_data_sets_of_one_size_have_neighbours_that_replace_a_record():
    text = "list(float(0, 10), min_size=4, max_size=4)"
    domain = parse(text)
    assert domain.adjacency is Adjacency.REPLACE_ONE
    for pair in [*domain.patterns, find(domain.pairs, lambda _: True)]:
        assert len(pair.first) == len(pair.second) == 4
        assert sum(a != b for a, b in zip(pair.first, pair.second, strict=True)) <= 1 or pair.outside
    assert domain.patterns
    with pytest.raises(UsageError, match="Expected data sets of more than one size"):
        parse(text, adjacency=Adjacency.ADD_REMOVE)
