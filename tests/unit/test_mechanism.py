"""The audit of a mechanism from end to end: planted faults, odd outputs, and what a user reads."""

import math
import secrets
import time

import numpy as np
import pytest

from dpaudit.errors import UsageError
from dpaudit.mechanism import ApproximateDP, GaussianDP, Settings, assert_dp, audit_mechanism
from dpaudit.mechanism.pairs import expected_rate
from dpaudit.mechanism.recording import record_of
from dpaudit.mechanism.text import document, short
from dpaudit.registry import MECHANISMS, resolve
from dpaudit.reports import html
from dpaudit.stats.event_test import Counts, largest_refuted
from dpaudit.strategies import neighbouring_lists, real
from dpaudit.verdict import Status

SMALL = Settings(samples=6_000, examples=16)
LIST = "list(float(0, 1), max_size=6)"
PLANTED = sorted(name for name in MECHANISMS if name.startswith("planted-") and name != "planted-control")


def sound(data, rng):
    """Exactly 1-DP whatever it is given."""
    total = sum(min(max(x, 0.0), 1.0) for x in data if not math.isnan(x))
    return round(total) + int(rng.geometric(1 - math.exp(-1)) - rng.geometric(1 - math.exp(-1)))


def audited(mechanism, epsilon=1.0, settings=SMALL, domain=LIST, **claim):
    return audit_mechanism(mechanism, epsilon=epsilon, domain=domain, settings=settings, **claim)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_every_planted_fault_is_refuted_with_default_settings(name):
    audit = audit_mechanism(resolve("mechanism", name, MECHANISMS)())
    print(f"{name}: {audit.verdict.reason}")
    assert audit.verdict.status.name == "REFUTED"


@pytest.mark.slow
def test_the_control_is_not_refuted():
    audit = audit_mechanism(resolve("mechanism", "planted-control", MECHANISMS)())
    assert audit.verdict.status.name == "NOT_REFUTED"
    assert audit.verdict.epsilon_lower <= 1.0
    assert "would have caught" in audit.verdict.reason


def test_there_are_seven_planted_faults():
    assert len(PLANTED) == 7


@pytest.fixture(scope="module")
def sound_audit():
    """Of a sound mechanism, as `assert_dp` passes it on."""
    return assert_dp(sound, epsilon=1.0, domain=LIST, settings=SMALL)


def test_a_sound_mechanism_is_not_refuted_and_its_ceiling_is_told(sound_audit):
    audit = sound_audit
    assert audit.verdict.status.name == "NOT_REFUTED"
    best = audit.confirmations[0]
    assert best.lower <= 1.0 < best.ceiling
    assert best.detectable > 1.0


@pytest.mark.slow
def test_too_few_outputs_are_inconclusive():
    audit = audited(sound, epsilon=8.0, settings=Settings(samples=400, examples=5))
    assert audit.verdict.status.name == "INCONCLUSIVE"
    assert "Raise samples" in audit.verdict.reason


def raises_without_data(data, rng):
    if not data:
        raise ValueError("no data")
    return sound(data, rng)


def hangs_on_one(data, rng):
    if len(data) == 1 and rng.random() < 0.8:
        while True:
            pass
    return sound(data, rng)


def changes_its_type(data, rng):
    return sound(data, rng) if len(data) != 2 else float(sound(data, rng))


def none_without_data(data, rng):
    return sound(data, rng) if data else None


def tells_in_its_message(data, rng):
    raise ValueError("no data" if not data else "bad data") if rng.random() < 0.5 else KeyError("key")


@pytest.mark.parametrize(
    ("mechanism", "event"),
    [
        (raises_without_data, "raised ValueError"),
        (changes_its_type, "output is: int"),
        (none_without_data, "None"),
        (tells_in_its_message, "data'"),
        (lambda data, rng: math.nan if len(data) > 2 else float(rng.normal()), "NaN"),
        (lambda data, rng: {"a": 1.0, "b": 2.0} if len(data) > 2 else {"a": float(rng.normal())}, ""),
        (lambda data, rng: ["x", "y"][: min(len(data), 2)], ""),
        (lambda data, rng: "x" * (20 * len(data) + int(rng.integers(5))), "length"),
        (lambda data, rng: f"mean of {sum(data) + rng.normal():.6f}", "output"),
        (lambda data, rng: {"a": 0, "b": 0} if len(data) % 2 else {"b": 0, "a": 0}, "keys()"),
    ],
)
def test_odd_outputs_are_events(mechanism, event):
    audit = audited(mechanism)
    assert audit.verdict.status.name == "REFUTED"
    assert event in audit.witness.event_words


