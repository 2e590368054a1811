"""Sentences about what was recovered: they say what the rates say, with interval and limit."""

from dataclasses import replace

from dpaudit.estimate import Rate
from dpaudit.record import Curve
from dpaudit.reports import html, words
from tests.sample_record import quiet_record


def rate(name: str, source: str, where: str, value: float, limit: float | None) -> Rate:
    return Rate(
        name=name, value=value, lower=value - 0.1, upper=value + 0.1, alpha=0.05, source=source, slice=where,
        n=200, limit=limit,
    )  # fmt: skip


def test_games_and_columns_are_told_in_sentences_and_on_the_page():
    record = quiet_record()
    target = replace(
        record.targets[0],
        curves=(Curve(kind="reconstruction", source="line-up", x=(0.01, 0.1), y=(0.2, 0.5)),),
        rates=(
            rate("reconstruction_success", "line-up, 1 of 10", "all", 0.5, 0.65),
            rate("reconstruction_success", "line-up, 1 of 100", "all", 0.2, None),
            rate("attribute_success", "attribute-inference", "members", 0.7, 0.8),
            rate("attribute_success", "attribute-inference", "others", 0.4, None),
        ),
    )
    hundred, ten, column = words.recovered(target)
    assert ten == (
        "line-up named the right one of 10 candidates in 50.0 % of 200 games (40.0 to 60.0 %); guessing "
        "names 10.0 %, and the claim allows at most 65.0 %."
    )
    assert "one of 100 candidates" in hundred and "allows" not in hundred
    assert "70.0 % of members (60.0 to 80.0 %) and of 40.0 % of people who were out" in column
    assert ten in html.render(replace(record, targets=(target, *record.targets[1:])))


def test_without_games_nothing_is_said():
    assert words.recovered(replace(quiet_record().targets[0], curves=(), rates=())) == ()
