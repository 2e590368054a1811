"""Features against loops over outputs, events as JSON and as words, and the choice of planted events."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from dpaudit.attacks.event_search.events import Event
from dpaudit.attacks.event_search.features import FEATURES, Feature, low_bit, matrix
from dpaudit.attacks.event_search.learned import (
    LearnedScore,
    Tree,
    _staircase,
    fit_linear,
    fit_steps,
    fit_trees,
)
from dpaudit.attacks.event_search.proposals import propose
from dpaudit.attacks.event_search.selection import Learn, Samples, choose
from dpaudit.errors import UsageError
from dpaudit.mechanism.witness import Witness, load
from dpaudit.outputs import joined, text_hash
from dpaudit.stats.event_test import refutes
from dpaudit.stats.guarantees import ApproximateDP
from dpaudit.targets.releases.reading import Failure, read, read_array

CLAIM = ApproximateDP(claimed=1.0)
FLOATS = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)
VECTORS = st.lists(st.lists(FLOATS, min_size=3, max_size=3), min_size=1, max_size=6)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), FLOATS, st.text(max_size=4))
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    ),
    max_leaves=5,
)


def column(name, outputs, path="", constants=(), words=()):
    return Feature(name=name, path=path, constants=constants, words=words).values(outputs)


def naive_low_bit(x):
    """The exponent of two in a fraction whose denominator is a power of two."""
    if not math.isfinite(x):
        return math.nan
    if x == 0:
        return math.inf
    whole, below = Fraction(x).as_integer_ratio()
    return (abs(whole) & -abs(whole)).bit_length() - 1 - (below.bit_length() - 1)


@given(FLOATS)
def test_the_low_bit_is_that_of_the_fraction(x):
    assert low_bit(np.array([x]))[0] == pytest.approx(naive_low_bit(x), abs=0, nan_ok=True)


@given(st.integers(-1000, 1000), st.integers(-1074, 900))
def test_the_low_bit_knows_multiples_of_powers_of_two(whole, power):
    x = math.ldexp(whole, power)
    if math.isfinite(x) and x != 0:
        assert low_bit(np.array([x]))[0] >= power


def test_the_low_bit_of_float_hex():
    for text, power in (("0x1.8p+3", 2), ("0x1.0000000000001p+0", -52), ("0x0.0000000000001p-1022", -1074)):
        assert low_bit(np.array([float.fromhex(text)]))[0] == power


def finite(row):
    return [x if math.isfinite(x) else 0.0 for x in row]


AGGREGATES = {
    "sum": lambda row: float(np.sum([x if math.isfinite(x) else 0.0 for x in row])),
    "norm": lambda row: float(np.sqrt(np.sum([x * x if math.isfinite(x) else 0.0 for x in row]))),
    "maximum": lambda row: max((x for x in row if not math.isnan(x)), default=math.nan),
    "minimum": lambda row: min((x for x in row if not math.isnan(x)), default=math.nan),
    "half contrast": lambda row: finite(row)[0] - (finite(row)[1] + finite(row)[2]),
    "least low bit": lambda row: min(
        (naive_low_bit(x) for x in row if not math.isnan(naive_low_bit(x))), default=math.nan
    ),
    "count of numbers": lambda row: float(sum(not math.isnan(x) for x in row)),
    "count of infinite": lambda row: float(sum(math.isinf(x) for x in row)),
    "place of the maximum": lambda row: float(
        max(range(3), key=lambda i: (-math.inf if math.isnan(row[i]) else row[i], -i))
    ),
}


PLACED = dict.fromkeys(("half contrast", "place of the maximum"), ("[0]", "[1]", "[2]"))


@pytest.mark.parametrize("name", AGGREGATES)
@settings(max_examples=40)
@given(rows=VECTORS)
def test_aggregates_equal_a_loop_over_outputs(name, rows):
    with np.errstate(over="ignore", invalid="ignore"):
        found, naive = (
            column(name, read([np.array(row) for row in rows]), words=PLACED.get(name, ())),
            [AGGREGATES[name](row) for row in rows],
        )
    np.testing.assert_allclose(found, naive, rtol=1e-12)


@settings(max_examples=60)
@given(VECTORS)
def test_features_of_one_number_equal_a_loop_over_outputs(rows):
    outputs, at = read([np.array(row) for row in rows]), [row[1] for row in rows]
    np.testing.assert_array_equal(column("number", outputs, "[1]"), at)
    naive = {
        "is nan": [math.isnan(x) for x in at],
        "is infinite": [math.isinf(x) for x in at],
        "negative zero": [x == 0 and math.copysign(1, x) < 0 for x in at],
        "low bit": [naive_low_bit(x) for x in at],
    }
    for name, values in naive.items():
        np.testing.assert_array_equal(column(name, outputs, "[1]"), np.array(values, dtype=float))
    first = rows[0][1]
    np.testing.assert_array_equal(
        column("equals", outputs, "[1]", constants=(first,)), [float(x == first) for x in at]
    )
    np.testing.assert_array_equal(
        column("count of", outputs, constants=(first,)), [float(sum(x == first for x in row)) for row in rows]
    )
    same = lambda x, y: x.hex() == y.hex()  # noqa: E731
    np.testing.assert_array_equal(
        column("records put out", outputs, constants=(first, 7.5)),
        [float(sum(same(x, first) or same(x, 7.5) for x in row)) for row in rows],
    )
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(
            column("difference", outputs, words=("[0]", "[2]")),
            [float(np.float64(row[2]) - np.float64(row[0])) for row in rows],
        )


def test_what_an_output_lacks_is_no_number_and_no_word():
    outputs = read([{"a": 1.0}, {"b": "yes"}, None])
    assert np.isnan(column("number", outputs, "['a']")).tolist() == [False, True, True]
    assert np.isnan(column("number", outputs, "['z']")).all()
    assert np.isnan(column("difference", outputs, words=("['a']", "['z']"))).all()
    word = f"{text_hash('yes'):x}"
    assert column("word", outputs, "['b']", words=(word,)).tolist() == [0, 1, 0]
    assert column("word", outputs, "['z']", words=(word,)).tolist() == [0, 0, 0]
    empty = read([None, None])
    for name in ("maximum", "minimum", "least low bit"):
        assert np.isnan(column(name, empty)).all()
    assert column("sum", empty).tolist() == [0, 0]


def identity(value):
    """What makes two outputs the same: types, texts and bits, all NaNs alike."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value.hex()
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, *map(identity, value))
    if isinstance(value, dict):
        return ("dict", *sorted((key, identity(item)) for key, item in value.items()))
    return (type(value).__name__, repr(value))


