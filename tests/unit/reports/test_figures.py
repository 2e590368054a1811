"""What the figures are made of: bars in order, clipped values, descriptions in words."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from dpaudit.claim import Adjacency
from dpaudit.record import Curve
from dpaudit.reports import bounds, curves, figures
from tests.sample_record import quiet_record, sample_record, with_target


def test_bars_are_findings_first_then_strongest_access_then_controls() -> None:
    record = sample_record()
    shown = bounds.bars(record.targets[1], Adjacency.ADD_REMOVE, record.targets[2:])
    assert [bar.kind for bar in shown] == ["finding", "bound", "bound", "bound", "control"]
    assert shown[0].bound == math.inf
    assert [bar.label.split(",")[0] for bar in shown[1:4]] == ["replay", "step-canary", "lira"]


def test_the_scale_shows_the_claim_whatever_the_values() -> None:
    record = sample_record()
    shown = bounds.bars(record.targets[1], Adjacency.ADD_REMOVE, record.targets[2:])
    assert 5.5 < bounds.scale(shown, 5.5) < 41.7
    huge = tuple(replace(bar, bound=1e12, ceiling=math.inf) for bar in shown)
    assert 5.5 < bounds.scale(huge, 5.5) < 20
    assert math.isfinite(bounds.scale(huge, None))
    assert bounds.scale((), None) > 0


def test_a_figure_says_in_words_what_it_shows() -> None:
    record = sample_record()
    drawing = figures.draw(record, record.targets[1], "t")[0]
    words = " ".join(re.findall(r"<desc[^>]*>(.*?)</desc>", drawing.svg))
    assert "claim 5.50" in words
    assert "unbounded" in words
    assert "≥ 15.80" in words


def test_every_kind_of_figure_is_drawn_for_an_audited_target() -> None:
    record = quiet_record()
    drawn = figures.draw(record, record.targets[0], "t")
    assert [d.section for d in drawn] == [
        "epsilon",
        "epsilon",
        *["membership"] * 3,
        "reconstruction",
        "membership",
    ]


def test_no_curves_means_no_figures() -> None:
    record = with_target(quiet_record(), "private", curves=(), estimates=(), rates=())
    bare = replace(record, targets=record.targets[:1])
    assert figures.draw(bare, bare.targets[0], "t") == ()


def test_degenerate_curves_are_drawn_all_the_same() -> None:
    flat = tuple(
        Curve(kind=kind, source="flat", x=(0.0, 0.0), y=(0.0, math.inf if kind == "anytime" else 0.0))
        for kind in ("roc", "claimed-roc", "histogram-in", "histogram-out", "anytime", "reconstruction")
    )
    record = with_target(quiet_record(), "private", curves=flat)
    drawn = figures.draw(record, record.targets[0], "t")
    assert len(drawn) == 7
    assert not any("nan" in d.svg.lower() for d in drawn)


def test_thirty_bounds_still_leave_room_for_the_control() -> None:
    record = quiet_record()
    private = record.targets[0]
    many = tuple(replace(private.estimates[0], source=f"attack {i}") for i in range(30))
    shown = bounds.bars(replace(private, estimates=many), Adjacency.ADD_REMOVE, record.targets[1:])
    assert len(shown) == bounds.MAX_BARS
    assert shown[-1].kind == "control"


def test_names_are_not_mathematics() -> None:
    record = with_target(quiet_record(), "private", curves=tuple(
        replace(curve, source="$\\frac{1}{$") for curve in quiet_record().targets[0].curves
    ))  # fmt: skip
    drawn = figures.draw(record, record.targets[0], "t")
    assert any("$\\frac{1}{$" in d.svg for d in drawn)


def test_groups_are_drawn_where_there_is_no_curve_over_all() -> None:
    record = quiet_record()
    private = record.targets[0]
    grouped = replace(private, curves=tuple(replace(c, slice="digit 8") for c in private.curves))
    assert curves.of_kind(grouped, "roc")[0].slice == "digit 8"


def test_bounds_under_another_adjacency_have_a_figure_and_a_claim_of_their_own() -> None:
    record = quiet_record()
    private = record.targets[0]
    other = replace(private.estimates[2], adjacency=Adjacency.REPLACE_ONE, claimed_epsilon=10.7)
    target = replace(private, estimates=(*private.estimates, other))
    assert bounds.adjacencies(target) == (Adjacency.ADD_REMOVE, Adjacency.REPLACE_ONE)
    assert bounds.claimed(target, Adjacency.REPLACE_ONE) == 10.7
    drawn = [d for d in figures.draw(record, target, "t") if d.title.startswith("ε")]
    assert "claim 5.50" in drawn[0].svg
    assert "claim 10.70" in drawn[1].svg
    assert "step-canary" not in drawn[1].svg


def test_several_estimators_on_one_attack_are_one_bar() -> None:
    private = quiet_record().targets[0]
    step = private.estimates[1]
    both = replace(private, estimates=(step, replace(step, epsilon_lower=3.0, ceiling=60.0, method="other")))
    (bar,) = bounds.bars(both, Adjacency.ADD_REMOVE)
    assert (bar.bound, bar.ceiling) == (5.0, 60.0)
