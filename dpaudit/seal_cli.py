"""`dpaudit sign`, `verify` and `signoff`: who answers for a record, and whether it is as it was signed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpaudit.address import only_local
from dpaudit.claim_cli import AsJson
from dpaudit.errors import UsageError

if TYPE_CHECKING:
    from dpaudit.signoff import Verification

Folder = Annotated[Path, typer.Argument(help="Folder of the record.", metavar="RECORD", callback=only_local)]
Key = Annotated[Path | None, typer.Option("--key", help="Private key of who signs (NAME.key).")]
Name = Annotated[str, typer.Option("--name", help="Name of the person who signs.")]
Role = Annotated[str, typer.Option("--role", help="Role in which that person signs.")]
Trust = Annotated[
    list[Path] | None, typer.Option("--trust", help="A public key (NAME.pub) that may sign; repeat for more.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(name="sign")(sign)
    app.command(name="verify")(verify)
    app.command(name="signoff")(signoff)


def sign(
    record: Annotated[
        Path | None, typer.Argument(help="Folder of the record.", metavar="[RECORD]", callback=only_local)
    ] = None,
    new_key: Annotated[
        Path | None, typer.Option("--new-key", help="Make a pair of keys, NAME.key and NAME.pub.")
    ] = None,
    key: Key = None,
    name: Name = "",
    role: Role = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a signature, with its reviews.")] = False,
    as_json: AsJson = False,
) -> None:
    """Sign every file of a record, so that any change is found. Needs no network."""
    from dpaudit import envelope
    from dpaudit.seal import Person
    from dpaudit.signoff import sign_record

    # Before a pair of keys is made: a missing name must not leave one behind.
    preparer = Person(name=name, role=role) if record is not None else None
    if new_key is not None:
        private, public = envelope.new_key(new_key)
        said = f"Wrote {private}, to be kept secret, and {public}, to be given to whoever verifies."
        typer.echo(json.dumps({"key": str(private), "public": str(public)}) if as_json else said)
        if preparer is None:
            return
        key = key or private
    if record is None or preparer is None or key is None:
        raise UsageError("Expected RECORD and --key, found too little. See dpaudit sign --new-key.")
    file = sign_record(record, key, preparer, again=force)
    typer.echo(json.dumps({"signature": str(file)}) if as_json else f"Signed: {file}")


def verify(
    record: Folder,
    trust: Trust = None,
    signoffs: Annotated[int, typer.Option("--signoffs", help="Reviews that must be there.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare every byte of a record with what was signed; name each file that differs.

    Exit codes: 0 as signed, 1 something differs or a review is missing, 2 for a wrong option.
    """
    from dpaudit import envelope
    from dpaudit import signoff as api

    if not trust:
        raise UsageError(
            "Expected --trust with the signer's public key, found none. Without it anybody could have signed."
        )
    found = api.verify(record, [envelope.public_key(file) for file in trust])
    good = found.intact and found.reviews >= signoffs
    if as_json:
        typer.echo(json.dumps(_document(found, good=good, wanted=signoffs), indent=1, sort_keys=True))
    else:
        typer.echo("\n".join(_lines(found, record, wanted=signoffs)))
    raise typer.Exit(0 if good else 1)


def signoff(
    record: Folder,
    key: Annotated[Path, typer.Option("--key", help="Private key of the reviewer.")],
    name: Name,
    role: Role,
    statement: Annotated[str, typer.Option("--statement", help="What the reviewer states.")],
    trust: Trust = None,
    as_json: AsJson = False,
) -> None:
    """Add a reviewer's signature to a signed record, after verifying it."""
    from dpaudit import envelope
    from dpaudit.seal import Person
    from dpaudit.signoff import sign_off

    if not trust:
        raise UsageError("Expected --trust with the preparer's public key, found none. Name that .pub file.")
    keys = [envelope.public_key(file) for file in trust]
    file = sign_off(record, key, Person(name=name, role=role), statement, trusted=keys)
    typer.echo(json.dumps({"signature": str(file)}) if as_json else f"Signed off: {file}")


def _lines(found: Verification, record: Path, *, wanted: int) -> list[str]:
    from dpaudit.reports.text import printable

    lines = [f"{row.state}: {row.file}: {row.detail}" for row in found.differences]
    if found.reviews < wanted:
        lines.append(f"Expected {wanted} reviews, found {found.reviews}. See dpaudit signoff.")
    for signed in found.signatures:
        stated = f": {signed.statement}" if signed.statement else ""
        person = f"{signed.person.name} ({signed.person.role})"
        lines.append(f"{signed.file}: {person}, {signed.date}, key {signed.key[:12]}{stated}")
    if found.intact:
        lines.append(f"{found.files} files of {record} are as they were signed.")
    else:
        lines.append(f"{record} is not as it was signed.")
    return [printable(line) for line in lines]


def _document(found: Verification, *, good: bool, wanted: int) -> dict[str, object]:
    return {
        "intact": found.intact,
        "accepted": good,
        "files": found.files,
        "signoffs_required": wanted,
        "differences": [
            {"file": row.file, "state": row.state, "detail": row.detail} for row in found.differences
        ],
        "signatures": [
            {
                "file": signed.file,
                "key": signed.key,
                "name": signed.person.name,
                "role": signed.person.role,
                "signed": signed.date,
                "statement": signed.statement,
            }
            for signed in found.signatures
        ],
    }