@settings(max_examples=80, deadline=None)
@given(st.lists(ANYTHING, min_size=2, max_size=4))
def test_equal_outputs_have_equal_fingerprints(outputs):
    prints = read(outputs).fingerprints
    for i, one in enumerate(outputs):
        for j, other in enumerate(outputs):
            if repr(identity(one)) == repr(identity(other)):
                assert prints[i] == prints[j]


def test_different_outputs_have_different_fingerprints():
    outputs = [0.0, -0.0, 1.0, math.nan, math.inf, 1, True, None, "1", b"1", "", [1.0], (1.0,), [1.0, 0.0]]
    outputs += [[0.0, 1.0], {"a": 1.0}, {"b": 1.0}, {"a": "1"}, 2**60, 2**60 + 1, 1j, -1j, {1, 2}, {1, 3}]
    outputs += [np.float32(1), np.array([1.0]), np.array([[1.0]]), "x" * 300, "x" * 299 + "y", "\ud800"]
    outputs += [
        Failure(label="raised ValueError", message="a"),
        Failure(label="raised ValueError", message="b"),
    ]
    assert np.unique(read(outputs).fingerprints).size == len(outputs)


@settings(max_examples=60, deadline=None)
@given(st.lists(ANYTHING, min_size=1, max_size=4), st.lists(ANYTHING, min_size=1, max_size=4))
def test_a_fingerprint_is_the_same_in_every_table(first, second):
    """An event of whole outputs is chosen on one table and counted on others, whose columns differ."""
    apart = np.concatenate([read([each]).fingerprints for each in first + second])
    np.testing.assert_array_equal(read(first + second).fingerprints, apart)
    np.testing.assert_array_equal(joined([read(first), read(second)]).fingerprints, apart)


