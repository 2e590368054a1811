"""Where results lie: a folder, or an address that fsspec reaches, such as `s3://bucket/audits/a`.

What is written there is there whole or not at all, and what is read is trusted no more than any file.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dpaudit.errors import DpauditError, UsageError, nearest, one_line

MOST_OF_AN_OBJECT = 1 << 32
"""Bytes of one result. Of an address it is read as a whole, into memory."""
IN_THIS_PROCESS = "memory"
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}")
_PATTERNS = set("*?[]")
_LOCAL = ("file", "local")
_WHOLE = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
"""Stores of objects: an object that is put there appears as a whole, or not."""
_CREATE = (*_WHOLE, IN_THIS_PROCESS)
_S3 = ("s3", "s3a")
_FIRST = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A file or folder that fsspec reaches; has of `pathlib.Path` what a record's folder needs.

    Each call asks the store again: another machine may have written there. What fails is an OSError in one
    line, as of a folder; a question without an answer is a UsageError.

    Attributes:
        url: without an ending slash.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> Address:
        return Address(url=f"{self.url}/{name}")

    @property
    def scheme(self) -> str:
        """Such as "s3"."""
        return self.url.partition("://")[0]

    @property
    def parent(self) -> Address:
        """The folder."""
        return Address(url=self.url.rpartition("/")[0])

    @property
    def name(self) -> str:
        """The last part."""
        return self.url.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The last part without its ending."""
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        """The ending, with its dot."""
        return Path(self.name).suffix

    def with_suffix(self, suffix: str) -> Address:
        """The same with another ending."""
        return self.parent / f"{self.stem}{suffix}"

    def resolve(self) -> Address:
        """Itself: an address means the same in every folder."""
        return self

    def exists(self) -> bool:
        """Whether there is a file or folder."""
        return self._asked("exists")

    def is_dir(self) -> bool:
        """Whether it is a folder: a store of objects has one where a name goes on after it."""
        return self._asked("isdir")

    def iterdir(self) -> Iterator[Address]:
        """What lies in the folder; one request for a thousand names.

        Raises:
            OSError: there is no such folder, or it cannot be reached.
        """
        with self._reached() as (files, path):
            names = files.ls(path, detail=False)
        return (self / str(name).rstrip("/").rpartition("/")[2] for name in names)

    def read(self, most: int) -> bytes:
        """The bytes of the file, asked for as a whole, so that they are of one version of it.

        Raises:
            OSError: there is none, or it cannot be reached.
            ValueError: it is a folder, or larger than `most` bytes.
        """
        with self._reached() as (files, path):
            about = files.info(path)
            sort, size = about["type"], about["size"] or 0
            data: bytes = files.cat_file(path) if sort == "file" and size <= most else b""
        if sort != "file":
            raise ValueError("a folder, or something else that is no file")
        if max(size, len(data)) > most:
            raise ValueError(f"more than {most:,} bytes")
        return data

    def write(self, data: bytes) -> None:
        """Write the file whole or not at all: put as one object, or under another name and then moved.

        Raises:
            OSError: it cannot be written, or is larger than `MOST_OF_AN_OBJECT` bytes.
        """
        _small_enough(data)
        with self._reached() as (files, path):
            if self.scheme in _WHOLE:
                files.pipe_file(path, data)
                return
            with self._beside(files, path, data) as temporary:
                files.mv(temporary, path)

    def write_first(self, data: bytes) -> bool:
        """Write the file unless it is there; of several who try, one does. Says whether it was this one.

        Where a store cannot promise that, the last one wins: read again what is there.

        Raises:
            OSError: it cannot be written.
        """
        with _FIRST, self._reached() as (files, path):
            if self.scheme in _CREATE:
                try:
                    files.pipe_file(path, data, mode="create")
                except FileExistsError:
                    return False
                return True
            with self._beside(files, path, data) as temporary:
                if self.scheme in _LOCAL:
                    with suppress(OSError):  # It is there; or the folder is a shared one that knows no links.
                        files.link(temporary, path)
                        return True
                if files.exists(path):
                    return False
                files.mv(temporary, path)
        return True

    @contextmanager
    def _beside(self, files: Any, path: str, data: bytes) -> Iterator[str]:
        """The data under another name in the same folder, which is free again afterwards."""
        folder = path.rpartition("/")[0]
        temporary = f"{folder}/.writing-{uuid.uuid4().hex}"
        files.makedirs(folder, exist_ok=True)
        try:
            with files.open(temporary, "wb") as file:
                file.write(data)
                if self.scheme in _LOCAL:
                    file.flush()
                    os.fsync(file.fileno())
            yield temporary
        finally:
            with suppress(Exception):
                files.rm_file(temporary)

    def replace(self, target: Address) -> None:
        """Rename the file.

        Raises:
            OSError: it cannot be.
        """
        with self._reached() as (files, path):
            files.mv(path, path.removesuffix(self.name) + target.name)

    def _asked(self, question: str) -> bool:
        """What a path would answer without any error, and an address may be too far away to answer."""
        try:
            with self._reached() as (files, path):
                return bool(getattr(files, question)(path))
        except OSError as error:
            raise UsageError(
                f"Expected to reach {self}, found: {error.strerror or error}. "
                "See that the address is right and may be read."
            ) from None

    @contextmanager
    def _reached(self) -> Iterator[tuple[Any, str]]:
        """The file system and the path on it; whatever it raises becomes an OSError."""
        try:
            from fsspec.core import url_to_fs

            yield url_to_fs(self.url, use_listings_cache=False)
        except (OSError, DpauditError):
            raise
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {one_line(str(error))}") from None


