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
from dpaudit.trial import AUDITED, SHADOW, asked_of, attacks_of
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


def of_the_model(*, qualitative: bool, shown: bool = False) -> Rebuilt:
    rows = (
        ("class representative", "nearest record trained on") if qualitative else ("original", "as released")
    )
    made = item(real=True)
    panels = tuple(
        Panel(row=row, column=i, pixels=((0, 64), (128, 10 * i)), real=True) for row in rows for i in range(2)
    )
    scores = (
        Score(name="ssim", mean=0.21, lower=0.15, upper=0.27, n=10, blind=0.2),
        Score(name="average", mean=0.44, lower=0.35, upper=0.5, n=10, blind=0.05),
    )
    return replace(
        made,
        method="model inversion" if qualitative else "informed adversary",
        subject="class representatives" if qualitative else "the last unknown record",
        access=Access.FINAL_MODEL,
        qualitative=qualitative,
        batch=0 if qualitative else 1,
        scores=scores if qualitative else scores[:1],
        panels=panels if shown else (),
    )


def test_what_came_from_the_final_model_stands_in_a_table_of_its_own_and_says_that_it_is_qualitative() -> (
    None
):
    both = tuple(of_the_model(qualitative=each) for each in (True, False))
    record = with_target(with_rebuilt(), "private", rebuilt=(item(ssim=0.99), *both))
    private = next(t for t in record.targets if t.name == "private")
    updates, released = rebuilt.table(private), rebuilt.released_table(private)
    assert len(updates.rows) == 1 and "Update" in dict(updates.columns)
    names = [name for name, _ in released.columns]
    assert [row[0] for row in released.rows] == ["model inversion (qualitative)", "informed adversary"]
    assert released.rows[0][names.index("Other averages")] == "0.05"
    assert released.rows[1][names.index("Class average")] == released.rows[1][names.index("Other averages")]
    words = rebuilt.sentence(private)
    assert words.startswith("From one update") and "0.99" in words
    assert "Qualitative: class representatives" in words and "No epsilon is compared with this" in words
    page = html.render(record)
    assert "Other averages" in page and "No record of the training data is embedded" in page


def test_pictures_from_the_final_model_are_announced_as_records() -> None:
    shown = with_target(quiet_record(), "private", rebuilt=(of_the_model(qualitative=True, shown=True),))
    page = html.render(shown)
    assert "Pictures of real records are in this page" in page and page.count("data:image/png") == 1
    assert "row 1: class representative; row 2: nearest record trained on" in page


def from_the_final_model(**data: object) -> AuditPlan:
    return parse(
        {
            "data": data,
            "targets": [{"name": "t", "train": "opacus"}],
            "attacks": {"model-inversion": {"height": 8, "width": 8}, "informed": {}, "loss-threshold": {}},
        }
    )


def test_attacks_on_the_final_model_describe_and_shadow_models_are_not_asked() -> None:
    plan = from_the_final_model(show_records=True)
    assert set(weights(plan)) == {"loss-threshold"}
    assert all(attacks_of(plan)[name].show_records for name in ("model-inversion", "informed"))
    asked, of_shadows = asked_of(plan, AUDITED), asked_of(plan, SHADOW)
    assert asked.linear and asked.representatives is not None
    assert not of_shadows.linear and of_shadows.representatives is None


def test_coverage_says_why_the_final_model_gave_nothing_and_what_was_not_asked_for() -> None:
    rows = {row.attack: row for row in coverage(from_the_final_model(), "t", {0: world().view(0)})}
    assert rows["model-inversion"].status == rows["informed"].status == "NOT APPLICABLE"
    assert "no pictures" in rows["model-inversion"].reason and "closed form" in rows["informed"].reason
    assert rows["training data from the weights of the final model"].status == "NOT RUN"
    asked = {row.attack for row in coverage(planned(), "t", {0: world().view(0)})}
    assert {
        "class representatives (model inversion)",
        "the last unknown record (informed adversary)",
    } <= asked


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
