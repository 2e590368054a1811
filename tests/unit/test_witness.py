"""Witnesses: data as JSON bit by bit, hostile files as one line, and a replay that counts again."""

import copy
import json
import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dpaudit.errors import UsageError
from dpaudit.mechanism import Settings, audit_mechanism
from dpaudit.mechanism.encoding import decode, encode, text_of
from dpaudit.mechanism.replaying import replay
from dpaudit.mechanism.witness import load
from dpaudit.registry import MECHANISMS, resolve

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters()),
    st.binary(),
    st.complex_numbers(allow_nan=True),
    hnp.from_dtype(np.dtype("float32")),
    hnp.from_dtype(np.dtype("int64")),
    hnp.from_dtype(np.dtype("uint8")),
    hnp.from_dtype(np.dtype("bool")),
)
ARRAYS = hnp.arrays(
    st.sampled_from(["f8", "f4", "f2", "i8", "u8", "i1", "?", "c16", "U3", "S3", ">f8"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
HASHABLE = st.one_of(st.integers(), st.text(max_size=3), st.booleans(), st.none())
DATA = st.recursive(
    SCALARS | ARRAYS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(HASHABLE, inner, max_size=3),
        st.sets(HASHABLE, max_size=3),
        st.frozensets(HASHABLE, max_size=3),
    ),
    max_leaves=8,
)


def identity(value):
    """Types and bits of data, all NaNs alike."""
    if isinstance(value, np.ndarray):
        return ("array", value.dtype.str, value.shape, [identity(item) for item in value.ravel().tolist()])
    if isinstance(value, np.generic):
        return ("scalar", value.dtype.str, identity(value.item()))
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("<d", value)
    if isinstance(value, complex):
        return ("complex", identity(value.real), identity(value.imag))
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, [identity(item) for item in value])
    if isinstance(value, (set, frozenset)):
        return (type(value).__name__, sorted(repr(identity(item)) for item in value))
    if isinstance(value, dict):
        return ("dict", [(identity(key), identity(item)) for key, item in value.items()])
    return (type(value).__name__, repr(value))


@settings(max_examples=200, deadline=None)
@given(DATA)
def test_data_survive_json_bit_by_bit(data):
    text = json.dumps(encode(data), allow_nan=False)
    assert identity(decode(json.loads(text))) == identity(data)
    assert text_of(data) == text_of(copy.deepcopy(data))


def test_arrays_of_objects_keep_their_items_and_shape():
    for items in ([[1, 2], [3, 4]], [None, "a"], [[], []], [(1, 2), {"a": np.array([1.0])}]):
        array = np.empty(len(items), dtype=object)
        for i, item in enumerate(items):
            array[i] = item
        again = decode(json.loads(json.dumps(encode(array))))
        assert again.dtype == object
        assert again.shape == array.shape
        assert repr(again.tolist()) == repr(array.tolist())


def test_what_is_no_plain_data_is_written_as_text_and_not_read():
    document = encode([object(), 1])
    assert document[0]["$"] == "text"
    with pytest.raises(UsageError, match="known kind, found 'text'"):
        decode(document)


def test_data_frames_survive():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, math.nan], "b": ["x", "y"], "c": [1, 2]})
    again = decode(json.loads(json.dumps(encode(frame))))
    pandas.testing.assert_frame_equal(frame, again)