Place = Path | Address
"""Where a record lies or is going to."""


def place_of(text: str) -> Place:
    """The folder or file that a person named, or the address where it has `scheme://`.

    Raises:
        UsageError: no address that could be reached: an unknown scheme, one whose library is not installed,
            several in a chain, a password or a pattern in it, or nothing after the scheme.
    """
    scheme, divided, rest = text.partition("://")
    if not divided or not _ADDRESS.fullmatch(f"{scheme.replace('::', '')}://"):
        return Path(text)
    if "::" in text or _PATTERNS & set(text) or not rest.strip("/"):
        raise UsageError(
            f"Expected an address such as s3://bucket/audits/a, found another form of {scheme}://. "
            "Name one store and a folder on it, without any of * ? [ ]."
        )
    if urlsplit(text).password is not None:
        raise UsageError(
            f"Expected an address without a password, found one in {scheme}://, which the record would show. "
            "Use the configuration files or environment variables of the store."
        )
    known = _file_system(scheme)
    if scheme in _LOCAL:  # Relative to the current folder, which a worker may not share.
        return Address(url=f"{scheme}://{known._strip_protocol(text)}")
    return Address(url=text.rstrip("/"))


def only_local(path: Path | None) -> Path | None:
    """A path that is a path, for commands that write to folders alone.

    Raises:
        UsageError: it is an address.
    """
    if path is not None and _ADDRESS.match(str(path)):
        raise UsageError(
            f"Expected a folder or file, found the address {path}. `dpaudit run`, `trace`, `reproduce`, "
            "`gate`, `report`, `show`, `diff` and `export` take addresses; copy the folder for the others."
        )
    return path


def _small_enough(data: bytes) -> None:
    if len(data) > MOST_OF_AN_OBJECT:
        raise OSError(errno.EFBIG, f"{len(data):,} bytes, more than an address may hold; use a folder")


def _file_system(scheme: str) -> Any:
    """The class of fsspec, and with it the proof that its library is installed."""
    try:
        import fsspec
    except ImportError:
        raise UsageError(
            f"Expected fsspec for the address {scheme}://, found it not installed. "
            "Run: pip install 'dpaudit[remote]'"
        ) from None
    try:
        return fsspec.get_filesystem_class(scheme)
    except ValueError:
        raise UsageError(
            f"Expected a known kind of address, found {scheme!r}: "
            f"{nearest(scheme, fsspec.available_protocols())}"
        ) from None
    except ImportError as error:
        remedy = "Run: pip install 'dpaudit[s3]'" if scheme in _S3 else "Install it"
        raise UsageError(
            f"Expected the library for {scheme}://, found: {one_line(str(error)).rstrip('.')}. {remedy}."
        ) from None
