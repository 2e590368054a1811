"""How a mechanism is called and drawn from, and how whatever it puts out is read."""

import dataclasses
import functools
import importlib
import math
import os
import random
import secrets
import sys
import time
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from dpaudit.errors import UsageError
from dpaudit.outputs import joined, read_off
from dpaudit.targets.releases.calls import call_of, fresh
from dpaudit.targets.releases.drawing import InlineDrawer, cost, pieces
from dpaudit.targets.releases.randomness import Source, randomness
from dpaudit.targets.releases.reading import Failure, read, read_array
from dpaudit.targets.releases.workers import WorkerDrawer

KEY = (3, 1)


def drawn(mechanism, data=(1.0,), size=5, key=KEY, timeout=10.0):
    return InlineDrawer(call=call_of(mechanism), timeout=timeout).draw(list(data), size, key)


# Calls


class Batch:
    def sample(self, data, size, rng):
        return rng.normal(sum(data), 1, size)


def with_generator(data, rng):
    return sum(data) + float(rng.normal())


def with_positional(data, whatever, /):
    return sum(data) + float(whatever.normal())


def with_seed(data, *, random_state):
    assert isinstance(random_state, int)
    return sum(data) + float(np.random.default_rng(random_state).normal())


def with_torch(data, generator: torch.Generator):
    return sum(data) + float(torch.randn((), generator=generator))


def with_size(data, size, rng):
    return [sum(data) + float(x) for x in rng.normal(size=size)]


def with_defaults(data, rng, epsilon=1.0, *, scale=2.0):
    return sum(data) + scale * float(rng.normal()) / epsilon


def optional_rng(data, epsilon=1.0, rng=None):
    assert rng is not None
    return sum(data) + float(rng.normal())


def with_python(data, rng: random.Random):
    return sum(data) + rng.gauss(0, 1)


def with_python_in_words(data, noise: "random.Random"):
    return sum(data) + noise.gauss(0, 1)


def with_random_state(data, random_state: np.random.RandomState | None = None):
    return sum(data) + float(random_state.laplace())


def with_generator_as_seed(data, seed: np.random.Generator):
    return sum(data) + float(seed.normal())


def with_either(data, seed: "int | np.random.Generator"):
    assert isinstance(seed, int)
    return sum(data) + float(np.random.default_rng(seed).normal())


def with_whole_number(data, rng: int):
    return sum(data) + float(np.random.default_rng(rng).normal())


class Callable:
    def __call__(self, data, rng):
        return with_generator(data, rng)

    def method(self, data, seed):
        return with_seed(data, random_state=seed)


FORMS = [
    Batch(),
    with_generator,
    with_positional,
    with_seed,
    with_torch,
    with_size,
    with_defaults,
    with_python,
    with_python_in_words,
    with_random_state,
    with_generator_as_seed,
    with_either,
    with_whole_number,
    optional_rng,
    Callable(),
    Callable().method,
    functools.partial(with_defaults, epsilon=0.5),
    lambda data, rng: float(rng.normal()),
]


@pytest.mark.parametrize("mechanism", FORMS, ids=lambda m: getattr(m, "__name__", type(m).__name__))
def test_every_accepted_form_is_called_and_follows_its_seed(mechanism):
    first, again, other = (drawn(mechanism, key=key) for key in (KEY, KEY, (3, 2)))
    assert first.labels in (("float",), ("float64",)), first.row_text(0)
    np.testing.assert_array_equal(first.numbers, again.numbers)
    assert np.unique(first.numbers).size == 5
    assert not np.any(first.numbers == other.numbers)


def test_functions_of_the_data_alone_are_called_too():
    assert drawn(sum).numbers.ravel().tolist() == [1.0] * 5
    assert drawn(lambda data: len(data)).labels == ("int",)
    assert drawn(lambda *data: len(data)).numbers.ravel().tolist() == [1.0] * 5