# Events


def through_a_file(event, folder):
    """The event after it was written into a witness and read again."""
    path = folder / "witness.json"
    Witness(
        schema_version=1,
        mechanism="none",
        claim_kind="approximate",
        claim={"claimed": 1.0, "delta": 0.0},
        domain="",
        adjacency="add-remove",
        outside=False,
        likelier=[],
        other=[1],
        event=event,
        event_words=event.words(),
        hits=1,
        other_hits=0,
        trials=1,
        other_trials=1,
        alpha=0.01,
        lower=0.0,
        epsilon_lower=0.0,
        p_value=1.0,
        seed=0,
        random_state="",
        versions={},
        created="",
    ).save(path)
    json.loads(path.read_text(), parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    return load(path).event


def a_mixture(rng, size):
    """Outputs of every sort."""
    kinds = [
        lambda: rng.normal(size=3),
        lambda: [0.0, float(rng.integers(2)), math.nan],
        lambda: [math.inf, -0.0, 0.5],
        lambda: {"name": str(rng.choice(["ann", "bob"])), "x": float(rng.normal())},
        lambda: None,
        lambda: float(rng.normal()),
        lambda: Failure(label="raised ValueError", message="no"),
    ]
    return read([kinds[rng.integers(len(kinds))]() for _ in range(size)])


def every_feature(outputs):
    found = propose(outputs, (0.5, 0.25))
    more = (Feature(name="norm"), Feature(name="half contrast", words=("[0]", "[1]")))
    return [*found, *(feature for feature in more if feature.name not in {f.name for f in found})]


@settings(max_examples=150)
@given(one=ANYTHING, others=st.lists(ANYTHING, min_size=1, max_size=4))
def test_what_is_said_of_an_output_does_not_depend_on_the_others_of_its_draw(one, others):
    with np.errstate(all="ignore"):
        everything = read([*others, one])
        for feature in every_feature(everything):
            alone, among = feature.values(read([one]))[0], feature.values(everything)[-1]
            np.testing.assert_equal(alone, among, err_msg=str(feature))


def test_every_sort_of_event_survives_a_file_and_can_be_read(tmp_path):
    rng = np.random.default_rng(0)
    old, new = a_mixture(rng, 400), a_mixture(rng, 300)
    features = every_feature(old)
    ranked = Feature(
        name="ranked outputs",
        constants=(1.5, -0.25, 0.0),
        words=tuple(f"{x:x}" for x in new.fingerprints[:2]),
    )
    assert {f.name for f in features} | {"ranked outputs"} == set(FEATURES)
    for feature in [*features, ranked]:
        for above, threshold in ((True, 0.0), (False, 0.1), (True, -math.inf), (False, math.inf)):
            event = Event(feature=feature, above=above, threshold=threshold)
            again = through_a_file(event, tmp_path)
            assert again == event
            np.testing.assert_array_equal(again.holds(new), event.holds(new))
            words = event.words()
            assert words and "\n" not in words and "Feature(" not in words and "lambda" not in words


def test_an_event_and_its_opposite_share_what_is_a_number():
    outputs = read([1.0, 2.0, math.nan, None])
    above, below = (
        Event(feature=Feature(name="number"), above=side, threshold=1.5).holds(outputs)
        for side in (True, False)
    )
    assert above.tolist() == [False, True, False, False]
    assert below.tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("feature", "above", "threshold", "words"),
    [
        (Feature(name="number"), True, 1.5, "output > 1.5"),
        (Feature(name="number", path="['a'][0]"), False, -2.0, "output['a'][0] <= -2.0"),
        (Feature(name="number", path="coef_[1]"), False, -2.0, "output.coef_[1] <= -2.0"),
        (Feature(name="is nan"), True, 0.0, "output is NaN"),
        (Feature(name="is nan"), False, 0.0, "output is not NaN"),
        (Feature(name="negative zero", path="[1]"), True, 0.0, "output[1] is -0.0"),
        (Feature(name="equals", constants=(3.0,)), True, 0.0, "output is exactly 3.0"),
        (Feature(name="kind", words=("raised ValueError",)), True, 0.0, "output is: raised ValueError"),
        (Feature(name="low bit"), True, -5.0, "output is a whole multiple of 2^-4"),
        (Feature(name="low bit"), False, -4.5, "output is not a whole multiple of 2^-4"),
        (Feature(name="sum"), True, 2.0, "sum of the output > 2.0"),
        (Feature(name="difference", words=("[0]", "[1]")), True, 0.5, "output[1] - output[0] > 0.5"),
        (
            Feature(name="word", path="['b']", words=("1f",), shown="'yes'"),
            False,
            0.0,
            "output['b'] is not 'yes'",
        ),
        (Feature(name="records put out"), True, 0.0, "at least 1 of its numbers equal a record bit by bit"),
    ],
)
def test_words_say_what_the_event_is(feature, above, threshold, words):
    assert Event(feature=feature, above=above, threshold=threshold).words() == words