@pytest.mark.slow
def test_a_mechanism_that_hangs_on_some_data_is_refuted():
    audit = audited(
        hangs_on_one,
        settings=Settings(samples=400, examples=2, timeout=0.01),
        domain="list(int(0, 1), max_size=1)",
    )
    assert audit.verdict.status.name == "REFUTED"
    assert "ran out of time" in audit.witness.event_words


def test_a_mechanism_that_never_ends_is_one_line_and_soon():
    calls = []

    def hangs(data, rng):
        calls.append(data)
        time.sleep(60)

    with pytest.raises(UsageError, match=r"to end within 0\.01 seconds, found that none did"):
        audited(hangs, settings=Settings(samples=400, timeout=0.01))
    assert len(calls) == 3


def test_a_mechanism_that_hangs_on_some_data_takes_few_time_outs():
    hung = []

    def hangs_on_many(data, rng):
        if len(data) > 3:
            hung.append(data)
            time.sleep(60)
        return len(data) + float(rng.geometric(0.5) - rng.geometric(0.5))

    audit = audited(hangs_on_many, domain="list(int(0, 1))", settings=Settings(samples=20_000, timeout=0.01))
    assert audit.verdict.status is Status.REFUTED
    assert "ran out of time" in audit.witness.event_words
    assert len(hung) < 200


def test_a_mechanism_that_takes_none_of_the_data_is_one_line():
    def refuses(data, rng):
        raise TypeError("expected text")

    with pytest.raises(UsageError, match=r"raised on all .* TypeError: expected text") as error:
        audited(refuses)
    assert "\n" not in str(error.value)


def test_a_mechanism_that_takes_only_the_empty_data_set_is_of_another_domain():
    def of_texts(data, rng):
        return sum(len(text) > 3 for text in data) + rng.laplace()

    with pytest.raises(UsageError, match=r"raised on all .* object of type 'float' has no len"):
        audited(of_texts)


def test_a_mechanism_that_takes_all_but_the_empty_data_set_is_refuted():
    def mean(data, rng):
        return sum(data) / len(data) + rng.laplace()

    assert audited(mean).verdict.status is Status.REFUTED


@pytest.mark.slow
def test_a_domain_may_be_a_strategy():
    pairs = neighbouring_lists(real(0, 10))
    audit = audit_mechanism(
        lambda data, rng: len(data) + rng.laplace(0, 0.3),
        epsilon=1.0,
        domain=pairs,
        settings=Settings(samples=20_000),
    )
    assert audit.verdict.status is Status.REFUTED


@pytest.mark.parametrize(
    ("claim", "word"), [({"epsilon": "1"}, "epsilon"), ({"epsilon": 1.0, "delta": "x"}, "delta")]
)
def test_a_claim_is_made_of_numbers(claim, word):
    with pytest.raises(UsageError, match=f"{word} to be a number"):
        audit_mechanism(lambda data, rng: rng.laplace(), domain="list(float(0, 1))", **claim)


def test_a_mechanism_that_refuses_records_outside_of_its_domain_does_what_it_should():
    def strict(data, rng):
        if not all(0 <= x <= 1 for x in data):
            raise ValueError("outside")
        return sound(data, rng)

    audit = audited(strict)
    assert audit.verdict.status.name == "NOT_REFUTED"
    assert any("refuses records outside of the stated domain" in note for note in audit.notes)


@pytest.mark.slow
def test_records_outside_are_tried_unless_one_says_inside():
    def lets_nan_through(data, rng):
        return math.nan if any(map(math.isnan, data)) else sound(data, rng)

    whole = audited(lets_nan_through)
    assert whole.verdict.status.name == "REFUTED"
    assert whole.witness.outside
    assert any("outside of the stated domain" in note for note in whole.notes)
    strict = audited(lets_nan_through, inside=True)
    assert strict.verdict.status.name == "NOT_REFUTED"


def test_what_always_puts_out_the_same_is_inconclusive_and_said_so():
    audit = audited(lambda data, rng: 1.0)
    assert audit.verdict.status.name == "INCONCLUSIVE"
    assert any("a release without randomness protects nothing" in note for note in audit.notes)
    assert audit.witness is None


def test_a_deterministic_function_of_the_data_is_refuted():
    audit = audited(lambda data, rng: float(len(data)))
    assert audit.verdict.status.name == "REFUTED"
    assert any("a release without randomness protects nothing" in note for note in audit.notes)