@pytest.mark.parametrize(
    ("mechanism", "says"),
    [
        (3.0, "function of the data, found float"),
        (None, "function of the data, found NoneType"),
        (Callable, "found the class Callable. Name an object of it"),
        (lambda: 1, "found no parameter"),
        (lambda data, epsilon, rng: 1, "needs 'epsilon' too"),
        (lambda data, epsilon, delta: 1, "needs 'epsilon' too"),
        (lambda data, size: 1, "as many"),
    ],
)
def test_what_cannot_be_called_is_one_clear_line(mechanism, says):
    if says == "as many":  # a size and no random state is fine, but then it must give as many
        with pytest.raises(UsageError, match="Expected 5 outputs of one call, found one int"):
            drawn(mechanism)
        return
    with pytest.raises(UsageError, match=says) as error:
        call_of(mechanism)
    assert "\n" not in str(error.value)


# Reading


@dataclasses.dataclass
class Release:
    mean: float
    name: str


class Frame:
    columns = ("a", "b")

    def to_numpy(self):
        return np.array([[1.0, 2.0]])

    def __getitem__(self, name):
        return np.array([{"a": 1.0, "b": 2.0}[name]])


class Plain:
    pass


class Hostile:
    def __repr__(self):
        raise RuntimeError("no")


class HostileNumber(float):
    def __float__(self):
        raise ZeroDivisionError


READ = [
    (1.5, "float", {"": 1.5}, []),
    (True, "bool", {"": 1.0}, []),
    (7, "int", {"": 7.0}, []),
    (np.float32(0.5), "float32", {"": 0.5}, []),
    (np.int8(-3), "int8", {"": -3.0}, []),
    (np.bool_(True), "bool", {"": 1.0}, []),
    (Fraction(1, 4), "Fraction", {"": 0.25}, []),
    (Decimal("0.5"), "Decimal", {"": 0.5}, []),
    (1 + 2j, "complex", {".real": 1.0, ".imag": 2.0}, []),
    (np.complex64(1 + 2j), "complex64", {".real": 1.0, ".imag": 2.0}, []),
    (2**70, "int", {"": float(2**70), "#remainder": 0.0}, [str(2**70)]),
    (10**400, "int", {"": math.inf, "#remainder": 0.0}, [str(10**400)[:200]]),
    (-(10**400), "int", {"": -math.inf, "#remainder": 0.0}, ["-1" + "0" * 198]),
    (None, "None", {}, []),
    ("yes", "str", {"#length": 3.0}, ["yes"]),
    ("from -1.5e3 to .5", "str", {"#length": 17.0, "#0": -1500.0, "#1": 0.5}, ["from -1.5e3 to .5"]),
    (b"\x01\xff", "bytes", {"#length": 2.0, "#0": 1.0, "#1": 255.0}, ["01ff"]),
    ([1.0, "a"], "list of 2", {"[0]": 1.0, "[1]#length": 1.0}, ["a", "float, str"]),
    ((1.0, None), "tuple of 2 with None", {"[0]": 1.0}, ["float, None"]),
    ({"b": 2.0, "a": [1.0]}, "dict of 2 (a, b) with list of 1", {"['a'][0]": 1.0, "['b']": 2.0}, ["b, a"]),
    ({"a#1": 1.0}, "dict of 1 (a#1)", {"['a#1']": 1.0}, ["a#1"]),
    ({1.0, 2.0}, "set: list of 2", {"[0]": 1.0, "[1]": 2.0}, []),
    (np.array([[1.0, 2.0]]), "float64 (1, 2)", {"[0][0]": 1.0, "[0][1]": 2.0}, []),
    (np.array(3.0), "float64", {"": 3.0}, []),
    (np.array(["a", None], dtype=object), "list of 2 with None", {"[0]#length": 1.0}, ["a", "str, None"]),
    (torch.tensor([1.0, 2.0]), "tensor of float32 (2,)", {"[0]": 1.0, "[1]": 2.0}, []),
    (torch.tensor([1.5], dtype=torch.bfloat16), "tensor of bfloat16, float32 (1,)", {"[0]": 1.5}, []),
    (torch.ones(1, requires_grad=True), "tensor of float32 (1,)", {"[0]": 1.0}, []),
    (
        Release(mean=1.0, name="x"),
        "Release: dict of 2 (mean, name)",
        {"['mean']": 1.0, "['name']#length": 1.0},
        ["x"],
    ),
    (Frame(), "frame: dict of 2 (a, b) with float64 (1,)", {"['a'][0]": 1.0, "['b'][0]": 2.0}, ["a, b"]),
    (range(2), "range of 2", {"[0]": 0.0, "[1]": 1.0}, []),
    (
        Failure(label="raised ValueError", message="bad"),
        "raised ValueError",
        {"message#length": 3.0},
        ["bad"],
    ),
    (Plain(), "Plain (not looked into)", {}, ["Plain"]),
    (Hostile(), "Hostile that raises RuntimeError when it is read", {}, []),
    (HostileNumber(1), "HostileNumber that raises ZeroDivisionError when it is read", {}, []),
]


