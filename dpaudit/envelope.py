"""Signatures: Ed25519 over a DSSE envelope (secure-systems-lab/dsse v1.0.2), offline, by keys in files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpaudit.errors import UsageError
from dpaudit.store import StoreError, write_atomic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from securesystemslib.signer import SSlibKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
PASSWORD_VARIABLE = "DPAUDIT_KEY_PASSWORD"
_MOST_BYTES = 64 << 20
_MOST_OF_A_KEY = 1 << 20


def new_key(stem: Path) -> tuple[Path, Path]:
    """Make a pair of keys: STEM.key, readable by its owner alone, and STEM.pub.

    The private key is encrypted if the environment has DPAUDIT_KEY_PASSWORD.

    Raises:
        UsageError: one of the files is there.
        StoreError: they cannot be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private, public = Path(f"{stem}.key"), Path(f"{stem}.pub")
    for path in (private, public):
        if path.exists():
            raise UsageError(f"Expected no file at {path}, found one. Choose another name.")
    key = Ed25519PrivateKey.generate()
    password = _password()
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)
    try:
        private.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
    except OSError as error:
        raise StoreError(f"Expected to write {private}, found: {error.strerror}. Choose another.") from None
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    write_atomic(public, key.public_key().public_bytes(serialization.Encoding.PEM, form))
    return private, public


def private_key(file: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
        UsageError: missing, no Ed25519 key, or encrypted with another password.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = serialization.load_pem_private_key(_read(file, "private"), password=_password())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"Expected a private key in {file}, found: {error} "
            f"Name the .key file; its password, if any, is taken from ${PASSWORD_VARIABLE}."
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"Expected an Ed25519 key in {file}, found another. See dpaudit sign --new-key.")
    return key


def public_key(file: Path) -> SSlibKey:
    """Read a public key.

    Raises:
        UsageError: missing, or no Ed25519 key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from securesystemslib.signer import SSlibKey

    try:
        key = serialization.load_pem_public_key(_read(file, "public"))
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"Expected a public key in {file}, found none. Name the .pub file.") from None
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"Expected an Ed25519 key in {file}, found another. Ask for that of the signer.")
    return SSlibKey.from_crypto(key)


def key_id(key: Ed25519PrivateKey) -> str:
    """The name of a key: a hash of its public half."""
    from securesystemslib.signer import SSlibKey

    return str(SSlibKey.from_crypto(key.public_key()).keyid)


def sign(payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """The envelope of a payload with one signature, as it is written to a file."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner

    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(key))
    return _written(envelope)


def opened(file: Path, trusted: Sequence[SSlibKey]) -> tuple[bytes, str]:
    """The payload of an envelope that a trusted key signed, and the name of that key.

    Raises:
        ValueError: says in a few words what is wrong with the file.
    """
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError

    if not file.is_file() or file.is_symlink() or file.stat().st_size > _MOST_BYTES:
        raise ValueError("no plain file of a signature's size")
    content = file.read_bytes()
    try:
        envelope = Envelope.from_dict(json.loads(content))
        same = _written(envelope) == content
    except Exception as error:
        # Damaged bytes fail in every layer: UTF-8, JSON, base64, and the fields of an envelope.
        raise ValueError(f"no envelope ({type(error).__name__})") from None
    # One signature, written in one way: then no byte can change without a word.
    if not same or len(envelope.signatures) != 1 or envelope.payload_type != PAYLOAD_TYPE:
        raise ValueError("an envelope that was not written by dpaudit, or was edited")
    (signer,) = envelope.signatures
    if signer not in {key.keyid for key in trusted}:
        raise ValueError(f"signed by key {signer[:12]}, which is not among the trusted ones (--trust)")
    try:
        envelope.verify(list(trusted), 1)
    except VerificationError:
        raise ValueError("the signature does not belong to what it covers") from None
    return bytes(envelope.payload), str(signer)


def _written(envelope: Any) -> bytes:
    return (json.dumps(envelope.to_dict(), indent=1, sort_keys=True) + "\n").encode()


def _read(file: Path, kind: str) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(_MOST_OF_A_KEY)
    except OSError as error:
        raise UsageError(
            f"Expected a {kind} key at {file}, found: {error.strerror}. See dpaudit sign --new-key."
        ) from None


def _password() -> bytes | None:
    return os.environ.get(PASSWORD_VARIABLE, "").encode() or None