@pytest.mark.parametrize(
    "document",
    [
        {"$": "module"},
        {},
        {"$": []},
        {"$": "int", "value": "x"},
        {"$": "int"},
        {"$": "int", "value": "9" * 5000},
        {"$": "float", "value": [1]},
        {"$": "float", "value": {"$": "float", "value": "1"}},
        {"$": "bytes", "value": "zz"},
        {"$": "bytes", "value": 3},
        {"$": "tuple", "value": 3},
        {"$": "tuple", "value": "abc"},
        {"$": "set", "value": [[1]]},
        {"$": "complex", "value": [1]},
        {"$": "dict", "value": [[[1], 2]]},
        {"$": "dict", "value": [1]},
        {"$": "dict", "value": {"a": 1}},
        {"$": "array", "dtype": "f8", "shape": [3], "value": [1.0]},
        {"$": "array", "dtype": "f8", "shape": [-1, -1], "value": [1.0]},
        {"$": "array", "dtype": "f8", "shape": "x", "value": [1.0]},
        {"$": "array", "dtype": "f8", "shape": [1], "value": ["x"]},
        {"$": "array", "dtype": "f8", "shape": [1], "value": "x"},
        {"$": "array", "dtype": "nonsense", "shape": [1], "value": [1]},
        {"$": "array", "dtype": "V8", "shape": [1], "value": [1]},
        {"$": "array", "dtype": "i4,i4", "shape": [1], "value": [1]},
        {"$": "array", "dtype": "(9999,9999,99)f8", "shape": [1], "value": [1]},
        {"$": "array", "dtype": "M8[s]", "shape": [1], "value": [1]},
        {"$": "array", "dtype": {"names": ["a"]}, "shape": [1], "value": [1]},
        {"$": "array", "dtype": "O", "shape": [1], "value": {"$": "text", "value": "import os"}},
        {"$": "array", "dtype": "O", "shape": [1], "value": 5},
        {"$": "array", "dtype": "u1", "shape": [1], "value": [-1]},
        {"$": "array", "dtype": "i8", "shape": [1], "value": [{"$": "int", "value": str(2**70)}]},
        {"$": "scalar", "dtype": "V9", "value": 1_000_000_000},
        {"$": "scalar", "dtype": "O", "value": 1},
        {"$": "scalar", "dtype": "f8", "value": [1, 2]},
        {"$": "scalar", "dtype": "f8"},
        {"$": "frame", "value": [["a", {"$": "text"}]]},
    ],
    ids=lambda d: json.dumps(d)[:60],
)
def test_hostile_data_are_one_line(document):
    with pytest.raises(UsageError, match="Expected") as error:
        decode([document])
    assert "\n" not in str(error.value)


# Files


def leaks(data, rng):
    return float(sum(data) > 0.5) if rng.random() < 0.7 else float(rng.integers(2))