@pytest.mark.parametrize(("output", "label", "numbers", "words"), READ, ids=lambda v: str(type(v).__name__))
def test_every_sort_of_output_becomes_numbers_and_words(output, label, numbers, words):
    table = read([output, output])
    assert table.labels == (label,)
    assert dict(zip(table.paths, table.numbers[1].tolist(), strict=True)) == numbers
    assert sorted(dict(table.vocabulary)[int(word)] for word in table.words[1] if word) == sorted(words)
    assert table.fingerprints[0] == table.fingerprints[1]


def test_what_is_read_off_texts_is_told_from_what_an_output_consists_of():
    table = read([{"a#1": 1.0, "b": "2 of 3"}])
    assert [path for path in table.paths if not read_off(path)] == ["['a#1']"]
    np.testing.assert_array_equal(table.plain, [[1.0]])
    assert table.number("['b']#1")[0] == 3.0


def test_what_is_read_off_texts_takes_no_place_of_what_an_output_consists_of():
    table = read([{"a": [f"{i} of 3 4 5 6 7 8 9" for i in range(100)], "b": 0.5, "c": [1.0] * 500}])
    assert table.number("['b']")[0] == 0.5 and table.plain.shape == (1, 501)
    assert table.dropped == 0
    many = read([{f"key {i} {j}": "1 2 3" for j in range(100)} for i in range(30)])
    assert many.size == 30


def test_fitted_models_become_what_they_learned():
    x = np.arange(6.0).reshape(3, 2)
    model = LinearRegression().fit(x, x.sum(axis=1))
    table = read([model, LinearRegression()])
    assert table.labels[1] == "LinearRegression with nothing learned"
    assert table.number("coef_[0]")[0] == pytest.approx(model.coef_[0])
    assert table.number("intercept_")[0] == pytest.approx(model.intercept_)
    module = torch.nn.Linear(2, 1)
    assert read([module]).number("['weight'][0][1]")[0] == pytest.approx(module.weight[0, 1].item())


def test_what_is_deep_wide_or_its_own_part_is_cut_and_said_so():
    itself = [1.0]
    itself.append(itself)
    assert "[0]" in read([itself]).paths
    wide = read([[float(i) for i in range(600)]])
    assert wide.numbers.shape == (1, 512)
    assert wide.dropped == 88
    assert read([np.arange(600.0)]).dropped == read_array(np.zeros((2, 600))).dropped == 88
    deep = 1.0
    for _ in range(50):
        deep = [deep]
    assert read([deep]).numbers.size == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(), min_size=2, max_size=2), min_size=1, max_size=5))
def test_arrays_at_once_and_one_by_one_are_read_alike(rows):
    at_once, singly = read_array(np.array(rows)), joined([read([np.array(row)]) for row in rows])
    mixed = read([*(np.array(row) for row in rows), None])
    for table in (singly, mixed.rows(slice(0, len(rows)))):
        np.testing.assert_array_equal(at_once.numbers, table.numbers)
        np.testing.assert_array_equal(at_once.fingerprints, table.fingerprints)


# Drawing


def raises_for_some(data, rng):
    if rng.random() < 0.5:
        raise KeyError("secret 42")
    return 1.0


def hangs(data, rng):
    if rng.random() < 0.5:
        while True:
            pass
    return 1.0


def sleeps(data):
    time.sleep(60)


def leaves(data):
    raise SystemExit(3)


def changes_its_input(data, rng):
    data.sort()
    data.append(float(len(data)))
    return list(data)


