"""Signing a record, signing it off, and verifying both: who prepared it, who reviewed it, what changed.

A preparer signs all files of the folder. A reviewer, who is another person with another key, signs the
preparer's signature and every earlier review, so that none of them can be taken out unseen but the last.
Reports that are dated and signed by the responsible persons are what Annex IV 2(g) of Regulation (EU)
2024/1689 asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpaudit import envelope, seal
from dpaudit.errors import DpauditError, UsageError
from dpaudit.record import load
from dpaudit.seal import RECORD_PREDICATE, SEAL_NAME, SIGNOFF_PREDICATE, Difference, Person
from dpaudit.store import write_atomic

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey


class Tampered(DpauditError):
    """The record is not as it was signed. Exit code 1."""

    exit_code = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A signature that holds.

    Attributes:
        file: of the envelope.
        key: name of the key that made it.
        person: who signed.
        date: when, by their own clock.
        statement: what a reviewer said; empty for the preparer.
    """

    file: str
    key: str
    person: Person
    date: str
    statement: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was found: signatures that hold, and every file that is not as it was signed."""

    signatures: tuple[Signature, ...]
    differences: tuple[Difference, ...]
    files: int

    @property
    def intact(self) -> bool:
        """Whether nothing differs."""
        return not self.differences

    @property
    def reviews(self) -> int:
        """How many signatures are of reviewers."""
        return sum(signed.file != SEAL_NAME for signed in self.signatures)


def sign_record(folder: Path, key_file: Path, preparer: Person, *, again: bool = False) -> Path:
    """Sign every file of a record's folder.

    Args:
        folder: of the record.
        key_file: the preparer's private key.
        preparer: who answers for the record.
        again: replaces an earlier signature, and removes the reviews of it.

    Returns:
        The file of the signature.

    Raises:
        UsageError: no record, no key or one inside the folder, a link there, or a signature already.
    """
    key = envelope.private_key(key_file)
    if key_file.resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            f"Expected the private key outside of {folder}, found {key_file}. Move it: a record is handed on."
        )
    there = seal.signature_files(folder)
    if there and not again:
        raise UsageError(
            f"Expected {folder} to be unsigned, found {there[0].name}. Use --force to sign anew, which "
            "removes the reviews of the earlier signature."
        )
    subjects = seal.signable(folder)
    predicate = seal.record_predicate(load(folder), preparer)
    # The new signature is there before the reviews of the earlier one go: a kill between leaves reviews
    # that `verify` rejects, never a record that nobody signed.
    written = _write(folder / SEAL_NAME, seal.statement(subjects, RECORD_PREDICATE, predicate), key)
    for file in there:
        if file.name == SEAL_NAME:
            continue
        try:
            file.unlink()
        except OSError as error:
            raise UsageError(f"Expected to remove {file}, found: {error.strerror}. Remove it.") from None
    return written


def sign_off(
    folder: Path, key_file: Path, reviewer: Person, words: str, *, trusted: Sequence[SSlibKey]
) -> Path:
    """Add a reviewer's signature to a signed record, after verifying it.

    Args:
        folder: of the record.
        key_file: the reviewer's private key.
        reviewer: another person than the preparer and the earlier reviewers.
        words: what the reviewer states.
        trusted: keys of the preparer and of earlier reviewers.

    Raises:
        Tampered: the record is not as it was signed.
        UsageError: the reviewer signed already, by name or by key, or states nothing.
    """
    if not words.strip():
        raise UsageError(f"Expected a statement of the reviewer, found {words!r}. Give --statement.")
    key = envelope.private_key(key_file)
    found = verify(folder, trusted)
    if not found.intact:
        first = found.differences[0]
        raise Tampered(
            f"Expected {folder} as it was signed, found {first.file} {first.state}: {first.detail}. "
            "Restore it, or have it signed anew."
        )
    for signed in found.signatures:
        if signed.key == envelope.key_id(key) or signed.person.same_as(reviewer):
            raise UsageError(
                f"Expected another person with another key than {signed.person.name} ({signed.file}), "
                f"found {reviewer.name}. A review is by somebody else."
            )
    files = seal.signature_files(folder)
    predicate = {
        "reviewed_by": {"name": reviewer.name, "role": reviewer.role},
        "statement": words.strip(),
        "signed": seal.now(),
    }
    payload = seal.statement({f.name: seal.digest(f) for f in files}, SIGNOFF_PREDICATE, predicate)
    return _write(folder / f"signoff-{len(files):02d}.dsse.json", payload, key)


def verify(folder: Path, trusted: Sequence[SSlibKey]) -> Verification:
    """Compare a folder with what was signed, and check every signature in it.

    Args:
        folder: of the record.
        trusted: the public keys that a signature may be by.

    Raises:
        UsageError: no folder there.
    """
    if not folder.is_dir():
        raise UsageError(f"Expected the folder of a record at {folder}, found none. Name the folder.")
    files = seal.digests(folder)
    signatures: list[Signature] = []
    wrong: list[Difference] = []
    if not (folder / SEAL_NAME).exists():
        wrong.append(Difference(file=SEAL_NAME, state="missing", detail="nobody signed this record"))
    earlier: dict[str, str] = {}
    for file in seal.signature_files(folder):
        preparer = file.name == SEAL_NAME
        try:
            payload, key = envelope.opened(file, trusted)
            kind = RECORD_PREDICATE if preparer else SIGNOFF_PREDICATE
            subjects, predicate = seal.read_statement(payload, kind)
            signed = _signature(file.name, key, predicate, "prepared_by" if preparer else "reviewed_by")
        except ValueError as error:
            wrong.append(Difference(file=file.name, state="not valid", detail=str(error)))
        else:
            wrong += _again(signed, signatures)
            signatures.append(signed)
            wrong += seal.differences(subjects, files if preparer else earlier)
        earlier[file.name] = seal.digest(file) if file.is_file() else ""
    return Verification(
        signatures=tuple(signatures), differences=tuple(dict.fromkeys(wrong)), files=len(files)
    )


def _again(signed: Signature, earlier: Sequence[Signature]) -> list[Difference]:
    """A review by who signed already is none, whoever wrote the file."""
    double = [s for s in earlier if s.key == signed.key or s.person.same_as(signed.person)]
    detail = f"{signed.person.name} signed already" if double else ""
    return [Difference(file=signed.file, state="not valid", detail=detail)] if double else []


def _signature(name: str, key: str, predicate: dict[str, Any], part: str) -> Signature:
    try:
        person = Person(name=str(predicate[part]["name"]), role=str(predicate[part]["role"]))
        date, words = str(predicate["signed"]), str(predicate.get("statement", ""))
    except (KeyError, TypeError, UsageError):
        raise ValueError("a statement that does not say who signed and when") from None
    return Signature(file=name, key=key, person=person, date=date, statement=words)


def _write(file: Path, payload: bytes, key: Any) -> Path:
    write_atomic(file, envelope.sign(payload, key))
    return file
