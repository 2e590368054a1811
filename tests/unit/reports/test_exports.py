"""What is written for others says what the record says, in the form that they read."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import yaml
from typer.testing import CliRunner

from dpaudit.cli import app
from dpaudit.errors import UsageError
from dpaudit.record import RECORD_NAME, dump
from dpaudit.reports import annex, model_card, registry_entry, yaml_text
from tests.sample_record import CLAIM, quiet_record, sample_record, with_target

FORBIDDEN = ("compliant", "anonymous", "is safe", "is private")
RENDERERS = (annex, model_card, registry_entry)


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1, "b": [1, "x: y", None, True], "c": {"d": "- no list", "e": []}},
        {"list": [{"k": "v", "deep": {"x": [{"y": 1e-5}]}}, {"k": "#"}], "empty": {}},
        {"quote": 'a "b" \\ \n c', "unit": "ε", "dash": "---", "word": "no", "inf": math.inf},
    ],
)
def test_what_is_written_as_yaml_is_read_as_it_was(value):
    assert yaml.safe_load("\n".join(yaml_text.lines(value))) == value


@pytest.mark.parametrize("module", RENDERERS, ids=lambda module: module.__name__)
def test_equal_records_give_equal_text_and_no_forbidden_verdict(module):
    for record in (quiet_record(), sample_record()):
        text = module.render(record)
        assert text == module.render(record) and text.endswith("\n")
        assert not [word for word in FORBIDDEN if word in text.lower()]
        assert record.targets[0].name in text


def test_the_model_card_has_metadata_that_a_hub_reads():
    _, head, body = model_card.render(quiet_record()).split("---\n", 2)
    (index,) = yaml.safe_load(head)["model-index"]
    (result,) = index["results"]
    assert result["task"]["type"] and result["dataset"].keys() == {"name", "type"}
    metrics = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert metrics["dp_audit_status"] == "NOT REFUTED"
    assert (metrics["epsilon_claimed"], metrics["epsilon_lower"]) == (5.5, 5.45)
    assert metrics["epsilon_ceiling"] == math.inf
    assert "does not say that the claim is true" in body and "## Privacy audit" in body


def test_the_registry_entry_uses_the_registrys_names_and_leaves_open_what_nobody_told():
    (entry,) = yaml.safe_load_all(registry_entry.render(quiet_record()))
    deployment = entry["deployment"]
    assert deployment.keys() == {
        "product", "dp_flavor", "privacy_loss", "model", "accounting", "implementation", "resources",
    }  # fmt: skip
    assert deployment["privacy_loss"]["privacy_parameters"] == {"epsilon": 5.5, "delta": 1e-5}
    assert deployment["privacy_loss"]["privacy_unit"] == "Record-level"
    assert "NOT REFUTED" in deployment["privacy_loss"]["privacy_parameters_description"]
    assert deployment["dp_flavor"]["name"] == "Approximate DP"
    assert deployment["product"]["data_curators"] is None and entry["status"] == "Draft"
    assert "noise multiplier 1.5" in deployment["implementation"]["mechanisms"]
    assert len(list(yaml.safe_load_all(registry_entry.render(sample_record())))) == 2


def test_a_pure_claim_is_of_the_pure_flavour_and_no_claim_makes_no_entry():
    pure = with_target(quiet_record(), "private", claim=replace(CLAIM, delta=0.0, ledger=()))
    (entry,) = yaml.safe_load_all(registry_entry.render(pure))
    assert entry["deployment"]["dp_flavor"]["name"] == "Pure DP"
    assert entry["deployment"]["implementation"]["mechanisms"] is None
    without = with_target(quiet_record(), "private", claim=None)
    assert yaml.safe_load(registry_entry.render(without)) is None


def test_the_annex_accounts_for_alpha_coverage_trials_and_delta():
    record = replace(sample_record(), provenance=replace(sample_record().provenance, excluded=("abc",)))
    text = annex.render(record)
    assert all(f"## {n}. " in text for n in range(1, 10))
    assert len(annex.spending(record)) == sum(e.guarantee for t in record.targets for e in t.estimates)
    assert "attribute-inference" in text and "1 finished trial in the folder" in text
    assert "| yes |" in text
    big = with_target(record, "private", claim=replace(CLAIM, delta=0.01))
    assert "| no |" in annex.render(big)


def test_a_name_cannot_break_out_of_a_table():
    evil = with_target(quiet_record(), "private", name="a | b\n# <script>")
    for module in (annex, model_card):
        text = module.render(evil).split("---\n", 2)[-1]
        assert "<script>" not in text and "a \\| b" in text


def test_the_command_line_writes_each(tmp_path):
    (tmp_path / RECORD_NAME).write_bytes(dump(quiet_record()))
    runner = CliRunner()
    for form, module in zip(("annex", "model-card", "dp-registry"), RENDERERS, strict=True):
        printed = runner.invoke(app, ["export", form, str(tmp_path)])
        assert printed.exit_code == 0 and printed.output == module.render(quiet_record())
        file = tmp_path / form
        assert runner.invoke(app, ["export", form, str(tmp_path), "--out", str(file)]).exit_code == 0
        assert file.read_text() == printed.output
        told = runner.invoke(app, ["export", form, str(tmp_path), "--json"])
        assert json.loads(told.output)["text"] == printed.output
    wrong = runner.invoke(app, ["export", "modelcard", str(tmp_path)])
    assert isinstance(wrong.exception, UsageError) and "model-card" in str(wrong.exception)
