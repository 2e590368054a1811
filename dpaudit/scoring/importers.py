"""Arrays that other auditing tools work on, as rows of scores.

Layouts were read off the tools' own sources:

- `tf-privacy`: the fields of `AttackInputData` (tensorflow/privacy, `membership_inference_attack/
  data_structures.py`) that are set, saved with `numpy.savez`: `loss_train`, `loss_test`, or `logits_*` or
  `probs_*` (n, classes) with `labels_*` (n,).
- `jax-privacy`: the two arguments of `CanaryScoreAuditor` (google-deepmind/jax_privacy, `auditing.py`),
  `in_canary_scores` and `out_canary_scores`, by these names.
- `privacy-meter`: the folder of a run of ML Privacy Meter (privacytrustlab/ml_privacy_meter, `get_signals.py`
  and `models/utils.py`), `signals/*_signals.npy` (records, models) and `models/memberships.npy`
  (models, records); or a `report/exp/attack_result_<i>.npz` of it with `scores` and `memberships` (n,).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.special import logsumexp

from dpaudit.check import BoolArray, FloatArray
from dpaudit.errors import UsageError, nearest
from dpaudit.scoring.binary_columns import read_npz
from dpaudit.scoring.columns import Arrays, Labels, flags_of, labels_of, numbers_of
from dpaudit.scoring.scores import Design, Reading, Rows

_LEAST_PROBABILITY = 1e-30


def layout_of(arrays: Arrays) -> str | None:
    """The tool that these arrays are named after, if any."""
    marks = {
        "tf-privacy": {"loss_train", "logits_train", "probs_train", "loss_test", "logits_test", "probs_test"},
        "jax-privacy": {"in_canary_scores", "out_canary_scores"},
        "privacy-meter": {"memberships"},
    }
    return next((layout for layout, names in marks.items() if names & set(arrays)), None)


def rows_of(layout: str, arrays: Arrays, path: Path, reading: Reading) -> tuple[Rows, Reading]:
    """Rows of the arrays of one tool, and the reading with what the tool settles.

    Raises:
        UsageError: an array is missing or has the wrong shape.
    """
    return _READERS[layout](arrays, path, reading)


def _need(arrays: Arrays, name: str, path: Path) -> None:
    if name not in arrays:
        raise UsageError(f"Expected an array {name!r} in {path}, found none: {nearest(name, arrays)}")


def _both(inside: FloatArray, outside: FloatArray) -> Rows:
    member = np.zeros(inside.size + outside.size, dtype=np.bool_)
    member[: inside.size] = True
    return Rows(score=np.concatenate([inside, outside]), member=member)


def _flat(array: FloatArray, name: str, path: Path) -> FloatArray:
    if array.ndim != 1:
        raise UsageError(
            f"Expected {name} of {path} to have shape (n,), found {array.shape}. "
            "Save one value for each record."
        )
    return array


def _tf_privacy(arrays: Arrays, path: Path, reading: Reading) -> tuple[Rows, Reading]:
    """Minus the loss of each record of one model, from logits or probabilities where it is not there.

    The tool knows train and test records and no coins: their shares stand in for the inclusion probability.
    """
    losses = {}
    for part in ("train", "test"):
        losses[part] = _tf_loss(arrays, part, path)
    rows = _both(-losses["train"], -losses["test"])
    if reading.inclusion is None:
        share = losses["train"].size / max(rows.score.size, 1)
        reading = replace(reading, inclusion=min(max(share, 1e-9), 1 - 1e-9))
    # The loss is what the tool's threshold attack uses, so that its sign is known.
    return rows, replace(reading, higher_is_member=True)


def _tf_loss(arrays: Arrays, part: str, path: Path) -> FloatArray:
    if f"loss_{part}" in arrays:
        return _flat(numbers_of(arrays[f"loss_{part}"], f"loss_{part}", path), f"loss_{part}", path)
    name = next((n for n in (f"logits_{part}", f"probs_{part}") if n in arrays), None)
    if name is None:
        raise UsageError(
            f"Expected loss_{part}, logits_{part} or probs_{part} in {path}, found "
            f"{', '.join(sorted(arrays)[:10])}. Save the fields of AttackInputData that are set."
        )
    _need(arrays, f"labels_{part}", path)
    outputs = numbers_of(arrays[name], name, path)
    labels = _flat(numbers_of(arrays[f"labels_{part}"], f"labels_{part}", path), f"labels_{part}", path)
    if outputs.ndim != 2 or outputs.shape[0] != labels.size:
        raise UsageError(
            f"Expected {name} of {path} to have shape ({labels.size}, classes), found {outputs.shape}. "
            "Save one row for each label."
        )
    fits = (labels >= 0) & (labels < outputs.shape[1]) & (labels == np.floor(labels))
    if not fits.all():
        raise UsageError(
            f"Expected labels_{part} of {path} to be classes 0 to {outputs.shape[1] - 1}, "
            f"found {labels[~fits][0]:g}. Number the classes from 0."
        )
    if name.startswith("probs") and ((outputs < 0) | (outputs > 1)).any():
        raise UsageError(
            f"Expected {name} of {path} in [0, 1], found {outputs.min():g} to {outputs.max():g}. "
            f"Save them as logits_{part} if they are logits."
        )
    own = outputs[np.arange(labels.size), labels.astype(np.int64)]
    if name.startswith("probs"):
        return -np.log(np.maximum(own, _LEAST_PROBABILITY))
    result: FloatArray = logsumexp(outputs, axis=1) - own
    return result


def _jax_privacy(arrays: Arrays, path: Path, reading: Reading) -> tuple[Rows, Reading]:
    """Canary scores, higher for members by the tool's convention; of one run unless declared otherwise."""
    for name in ("in_canary_scores", "out_canary_scores"):
        _need(arrays, name, path)
    inside, outside = (
        _flat(numbers_of(arrays[name], name, path), name, path)
        for name in ("in_canary_scores", "out_canary_scores")
    )
    higher = True if reading.higher_is_member is None else reading.higher_is_member
    return _both(inside, outside), replace(reading, higher_is_member=higher)