def prints(data):
    print("noise " * 1000)
    return 1.0


class FailsForSome:
    """One call raises if any of its outputs would."""

    def sample(self, data, size, rng):
        values = rng.random(size)
        if np.any(values < 0.3):
            raise ValueError("too small")
        return values


def test_exceptions_are_outputs():
    table = drawn(raises_for_some, size=40)
    assert set(table.labels) == {"float", "raised KeyError"}
    assert drawn(leaves).labels == ("raised SystemExit",)


def test_time_outs_are_outputs():
    start = time.monotonic()
    table = drawn(hangs, size=8, timeout=0.05)
    assert set(table.labels) == {"float", "ran out of time"}
    assert drawn(sleeps, size=1, timeout=0.05).labels == ("ran out of time",)
    assert time.monotonic() - start < 5


def test_a_mechanism_may_change_its_input_without_consequences():
    data = [3.0, 1.0]
    table = drawn(changes_its_input, data, size=3)
    assert data == [3.0, 1.0]
    assert np.unique(table.fingerprints).size == 1
    assert table.numbers[0].tolist() == [1.0, 3.0, 2.0]


@pytest.mark.parametrize(
    "data", [[1, 2], [[1], [2]], np.array([1.0]), np.array([[1], None], dtype=object), {"a": [1]}, 3]
)
def test_a_fresh_copy_shares_nothing_that_can_change(data):
    copy = fresh(data)
    np.testing.assert_equal(copy, data)
    if isinstance(data, (list, dict, np.ndarray)):
        assert copy is not data
    if isinstance(data, list) and isinstance(data[0], list):
        assert copy[0] is not data[0]


def test_what_is_printed_is_not_shown(capsys):
    drawn(prints)
    assert capsys.readouterr().out == ""


def test_a_batch_that_raises_is_drawn_one_by_one():
    table = drawn(FailsForSome(), size=200)
    failed = np.array([table.labels[kind] for kind in table.kinds]) == "raised ValueError"
    assert 0.15 < failed.mean() < 0.45
    assert np.all(table.number("")[~failed] >= 0.3)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda data, size, rng: rng.normal(size=size + 1), "Expected 5 outputs of one call, found 6"),
        (lambda data, size, rng: [], "found 0"),
        (lambda data, size, rng: 1.0, "found one float"),
        (lambda data, size, rng: None, "found one NoneType"),
        (lambda data, size, rng: np.array(1.0), "found one ndarray"),
        (lambda data, size, rng: "abcde", "found one str"),
        (lambda data, size, rng: torch.tensor(1.0), "found one Tensor"),
    ],
)
def test_a_batch_of_another_length_is_one_clear_line(wrong, says):
    with pytest.raises(UsageError, match=says):
        drawn(wrong)


def test_a_batch_may_be_any_sequence():
    for batch in (
        lambda data, size, rng: torch.zeros(size),
        lambda data, size, rng: tuple([None] * size),
        lambda data, size, rng: (x for x in range(size)),
        lambda data, size, rng: [{"a": 1.0}] * size,
        lambda data, size, rng: np.array(["x"] * size),
    ):
        assert drawn(batch).size == 5


def test_pieces_cover_a_draw_once():
    for size, length in ((10, 3), (3, 10), (9, 3)):
        found = pieces(size, KEY, length)
        assert [i for piece in found for i in range(piece.start, piece.stop)] == list(range(size))


def test_cost_is_that_of_one_output():
    drawer = InlineDrawer(call=call_of(lambda data: time.sleep(0.004)))
    assert 0.003 < cost(drawer, [1.0], KEY) < 0.03


def test_cost_is_not_that_of_starting_workers():
    class Cold:
        def __init__(self):
            self.warm = False

        def draw(self, data, size, key):
            time.sleep(0.0 if self.warm else 0.3)
            self.warm = True

    assert cost(Cold(), [1.0], KEY) < 0.001


IMPORTABLE = """
import os, time

def laplace(data, rng):
    return sum(data) + float(rng.laplace())

def raises(data, rng):
    if rng.random() < 0.5:
        raise KeyError("secret 42")
    return [1.0, "a"]

def dies(data, rng):
    if rng.random() < 0.3:
        os._exit(9)
    return float(rng.normal())
"""


