"""`dpaudit.address`: what is written there is whole or not there, and what cannot be reached is not lost."""

import errno
import os
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from fsspec.implementations.local import LocalFileOpener, LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry, register_implementation

from dpaudit import address, commitment, store
from dpaudit.address import Address, only_local, place_of
from dpaudit.documents import contents
from dpaudit.errors import UsageError
from dpaudit.record import RECORD_NAME, load
from dpaudit.store import Store, StoreError, write_atomic, write_first

FACTS = {"scores": np.linspace(0.0, 1.0, 40), "seconds": 1.5}


class Objects(MemoryFileSystem):
    """A store of objects, as far as it matters here: an object is put as a whole."""

    protocol = ("s3",)
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    puts: ClassVar[list] = []
    conditional = True

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("s3://").strip("/")

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        self.puts.append(path)
        super().pipe_file(path, value, mode=mode if self.conditional else "overwrite")

    def open(self, path, mode="rb", **kwargs):
        assert mode == "rb" or "data" in kwargs, "an object is not written bit by bit"
        return super().open(path, mode, **kwargs)


@pytest.fixture
def objects():
    Objects.store.clear()
    Objects.puts.clear()
    register_implementation("s3", Objects, clobber=True)
    yield Objects
    _registry.pop("s3")


@pytest.fixture(params=["folder", "file", "memory", "s3"])
def place(request, tmp_path, objects):
    """A folder, and addresses of three kinds."""
    own = uuid.uuid4().hex
    return {
        "folder": tmp_path / "a",
        "file": place_of(f"file://{tmp_path}/a"),
        "memory": place_of(f"memory://{own}/a/"),
        "s3": place_of(f"s3://bucket/{own}/a"),
    }[request.param]


@pytest.fixture(params=["file", "memory", "s3"])
def remote(request, tmp_path, objects):
    return place_of(
        {"file": f"file://{tmp_path}/a", "memory": f"memory://{uuid.uuid4().hex}/a", "s3": "s3://bucket/a"}[
            request.param
        ]
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_address_has_the_parts_of_a_path():
    file = Address(url="s3://bucket/audits") / "trials/ab.npz"
    path = Path("/bucket/audits/trials/ab.npz")
    assert str(file) == f"s3:/{path}" and str(file.parent) == f"s3:/{path.parent}"
    assert (file.name, file.stem, file.suffix) == (path.name, path.stem, path.suffix)
    assert str(file.with_suffix(".damaged")) == f"s3:/{path.with_suffix('.damaged')}"
    assert file.resolve() is file and file.scheme == "s3"


@pytest.mark.parametrize("text", ["audits/a", "/audits/a", "a:b", "./s3", "C:/audits", "s3:a"])
def test_what_has_no_scheme_is_a_path(text):
    assert place_of(text) == Path(text)


def test_a_relative_local_address_means_the_same_in_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place_of("file://a/b") == Address(url=f"file://{tmp_path}/a/b")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("memori://a", "did you mean 'memory'?"),
        ("memory://", "Expected an address such as s3://bucket/audits/a"),
        ("file://a*", "without any of"),
        ("simplecache::memory://a", "Name one store"),
        ("memory://a::file://b", "Name one store"),
        ("memory://me:secret@host/a", "Expected an address without a password"),
    ],
)
def test_a_wrong_address_is_one_line(text, words):
    with pytest.raises(UsageError, match=words.replace("?", r"\?")) as caught:
        place_of(text)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_a_library_that_is_missing_is_named(monkeypatch):
    for name in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r"Run: pip install 'dpaudit\[s3\]'"):
        place_of("s3://bucket/a")
    with pytest.raises(UsageError, match="gcsfs"):
        place_of("gs://bucket/a")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(UsageError, match=r"found it not installed\. Run: pip install 'dpaudit\[remote\]'"):
        place_of("memory://a")


def test_commands_for_folders_alone_refuse_addresses():
    assert only_local(Path("a/b")) == Path("a/b") and only_local(None) is None
    with pytest.raises(UsageError, match="found the address s3:/bucket/a"):
        only_local(Path("s3://bucket/a"))