def test_a_feature_that_cannot_be_computed_is_refused():
    for wrong in (
        {"name": "numbr"},
        {"name": "equals"},
        {"name": "difference", "words": ("[0]",)},
        {"name": "word", "words": ("not hex",)},
        {"name": "whole output", "words": ("f" * 17,)},
        {"name": "ranked outputs", "words": ("1",), "constants": (0.0,)},
    ):
        with pytest.raises(UsageError):
            Feature(**wrong)
    with pytest.raises(UsageError, match="did you mean 'number'"):
        Feature(name="numbr")
    with pytest.raises(UsageError, match="nodes"):
        Tree(column=(0,), threshold=(0.0,), left=(9,), right=(0,), value=(1.0,))
    with pytest.raises(UsageError, match="features"):
        LearnedScore(
            base=(Feature(name="number"),), fill=(0.0,), centre=(0.0,), scale=(1.0,), weights=(1.0, 2.0)
        )


# Learned scores


def two_clouds(rng, size):
    first, second = rng.normal(size=(size, 4)), rng.normal(size=(size, 4))
    first[:, 0] += 0.7
    first[:, 1] *= 1.5
    second[rng.random(size) < 0.2, 2] = np.nan
    second[rng.random(size) < 0.1, 3] = np.inf
    return read(list(first)), read(list(second))


@pytest.mark.parametrize(
    ("fit", "model"), [(fit_linear, LogisticRegression), (fit_trees, GradientBoostingClassifier)]
)
def test_learned_scores_are_what_scikit_learn_computes(fit, model, monkeypatch, tmp_path):
    seen = []
    original = model.fit
    monkeypatch.setattr(model, "fit", lambda self, X, y: seen.append((self, X)) or original(self, X, y))
    rng = np.random.default_rng(3)
    first, second = two_clouds(rng, 1500)
    features = propose(joined([first, second]))
    score = fit(features, matrix(first, features), matrix(second, features), rng)
    fitted, table = seen[0]
    pooled = joined([first, second])
    ours = np.sort(score.values(pooled))
    theirs = np.sort(fitted.decision_function(table))
    assert len(theirs) == len(ours)
    if model is LogisticRegression:
        np.testing.assert_allclose(ours + fitted.intercept_[0], theirs, rtol=1e-6, atol=1e-6)
    else:
        rise = (theirs[-1] - theirs[0]) / (ours[-1] - ours[0])
        assert rise == pytest.approx(fitted.learning_rate)
        np.testing.assert_allclose(theirs[0] + rise * (ours - ours[0]), theirs, atol=1e-9)
    assert score.values(first).mean() > score.values(second).mean()
    event = Event(feature=score, above=True, threshold=float(np.median(ours)))
    fresh, _ = two_clouds(np.random.default_rng(4), 300)
    again = through_a_file(event, tmp_path)
    assert isinstance(again.feature, LearnedScore)
    np.testing.assert_array_equal(again.feature.values(fresh), score.values(fresh))
    assert event.words().startswith("a learned score of the output > ")


def test_a_staircase_is_the_step_that_each_value_falls_on():
    cuts, steps = np.array([-2.0, -1.0, -1.0, 0.0, 0.5, 3.0, 4.0]), np.arange(8.0) ** 2
    score = LearnedScore(
        base=(Feature(name="number", path="[0]"),),
        fill=(-9.0,),
        centre=(0.0,),
        scale=(1.0,),
        trees=(_staircase(0, cuts, steps),),
    )
    numbers = np.array([-5.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 3.5, 4.0, 9.0, np.nan])
    naive = [steps[sum(cut < (-9.0 if math.isnan(x) else x) for cut in cuts)] for x in numbers]
    np.testing.assert_array_equal(score.values(read_array(numbers[:, None])), naive)