@pytest.fixture(scope="module")
def importable(tmp_path_factory):
    """A module that other processes can import."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "importable_mechanisms.py").write_text(IMPORTABLE)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("importable_mechanisms")
    sys.path.remove(str(folder))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["laplace", "raises"])
def test_workers_give_what_this_process_gives(name, importable):
    call = call_of(getattr(importable, name))
    with WorkerDrawer(call, workers=2) as drawer:
        there = [drawer.draw([1.0, 2.0], size, KEY) for size in (5, 50)]
    here = [InlineDrawer(call=call).draw([1.0, 2.0], size, KEY) for size in (5, 50)]
    for theirs, ours in zip(there, here, strict=True):
        np.testing.assert_array_equal(theirs.fingerprints, ours.fingerprints)
        assert theirs.labels == ours.labels


@pytest.mark.slow
def test_workers_outlive_what_kills_them(importable):
    with WorkerDrawer(call_of(importable.dies), timeout=1.0, workers=2) as drawer:
        table = drawer.draw([1.0], 12, KEY)
    rng_says = [np.random.default_rng([*KEY, i]).random() < 0.3 for i in range(12)]
    assert any(rng_says)
    assert [table.labels[kind] == "killed its process" for kind in table.kinds] == rng_says


def test_workers_say_so_where_they_cannot_import_a_module(tmp_path, monkeypatch):
    (tmp_path / "gone_for_workers.py").write_text(IMPORTABLE)
    with monkeypatch.context() as here:
        here.syspath_prepend(str(tmp_path))
        call = call_of(importlib.import_module("gone_for_workers").laplace)
    with (
        WorkerDrawer(call, workers=1) as drawer,
        pytest.raises(UsageError, match="another process can import, found that it cannot"),
    ):
        drawer.draw([1.0], 2, KEY)


def test_workers_refuse_what_no_other_process_can_import():
    with pytest.raises(UsageError, match="another process can import"):
        WorkerDrawer(call_of(lambda data: 1.0), workers=1)


# Randomness


def from_random(data):
    return random.gauss(0, 1)


def from_numpy(data):
    return float(np.random.normal())


def from_torch(data):
    return float(torch.randn(()))


def ignores_its_rng(data, rng):
    return float(np.random.normal())


def from_the_system(data):
    return secrets.randbits(40)


def from_os(data, rng):
    return os.urandom(8)


def from_nowhere(data, rng):
    return sum(data)


@pytest.mark.parametrize(
    ("mechanism", "source", "note"),
    [
        (with_generator, Source.GIVEN, ""),
        (Batch(), Source.GIVEN, ""),
        (with_torch, Source.GIVEN, ""),
        (raises_for_some, Source.GIVEN, ""),
        (from_random, Source.GLOBAL, "It draws from a global random state"),
        (from_numpy, Source.GLOBAL, "It draws from a global random state"),
        (from_torch, Source.GLOBAL, "It draws from a global random state"),
        (ignores_its_rng, Source.GLOBAL, "ignores the random state that it is given"),
        (from_the_system, Source.OWN, "cannot be seeded"),
        (from_os, Source.OWN, "ignores the random state that it is given"),
        (from_nowhere, Source.NOWHERE, "without randomness protects nothing"),
        (sum, Source.NOWHERE, "without randomness protects nothing"),
    ],
)
def test_the_source_of_randomness_is_found(mechanism, source, note):
    found = randomness(call_of(mechanism), lambda call: InlineDrawer(call=call), [[1.0], [1.0, 2.0]])
    assert found.source is source
    assert note in found.note
    assert bool(note) == bool(found.note)
    assert found.call.reseed == (source is Source.GLOBAL)


def test_one_data_set_that_varies_is_enough():
    lazy = lambda data, rng: float(rng.normal()) if len(data) > 1 else 0.0  # noqa: E731
    found = randomness(call_of(lazy), lambda call: InlineDrawer(call=call), [[1.0], [1.0, 2.0]])
    assert found.source is Source.GIVEN
