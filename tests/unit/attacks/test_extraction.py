"""Ranks, samples that are needed, and spans, each against its naive twin."""

import numpy as np
import pytest

from dpaudit.attacks.extraction.planted import Extraction, queries_needed, rank_p_values
from dpaudit.attacks.extraction.spans import matching, spelt
from dpaudit.errors import UsageError
from dpaudit.secret import Format


def test_a_rank_counts_references_at_or_above():
    scores = np.random.default_rng(0).integers(0, 6, size=(50, 9)).astype(float)
    naive = [(1 + sum(other >= row[0] for other in row[1:])) / 9 for row in scores]
    assert rank_p_values(scores) == pytest.approx(naive)


def test_a_model_that_diverged_ranks_every_secret_last():
    scores = np.array([[np.nan] * 4, [np.nan, 1, 2, 3], [-np.inf] * 4])
    assert rank_p_values(scores).tolist() == [1.0, 1.0, 1.0]
    # A reference that is not a number counts against the secret.
    assert rank_p_values(np.array([[5.0, np.nan, 1.0, 2.0]])).tolist() == [0.5]
    assert not (queries_needed(np.array([np.nan]), 0.5) <= 1e12).any()


@pytest.mark.parametrize("p", [0.01, 0.5, 0.99])
def test_the_samples_needed_are_the_fewest_that_suffice(p):
    chances = np.array([1.0, 0.9, 0.5, 0.11, 0.013, 1 / 700])
    naive = [next(n for n in range(1, 10_000) if 1 - (1 - q) ** n >= p - 1e-12) for q in chances]
    assert queries_needed(np.log(chances), p).tolist() == naive


def test_tiny_and_impossible_secrets_take_many_samples_and_never_come():
    found = queries_needed(np.array([-60.0, -31.0, -29.0, -np.inf]), 0.5)
    assert found[:3] == pytest.approx(np.log(2) * np.exp([60.0, 31.0, 29.0]), rel=1e-9)
    assert np.isinf(found[3])


def test_spans_are_those_of_the_formats_and_of_no_other_tokens():
    # Ids that are letters, signs of expressions or surrogates elsewhere mean nothing here.
    digits = tuple((token,) for token in (46, 42, 55_300))
    formats = (
        Format(name="pin", slots=(digits, digits)),
        Format(name="name", slots=(((7, 8), (9, 8)), ((1,),))),
    )
    texts = np.array([[46, 42, 3, 7, 8, 1], [9, 8, 2, 46, -1, 55_300], [1, 5, 46, 5, 42, 5]])
    assert matching(formats, spelt(texts)) == set(spelt(np.array([[46, 42], [46, 55_300]]))) | set(
        spelt(np.array([[7, 8, 1]]))
    )


@pytest.mark.parametrize("option", [{"probability": 1.0}, {"references": 0}, {"temperature": 0.0}])
def test_impossible_settings_are_refused(option):
    with pytest.raises(UsageError, match=next(iter(option))):
        Extraction(**option)