FAST = Settings(samples=6000, examples=12)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A witness of a refutation, in a file."""
    audit = audit_mechanism(leaks, epsilon=0.5, domain="list(float(0, 1), max_size=5)", settings=FAST)
    assert audit.verdict.status.name == "REFUTED"
    path = tmp_path_factory.mktemp("witness") / "witness.json"
    audit.witness.save(path)
    return path, audit


def test_a_witness_survives_its_file(saved):
    path, audit = saved
    again = load(path)
    assert again == audit.witness
    assert again.guarantee == audit.guarantee
    best = audit.confirmations[-1]
    assert {repr(x) for x in again.data()} == {repr(best.tried.pair.first), repr(best.tried.pair.second)}


def test_a_replay_refutes_again_under_other_seeds(saved):
    path, _ = saved
    found = [replay(load(path), leaks, seed=seed) for seed in (0, 0, 1)]
    assert all(each.refuted and each.lower > 0.5 for each in found)
    assert found[0].counts == found[1].counts != found[2].counts
    assert found[0].words().startswith("REFUTED again: epsilon is at least ")
    json.dumps(found[0].document(), allow_nan=False)


def test_a_replay_of_another_mechanism_does_not(saved):
    path, _ = saved
    found = replay(load(path), lambda data, rng: float(rng.integers(2)))
    assert not found.refuted
    assert found.words().startswith("NOT REFUTED by fresh outputs")


CHANGES = {
    "a missing field": lambda d: d.pop("event"),
    "no version": lambda d: d.pop("schema_version"),
    "a newer version": lambda d: d.update(schema_version=99),
    "a version that is a text": lambda d: d.update(schema_version="1"),
    "an unknown feature": lambda d: d["event"]["feature"].update(name="__import__"),
    "a feature without its constants": lambda d: d["event"].update(feature={"name": "equals"}),
    "words that are no hashes": lambda d: d["event"].update(feature={"name": "word", "words": ["zz"]}),
    "a feature that is a text": lambda d: d["event"].update(feature="number"),
    "a threshold that is a text": lambda d: d["event"].update(threshold="x"),
    "a score of too many weights": lambda d: d["event"].update(
        feature={"base": [{"name": "number"}], "fill": [0], "centre": [0], "scale": [1], "weights": [1, 2]}
    ),
    "a tree without nodes": lambda d: d["event"].update(
        feature={
            "base": [{"name": "number"}],
            "fill": [0],
            "centre": [0],
            "scale": [1],
            "trees": [{"column": [], "threshold": [], "left": [], "right": [], "value": []}],
        }
    ),
    "negative hits": lambda d: d.update(hits=-1),
    "more hits than trials": lambda d: d.update(hits=d["trials"] + 1),
    "no trials": lambda d: d.update(trials=0, hits=0),
    "countless trials": lambda d: d.update(trials=10**18),
    "trials that are a float": lambda d: d.update(trials=1.5),
    "a negative seed": lambda d: d.update(seed=-1),
    "an unknown claim": lambda d: d.update(claim_kind="os.system"),
    "a claim of other fields": lambda d: d.update(claim={"mu": 1.0}),
    "a claim that is a text": lambda d: d.update(claim="epsilon"),
    "a claim of texts": lambda d: d.update(claim={"claimed": "1"}),
    "a claim that is NaN": lambda d: d.update(claim={"claimed": {"$": "float", "value": "nan"}}),
    "a negative claim": lambda d: d.update(claim={"claimed": -1.0}),
    "points that are none": lambda d: d.update(claim_kind="several", claim={"points": [1, 2]}),
    "points of three": lambda d: d.update(claim_kind="several", claim={"points": [[1, 2, 3]]}),
    "a float that is none": lambda d: d.update(p_value={"$": "float", "value": "x"}),
    "a mechanism that is a list": lambda d: d.update(mechanism=["os:system"]),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_witness_is_one_line(what, saved, tmp_path):
    document = json.loads(saved[0].read_text())
    CHANGES[what](document)
    path = tmp_path / "witness.json"
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="Expected") as error:
        load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "3", '"text"', "{", "\x00", "[" * 100_000, '{"schema_version": 1', "NaN", "{}" * 2],
    ids=lambda text: text[:12],
)
def test_what_is_no_witness_is_one_line(text, tmp_path):
    path = tmp_path / "witness.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="Expected"):
        load(path)


def test_truncated_files_are_one_line(saved, tmp_path):
    whole, path = saved[0].read_bytes(), tmp_path / "witness.json"
    for end in range(0, len(whole) - 1, max(1, len(whole) // 60)):
        path.write_bytes(whole[:end])
        with pytest.raises(UsageError, match="Expected"):
            load(path)
    with pytest.raises(UsageError, match="found nothing"):
        load(tmp_path / "none.json")
    with pytest.raises(UsageError, match="JSON witness"):
        load(tmp_path)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "witness.json"
    with path.open("wb") as file:
        file.truncate(60_000_000)
    with pytest.raises(UsageError, match="more than 50,000,000 bytes"):
        load(path)


@pytest.mark.parametrize("depth", [100, 400, 900, 5000])
@pytest.mark.parametrize("where", ["likelier", "versions", "claim"])
def test_deep_nesting_is_one_line_or_harmless(depth, where, saved, tmp_path):
    document = json.loads(saved[0].read_text())
    document[where] = "HERE"
    path = tmp_path / "witness.json"
    path.write_text(json.dumps(document).replace('"HERE"', '{"a":[' * depth + "1" + "]}" * depth))
    with pytest.raises(UsageError, match="Expected"):
        load(path).data()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_damage_is_an_error_of_ours_or_a_witness(saved, tmp_path_factory, data):
    """No traceback whatever one value is replaced by."""
    document = json.loads(saved[0].read_text())
    at = document
    while True:
        key = data.draw(st.sampled_from(sorted(at)) if isinstance(at, dict) else st.integers(0, len(at) - 1))
        if not isinstance(at[key], (dict, list)) or not at[key] or data.draw(st.booleans()):
            break
        at = at[key]
    junk = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
    at[key] = data.draw(
        st.one_of(junk, st.lists(junk, max_size=2), st.dictionaries(st.text(max_size=3), junk))
    )
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    path.write_text(json.dumps(document))
    try:
        witness = load(path)
        witness.data()
        witness.event.words()
    except UsageError as error:
        assert str(error).startswith("Expected")


def test_every_kind_of_claim_survives(saved, tmp_path):
    from dpaudit.mechanism import ApproximateDP, GaussianDP, RenyiDP, SeveralDP

    for claim in (
        ApproximateDP(claimed=0.3, delta=1e-3),
        GaussianDP(claimed=0.2),
        RenyiDP(claimed=0.05, order=3.0),
        SeveralDP(points=((0.3, 0.0), (0.1, 0.01))),
    ):
        audit = audit_mechanism(leaks, guarantee=claim, domain="list(float(0, 1), max_size=5)", settings=FAST)
        assert audit.verdict.status.name == "REFUTED"
        audit.witness.save(tmp_path / "witness.json")
        again = load(tmp_path / "witness.json")
        assert again.event == audit.witness.event
        assert again.guarantee == claim
        assert replay(again, leaks).refuted


@pytest.mark.parametrize("name", ["planted-nan", "planted-empty", "planted-half-scale"])
def test_witnesses_of_planted_faults_are_replayed(name, tmp_path):
    mechanism = resolve("mechanism", name, MECHANISMS)()
    audit = audit_mechanism(mechanism, settings=Settings(samples=60_000, examples=60))
    audit.witness.save(tmp_path / "witness.json")
    found = replay(load(tmp_path / "witness.json"), mechanism)
    assert audit.verdict.status.name == "REFUTED"
    assert found.refuted