def test_steps_tell_shifted_laplace_noise_apart_better_than_a_line_does():
    rng = np.random.default_rng(7)

    def drawn(size, shift):
        return read_array(gridded(rng.laplace(size=(size, 6)) + shift))

    first, second = drawn(8000, 0.3), drawn(8000, 0.0)
    base = [Feature(name="number", path=path) for path in first.paths]
    fresh = drawn(20_000, 0.3), drawn(20_000, 0.0)
    gaps = []
    for fit in (fit_linear, fit_steps):
        score = fit(base, matrix(first, base), matrix(second, base), np.random.default_rng(0))
        bar = np.median(np.concatenate([score.values(part) for part in fresh]))
        gaps.append(np.mean(score.values(fresh[0]) > bar) - np.mean(score.values(fresh[1]) > bar))
    assert gaps[1] > gaps[0] + 0.02, gaps


def test_learned_scores_meet_what_they_never_saw():
    rng = np.random.default_rng(5)
    first, second = two_clouds(rng, 500)
    features = propose(joined([first, second]))
    for fit in (fit_linear, fit_steps, fit_trees):
        score = fit(features, matrix(first, features), matrix(second, features), rng)
        odd = read([None, "text", [1e300] * 4, [-math.inf] * 4, Failure(label="raised KeyError")])
        assert np.isfinite(score.values(odd)).all()


# Planted events


def gridded(values):
    """Multiples of 2^-20, so that the last bits of shifted noise, which tell too much, are gone."""
    return np.round(values * 2**20) / 2**20


def laplace(rng, size, shift=0.0, scale=1.0):
    return list(gridded(rng.laplace(shift, scale, size)))


def mixed(rng, size, share, rare, common):
    return [rare(rng) if rng.random() < share else common(rng) for _ in range(size)]


def vectors(change):
    def draw(rng, size, leaky):
        rows = rng.laplace(size=(size, 6))
        return list(gridded(change(rows, rng) if leaky else rows))

    return draw


def either(rare, common, high=0.3, low=0.01):
    return lambda rng, size, leaky: mixed(rng, size, high if leaky else low, rare, common)


def number(rng):
    return float(rng.laplace())


def spread(rows, rng):
    rows = rows.copy()
    rows[:, :3] += 0.9
    rows[:, 3:] -= 0.9
    return rows


def grained(rng, size, leaky):
    """Multiples of 1/8 mostly, on one side; floats of all sorts on the other."""
    values = rng.laplace(size=size)
    return list(np.where(rng.random(size) < 0.5, np.round(values * 8) / 8, values) if leaky else values)


def union(rng, size, leaky):
    """A hundred letters; every other one, which no threshold joins, is likelier on one side."""
    weights = np.where(np.arange(100) % 2 == 0, 9.0 if leaky else 1.0, 1.0)
    return [
        f"letter {chr(97 + i // 10)}{chr(97 + i % 10)}"
        for i in rng.choice(100, size=size, p=weights / weights.sum())
    ]


