"""Any changed byte of a signed record is found and named; reviews are by other persons."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from dpaudit import envelope, seal, signoff
from dpaudit.cli import app
from dpaudit.errors import UsageError
from dpaudit.record import RECORD_NAME, dump
from dpaudit.seal import SEAL_NAME, Person
from dpaudit.store import StoreError
from tests.sample_record import quiet_record

ANNE, BEN, CHRIS = (Person(name=n, role="tester") for n in ("Anne Example", "Ben Example", "Chris Example"))


def dpaudit(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in arguments])


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("anne", "ben", "chris"):
        envelope.new_key(folder / name)
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory, keys) -> Path:
    """A signed record with one review, as a run leaves it."""
    folder = tmp_path_factory.mktemp("record") / "rc1"
    (folder / "trials").mkdir(parents=True)
    (folder / RECORD_NAME).write_bytes(dump(quiet_record()))
    (folder / "plan.toml").write_text("title = 'x'\n")
    (folder / "report.html").write_text("<p>page</p>")
    (folder / "trials/a b.npz").write_bytes(bytes(range(200)))
    (folder / "trials/empty.npz").write_bytes(b"")
    signoff.sign_record(folder, keys / "anne.key", ANNE)
    signoff.sign_off(folder, keys / "ben.key", BEN, "Read and agreed.", trusted=trusted(keys))
    return folder


@pytest.fixture
def folder(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "rc1"))


def trusted(keys: Path, *names: str):
    return [envelope.public_key(keys / f"{name}.pub") for name in names or ("anne", "ben")]


def states(folder: Path, keys: Path) -> dict[str, str]:
    return {row.file: row.state for row in signoff.verify(folder, trusted(keys)).differences}


FILES = [
    RECORD_NAME, "plan.toml", "report.html", "trials/a b.npz", "trials/empty.npz", SEAL_NAME,
    "signoff-01.dsse.json",
]  # fmt: skip
SIGNATURES = FILES[-2:]


def test_the_test_knows_every_file(folder):
    assert sorted(FILES) == sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_what_nobody_touched_is_intact(folder, keys):
    found = signoff.verify(folder, trusted(keys))
    assert found.intact and found.files == 5 and found.reviews == 1
    assert [s.person for s in found.signatures] == [ANNE, BEN]
    assert found.signatures[1].statement == "Read and agreed."


@pytest.mark.parametrize("name", FILES)
def test_every_changed_byte_of_every_file_is_found_and_named(folder, keys, name):
    content = (folder / name).read_bytes()
    places = range(len(content)) if len(content) < 300 else [*range(0, len(content), 997), len(content) - 1]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1
        (folder / name).write_bytes(changed)
        assert name in states(folder, keys), place
    for changed in (content + b" ", content + b"\n", content[:-1] if content else b"\0"):
        (folder / name).write_bytes(changed)
        assert states(folder, keys)[name] == ("changed" if name != SIGNATURES[-1] else "not valid")
    (folder / name).write_bytes(content)
    assert states(folder, keys) == {}


@pytest.mark.parametrize("name", FILES[:-1])
def test_every_missing_file_is_found_and_named(folder, keys, name):
    (folder / name).unlink()
    assert states(folder, keys)[name] == "missing"
    if name != SEAL_NAME:
        assert states(folder, keys) == {name: "missing"}


@pytest.mark.parametrize("name", ["extra.txt", "trials/extra.npz", ".hidden", "trials/seal.dsse.json"])
def test_every_added_file_is_found_and_named(folder, keys, name):
    (folder / name).write_text("")
    assert states(folder, keys) == {name: "added"}


def test_a_link_in_place_of_a_file_is_a_change(folder, keys, tmp_path):
    shutil.move(folder / "plan.toml", tmp_path / "plan.toml")
    (folder / "plan.toml").symlink_to(tmp_path / "plan.toml")
    assert states(folder, keys) == {"plan.toml": "changed"}
    with pytest.raises(UsageError, match=r"plan\.toml, a link"):
        signoff.sign_record(folder, keys / "anne.key", ANNE, again=True)


def test_files_that_change_places_are_found(folder, keys):
    (folder / "plan.toml").rename(folder / "third")
    (folder / "report.html").rename(folder / "plan.toml")
    (folder / "third").rename(folder / "report.html")
    assert states(folder, keys) == {"plan.toml": "changed", "report.html": "changed"}


def test_a_stranger_cannot_sign_it_anew(folder, keys):
    (folder / RECORD_NAME).write_bytes(dump(quiet_record()) + b"\n")
    signoff.sign_record(folder, keys / "chris.key", ANNE, again=True)
    assert states(folder, keys) == {SEAL_NAME: "not valid"}
    assert signoff.verify(folder, trusted(keys, "chris")).intact


def test_a_signature_that_cannot_be_written_leaves_the_earlier_one(folder, keys, monkeypatch):
    before = {file.name: file.read_bytes() for file in seal.signature_files(folder)}

    def full(file, content):
        raise StoreError(f"Expected to write {file}, found: No space left on device.")

    monkeypatch.setattr(signoff, "write_atomic", full)
    with pytest.raises(StoreError):
        signoff.sign_record(folder, keys / "anne.key", ANNE, again=True)
    assert {file.name: file.read_bytes() for file in seal.signature_files(folder)} == before
    monkeypatch.undo()
    signoff.sign_record(folder, keys / "anne.key", ANNE, again=True)
    assert [file.name for file in seal.signature_files(folder)] == [SEAL_NAME]


def test_an_envelope_with_a_second_signature_or_other_layout_is_refused(folder, keys):
    (folder / "signoff-01.dsse.json").unlink()
    file = folder / SEAL_NAME
    document = json.loads(file.read_text())
    other = {"keyid": "0" * 64, "sig": document["signatures"][0]["sig"]}
    for changed in (
        {**document, "signatures": [*document["signatures"], other]},
        {**document, "payloadType": "text/plain"},
        {**document, "note": "x"},
    ):
        file.write_text(json.dumps(changed, indent=1, sort_keys=True) + "\n")
        assert states(folder, keys)[SEAL_NAME] == "not valid"
    file.write_text(json.dumps(document, sort_keys=True))
    assert states(folder, keys)[SEAL_NAME] == "not valid"


def test_a_review_that_was_taken_out_is_missed_by_the_next(folder, keys):
    signoff.sign_off(folder, keys / "chris.key", CHRIS, "Too.", trusted=trusted(keys))
    everybody = trusted(keys, "anne", "ben", "chris")
    assert signoff.verify(folder, everybody).reviews == 2
    (folder / "signoff-01.dsse.json").unlink()
    rows = signoff.verify(folder, everybody).differences
    assert [(row.file, row.state) for row in rows] == [("signoff-01.dsse.json", "missing")]


@pytest.mark.parametrize(
    ("key", "person"), [("chris.key", Person(name=" anne  EXAMPLE", role="x")), ("anne.key", CHRIS)]
)
def test_nobody_reviews_their_own_work(folder, keys, key, person):
    with pytest.raises(UsageError, match="another person with another key"):
        signoff.sign_off(folder, keys / key, person, "Fine.", trusted=trusted(keys))


def test_a_review_by_the_preparer_that_was_forged_is_none(folder, keys):
    files = seal.signature_files(folder)
    predicate = {"reviewed_by": {"name": "Anne Example", "role": "y"}, "statement": "x", "signed": "2026"}
    payload = seal.statement({f.name: seal.digest(f) for f in files}, seal.SIGNOFF_PREDICATE, predicate)
    key = envelope.private_key(keys / "chris.key")
    (folder / "signoff-02.dsse.json").write_bytes(envelope.sign(payload, key))
    rows = signoff.verify(folder, trusted(keys, "anne", "ben", "chris")).differences
    assert [(row.file, row.state) for row in rows] == [("signoff-02.dsse.json", "not valid")]


def test_nobody_signs_off_what_was_changed(folder, keys):
    (folder / "report.html").write_text("<p>Better</p>")
    with pytest.raises(signoff.Tampered, match=r"report\.html changed") as caught:
        signoff.sign_off(folder, keys / "chris.key", CHRIS, "Fine.", trusted=trusted(keys))
    assert caught.value.exit_code == 1


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = tmp_path / "rc1"
    record.mkdir()
    (record / RECORD_NAME).write_bytes(dump(quiet_record()))
    nameless = dpaudit("sign", record, "--new-key", "a", "--role", "R")
    assert isinstance(nameless.exception, UsageError) and not (tmp_path / "a.key").exists()
    assert dpaudit("sign", "--new-key", "a").exit_code == dpaudit("sign", "--new-key", "b").exit_code == 0
    assert (tmp_path / "a.key").stat().st_mode & 0o077 == 0
    assert isinstance(dpaudit("sign", "--new-key", "a").exception, UsageError)
    assert dpaudit("verify", record, "--trust", "a.pub").exit_code == 1
    assert dpaudit("sign", record, "--key", "a.key", "--name", "A", "--role", "R").exit_code == 0
    again = dpaudit("sign", record, "--key", "a.key", "--name", "A", "--role", "R")
    assert isinstance(again.exception, UsageError)
    assert isinstance(dpaudit("verify", record).exception, UsageError)
    assert dpaudit("verify", record, "--trust", "a.pub").exit_code == 0
    assert "found 0" in dpaudit("verify", record, "--trust", "a.pub", "--signoffs", 1).output
    assert dpaudit("verify", record, "--trust", "b.pub").exit_code == 1
    review = ("--key", "b.key", "--name", "B", "--role", "DPO", "--statement", "Read.", "--trust", "a.pub")
    assert dpaudit("signoff", record, *review).exit_code == 0
    good = dpaudit("verify", record, "--trust", "a.pub", "--trust", "b.pub", "--signoffs", 1, "--json")
    assert good.exit_code == 0 and json.loads(good.output)["signatures"][1]["role"] == "DPO"
    (record / RECORD_NAME).write_bytes(dump(quiet_record()).replace(b"NOT REFUTED", b"NOT REFUTES"))
    bad = dpaudit("verify", record, "--trust", "a.pub", "--trust", "b.pub", "--json")
    assert bad.exit_code == 1
    assert json.loads(bad.output)["differences"][0]["file"] == RECORD_NAME


def test_a_key_may_be_encrypted(tmp_path, monkeypatch):
    monkeypatch.setenv(envelope.PASSWORD_VARIABLE, "correct horse")
    private, _ = envelope.new_key(tmp_path / "k")
    assert b"ENCRYPTED" in private.read_bytes()
    envelope.private_key(private)
    for wrong in ("", "battery"):
        monkeypatch.setenv(envelope.PASSWORD_VARIABLE, wrong)
        with pytest.raises(UsageError, match="password"):
            envelope.private_key(private)


def test_the_statement_is_of_the_public_form(folder):
    sealed = json.loads((folder / SEAL_NAME).read_text())
    payload = json.loads(base64.b64decode(sealed["payload"]))
    assert payload["_type"] == "https://in-toto.io/Statement/v1"
    assert {item["name"] for item in payload["subject"]} == set(FILES) - set(SIGNATURES)
    assert payload["predicate"]["weights_sha256"].keys() == {"private", "plain"}


@pytest.mark.parametrize(
    "name",
    [
        "anne  EXAMPLE",
        "Example, Anne",
        "\uff21nne Example",
        "An\u200bne Example",
        "Anne\u00a0Example",
        "Anne-Example",
    ],
)
def test_a_preparer_under_another_spelling_reviews_nothing(folder, keys, name):
    with pytest.raises(UsageError, match="another person"):
        signoff.sign_off(
            folder, keys / "chris.key", Person(name=name, role="r"), "Read.", trusted=trusted(keys)
        )


def test_a_name_that_nobody_sees_is_none():
    with pytest.raises(UsageError, match="who signs"):
        Person(name="\u200b \u2060", role="r")


def test_a_private_key_is_not_signed_into_the_folder(folder, keys):
    shutil.copy(keys / "anne.key", folder / "anne.key")
    with pytest.raises(UsageError, match="outside"):
        signoff.sign_record(folder, folder / "anne.key", ANNE, again=True)


def test_a_signature_that_is_a_folder_is_wrong_usage(folder, keys):
    (folder / "signoff-99.dsse.json").mkdir()
    with pytest.raises(UsageError, match="Remove it"):
        signoff.sign_record(folder, keys / "anne.key", ANNE, again=True)