def test_what_was_written_is_read_and_listed_and_written_over(place):
    file = place / "deep/er/record.json"
    assert not file.exists() and not place.is_dir()
    with pytest.raises(FileNotFoundError):
        contents(file)
    write_atomic(file, b"old")
    write_atomic(file, b"")
    write_atomic(file, b"new")
    assert contents(file) == b"new" and file.exists() and file.parent.is_dir() and not file.is_dir()
    assert names(place / "deep/er") == ["record.json"] and names(place) == ["deep"]
    with pytest.raises(ValueError, match="more than 2 bytes"):
        contents(file, 2)
    with pytest.raises(ValueError, match="a folder"):
        contents(place / "deep")


def test_a_store_of_objects_gets_each_file_in_one_put(objects):
    write_atomic(place_of("s3://bucket/a/record.json"), b"whole")
    assert objects.puts == ["/bucket/a/record.json"] and set(objects.store) == {"/bucket/a/record.json"}


def test_of_several_who_write_first_one_does_and_all_see_what_it_wrote(place):
    file, barrier, count = place / "trials/first", threading.Barrier(8), 8

    def attempt(number):
        barrier.wait(10)
        return write_first(file, b"%d" % number)

    with ThreadPoolExecutor(count) as pool:
        wrote = list(pool.map(attempt, range(count)))
    assert wrote.count(True) == 1
    assert contents(file) == b"%d" % wrote.index(True)
    assert names(place / "trials") == ["first"]


