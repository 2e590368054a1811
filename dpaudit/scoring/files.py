"""Files of scores: CSV, npz and Parquet in long or matrix form, and what other tools write."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from dpaudit.check import one_of
from dpaudit.errors import UsageError, nearest
from dpaudit.scoring import importers
from dpaudit.scoring.assemble import assemble
from dpaudit.scoring.binary_columns import read_npz, read_parquet
from dpaudit.scoring.columns import Arrays, Kind, Labels, Table, flags_of, labels_of, numbers_of, table_of
from dpaudit.scoring.csv_columns import read_csv
from dpaudit.scoring.scores import AS_FOUND, Design, Reading, Rows, Scores

LAYOUTS = ("auto", "long", "matrix", *importers.LAYOUTS)
_LONG = ("record_id", "is_member", "score")
_ONE_RUN = ("canary_id", "included", "score")
_KINDS: Mapping[str, Kind] = {
    "record_id": Kind.LABEL,
    "is_member": Kind.FLAG,
    "canary_id": Kind.LABEL,
    "included": Kind.FLAG,
    "score": Kind.NUMBER,
    "model_id": Kind.LABEL,
    "user_id": Kind.LABEL,
    "slice": Kind.LABEL,
    "inclusion_probability": Kind.NUMBER,
}
_CSV = (".csv", ".tsv", ".txt")
_PARQUET = (".parquet", ".pq")
_NUMPY = (".npz", ".npy")
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".ckpt", ".dill")


def read(path: Path, reading: Reading = AS_FOUND) -> Scores:
    """Read a file of scores and check everything that can be checked about it.

    Args:
        path: `.csv`, `.npz`, `.parquet`, or a folder that ML Privacy Meter wrote.
        reading: what the file does not say of itself.

    Raises:
        UsageError: the file, its columns or its scores are not what is expected; see `assemble`.
    """
    one_of("layout", reading.layout, LAYOUTS)
    if path.is_dir():
        signals = importers.privacy_meter_folder(path)
        rows, reading = importers.privacy_meter(signals, path, reading)
        return assemble(rows, reading, name=path.name, sha256=_sha256(*signals.files))
    rows, reading, ignored = _rows(path, reading)
    scores = assemble(rows, reading, name=path.name, sha256=_sha256(path))
    if ignored:
        notes = (*scores.notes, f"columns not used: {', '.join(ignored[:10])}")
        scores = replace(scores, notes=notes)
    return scores


def _sha256(*files: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _rows(path: Path, reading: Reading) -> tuple[Rows, Reading, tuple[str, ...]]:
    suffix = path.suffix.lower()
    if suffix in _CSV or suffix in _PARQUET:
        if reading.layout not in ("auto", "long"):
            raise UsageError(
                f"Expected an .npz file for the layout {reading.layout!r}, found {path.name}. "
                "Save the arrays with numpy.savez."
            )
        table = (read_csv if suffix in _CSV else read_parquet)(path, lambda names: _choose(names, path))
        return (*_long(table, reading, path), table.ignored)
    if suffix in _NUMPY:
        return _from_arrays(read_npz(path), path, reading)
    if suffix in _PICKLES:
        raise UsageError(
            f"Expected scores without code in them, found {path.name}, which would have to be unpickled. "
            "Save them as CSV, npz or Parquet."
        )
    raise UsageError(
        f"Expected a file ending in {', '.join((*_CSV, *_NUMPY, *_PARQUET))}, found {path.name!r}. "
        "Rename it by what it holds."
    )


def _choose(names: Sequence[str], path: Path) -> dict[str, Kind]:
    """The columns to read, of a header in long or one-run form."""
    wanted = _ONE_RUN if {"canary_id", "included"} & set(names) else _LONG
    missing = [name for name in wanted if name not in names]
    if missing:
        near = get_close_matches(missing[0], names, n=1, cutoff=0.5)
        remedy = f"rename {near[0]!r}" if near else f"found {', '.join(names[:10]) or 'no columns'}"
        raise UsageError(
            f"Expected columns {', '.join(_LONG)} or {', '.join(_ONE_RUN)} in {path}, found no "
            f"{missing[0]!r}: {remedy}."
        )
    both = [name for name in (*_LONG[:2], *_ONE_RUN[:2]) if name in names and name not in wanted]
    if both:
        raise UsageError(
            f"Expected either {_LONG[:2]} or {_ONE_RUN[:2]} in {path}, found {both[0]!r} beside "
            f"{wanted[0]!r}. Drop one of them."
        )
    optional = [name for name in _KINDS if name not in (*_LONG, *_ONE_RUN)]
    for name in names:
        # A misspelt model_id would turn several runs into one without a word.
        if name not in _KINDS and get_close_matches(name, optional, n=1, cutoff=0.75):
            raise UsageError(
                f"Expected a known column in {path}, found {name!r}: {nearest(name, optional)} "
                "Rename or drop it."
            )
    return {name: _KINDS[name] for name in (*wanted, *optional) if name in names}


def _long(table: Table, reading: Reading, path: Path) -> tuple[Rows, Reading]:
    one_run = "canary_id" in table.labels
    rows = Rows(
        score=table.numbers["score"],
        member=table.flags["included" if one_run else "is_member"],
        record=table.labels["canary_id" if one_run else "record_id"],
        model=table.labels.get("model_id"),
        user=table.labels.get("user_id"),
        slice=table.labels.get("slice"),
    )
    if one_run and reading.design is None and rows.model is None:
        reading = replace(reading, design=Design.ONE_RUN)
    given = table.numbers.get("inclusion_probability")
    if given is not None and reading.inclusion is None:
        low, high = float(given.min()), float(given.max())
        if not low == high:
            raise UsageError(
                f"Expected one inclusion_probability in {path}, found {low:g} to {high:g}. "
                "Audit the canaries of each probability on their own."
            )
        reading = replace(reading, inclusion=low)
    return rows, reading


def _from_arrays(arrays: Arrays, path: Path, reading: Reading) -> tuple[Rows, Reading, tuple[str, ...]]:
    layout = _layout(arrays) if reading.layout == "auto" else reading.layout
    if layout in importers.LAYOUTS:
        return (*importers.rows_of(layout, arrays, path, reading), ())
    if layout == "matrix":
        return _matrix(arrays, path), reading, ()
    for name in ("inclusion_probability",):
        if name in arrays and arrays[name].ndim == 0 and "score" in arrays:
            arrays[name] = np.broadcast_to(arrays[name], arrays["score"].shape)
    kinds = _choose(list(arrays), path)
    ignored = tuple(name for name in arrays if name not in kinds)
    return (*_long(table_of(arrays, kinds, path), reading, path), ignored)


def _layout(arrays: Arrays) -> str:
    """Which layout the names of the arrays belong to."""
    if "scores" in arrays and "member" in arrays:
        return "matrix"
    return importers.layout_of(arrays) or "long"


def _matrix(arrays: Arrays, path: Path) -> Rows:
    """Scores (m, r) of m models and r records, with who was in which."""
    for name in ("scores", "member"):
        if name not in arrays:
            raise UsageError(
                f"Expected arrays scores and member in {path}, found no {name!r}: {nearest(name, arrays)}"
            )
    shape = arrays["scores"].shape
    if len(shape) != 2 or arrays["member"].shape != shape:
        raise UsageError(
            f"Expected scores and member of one shape (models, records) in {path}, found {shape} and "
            f"{arrays['member'].shape}. Save both as matrices."
        )
    models, records = shape

    def spread(name: str, size: int, axis: int) -> Labels:
        array = arrays.get(name, np.arange(size))
        if array.shape != (size,):
            raise UsageError(
                f"Expected {name} of {path} to have shape ({size},), found {array.shape}. "
                f"Name each {'model' if axis == 0 else 'record'} once."
            )
        labels = labels_of(array)
        codes = np.repeat(labels.codes, records) if axis == 0 else np.tile(labels.codes, models)
        return replace(labels, codes=codes)

    return Rows(
        score=numbers_of(arrays["scores"], "scores", path).ravel(),
        member=flags_of(arrays["member"], "member", path).ravel(),
        record=spread("record_id", records, 1),
        model=spread("model_id", models, 0),
        user=spread("user_id", records, 1) if "user_id" in arrays else None,
        slice=spread("slice", records, 1) if "slice" in arrays else None,
    )
