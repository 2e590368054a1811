"""What a signature covers: every file of a record's folder by its SHA-256, and what has changed since.

The statement is of in-toto's form (in-toto Attestation Framework, Statement v1, 2023): subjects with
digests, and a predicate about them.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dpaudit.documents import json_of
from dpaudit.errors import UsageError
from dpaudit.record import RECORD_NAME, AuditRecord

SEAL_NAME = "seal.dsse.json"
SIGNOFF_GLOB = "signoff-*.dsse.json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
RECORD_PREDICATE = "urn:dpaudit:record:v1"
SIGNOFF_PREDICATE = "urn:dpaudit:signoff:v1"
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who answers for a signature.

    Attributes:
        name: of the person.
        role: in which they sign, such as "privacy engineer".
    """

    name: str
    role: str

    def __post_init__(self) -> None:
        """Refuse a signature that nobody answers for."""
        for key, value in (("name", self.name), ("role", self.role)):
            if not _plain(value):
                raise UsageError(f"Expected the {key} of who signs, found {value!r}. Give --{key}.")

    def same_as(self, other: Person) -> bool:
        """Whether both names are one, whatever their case, spaces, punctuation and order of words."""
        return _plain(self.name) == _plain(other.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One file that is not as it was signed.

    Attributes:
        file: its path inside the folder.
        state: "changed", "missing", "added" or "not valid".
        detail: what was expected and found.
    """

    file: str
    state: str
    detail: str


def digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def signature_files(folder: Path) -> tuple[Path, ...]:
    """The signature of the preparer, if it is there, and those of reviewers in their order."""
    seal = folder / SEAL_NAME
    found = sorted(folder.glob(SIGNOFF_GLOB))
    return (*((seal,) if seal.exists() or seal.is_symlink() else ()), *found)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder` but the signatures; of a link or device, what it is instead.

    Cost grows with the bytes in the folder.
    """
    signatures = set(signature_files(folder))
    found = {}
    for path in sorted(folder.rglob("*")):
        if path in signatures or (path.is_dir() and not path.is_symlink()):
            continue
        plain = path.is_file() and not path.is_symlink()
        found[path.relative_to(folder).as_posix()] = digest(path) if plain else "no plain file"
    return found


def statement(subjects: Mapping[str, str], predicate_type: str, predicate: Mapping[str, Any]) -> bytes:
    """An in-toto statement about files.

    Args:
        subjects: SHA-256 by path.
        predicate_type: URI of what is said of them.
        predicate: what is said.
    """
    document = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": value}} for name, value in sorted(subjects.items())],
        "predicateType": predicate_type,
        "predicate": dict(predicate),
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def read_statement(payload: bytes, predicate_type: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Subjects and predicate of a statement.

    Raises:
        ValueError: it is no statement of that type.
    """
    try:
        document = json_of(payload)
        kinds = document["_type"], document["predicateType"]
        subjects = {str(item["name"]): str(item["digest"]["sha256"]) for item in document["subject"]}
        predicate = dict(document["predicate"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"no in-toto statement ({type(error).__name__})") from None
    if kinds != (STATEMENT_TYPE, predicate_type):
        raise ValueError(f"a statement of another type, {kinds[1]}")
    return subjects, predicate


def record_predicate(record: AuditRecord, preparer: Person) -> dict[str, Any]:
    """What the preparer says of a record: who, when, and the facts that a reader looks for first."""
    source = record.provenance
    states = [trial.status for trial in record.trials]
    return {
        "title": record.title,
        "status": record.status,
        "alpha": record.alpha,
        "audited": source.created,
        "dpaudit": source.dpaudit_version,
        "plan_sha256": source.plan_sha256,
        "data_sha256": source.data_sha256,
        "code_sha256": source.code_sha256,
        "canary_commitment": source.canary_commitment,
        "committed": source.committed,
        "policy_sha256": source.policy_sha256,
        "lock_sha256": source.lock_sha256,
        "weights_sha256": {t.name: t.weights_sha256 for t in record.targets if t.weights_sha256},
        "trials": {state: states.count(state) for state in sorted(set(states))},
        "retried": sum(trial.attempts > 1 for trial in record.trials),
        "excluded": len(source.excluded),
        "prepared_by": {"name": preparer.name, "role": preparer.role},
        "signed": now(),
    }


def signable(folder: Path) -> dict[str, str]:
    """Digests of a folder that can be signed.

    Raises:
        UsageError: no record is in it, or something that is no plain file.
    """
    if not folder.is_dir() or not (folder / RECORD_NAME).is_file():
        raise UsageError(f"Expected the folder of a record at {folder}, found none. Name the folder.")
    found = digests(folder)
    odd = [name for name, value in found.items() if value == "no plain file"]
    if odd:
        raise UsageError(
            f"Expected plain files in {folder}, found {odd[0]}, a link or device. Replace it by the file."
        )
    return found


def differences(signed: Mapping[str, str], found: Mapping[str, str]) -> tuple[Difference, ...]:
    """Files that are missing, added or changed, by name."""
    rows = []
    for name in sorted({*signed, *found}):
        if name not in found:
            rows.append(Difference(file=name, state="missing", detail="signed, and no longer there"))
        elif name not in signed:
            rows.append(Difference(file=name, state="added", detail="there, and not signed"))
        elif signed[name] != found[name]:
            detail = f"SHA-256 {signed[name][:12]}... was signed, found {found[name][:12]}"
            rows.append(Difference(file=name, state="changed", detail=detail))
    return tuple(rows)


def now() -> str:
    """The time in UTC, to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _plain(name: str) -> str:
    """The words of a name in order, of one spelling of each character, without what nobody sees."""
    shown = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    kept = (
        " " if unicodedata.category(char)[0] in "PZ" or char.isspace() else char
        for char in shown
        if unicodedata.category(char) not in ("Cf", "Cn", "Co", "Cs")
    )
    return " ".join(sorted("".join(kept).split()))
