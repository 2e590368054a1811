"""Results on disk or at an address: one file a trial, named by what was asked, there whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import uuid
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dpaudit.address import MOST_OF_AN_OBJECT, Address, Place
from dpaudit.codec import Arrays, decode, encode
from dpaudit.documents import bomb, contents, json_of
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
    """The folder or address cannot be written or reached. Finished trials stay. Exit code 4."""

    exit_code = 4


def write_atomic(path: Place, data: bytes) -> None:
    """Write `data` beside `path` and rename it into place; to an address, as `Address.write` says.

    Raises:
        StoreError: no space, no permission, or any other refusal of the file system.
    """
    try:
        if isinstance(path, Address):
            path.write(data)
        else:
            _written(path, data, first=False)
    except OSError as error:
        raise _refused(path, error) from None


def write_first(path: Place, data: bytes) -> bool:
    """Write `data` unless something is there; of several who try, one does. Says whether it was this one.

    Raises:
        StoreError: as in `write_atomic`.
    """
    try:
        return path.write_first(data) if isinstance(path, Address) else _written(path, data, first=True)
    except OSError as error:
        raise _refused(path, error) from None


def _written(path: Path, data: bytes, *, first: bool) -> bool:
    """Whether it was: who wants to be first is told if somebody else was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".writing-{uuid.uuid4().hex}"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if first:
            return _linked(temporary, path)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _linked(temporary: Path, path: Path) -> bool:
    with suppress(OSError):  # It is there; or the folder is a shared one that knows no links.
        os.link(temporary, path)
        return True
    if path.exists():
        return False
    os.replace(temporary, path)
    return True


def _refused(path: Place, error: OSError) -> StoreError:
    remedy = "Free some space" if error.errno == errno.ENOSPC else "Choose another folder with --out"
    if isinstance(path, Address):
        remedy = "See that the address is right and may be written to"
    return StoreError(
        f"Expected to write {path}, found: {error.strerror or error}. "
        f"{remedy} and run the same command again; finished trials are kept."
    )


def unread(path: Place, error: OSError) -> StoreError:
    """What is there and cannot be read is not lost, and nothing is made in its place."""
    reached = "that the address can be reached" if isinstance(path, Address) else "that it may be read"
    return StoreError(
        f"Expected to read {path}, found: {error.strerror or error}. "
        f"See {reached} and run the same command again; finished trials are kept."
    )


class Store:
    """The `trials/` folder of an audit.

    Several drivers and workers may use it at once: a file is whole whenever it is seen, and where two make
    the same trial, the later result takes the place of an equal one.
    """

    def __init__(self, folder: Place):
        self._folder = folder / "trials"

    def path(self, key: str) -> Place:
        """Where the trial's result is, or will be."""
        return self._folder / f"{key}.npz"

    def save(self, key: str, facts: dict[str, Any]) -> None:
        """Write the facts of a finished trial; nouns and arrays in them are encoded."""
        arrays: Arrays = {}
        document = {
            "format": FORMAT,
            "key": key,
            "facts": {k: encode(v, arrays, k) for k, v in facts.items()},
        }
        text = np.frombuffer(json.dumps(document).encode(), dtype=np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **{"document": text, **arrays})
        write_atomic(self.path(key), buffer.getvalue())

    def load(self, key: str) -> dict[str, Any] | None:
        """The facts of a finished trial; None if it is not there or its file is damaged.

        A damaged file is set aside under the ending `.damaged`, so that the trial runs again. So is one that
        is of another trial, or would be far larger in memory than it is on disk.

        Raises:
            StoreError: an address cannot be reached, which says nothing about what lies there.
        """
        path = self.path(key)
        try:
            with _opened(path) as file:
                arrays = _arrays(file)
            document = json_of(arrays.pop("document").tobytes())
            if document["format"] != FORMAT:
                return None
            if document.get("key", key) != key:
                raise ValueError("the result of another trial")
            return {name: decode(value, arrays) for name, value in document["facts"].items()}
        except FileNotFoundError:
            return None
        except StoreError:
            raise
        except Exception:
            # Damaged bytes fail in every layer: zip, zlib, the array header, JSON, the nouns' own checks.
            self.set_aside(key)
            return None

    def set_aside(self, key: str) -> None:
        """Keep a file that is no result under another name, where the folder lets us."""
        path = self.path(key)
        with suppress(OSError):
            if isinstance(path, Address):
                path.replace(path.with_suffix(".damaged"))
            else:
                path.replace(path.with_suffix(".damaged"))


def _opened(path: Place) -> BinaryIO:
    """The bytes of a result, in which one can go back and forth."""
    if isinstance(path, Path):
        return path.open("rb")
    try:
        return io.BytesIO(contents(path, MOST_OF_AN_OBJECT))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unread(path, error) from None


def _arrays(file: BinaryIO) -> Arrays:
    """The arrays of a file, unless it is a small one that unpacks to more than memory may hold."""
    packed = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if bomb(unpacked, packed):
        raise ValueError(f"{unpacked:,} bytes unpacked")
    file.seek(0)
    with np.load(file, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


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
