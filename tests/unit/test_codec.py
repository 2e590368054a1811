"""`dpaudit.codec`: every noun comes back equal, and only nouns come back."""

import json
import math
from dataclasses import fields, is_dataclass, replace
from enum import StrEnum

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dpaudit.claim import Adjacency, Claim, Phase, Sampler
from dpaudit.codec import decode, encode
from dpaudit.evidence import Access, Finding, Guesses, KnownNull, NoiseSample, OneRun, Replay, TwoSample

EPSILONS = st.one_of(st.floats(0.0, 1e6), st.just(math.inf))
TEXT = st.text(max_size=8)
COUNTS = st.integers(0, 2**40)
FINITE = st.floats(allow_nan=False)


def vector(dtype):
    return hnp.arrays(dtype, st.integers(0, 6))


PHASES = st.builds(
    Phase,
    noise_multiplier=st.floats(0.0, 100.0),
    sample_rate=st.floats(1e-6, 1.0),
    steps=COUNTS,
    max_grad_norm=st.floats(0.1, 10.0),
    sampler=st.sampled_from(Sampler),
)
COMMON = {"source": TEXT, "access": st.sampled_from(Access), "adjacency": st.sampled_from(Adjacency)}
NOISE = st.builds(NoiseSample, where=TEXT, sum_of_squares=FINITE, count=COUNTS, claimed_std=FINITE)
NOUNS = st.one_of(
    PHASES,
    NOISE,
    st.builds(
        Claim,
        epsilon=EPSILONS,
        delta=st.floats(0.0, 0.5),
        adjacency=st.sampled_from(Adjacency),
        unit=TEXT,
        ledger=st.lists(PHASES, max_size=3).map(tuple),
        source=TEXT,
        dataset_size=st.none() | COUNTS,
    ),
    st.builds(
        KnownNull,
        p_values=vector(np.float64),
        n_references=COUNTS,
        unit=TEXT,
        cluster=st.none() | vector(np.int64),
        phase=st.none() | vector(np.int64),
        **COMMON,
    ),
    st.builds(TwoSample, scores_in=vector(np.float64), scores_out=vector(np.float64), **COMMON),
    st.builds(OneRun, scores=vector(np.float64), included=vector(np.bool_), **COMMON),
    st.builds(Guesses, successes=COUNTS, trials=COUNTS, baseline=FINITE, unit=TEXT, **COMMON),
    st.builds(
        Replay,
        sensitivity=st.floats(),
        sensitivity_where=TEXT,
        noise=st.lists(NOISE, max_size=2).map(tuple),
        executions=COUNTS,
        steps=COUNTS,
        **COMMON,
    ),
    st.builds(
        Finding,
        check=TEXT,
        where=TEXT,
        expected=TEXT,
        measured=TEXT,
        epsilon=st.none() | EPSILONS,
        remedy=TEXT,
        source=TEXT,
        access=st.sampled_from(Access),
    ),
)


def same(a, b) -> bool:
    """Equal in type and content; NaN equals NaN, and arrays are compared with their dtype and shape."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


def round_trip(value):
    arrays = {}
    text = json.dumps(encode(value, arrays, "value"), allow_nan=False)
    return decode(json.loads(text), arrays)


@given(NOUNS)
def test_every_noun_comes_back_as_it_was(noun):
    assert same(round_trip(noun), noun)


@given(hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=4)))
def test_every_plain_array_comes_back_as_it_was(array):
    assert same(round_trip(array), array)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | TEXT, lambda s: st.lists(s, max_size=3)
    )
)
def test_every_plain_value_comes_back_and_lists_come_back_as_tuples(value):
    def as_tuples(item):
        return tuple(map(as_tuples, item)) if isinstance(item, list) else item

    assert same(round_trip(value), as_tuples(value))


def test_arrays_of_two_nouns_in_one_list_do_not_share_a_name():
    one = OneRun(scores=np.array([1.0]), included=np.array([True]), source="a", access=Access.FINAL_MODEL)
    two = replace(one, scores=np.array([2.0, 3.0]), included=np.array([True, False]))
    assert same(round_trip((one, two)), (one, two))


@pytest.mark.parametrize("value", [{"a": 1}, {1}, object(), 1 + 2j, b"bytes", np.int64(3)])
def test_a_value_without_a_form_is_named_with_its_place(value):
    with pytest.raises(TypeError, match=r"at 'facts\.0', found"):
        encode([value], {}, "facts")


@pytest.mark.parametrize("name", ["Canaries", "subprocess.Popen", "__import__", ""])
def test_nothing_but_a_noun_is_ever_made_from_a_file(name):
    with pytest.raises(KeyError):
        decode({"noun": name, "fields": {}}, {})


def test_enumerations_come_back_as_such_and_not_as_text():
    decoded = round_trip(Phase(noise_multiplier=1.0, sample_rate=0.1, steps=1, sampler=Sampler.SHUFFLE))
    assert isinstance(decoded.sampler, StrEnum)
    assert decoded.sampler is Sampler.SHUFFLE