def _attack_result(arrays: Arrays, path: Path, reading: Reading) -> tuple[Rows, Reading]:
    """One target model's scores after ML Privacy Meter's attack."""
    for name in ("scores", "memberships"):
        _need(arrays, name, path)
    if "average" in path.stem:
        raise UsageError(
            f"Expected the result of one target model, found {path.name}, which runs several together "
            "without saying which. Give attack_result_0.npz, or the folder of the run."
        )
    score = _flat(numbers_of(arrays["scores"], "scores", path), "scores", path)
    member = flags_of(arrays["memberships"], "memberships", path)
    if member.shape != score.shape:
        raise UsageError(
            f"Expected scores and memberships of one shape (n,) in {path}, found {score.shape} and "
            f"{member.shape}. Run the tool again."
        )
    return Rows(score=score, member=member), reading


_READERS: Mapping[str, Callable[[Arrays, Path, Reading], tuple[Rows, Reading]]] = {
    "tf-privacy": _tf_privacy,
    "jax-privacy": _jax_privacy,
    "privacy-meter": _attack_result,
}
LAYOUTS = tuple(_READERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterSignals:
    """What ML Privacy Meter keeps of a run.

    Attributes:
        signals: (records, models) outputs of the models for the records' own labels.
        memberships: (models, records) who was in which training set.
        files: that they were read from.
    """

    signals: FloatArray
    memberships: BoolArray
    files: tuple[Path, Path]


def privacy_meter_folder(folder: Path) -> MeterSignals:
    """Read the signals and memberships below the folder of a run (`log_dir`).

    Raises:
        UsageError: one of the two is not there, or more than one set of signals is.
    """
    found = sorted(p for p in (folder / "signals").glob("*_signals.npy") if "ramia" not in p.name)
    memberships = folder / "models" / "memberships.npy"
    if not found or not memberships.is_file():
        missing = "models/memberships.npy" if found else "signals/*_signals.npy"
        raise UsageError(
            f"Expected a folder that ML Privacy Meter wrote at {folder}, found no {missing}. "
            "Name a file of scores, or its log_dir."
        )
    if len(found) > 1:
        raise UsageError(
            f"Expected one set of signals in {folder / 'signals'}, found {', '.join(p.name for p in found)}. "
            "Move the others away, so that the choice is made before the result is seen."
        )
    arrays = [next(iter(read_npz(path).values())) for path in (found[0], memberships)]
    return MeterSignals(
        signals=numbers_of(arrays[0], "signals", found[0]),
        memberships=flags_of(arrays[1], "memberships", memberships),
        files=(found[0], memberships),
    )


def privacy_meter(read: MeterSignals, folder: Path, reading: Reading) -> tuple[Rows, Reading]:
    """One row for each model and record.

    The tool trains pairs of models on a half of the records and on the other half, which count as one draw
    (see `draws`). Signals above 1 are losses, lower for members.

    Raises:
        UsageError: shapes that do not belong together.
    """
    models_x_records = read.signals.T
    if read.signals.ndim != 2 or read.memberships.ndim != 2:
        raise UsageError(
            f"Expected signals and memberships of {folder} to be matrices, found shapes {read.signals.shape} "
            f"and {read.memberships.shape}. Run the tool again."
        )
    models, records = models_x_records.shape
    # Canary audits score the first records only (`run_audit_dp.py`), and single models may be left out.
    if read.memberships.shape[0] < models or read.memberships.shape[1] < records:
        raise UsageError(
            f"Expected memberships of at least shape ({models}, {records}) in {folder}, found "
            f"{read.memberships.shape}. The two files are of different runs."
        )
    member = read.memberships[:models, :records]
    higher = reading.higher_is_member
    if higher is None and read.signals.size and np.nanmax(read.signals) > 1:
        higher = False
    names, of_records = labels_of(np.arange(models)), labels_of(np.arange(records))
    rows = Rows(
        score=models_x_records.ravel(),
        member=member.ravel(),
        record=Labels(codes=np.tile(of_records.codes, models), names=of_records.names),
        model=Labels(codes=np.repeat(names.codes, records), names=names.names),
    )
    if models == 1 and reading.design is None:
        reading = replace(reading, design=Design.ONE_RUN)
    return rows, replace(reading, higher_is_member=higher)
