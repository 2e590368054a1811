"""Secrets come out of a model that was trained without privacy, and not out of one trained with it."""

import pytest

from dpaudit.events import RunFinished
from dpaudit.plan import parse
from dpaudit.record import load
from dpaudit.reports.extraction import sentence
from dpaudit.reports.html import render
from dpaudit.run import Job, run

SMALL = {"vocabulary": 12, "width": 32, "layers": 1, "batch_size": 40}


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extraction")
    document = {
        "data": {"source": "tests.pins:load", "canary_kind": "secret", "canaries": 40},
        "compute": {"engine": "inline", "device": "cpu"},
        "targets": [
            {
                "name": "private",
                "train": "language-model-opacus",
                "options": {**SMALL, "epochs": 30, "noise_multiplier": 8.0},
            },
            {
                "name": "plain",
                "role": "control",
                "train": "language-model",
                "options": {**SMALL, "epochs": 250, "learning_rate": 0.01},
            },
        ],
        "attacks": {"extraction": {"references": 99, "generated": 20, "queries": 20}},
    }
    job = Job(plan=parse(document), plan_text="", plan_folder=folder, out=folder / "audit", command="test")
    *_, last = run(job)
    assert isinstance(last, RunFinished)
    return load(folder / "audit")


def rates(record, target):
    (found,) = (each for each in record.targets if each.name == target)
    return {rate.name: rate for rate in found.rates if not rate.fine}


def test_without_privacy_secrets_stand_out_and_come_out(record):
    found = rates(record, "plain")
    assert found["extraction_success"].value > 0.9
    assert found["extraction_rate_20_queries"].value > 0.6
    assert found["extraction_rate_20_queries"].lower > found["extraction_rate_20_queries"].limit
    assert found["extracted_pii_rate"].value > 0.05


def test_with_privacy_they_do_not(record):
    found = rates(record, "private")
    assert found["extraction_success"].value < 0.3
    assert found["extraction_rate_20_queries"].value == found["extracted_pii_rate"].value == 0.0


def test_the_control_is_caught_by_its_secrets_alone(record):
    private, plain = record.targets
    assert plain.caught and plain.verdict.decided_by == "extraction"
    assert private.verdict.status == "NOT REFUTED", private.verdict.reason
    (row,) = (row for row in record.coverage if row.attack == "extraction" and row.target == "private")
    assert (row.status, row.reason) == ("RUN", "20 planted secrets, 99 references each, 1 model")


def test_the_report_says_what_came_out_in_a_sentence_and_two_figures(record):
    page = render(record, None)
    for target in record.targets:
        said = sentence(target)
        assert said.startswith(f"Of 20 fake secrets planted in the training data of {target.name}, ")
        assert said in page
        assert f"Exposure of the secrets planted in {target.name}" in page
        assert f"Samples that bring secrets out of {target.name}" in page
