"""Results on disk: one file a trial, named by the hash of what was asked, there whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dpaudit.codec import Arrays, decode, encode
from dpaudit.errors import DpauditError

FORMAT = 1
_HASHED_PARTS = (
    "attacks",
    "targets",
    "attribute.py",
    "canary.py",
    "evidence.py",
    "protocols.py",
    "trial.py",
    "stacking.py",
    "codec.py",
)


class StoreError(DpauditError):
    """The folder cannot be written, or a file in it is damaged. Finished trials stay. Exit code 4."""

    exit_code = 4


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` beside `path` and rename it into place.

    Raises:
        StoreError: no space, no permission, or any other refusal of the file system.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".writing-{uuid.uuid4().hex}"
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        remedy = "Free some space" if error.errno == errno.ENOSPC else "Choose another folder with --out"
        raise StoreError(
            f"Expected to write {path}, found: {error.strerror or error}. "
            f"{remedy} and run the same command again; finished trials are kept."
        ) from None


class Store:
    """The `trials/` folder of an audit."""

    def __init__(self, folder: Path):
        self._folder = folder / "trials"

    def path(self, key: str) -> Path:
        """Where the trial's result is, or will be."""
        return self._folder / f"{key}.npz"

    def save(self, key: str, facts: dict[str, Any]) -> None:
        """Write the facts of a finished trial; nouns and arrays in them are encoded."""
        arrays: Arrays = {}
        document = {"format": FORMAT, "facts": {k: encode(v, arrays, k) for k, v in facts.items()}}
        text = np.frombuffer(json.dumps(document).encode(), dtype=np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **{"document": text, **arrays})
        write_atomic(self.path(key), buffer.getvalue())

    def load(self, key: str) -> dict[str, Any] | None:
        """The facts of a finished trial; None if it is not there or its file is damaged.

        A damaged file is set aside under the ending `.damaged`, so that the trial runs again.
        """
        path = self.path(key)
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays: Arrays = {name: file[name] for name in file.files}
            document = json.loads(arrays.pop("document").tobytes())
            if document["format"] != FORMAT:
                return None
            return {name: decode(value, arrays) for name, value in document["facts"].items()}
        except Exception:
            # Damaged bytes fail in every layer: zip, zlib, the array header, JSON, the nouns' own checks.
            path.rename(path.with_suffix(".damaged"))
            return None


def code_sha256(extra: Iterable[Path] = ()) -> str:
    """Hash of everything that determines a trial's result: attacks, targets, and the user's own files."""
    package = Path(__file__).parent
    files: list[Path] = []
    for part in _HASHED_PARTS:
        found = package / part
        files += sorted(found.rglob("*.py")) if found.is_dir() else [found]
    digest = hashlib.sha256()
    for file in [*files, *sorted(extra)]:
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