def only_of_many(data, rng):
    return "many" if len(data) > 14 else "few"


def test_what_draws_nothing_and_changes_at_one_number_of_records_is_refuted_there():
    audit = audited(only_of_many, domain="list(category('a', 'b'))")
    assert audit.verdict.status is Status.REFUTED
    pair = audit.confirmations[0].tried.pair
    assert (len(pair.first), len(pair.second)) == (14, 15)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_rare_text_that_one_record_alone_can_show_is_found(seed):
    def union(data, rng):
        return sorted({text for text in data if rng.random() < 0.01})

    audit = audited(union, delta=1e-5, domain="list(text())", settings=Settings(samples=300_000, seed=seed))
    assert audit.verdict.status is Status.REFUTED


def test_what_fails_by_chance_refuses_no_record():
    def fails(data, rng):
        if rng.random() < 0.7:
            raise ValueError(f"only {len(data)} people")
        return len(data)

    audit = audited(fails, settings=Settings(samples=2_000, examples=40), domain="list(float(0, 1))")
    assert not any("refuses" in note for note in audit.notes)


@pytest.mark.slow
def test_global_randomness_is_named():
    def careless(data, rng):
        return float(len(data) + np.random.laplace())

    audit = audited(careless, epsilon=5.0)
    assert any("draws from a global random state" in note for note in audit.notes)
    assert "ignores the random state" in " ".join(audit.notes)
    own = audited(lambda data: secrets.randbelow(100) + len(data), epsilon=5.0)
    assert any("cannot be seeded" in note for note in own.notes)


@pytest.mark.slow
def test_a_gaussian_without_delta_is_named():
    def gaussian(data, rng):
        return float(len(data) + 4.0 * rng.normal())

    audit = audited(gaussian, settings=Settings(samples=40_000, examples=20))
    assert any("no Gaussian mechanism is (epsilon, 0)-DP" in note for note in audit.notes)
    stated = audited(gaussian, delta=0.1, settings=Settings(samples=40_000, examples=20))
    assert not any("Gaussian" in note for note in stated.notes)


def test_claims_are_found_on_the_mechanism_or_asked_for():
    class Claims:
        epsilon, delta, domain = 0.7, 0.01, "value(int(0, 3))"

        def sample(self, data, size, rng):
            return data + rng.normal(size=size)

    audit = audit_mechanism(Claims(), settings=SMALL)
    assert audit.guarantee == ApproximateDP(claimed=0.7, delta=0.01)
    assert audit.domain == "value(int(0, 3))"
    own = audit_mechanism(Claims(), epsilon=2.0, settings=SMALL).guarantee
    assert own == ApproximateDP(claimed=2.0, delta=0.01)
    pure = audit_mechanism(Claims(), epsilon=2.0, delta=0.0, settings=SMALL).guarantee
    assert pure == ApproximateDP(claimed=2.0)
    with pytest.raises(UsageError, match="State epsilon"):
        audit_mechanism(sound, domain=LIST)
    with pytest.raises(UsageError, match="State one such as"):
        audit_mechanism(sound, epsilon=1.0)
    with pytest.raises(UsageError, match="Expected"):
        audit_mechanism(sound, epsilon=1.0, domain="lisst(float(0, 1))")
    with pytest.raises(UsageError, match="Expected"):
        audited(sound, epsilon=-1.0)
    with pytest.raises(UsageError, match="Expected"):
        Settings(alpha=0.0)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_witness():
    def leaks(data, rng):
        return float(len(data) + rng.laplace(scale=0.5))

    first, again, other = (
        audited(leaks, settings=Settings(samples=20_000, examples=30, seed=seed)) for seed in (1, 1, 2)
    )
    assert first.witness.likelier == again.witness.likelier
    assert first.witness.event == again.witness.event
    assert (first.witness.hits, first.witness.other_hits) == (again.witness.hits, again.witness.other_hits)
    assert first.outputs == again.outputs
    assert first.verdict == again.verdict
    assert (first.witness.hits, first.witness.event) != (other.witness.hits, other.witness.event)


