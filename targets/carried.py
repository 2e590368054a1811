"""Records of one batch that reach the gradients of the next, or a buffer of the model, without noise.

Of two private steps that are taken down one after the other, the first is executed again with other records
in its batch, and what followed it until the next batch. What the second one finds of it is then put in its
place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from dpaudit.evidence import Finding
from dpaudit.targets import movement
from dpaudit.targets.tape import Contents, Playing, Tape, place, seen

_LOOKS = 2
_ROUNDING = 1e-3


@dataclass(slots=True, kw_only=True)
class Recorded:
    """A private step that was taken down.

    Attributes:
        tape: operations between the loader and the step.
        parameters: as they are before the step.
        handed: what the private loader handed out, with a row for each record.
        formed: gradients of single records.
        own: rows of these that are not of planted records.
    """

    tape: Tape
    parameters: Sequence[nn.Parameter]
    handed: Sequence[torch.Tensor]
    formed: Sequence[torch.Tensor]
    own: torch.Tensor


@dataclass(slots=True, kw_only=True)
class _Earlier:
    """A step that was made, and what ran after it.

    Attributes:
        step: as it was taken down.
        weights: from before the step.
        tail: operations after the step; None until it was made.
        buffers: of private models, as they were left.
    """

    step: Recorded
    weights: Contents
    tail: Tape | None = None
    buffers: dict[str, torch.Tensor] = field(default_factory=dict)


class Carried:
    """What was seen of pairs of steps.

    Attributes:
        models: private ones, as the user made them, whose buffers are released with them.
        pairs: how many pairs of steps were looked at.
    """

    def __init__(self) -> None:
        self.models: list[Any] = []
        self.pairs = 0
        self._last: _Earlier | None = None
        self._moved: list[float] = []
        self._kept: dict[str, list[float]] = {}

    def keep(self, step: Recorded | None) -> None:
        """Keep a step that is about to be made, if the next one is taken down as well."""
        self._last = None
        if step is not None and step.handed and step.formed and not step.tape.overflowed:
            kept = {place(p): p.detach().untyped_storage() for p in step.parameters}
            weights = {at: storage.clone() for at, storage in kept.items()}  # type: ignore[no-untyped-call]
            self._last = _Earlier(step=step, weights=weights)

    def follow(self) -> Tape | None:
        """The step was made: takes down what runs until the next batch, if that is of interest."""
        if self._last is None or self._last.tail is not None:
            return None
        self._last.tail = Tape()
        return self._last.tail

    def followed(self) -> None:
        """The next batch is about to be handed out."""
        last = self._last
        if last is None or last.tail is None or last.tail.overflowed:
            self._last = None
        else:
            last.buffers = dict(self._buffers())

    def _buffers(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Of private models, but for counters and what is not saved with them."""
        for model in (each for each in self.models if isinstance(each, nn.Module)):
            for prefix, part in model.named_modules():
                for name, buffer in part._buffers.items():
                    saved = buffer is not None and name not in part._non_persistent_buffers_set
                    if saved and (buffer.dim() or buffer.is_floating_point()):
                        yield f"{prefix}.{name}".removeprefix("."), buffer

    def look(self, step: Recorded) -> None:
        """Hold a step that is about to be made against the one before it."""
        last, self._last = self._last, None
        if last is None or last.tail is None or step.tape.overflowed:
            return
        self.pairs += 1
        try:
            reached = _reached(last, step)
            carried = _carried(reached, step)
            last.buffers = {name: b for name, b in last.buffers.items() if place(b) in reached}
            wanted = [*last.buffers.values(), *carried]
            if not wanted:
                return
            same = _played(last, [], step.tape.before)
            other = _with_others(last, step.tape.before, wanted)
            self._look_at_buffers(last, step, same, other)
            distance = _distance(last, step, [t for t in carried if _changed(t, step, same, other)], other)
        except Exception:
            return  # What cannot be executed again shows nothing, and training goes on.
        if distance:
            self._moved.append(distance)

    def _look_at_buffers(self, last: _Earlier, step: Recorded, same: Playing, other: Playing) -> None:
        for name, buffer in last.buffers.items():
            if _changed(buffer, step, same, other):
                before, after = (_value(playing.of(buffer)) for playing in (same, other))
                share = float((after - before).norm() / (before.norm() if before.any() else after.norm()))
                if share > _tolerance(last, step):
                    self._kept.setdefault(name, []).append(share)

    def findings(self) -> Iterator[Finding]:
        """What was seen at two pairs of steps."""
        if len(self._moved) >= _LOOKS:
            yield Finding(
                check="no record outside of its batch",
                where="what a step finds of the batch before it",
                expected="gradients that records of earlier batches reach through noisy releases only",
                measured=f"a gradient that moves by {max(self._moved):.2g} of the largest norm when the "
                "records of the batch before are others",
                epsilon=None,
                remedy="Keep no statistics, queues or prototypes of records, detached or not: add accounted "
                "noise to them, or use group or layer normalisation.",
            )
        for name, shares in self._kept.items():
            if len(shares) >= _LOOKS:
                yield Finding(
                    check="no records in buffers",
                    where=f"buffer {name}",
                    expected="buffers of the released model that records reach through noisy releases only",
                    measured=f"one that moves by {max(shares):.2g} of its norm when the records of one batch "
                    "are others",
                    epsilon=None,
                    remedy="Keep it outside of the model and release it not, or add accounted noise to it.",
                )


