"""`dpaudit.record`: one strict JSON document, equal for equal audits; all else is refused in one line."""

import json
import math
from dataclasses import replace

import pytest

from dpaudit.errors import UsageError
from dpaudit.record import RECORD_NAME, SCHEMA_VERSION, AuditRecord, dump, json_schema, load
from tests.sample_record import sample_record


@pytest.fixture
def folder(tmp_path):
    (tmp_path / RECORD_NAME).write_bytes(dump(sample_record()))
    return tmp_path


def document(folder):
    return json.loads((folder / RECORD_NAME).read_bytes())


def refused(folder, content) -> str:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / RECORD_NAME).write_bytes(data)
    with pytest.raises(UsageError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert RECORD_NAME in str(caught.value)
    return str(caught.value)


def test_a_record_is_read_from_its_folder_or_its_file(folder):
    assert load(folder) == load(folder / RECORD_NAME) == sample_record()


def test_equal_records_are_equal_bytes(folder):
    assert dump(load(folder)) == dump(sample_record()) == (folder / RECORD_NAME).read_bytes()


def test_equal_records_are_equal_bytes_in_whatever_order_they_were_put_together():
    record = sample_record()
    backwards = dict(reversed(record.provenance.environment.items()))
    assert len(backwards) > 1
    other = replace(record, provenance=replace(record.provenance, environment=backwards))
    assert dump(other) == dump(record)


def with_accuracy(value) -> AuditRecord:
    record = sample_record()
    return replace(record, targets=(replace(record.targets[0], test_accuracy=value),))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_numbers_that_json_has_no_word_for_survive_in_strict_json(tmp_path, value):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    data = dump(with_accuracy(value))
    json.loads(data, parse_constant=refuse)
    (tmp_path / RECORD_NAME).write_bytes(data)
    read = load(tmp_path).targets[0].test_accuracy
    assert read == value or (math.isnan(read) and math.isnan(value))


def test_a_missing_record_is_named_with_what_makes_one(tmp_path):
    with pytest.raises(
        UsageError, match=r"Expected a record at .*record\.json, found nothing\. Run `dpaudit run`"
    ):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not json", b"\xff\xfe", b'{"schema_version": ' + b"[" * 100_000])
def test_what_is_no_json_is_refused(folder, content):
    assert "to be a JSON record, found" in refused(folder, content)


@pytest.mark.parametrize("content", [[], 3, {}, {"schema_version": "1"}, {"schema_version": None}])
def test_json_without_a_version_is_no_record(folder, content):
    assert "to have an integer schema_version" in refused(folder, content)


def test_a_newer_schema_asks_for_an_upgrade(folder):
    message = refused(folder, {**document(folder), "schema_version": SCHEMA_VERSION + 1})
    assert f"found {SCHEMA_VERSION + 1}" in message
    assert "upgrade" in message


def test_a_field_that_is_missing_is_named(folder):
    content = document(folder)
    del content["targets"][0]["verdict"]
    assert "found at targets.0.verdict: Field required" in refused(folder, content)


def test_a_verdict_that_does_not_exist_is_refused(folder):
    content = document(folder)
    content["targets"][0]["verdict"]["status"] = "PRIVATE"
    assert "targets.0.verdict.status" in refused(folder, content)


def test_a_claim_that_cannot_be_is_refused_with_the_name_of_the_file(folder):
    content = document(folder)
    content["targets"][0]["claim"]["epsilon"] = -1.0
    assert "Expected epsilon=-1.0" in refused(folder, content)


def test_the_published_schema_is_json_and_names_every_field():
    schema = json.loads(json.dumps(json_schema(), allow_nan=False))
    assert set(schema["properties"]) == set(AuditRecord.__dataclass_fields__)


def test_a_folder_of_records_says_which_they_are(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / RECORD_NAME).write_bytes(b"{}")
    with pytest.raises(UsageError, match=r"found nothing\. Name one of its folders: .*a, .*b\."):
        load(tmp_path)


NEWER = {
    "provenance": ("salted", "committed", "commitment_sha256", "policy_sha256", "lock_sha256", "excluded"),
    "trials": ("attempts",),
}


def test_a_record_of_before_these_fields_loads(tmp_path):
    document = json.loads(dump(sample_record()))
    for name, fields in NEWER.items():
        for part in document[name] if isinstance(document[name], list) else [document[name]]:
            for field in fields:
                del part[field]
    (tmp_path / RECORD_NAME).write_text(json.dumps(document))
    record = load(tmp_path)
    assert record == sample_record()
    assert not record.provenance.salted and record.trials[0].attempts == 1
