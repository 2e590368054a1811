"""Intervals over the records of one model say what they assume, in the record and on the page."""

import numpy as np
import pytest
from pydantic import TypeAdapter

from dpaudit import attribute_rates, extraction, recovery
from dpaudit.asking import Extracted
from dpaudit.estimate import Rate
from dpaudit.evidence import Access, Guesses
from dpaudit.plan import parse
from dpaudit.reports import numbers

MODEL = "independent given the model"


def of_attributes() -> list[Rate]:
    right, member = np.arange(40) % 3 > 0, np.arange(40) % 2 == 0
    return list(attribute_rates._of_all(right, ~right, member, "attribute-inference", 0.01, None))


def of_extraction() -> list[Rate]:
    found = Extracted(
        member=np.arange(8) % 2 == 0,
        size=np.full(8, 1000.0),
        p_values=np.linspace(0.1, 1.0, 8),
        n_references=9,
        queries=np.full(8, np.inf),
        n=100,
        p=0.5,
        leaked=(4, 1),
        beside=(4, 0),
        said=(2, 1),
    )
    from dpaudit.accounting import family_for
    from dpaudit.attacks.extraction.planted import Extraction

    return list(
        extraction.rates(Extraction(), [found], lambda way: family_for(None, adjacency=way), alpha=0.05)
    )


@pytest.mark.parametrize("made", [of_attributes, of_extraction])
def test_an_interval_over_one_model_says_what_it_assumes_and_keeps_it_in_the_record(made):
    rates = made()
    assert len(rates) == 5
    for rate in rates:
        assert len(rate.assumptions) == 1 and rate.assumptions[0].endswith(MODEL)
    stored = TypeAdapter(list[Rate])
    assert stored.validate_json(stored.dump_json(rates)) == rates
    old = stored.dump_python(rates[:1])
    del old[0]["assumptions"]
    assert stored.validate_python(old)[0].assumptions == ()


def test_games_assume_independence_and_a_rate_without_assumptions_says_nothing():
    plan = parse({"targets": [{"name": "t", "train": "opacus"}], "attacks": {"line-up": {}}})
    game = Guesses(
        successes=1, trials=9, baseline=0.1, unit="run", source="line-up", access=Access.FINAL_MODEL
    )
    (rate,) = recovery.rates([game], plan, lambda way: None)
    assert numbers.given(rate.assumptions) == ", if games are independent given the past"
    assert numbers.given(()) == ""
