"""What could be rebuilt: in the record, in the page, and in a sentence; real records only where asked for."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dpaudit.codec import decode, encode
from dpaudit.coverage import coverage
from dpaudit.evidence import NOT_TRIED, Access, Note, Rebuilt
from dpaudit.likeness import Panel, Score
from dpaudit.measure import weights
from dpaudit.plan import AuditPlan, parse
from dpaudit.record import AuditRecord, dump, load
from dpaudit.reports import html, rebuilt
from dpaudit.trial import attacks_of
from tests.sample_record import quiet_record, with_target
from tests.views import world

ROWS = ("original", "without clip and noise", "as released")


def item(
    condition: str = "as released", *, real: bool = True, shown: bool = False, ssim: float = 0.03
) -> Rebuilt:
    panels = tuple(
        Panel(row=row, column=i, pixels=((0, 64), (128, 10 * i)), real=real)
        for row in ("original", condition)
        for i in range(3)
    )
    return Rebuilt(
        method="Inverting Gradients",
        condition=condition,
        subject="records of the batch" if real else "test cards",
        real=real,
        batch=1,
        scores=(
            Score(name="ssim", mean=ssim, lower=ssim - 0.02, upper=ssim + 0.04, n=8, blind=0.01),
            Score(name="psnr", mean=5.5, lower=4.8, upper=6.2, n=8, blind=5.4),
            Score(name="psnr, no box", mean=5.5, lower=4.8, upper=6.2, n=8, bound=-15.4),
        ),
        source="gradient-inversion",
        access=Access.STEP,
        panels=panels if shown else (),
    )


def with_rebuilt(*, shown: bool = False) -> AuditRecord:
    cards = tuple(item(condition, real=False, shown=True) for condition in ROWS[1:])
    real = (item(ROWS[1], ssim=0.99, shown=shown), item(shown=shown))
    record = with_target(quiet_record(), "private", rebuilt=(*real, *cards))
    return with_target(record, "plain", rebuilt=(item(real=False, shown=True, ssim=0.98),))


def test_a_record_with_pictures_comes_back_equal_and_one_without_the_field_loads(tmp_path) -> None:
    record = with_rebuilt()
    (tmp_path / "record.json").write_bytes(dump(record))
    assert load(tmp_path) == record
    old = json.loads(dump(record))
    for target in old["targets"]:
        del target["rebuilt"]
    (tmp_path / "record.json").write_text(json.dumps(old))
    assert load(tmp_path).targets[0].rebuilt == ()


def test_evidence_of_it_survives_the_store() -> None:
    arrays: dict = {}
    (back,) = decode(json.loads(json.dumps(encode([item(shown=True)], arrays))), arrays)
    assert back == item(shown=True)


def test_the_sentence_can_be_quoted_alone() -> None:
    private = next(t for t in with_rebuilt().targets if t.name == "private")
    text = rebuilt.sentence(private)
    for part in (
        "private released it",
        "0.03 (0.01 to 0.07)",
        "over 8 records",
        "Without clip and noise it was 0.99",
    ):
        assert part in text
    assert rebuilt.sentence(quiet_record().targets[0]) == ""


def test_the_page_shows_test_cards_and_says_that_no_record_is_in_it() -> None:
    page = html.render(with_rebuilt())
    assert "No record of the training data is embedded" in page and "are no records" in page
    assert "row 1: original; row 2: without clip and noise; row 3: as released; row 4: control plain" in page
    assert page.count("data:image/png") == 2
    assert html.render(with_rebuilt()) == page


def test_the_page_says_so_where_real_records_are_in_it() -> None:
    page = html.render(with_rebuilt(shown=True))
    assert "No record of the training data is embedded" not in page
    assert "Pictures of real records are in this page" in page and "These are records of the data" in page
    assert rebuilt.embeds_records(with_rebuilt(shown=True)) and not rebuilt.embeds_records(with_rebuilt())


def test_the_table_has_the_bound_without_a_prior_beside_what_was_read_without_one() -> None:
    private = next(t for t in with_rebuilt().targets if t.name == "private")
    found = rebuilt.table(private)
    names = [name for name, _ in found.columns]
    assert found.rows[0][names.index("Without a prior")] == "5.5, bound -15.4"
    assert found.rows[0][names.index("SSIM, others")] == "0.01"
    assert len(found.rows) == 2


def planned(**data: object) -> AuditPlan:
    return parse(
        {
            "data": data,
            "targets": [{"name": "t", "train": "opacus"}],
            "attacks": {"gradient-inversion": {}, "loss-threshold": {}},
        }
    )


@pytest.mark.parametrize("asked", [True, False])
def test_the_plan_decides_whether_pictures_of_records_are_kept(asked: bool) -> None:
    attack = attacks_of(planned(show_records=asked))["gradient-inversion"]
    assert attack.show_records is asked


def test_it_takes_no_share_of_the_error_level() -> None:
    assert set(weights(planned())) == {"loss-threshold"}


def test_coverage_says_in_its_own_words_why_it_was_not_tried() -> None:
    view = world().view(0)
    note = Note(
        check=NOT_TRIED,
        where="gradient-inversion",
        measured="its records are tokens",
        meaning="",
        source="gradient-inversion",
        access=Access.STEP,
    )
    for evidence, expected in (
        ((note,), ("NOT APPLICABLE", "its records are tokens")),
        ((item(),), ("RUN",)),
    ):
        rows = coverage(planned(), "t", {0: replace(view, evidence=evidence)})
        (row,) = (row for row in rows if row.attack == "gradient-inversion")
        assert (row.status, row.reason)[: len(expected)] == expected
        assert "gradient inversion" not in {row.attack for row in rows}
