"""`dpaudit.store`: a result is there whole or not at all, and a damaged file costs its trial alone."""

import errno
import io
import json
import os
import stat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpaudit.claim import Claim, Phase
from dpaudit.evidence import Access, KnownNull
from dpaudit.store import FORMAT, Store, StoreError, code_sha256, write_atomic

FACTS = {
    "claim": Claim(
        epsilon=3.0,
        delta=1e-5,
        ledger=(Phase(noise_multiplier=1.0, sample_rate=0.1, steps=3),),
        dataset_size=7,
    ),
    "scores": np.linspace(0.0, 1.0, 40).reshape(10, 4),
    "train_accuracy": float("nan"),
    "evidence": (
        KnownNull(p_values=np.array([0.1, 0.2]), n_references=9, unit="step", source="s", access=Access.STEP),
    ),
}


def test_what_was_saved_is_loaded(tmp_path):
    store = Store(tmp_path)
    store.save("key", FACTS)
    loaded = store.load("key")
    assert loaded.keys() == FACTS.keys()
    assert loaded["claim"] == FACTS["claim"]
    assert np.array_equal(loaded["scores"], FACTS["scores"])
    assert np.isnan(loaded["train_accuracy"])
    assert np.array_equal(loaded["evidence"][0].p_values, [0.1, 0.2])


def test_a_trial_that_never_ran_is_none(tmp_path):
    assert Store(tmp_path).load("key") is None


@settings(max_examples=300, deadline=None)
@given(place=st.floats(0.0, 1.0, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_never_raises_and_never_changes_the_result(tmp_path_factory, place, bit):
    store = Store(tmp_path_factory.mktemp("flip"))
    store.save("key", FACTS)
    data = bytearray(store.path("key").read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    store.path("key").write_bytes(data)
    loaded = store.load("key")
    if loaded is None:
        assert not store.path("key").exists()
        assert store.path("key").with_suffix(".damaged").read_bytes() == data
    else:  # a bit of the archive that nobody reads, such as a date
        assert loaded["claim"] == FACTS["claim"]
        assert np.array_equal(loaded["scores"], FACTS["scores"])


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_cut_file_is_set_aside_so_that_the_trial_runs_again(tmp_path, keep):
    store = Store(tmp_path)
    store.save("key", FACTS)
    path = store.path("key")
    path.write_bytes(path.read_bytes()[:keep])
    assert store.load("key") is None
    assert not path.exists()
    assert path.with_suffix(".damaged").exists()
    store.save("key", FACTS)
    assert store.load("key") is not None


def planted(store, document, **arrays):
    text = np.frombuffer(
        document if isinstance(document, bytes) else json.dumps(document).encode(), dtype=np.uint8
    )
    buffer = io.BytesIO()
    np.savez(buffer, document=text, **arrays)
    write_atomic(store.path("key"), buffer.getvalue())


@pytest.mark.parametrize(
    "document",
    [
        b"not json",
        b"[]",
        b"[" * 100_000,
        {"format": FORMAT},
        {"format": FORMAT, "facts": 3},
        {"format": FORMAT, "facts": {"a": {"noun": "os.system", "fields": {}}}},
        {"format": FORMAT, "facts": {"a": {"array": "missing"}}},
        {"format": FORMAT, "facts": {"a": {"noun": "Claim", "fields": {"epsilon": -1.0, "delta": 0.0}}}},
        {"format": FORMAT, "facts": {"a": {"noun": "Claim", "fields": {"eps": 1.0}}}},
    ],
)
def test_a_file_that_is_no_result_is_set_aside(tmp_path, document):
    store = Store(tmp_path)
    planted(store, document)
    assert store.load("key") is None
    assert store.path("key").with_suffix(".damaged").exists()


def test_a_result_of_another_format_is_left_where_it_is(tmp_path):
    store = Store(tmp_path)
    planted(store, {"format": FORMAT + 1, "facts": {}})
    assert store.load("key") is None
    assert store.path("key").exists()


class _Bomb:
    """Unpickling this would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_in_a_result_is_unpickled(tmp_path):
    store, mark = Store(tmp_path), tmp_path / "executed"
    planted(
        store,
        {"format": FORMAT, "facts": {"a": {"array": "bomb"}}},
        bomb=np.array([_Bomb(mark)], dtype=object),
    )
    assert store.load("key") is None
    assert not mark.exists()


def test_objects_are_never_written_either(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle=False"):
        Store(tmp_path).save("key", {"scores": np.array([object()])})
    assert not (tmp_path / "trials").exists()


def full_disk(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_line_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(StoreError) as caught:
        Store(tmp_path).save("key", FACTS)
    message = str(caught.value)
    assert "\n" not in message
    assert "No space left on device. Free some space and run the same command again" in message
    assert caught.value.exit_code == 4


def test_a_write_that_fails_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(StoreError):
        write_atomic(tmp_path / "record.json", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, "replace", lambda source, target: full_disk(0))
    with pytest.raises(StoreError):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_while_writing_leaves_no_part_of_a_file_either(tmp_path, monkeypatch):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "record.json", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Choose another folder with --out"):
        write_atomic(tmp_path / "file" / "record.json", b"new")


@pytest.mark.skipif(os.name != "posix", reason="file modes of POSIX")
def test_a_written_file_has_the_mode_that_any_new_file_has(tmp_path):
    write_atomic(tmp_path / "ours", b"")
    (tmp_path / "theirs").touch()
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "theirs").stat().st_mode
    )


def test_the_hash_of_the_code_follows_the_users_own_files(tmp_path):
    own = tmp_path / "own.py"
    own.write_text("a = 1")
    first = code_sha256([own])
    assert first == code_sha256([own])
    own.write_text("a = 2")
    assert len({first, code_sha256([own]), code_sha256()}) == 3


def test_the_result_of_another_trial_is_set_aside(tmp_path):
    store = Store(tmp_path)
    store.save("one", FACTS)
    store.path("one").rename(store.path("two"))
    assert store.load("two") is None
    assert store.path("two").with_suffix(".damaged").exists()


def test_a_damaged_file_in_a_folder_that_cannot_be_written_is_no_result_either(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.path("key").parent.mkdir()
    store.path("key").write_bytes(b"damaged")

    def refuse(self, target):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    assert store.load("key") is None