def test_a_shared_folder_without_links_has_a_first_one_too(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    assert [write_first(tmp_path / "a", data) for data in (b"1", b"2")] == [True, False]
    assert (tmp_path / "a").read_bytes() == b"1" and names(tmp_path) == ["a"]
    file = place_of(f"file://{tmp_path}/deep/b")
    assert [write_first(file, data) for data in (b"1", b"2")] == [True, False]
    assert contents(file) == b"1" and names(tmp_path / "deep") == ["b"]


def test_drivers_that_begin_at_once_have_one_salt_and_one_commitment(place):
    barrier = threading.Barrier(6)
    hashed = dict.fromkeys(("data", "draw", "plan", "code"), "ab" * 32)

    def begin(_):
        barrier.wait(10)
        salt = commitment.drawn_salt(place)
        made = commitment.commit(
            place, **hashed, policy="", seed=1, alpha=0.05, weights={"lira": 1.0}, trials=(salt,)
        )
        return salt, made.sha256()

    with ThreadPoolExecutor(6) as pool:
        found = set(pool.map(begin, range(6)))
    committed = commitment.read(place)
    assert found == {(commitment.salt_of(place), committed.sha256())}


def test_a_store_that_knows_no_first_one_is_read_again(objects, monkeypatch):
    monkeypatch.setattr(objects, "conditional", False)
    place = place_of("s3://bucket/a")
    read, seen = commitment._salt, []

    def late(folder):
        seen.append(folder)
        return None if len(seen) == 1 else read(folder)

    first = commitment.drawn_salt(place)
    monkeypatch.setattr(commitment, "_salt", late)  # As for a driver that looked before the first one wrote.
    second = commitment.drawn_salt(place)
    monkeypatch.undo()
    assert second == commitment.salt_of(place) != first


def test_a_damaged_salt_is_drawn_anew_and_one_that_cannot_be_read_is_not(place, monkeypatch):
    monkeypatch.setattr(commitment, "_BETWEEN", 0.0)
    write_atomic(place / commitment.SALT_NAME, b'{"salt": "ab')
    salt = commitment.drawn_salt(place)
    assert commitment.salt_of(place) == salt == commitment.drawn_salt(place)

    def broken(path, most=0):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(commitment, "contents", broken)
    with pytest.raises(StoreError, match=r"salt\.json, found: Input/output error\. See that"):
        commitment.drawn_salt(place)
    monkeypatch.undo()
    assert commitment.salt_of(place) == salt


def test_trials_are_saved_and_found(place):
    results = Store(place)
    assert results.load("key") is None
    results.save("key", FACTS)
    loaded = results.load("key")
    assert loaded["seconds"] == 1.5 and np.array_equal(loaded["scores"], FACTS["scores"])
    assert commitment.excluded(place, ()) == ("key",) and commitment.excluded(place, ("key",)) == ()


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_cut_object_is_set_aside_and_made_again(remote, keep):
    results = Store(remote)
    results.save("key", FACTS)
    cut = contents(results.path("key"))[:keep]
    write_atomic(results.path("key"), cut)
    assert results.load("key") is None
    assert names(remote / "trials") == ["key.damaged"]
    assert contents(remote / "trials/key.damaged") == cut
    results.save("key", FACTS)
    assert results.load("key") is not None


def test_an_object_beyond_the_limit_is_neither_written_nor_read(remote, monkeypatch):
    results = Store(remote)
    results.save("key", FACTS)
    for module in (address, store):
        monkeypatch.setattr(module, "MOST_OF_AN_OBJECT", 100)
    assert results.load("key") is None and names(remote / "trials") == ["key.damaged"]
    with pytest.raises(StoreError, match="more than an address may hold; use a folder"):
        results.save("key", FACTS)


@pytest.mark.parametrize("error", [OSError("timed out"), RuntimeError("no credentials")])
def test_a_trial_that_cannot_be_reached_is_not_set_aside(remote, monkeypatch, error):
    results = Store(remote)
    results.save("key", FACTS)

    def refuse(self, path, **kwargs):
        raise error

    with monkeypatch.context() as away:
        for kind in (LocalFileSystem, MemoryFileSystem):
            away.setattr(kind, "cat_file", refuse)
        with pytest.raises(StoreError, match=f"{error}. See that the address can be reached"):
            results.load("key")
        with pytest.raises(UsageError, match=f"{error}. See that the address can be reached"):
            load(results.path("key"))
    assert results.load("key") is not None


def test_a_store_that_goes_out_of_reach_is_one_line_whatever_is_asked(remote, monkeypatch):
    Store(remote).save("key", FACTS)

    def refuse(self, path, **options):
        raise RuntimeError("no route to host")

    for kind in (LocalFileSystem, MemoryFileSystem):
        for question in ("exists", "isdir", "ls"):
            monkeypatch.setattr(kind, question, refuse)
    for ask in (remote.exists, remote.is_dir, lambda: load(remote)):
        with pytest.raises(UsageError, match=f"Expected to reach {remote}, found: RuntimeError: no route"):
            ask()
    with pytest.raises(StoreError, match=f"Expected to read {remote}/trials, found: RuntimeError: no route"):
        commitment.excluded(remote, ())


def test_a_record_that_is_not_there_is_said(remote):
    with pytest.raises(UsageError, match=f"Expected a record at {remote}.*found nothing"):
        load(remote)
    write_atomic(remote / RECORD_NAME, b"no record")
    with pytest.raises(UsageError, match=r"record\.json to be a JSON record"):
        load(remote)


def half(error):
    def write(self, data, *rest):
        self.f.write(data[: len(data) // 2])
        raise error

    return write


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left"), RuntimeError("connection lost"), KeyboardInterrupt()]
)
@pytest.mark.parametrize("when", ["in mid-write", "before it is moved"])
def test_a_write_that_fails_leaves_nothing_that_counts_as_finished(tmp_path, monkeypatch, error, when):
    place = place_of(f"file://{tmp_path}/a")
    results = Store(place)
    results.save("whole", FACTS)

    def refuse(self, *arguments, **options):
        raise error

    if when == "in mid-write":
        monkeypatch.setattr(LocalFileOpener, "write", half(error))
    else:
        monkeypatch.setattr(LocalFileSystem, "mv", refuse)
    for key in ("new", "whole"):
        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else StoreError):
            results.save(key, FACTS)
    monkeypatch.undo()
    assert results.load("new") is None and results.load("whole") is not None
    assert names(place / "trials") == ["whole.npz"]


def test_a_put_that_fails_leaves_nothing_that_counts_as_finished(objects, monkeypatch):
    results = Store(place_of("s3://bucket/a"))
    results.save("whole", FACTS)

    def refuse(self, path, value, **options):
        raise RuntimeError("connection reset by peer")

    monkeypatch.setattr(objects, "pipe_file", refuse)
    with pytest.raises(StoreError, match=r"RuntimeError: connection reset by peer\. See that the address is"):
        results.save("new", FACTS)
    assert names(place_of("s3://bucket/a/trials")) == ["whole.npz"]


def test_many_writers_of_the_same_trials_damage_none(place):
    results = Store(place)
    keys = [f"{number:032x}" for number in range(6)]

    def work(_):
        for key in keys:
            results.save(key, FACTS)
            assert results.load(key) is not None

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert names(place / "trials") == [f"{key}.npz" for key in keys]