def _reached(last: _Earlier, step: Recorded) -> set[int]:
    """Where values lie that the records of an earlier step lead to without noise.

    Numbers that numpy made and that the next step does not use again may be noise, too.
    """
    tapes, weights = [last.step.tape, last.tail or Tape()], set(last.weights)
    own = {place(t) for t in (*last.step.handed, *step.tape.outside())}
    noisy = {place(t) for tape in tapes for t in tape.outside() if _of_numpy(t)} - own
    reached = {place(t) for t in last.step.handed}
    for tape in tapes:
        reached = tape.reached(reached - weights, noisy) - weights
    return reached


def _of_numpy(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and not tensor.untyped_storage().resizable()


def _carried(reached: set[int], step: Recorded) -> list[torch.Tensor]:
    """What a step finds of the records of the one before it, if that leads to its gradients."""
    own = {place(t) for t in step.handed} | {place(p) for p in step.parameters}
    found = [t for t in step.tape.outside() if place(t) in reached - own]
    leads = step.tape.reached({place(t) for t in found}) if found else set()
    return [] if leads.isdisjoint(place(each) for each in step.formed) else found


def _played(last: _Earlier, changed: Sequence[tuple[torch.Tensor, torch.Tensor]], later: Contents) -> Playing:
    """An earlier step and what followed it, executed again."""
    tail = last.tail or Tape()
    playing = Playing(changed, [last.step.tape.before, last.weights, tail.before, later])
    last.step.tape.play(playing)
    # The step itself is not executed again: what it released is as it was.
    playing.forget(set(last.weights))
    playing.before = [tail.before, later]
    tail.play(playing)
    return playing


def _with_others(last: _Earlier, later: Contents, wanted: Sequence[torch.Tensor]) -> Playing:
    """An earlier step as it would have been with other records in its batch.

    Copies of one record stand in the place of all, or of a few where code needs more than one; labels may
    decide the shapes of what follows and stay in that case.
    """
    handed, rows = last.step.handed, len(last.step.handed[0])
    norms = movement.fingerprint(last.step.formed)[last.step.own].norm(dim=1)
    copied = torch.full((rows,), int(last.step.own[norms.argmax()]) % rows)
    few = (torch.arange(rows) + 1) % max(2, rows // 4)
    features = [t for t in handed if t.is_floating_point()]
    for tensors, index in ((handed, copied), (features, copied), (handed, few), (features, few)):
        changed = [(t, t.detach()[index.to(t.device)]) for t in tensors]
        try:
            playing = _played(last, changed, later)
        except Exception:
            continue  # The next ones may be more like what the code is used to.
        if changed and all(bool(torch.isfinite(_value(playing.of(t))).all()) for t in wanted):
            return playing
    raise ValueError("nothing else can be put in the place of this batch")


def _changed(tensor: torch.Tensor, step: Recorded, same: Playing, other: Playing) -> bool:
    """Whether the records of the step before decide what a tensor was when this step began.

    Not if what was executed again with the same records is something else: then it was written to otherwise.
    """
    at = place(tensor)
    stood = seen(tensor, step.tape.before[at]) if at in step.tape.before else tensor
    again, others = _value(same.of(tensor)), _value(other.of(tensor))
    return _alike(again, _value(stood)) and not _alike(others, again)


def _distance(last: _Earlier, step: Recorded, carried: Sequence[torch.Tensor], other: Playing) -> float:
    """How far the gradient of a record moves with what an earlier step left; 0 if by rounding alone."""
    if not carried or any(len(each) != len(step.handed[0]) for each in step.formed):
        return 0.0
    again = Playing([], [step.tape.before])
    step.tape.play(again)
    storages = {place(t): other.storages[place(t)] for t in carried if place(t) in other.storages}
    moved = Playing([], [step.tape.before], storages)
    step.tape.play(moved)
    before = movement.fingerprint(step.formed)
    same, after = (movement.fingerprint([playing.of(t) for t in step.formed]) for playing in (again, moved))
    if not _alike(same, before) or not bool(torch.isfinite(after).all()):
        return 0.0
    far = (after - before).norm(dim=1) / before.norm(dim=1).max()
    known = _known(last.step.handed, step.handed)
    far = far[[i for i in step.own.tolist() if i not in known]]
    return float(far.max()) if bool((far > _tolerance(last, step)).any()) else 0.0


def _known(before: Sequence[torch.Tensor], now: Sequence[torch.Tensor]) -> set[int]:
    """Rows of records that were in the batch before as well: what is kept of each is its own affair."""
    found: set[int] = set()
    for one, two in zip(before, now, strict=False):
        earlier, later = set(_rows(one)), _rows(two)
        if len(set(later)) == len(later):  # Labels tell no records apart.
            found |= {i for i, row in enumerate(later) if row in earlier}
    return found


def _rows(tensor: torch.Tensor) -> list[bytes]:
    return [row.tobytes() for row in _value(tensor).numpy()] if tensor.dim() else []


def _value(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().double().cpu()


def _alike(one: torch.Tensor, two: torch.Tensor) -> bool:
    return one.shape == two.shape and bool(torch.allclose(one, two, rtol=1e-4, atol=1e-7))


def _tolerance(last: _Earlier, step: Recorded) -> float:
    tails = last.tail.coarsest if last.tail else 0.0
    return max(_ROUNDING, 16 * max(last.step.tape.coarsest, tails, step.tape.coarsest))