PLANTED = {
    "kind": (either(lambda rng: Failure(label="raised ValueError"), number), {"kind", "is nan"}),
    "none": (either(lambda rng: None, number), {"kind", "is nan"}),
    "not a number": (either(lambda rng: math.nan, number), {"is nan", "number"}),
    "infinite": (either(lambda rng: math.inf, number), {"is infinite", "number"}),
    "atom": (either(lambda rng: 0.25, number), {"equals", "low bit", "whole output"}),
    "negative zero": (either(lambda rng: -0.0, lambda rng: 0.0), {"negative zero", "whole output"}),
    "tail": (lambda rng, size, leaky: laplace(rng, size, 0.0, 3.0 if leaky else 1.0), {"number"}),
    "shift": (lambda rng, size, leaky: laplace(rng, size, 3.0 if leaky else 0.0), {"number", "LearnedScore"}),
    "sum": (vectors(lambda rows, rng: rows + 0.9), {"sum", "minimum", "LearnedScore"}),
    "norm": (vectors(lambda rows, rng: rows * 2), {"norm", "LearnedScore"}),
    "maximum": (
        vectors(
            lambda rows, rng: np.where(np.arange(6) == rng.integers(6, size=(len(rows), 1)), rows + 6, rows)
        ),
        {"maximum", "norm", "sum", "LearnedScore"},
    ),
    "half contrast": (vectors(spread), {"half contrast", "LearnedScore"}),
    "granularity": (grained, {"low bit"}),
    "direction": (vectors(lambda rows, rng: rows + np.array([1.2, -1.2, 1.2, -1.2, 0, 0])), {"LearnedScore"}),
    "words": (either(lambda rng: "yes", lambda rng: "no"), {"word", "whole output"}),
    "union": (union, {"ranked outputs", "LearnedScore"}),
    "dict keys": (
        either(lambda rng: {"a": 1.0, "b": 2.0}, lambda rng: {"a": 1.0}),
        {"kind", "number", "sum"},
    ),
    "long text": (
        either(lambda rng: "x" * 300 + "yes", lambda rng: "x" * 300 + "no"),
        {"word", "whole output"},
    ),
}


@pytest.mark.parametrize(("swapped", "name"), [(i % 2 == 1, name) for i, name in enumerate(PLANTED)])
def test_a_planted_event_is_found_and_refutes_on_fresh_outputs(name, swapped):
    draw, wanted = PLANTED[name]
    rng = np.random.default_rng(6)

    def samples(size):
        leaky, plain = read(draw(rng, size, True)), read(draw(rng, size, False))
        return Samples(first=plain, second=leaky) if swapped else Samples(first=leaky, second=plain)

    choice = choose(samples(2000), CLAIM, learn=Learn.ALL, rng=np.random.default_rng(7))
    feature = choice.event.feature
    assert (feature.name if isinstance(feature, Feature) else "LearnedScore") in wanted, choice.event.words()
    fresh = samples(4000)
    sides = (fresh.second, fresh.first) if choice.swapped else (fresh.first, fresh.second)
    hits, other_hits = (int(choice.event.holds(side).sum()) for side in sides)
    counts = type(choice.counts)(hits=hits, trials=4000, other_hits=other_hits, other_trials=4000)
    assert refutes(counts, CLAIM.line(1.0, 0.1), 1e-3), (choice.event.words(), counts)
    # The cautious reading is rarely above the truth: here the point estimate on fresh outputs.
    assert choice.rated <= math.log((hits + 1) / (other_hits + 0.5)) + 0.5


def test_records_that_come_out_are_found():
    rng, records = np.random.default_rng(8), tuple(np.random.default_rng(0).random(30).tolist())

    def outputs(share):
        rows = rng.laplace(size=(2000, 3))
        put_out = rng.random(2000) < share
        rows[put_out, 1] = rng.choice(records, size=int(put_out.sum()))
        return read(list(rng.permuted(rows, axis=1)))

    choice = choose(Samples(first=outputs(0.2), second=outputs(0.0), records=records), CLAIM)
    assert choice.event.feature.name == "records put out"
    assert not choice.swapped
    assert "equal a record bit by bit" in choice.event.words()


def test_nothing_is_chosen_where_nothing_varies():
    same = read([1.0] * 50)
    assert choose(Samples(first=same, second=same, records=(0.5, 1.0)), CLAIM) is None
    assert choose(Samples(first=read([None] * 50), second=read([None] * 50)), CLAIM) is None


def test_what_looks_alike_is_rated_below_the_claim():
    rng = np.random.default_rng(9)
    for _ in range(20):
        a, b = (read(list(rng.laplace(size=(400, 3)))) for _ in range(2))
        assert choose(Samples(first=a, second=b), ApproximateDP(claimed=0.2)).rated <= 0.2


def test_all_outputs_of_one_sort_against_another():
    samples = Samples(first=read([None] * 100), second=read([1.0] * 100))
    choice = choose(samples, CLAIM)
    assert choice.counts.hits == 100
    assert choice.counts.other_hits == 0