@pytest.mark.slow
def test_the_best_bound_needs_all_outputs():
    def leaks(data, rng):
        return len(data) + int(rng.geometric(1 - math.exp(-1)) - rng.geometric(1 - math.exp(-1)))

    full = audited(leaks, epsilon=0.3, settings=Settings(samples=40_000, examples=20, stop_early=False))
    assert full.verdict.status.name == "REFUTED"
    assert 0.75 < full.verdict.epsilon_lower <= 1.0
    # Whoever has the witness finds its bound again from its counts.
    told = full.witness
    assert told.event_alpha is not None and told.event_alpha <= told.alpha
    counts = Counts(
        hits=told.hits, trials=told.trials, other_hits=told.other_hits, other_trials=told.other_trials
    )
    best = full.confirmations[-1]
    at = expected_rate(best.tried.choice.counts)
    bound = largest_refuted(
        counts, lambda x: told.guarantee.line(x, at), told.event_alpha, most=told.guarantee.most
    )
    assert bound == pytest.approx(told.lower)
    curve = audited(leaks, guarantee=GaussianDP(claimed=0.1))
    assert curve.verdict.status.name == "REFUTED"
    assert "0.1-GDP is claimed" in curve.verdict.reason


def test_assert_dp_passes_and_fails_with_a_short_message(sound_audit):
    assert sound_audit.mechanism == "sound"
    with pytest.raises(AssertionError) as error:
        assert_dp(raises_without_data, epsilon=1.0, domain=LIST, settings=SMALL)
    lines = str(error.value).splitlines()
    assert lines[0].startswith("REFUTED: raises_without_data: epsilon is at least ")
    assert len(lines) <= 8
    assert all(len(line) < 600 for line in lines)
    with pytest.raises(AssertionError, match="INCONCLUSIVE"):
        assert_dp(lambda data, rng: 1.0, epsilon=9.0, domain=LIST, settings=Settings(samples=400, examples=3))


@pytest.mark.slow
def test_text_and_json_say_the_same():
    import json

    audit = audited(raises_without_data)
    found = document(audit)
    json.dumps(found, allow_nan=False)
    assert found["status"] == "REFUTED"
    assert found["event"] in short(audit)
    assert found["hits"] == audit.confirmations[-1].counts.hits
    nothing = document(audited(lambda data, rng: 1.0))
    assert "event" not in nothing
    json.dumps(nothing, allow_nan=False)


@pytest.mark.slow
def test_outputs_of_varying_shape_do_not_accuse_what_ignores_its_data():
    def ignorant(data, rng):
        return {"a": 5} if rng.random() < 0.1 else {"b": 5, "c": 0}

    for seed in range(6):
        audit = audit_mechanism(
            ignorant,
            epsilon=0.5,
            domain="list(int(0, 1))",
            inside=True,
            settings=Settings(samples=2000, examples=6, seed=seed, alpha=1e-4),
        )
        assert audit.verdict.status is not Status.REFUTED, audit.verdict.reason


def test_adjacency_may_be_a_text_and_a_wrong_one_is_refused():
    def total(data, rng):
        return len(data) + int(rng.geometric(0.5))

    domain = "list(int(0, 1))"
    audit = audit_mechanism(total, epsilon=1, domain=domain, adjacency="replace-one", settings=SMALL)
    assert len(audit.confirmations[0].tried.pair.first) == len(audit.confirmations[0].tried.pair.second)
    with pytest.raises(UsageError, match="did you mean 'replace-one'"):
        audit_mechanism(total, epsilon=1, domain=domain, adjacency="replace", settings=SMALL)


def test_a_strategy_that_draws_nothing_is_one_clear_error():
    from hypothesis import strategies as st

    from dpaudit.claim import Adjacency
    from dpaudit.domains import Domain

    nothing = st.integers().filter(lambda number: False)
    domain = Domain(
        text="mine:pairs", adjacency=Adjacency.ADD_REMOVE, pairs=nothing, patterns=(), summary="nothing"
    )
    with pytest.raises(UsageError, match="Expected the domain mine:pairs to draw pairs"):
        audit_mechanism(lambda data, rng: rng.random(), epsilon=1, domain=domain, settings=SMALL)


def test_the_record_of_an_audit_names_the_data_and_the_event(sound_audit):
    record = record_of(sound_audit)
    (target,) = record.targets
    rows = {row.name: row.detail for row in target.checklist}
    assert "neighbour" in rows["data looked at"]
    assert rows["event counted"].startswith(sound_audit.witness.event_words)
    status = {row.attack: row.status for row in record.coverage}
    assert status.pop("event-search") == "RUN" and set(status.values()) == {"NOT APPLICABLE"}
    # Nothing was trained, and the page does not show an empty row of a model.
    assert "Nothing was trained" in html.render(record)
