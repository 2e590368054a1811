"""Records that reach each other anywhere between loader and gradients, by the operations that ran there.

At a few steps these are taken down (`dpaudit.targets.tape`) and executed again with every record of the batch
but one replaced by another one of the batch: no gradient of the one that stayed may change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from dpaudit.check import BoolArray
from dpaudit.evidence import Finding, Note
from dpaudit.targets import movement, scaling
from dpaudit.targets.carried import Carried, Recorded
from dpaudit.targets.forward import Untestable
from dpaudit.targets.tape import Tape
from dpaudit.targets.unhanded import Unhanded

_LOOKS = 2
_MOST = 6
_PAIRS = 8
_ROUNDING = 1e-3


class Mixing:
    """What was seen of the batches of one run."""

    def __init__(self) -> None:
        self.tape = Tape()
        self.carried = Carried()
        self.unhanded = Unhanded()
        self.looked = 0
        self.untestable = ""
        self._entered = self._following = False
        self._steps = 0
        self._handed: Sequence[torch.Tensor] = ()
        self._own = torch.zeros(0, dtype=torch.long)
        self._counted: list[tuple[int, int]] = []
        self._moved: list[float] = []
        self._scaled: list[float] = []
        self._sums_moved: list[tuple[float, int]] = []

    def begin(self, rows: int, handed: Sequence[torch.Tensor] = ()) -> None:
        """A private loader is about to hand out a batch: so many records, and what it holds of them."""
        self._followed()
        self._handed = [t for t in handed if t.dim() and len(t) == rows]
        self.unhanded.handed(self._handed)
        if self._entered:
            self.tape.clear()
        elif self._due() and rows > 1 and _get_current_dispatch_mode() is None:
            self.tape.clear()
            self.tape.__enter__()  # type: ignore[no-untyped-call]
            self._entered = True

    def _due(self) -> bool:
        """Whether to take down the step to come: 0, 1, 2, 4, ..., and those after, for what they left."""
        return self._tests() or (self._steps - 1) & (self._steps - 2) == 0

    def _tests(self) -> bool:
        early = self._steps < _PAIRS and self.carried.pairs < _LOOKS
        return early or self._steps & (self._steps - 1) == 0

    def made(self) -> None:
        """A private step was made: what runs until the next batch may keep something of this one."""
        if self._entered or _get_current_dispatch_mode() is not None:
            return
        tail = self.carried.follow()
        if tail is not None:
            self.tape, self._following = tail, True
            self.tape.__enter__()  # type: ignore[no-untyped-call]

    def _followed(self) -> None:
        if not self._following:
            return
        tail, self.tape, self._following = self.tape, Tape(), False
        if _get_current_dispatch_mode() is tail:
            tail.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self.carried.followed()
        else:
            tail.paused = True
            self.carried.keep(None)

    def stop(self) -> bool:
        """Take nothing more down; whether something was."""
        self._followed()
        if not self._entered or _get_current_dispatch_mode() is not self.tape:
            return False
        self.tape.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self._entered = False
        return True

    def end(
        self,
        parameters: Sequence[torch.nn.Parameter],
        handed: Sequence[torch.Tensor],
        rows: int | None,
        clip: float | None = None,
        *,
        left_out: BoolArray | None = None,
        dataset: Any = None,
    ) -> None:
        """A private step is about to be made on what the loader handed out, of so many records of a data set.

        With `clip`, the norm of whole gradients, what one record does to the sum of clipped ones is measured.
        Rows of `left_out` have no gradients because the audit took their losses away.
        """
        due, tests = self.stop() and rows is not None and rows > 1, self._tests()
        self._steps += 1
        if not due or rows is None:
            self.carried.keep(None)
            return
        try:
            own = [t for t in handed if t.dim() and len(t) == rows]
            self._own = torch.arange(rows) if left_out is None else torch.as_tensor(~left_out).nonzero()[:, 0]
            if not len(self._own) or (left_out is not None and len(left_out) != rows):
                raise Untestable("planted records of another batch than the loader's")
            self._count(parameters, own, rows)
            if tests and self.looked < _MOST:
                self._test(parameters, own, rows, clip)
        except Exception as error:
            # What cannot be executed again shows nothing, and training goes on.
            self.untestable = str(error) if isinstance(error, Untestable) else type(error).__name__
        finally:
            self.unhanded.look(self.tape, parameters, dataset)
            self._carry(parameters)

    def _carry(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Hold a step against the one before it, and keep it for the next one."""
        handed, own = self._handed, self._own
        try:
            formed = [found for p in parameters if (found := movement.formed(p)) is not None]
            step = Recorded(tape=self.tape, parameters=parameters, handed=handed, formed=formed, own=own)
            complete = len(handed) and len(own) and all(len(t) >= len(own) for t in formed)
            if complete:
                self.carried.look(step)
            self.carried.keep(step if complete and self._due() else None)
        except Exception:
            self.carried.keep(None)  # What cannot be copied is not looked at, and training goes on.
        self.tape, self._handed = Tape(), ()

    def _count(
        self, parameters: Sequence[torch.nn.Parameter], handed: Sequence[torch.Tensor], rows: int
    ) -> None:
        """Where there are more gradients than records: how many are of records that the loader handed out."""
        parts = [getattr(p, "grad_sample", None) for p in parameters]
        passes = {len(part) if isinstance(part, list) else 0 for part in parts}
        if len(passes) != 1 or (number := passes.pop()) < 2:
            return
        total = of_batch = 0
        for j in range(number):
            formed = [part[j] for part in parts if isinstance(part, list)]
            before = movement.fingerprint(formed)
            after = movement.fingerprint(self._rows(handed, formed, torch.arange(rows).roll(1)))
            moved = (after - before).norm(dim=1) > _ROUNDING * before.norm(dim=1)
            total, of_batch = total + len(before), of_batch + int(moved.sum())
        self._counted.append((total, of_batch if of_batch > rows else rows))

    @property
    def other_rows(self) -> tuple[int, int] | None:
        """Gradients of a step, and how many are of its batch, where the others are of no record of it."""
        found = self._counted
        beside = len(found) >= _LOOKS and all(total > of_batch for total, of_batch in found)
        return found[0] if beside else None

    def _test(
        self,
        parameters: Sequence[torch.nn.Parameter],
        handed: Sequence[torch.Tensor],
        rows: int,
        clip: float | None,
    ) -> None:
        formed = [found for p in parameters if (found := movement.formed(p)) is not None]
        if not formed or not handed or any(len(each) != rows for each in formed):
            raise Untestable("no gradients with a row for each record of the loader's batch")
        before = movement.fingerprint(formed)[self._own]
        tolerance = max(_ROUNDING, 16 * self.tape.coarsest)
        same = self._played(handed, formed, torch.arange(rows))
        if not bool(torch.isfinite(before).all()) or not torch.allclose(same, before, rtol=1e-4, atol=1e-7):
            raise Untestable("the operations between loader and step give something else when executed again")
        distance, together = self._among_copies(handed, formed, before, tolerance)
        if distance <= tolerance:
            return
        half, stay = torch.arange(rows), max(2, len(self._own) // 2)
        half[self._own[stay:]] = self._own[0]
        factor = movement.common_factor(before, self._played(handed, formed, half), stay, tolerance)
        if factor is not None and abs(factor - 1) <= tolerance and together:
            return  # One factor of all gradients, which does not happen to differ for half of the batch.
        if factor is None or abs(factor - 1) <= tolerance or self._wakes(handed, formed, before):
            self._moved.append(distance)
        else:
            self._scaled.append(abs(factor - 1))
            # A divisor that code read out of a tensor would not be that of another batch.
            if clip and not self._sums_moved and not self.tape.read and len(formed) == len(parameters):
                self._measure(handed, formed, rows, clip)

    def _among_copies(
        self,
        handed: Sequence[torch.Tensor],
        formed: Sequence[torch.Tensor],
        before: torch.Tensor,
        tolerance: float,
    ) -> tuple[float, bool]:
        """How far a gradient moves where one record stayed among copies of another; 0 if it need not tell.

        And whether that one and the one that was copied have moved by one factor.
        """
        by_place, rows = self.tape.drew(len(formed[0])), len(formed[0])
        pairs = movement.pairs(before)
        if self.looked >= _LOOKS:
            pairs = [pairs[self.looked % len(pairs)]]  # What happens at every batch was seen by now.
        for i, (kept, copied) in enumerate(pairs):
            index = torch.full((rows,), int(self._own[copied]))
            index[self._own[kept]] = self._own[kept]
            handed, after = self._as_far_as_possible(handed, formed, index)
            self.looked += not i
            distance = movement.moved(before, after)
            lost = movement.copies_differ(after, tolerance) or movement.gone(before, after, kept)
            if movement.vanished(before, after, kept) or (not by_place and lost):
                distance = 1.0
            if distance > tolerance and not (by_place and movement.survives(before, after, tolerance)):
                both = torch.tensor([kept, copied])
                return distance, movement.common_factor(before[both], after[both], 2, tolerance) is not None
        return 0.0, False

    def _wakes(
        self, handed: Sequence[torch.Tensor], formed: Sequence[torch.Tensor], before: torch.Tensor
    ) -> bool:
        """Whether a record without a gradient has one among copies of itself: no divisor does that."""
        norms = before.norm(dim=1)
        asleep, largest = int(norms.argmin()), float(norms.max())
        if float(norms[asleep]) > movement.ZERO * largest:
            return False
        after = self._played(handed, formed, torch.full((len(formed[0]),), int(self._own[asleep])))
        return float(after[asleep].norm()) > movement.SMALL * largest

    def _measure(
        self, handed: Sequence[torch.Tensor], formed: Sequence[torch.Tensor], rows: int, clip: float
    ) -> None:
        """How far one record moves the sum of clipped gradients that the batch scales."""
        labels = (t for t in handed if t.dim() == 1 and not t.is_floating_point())
        norms = torch.stack([each.detach().flatten(1).double().norm(dim=1) for each in formed]).norm(dim=0)
        of = scaling.candidates(norms.cpu(), next((t.cpu() for t in labels), None), clip)
        moved = scaling.movement(lambda index: self._rows(handed, formed, index), of, rows, clip)
        slack = max(_ROUNDING, 16 * self.tape.coarsest)
        if moved is not None and moved > 2 * (1 + slack):
            self._sums_moved.append((moved, rows))

    def _as_far_as_possible(
        self, handed: Sequence[torch.Tensor], formed: Sequence[torch.Tensor], index: torch.Tensor
    ) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        """What could be changed, and the gradients: labels may decide the shapes of what follows."""
        try:
            return handed, self._played(handed, formed, index)
        except (RuntimeError, IndexError):
            features = [tensor for tensor in handed if tensor.is_floating_point()]
            return features, self._played(features, formed, index)

    def _played(
        self, handed: Sequence[torch.Tensor], formed: Sequence[torch.Tensor], index: torch.Tensor
    ) -> torch.Tensor:
        """Fingerprints of the gradients had the batch been these records of it; of the own ones."""
        return movement.fingerprint(self._rows(handed, formed, index))[self._own]

    def _rows(
        self, handed: Sequence[torch.Tensor], formed: Sequence[torch.Tensor], index: torch.Tensor
    ) -> list[torch.Tensor]:
        """The gradients had the batch been these records of it."""
        changed = [(tensor, tensor.detach()[index.to(tensor.device)]) for tensor in handed]
        played = self.tape.played(changed, formed)
        if played is None or any(one.shape != two.shape for one, two in zip(played, formed, strict=True)):
            raise Untestable("gradients that were not formed between loader and step")
        return played

    def findings(self) -> Iterator[Finding]:
        """What was seen at two steps."""
        if len(self._moved) >= _LOOKS:
            yield Finding(
                check="one record, one gradient",
                where="between the loader and the gradients",
                expected="a gradient of each record that the other records of its batch do not change",
                measured=f"a gradient that moves by {self._moved[0]:.2g} of its norm when the others change",
                epsilon=None,
                remedy="Compute nothing over a batch: no mixed inputs or labels, no weights and no ranks.",
            )
        elif len(self._scaled) >= _LOOKS and self._sums_moved:
            yield scaling.finding(*max(self._sums_moved))

    def notes(self) -> Iterator[Note]:
        """Rows of other data, and a factor that all gradients have in common and the batch decides."""
        if self.other_rows is not None:
            total, own = self.other_rows
            yield Note(
                check="gradients of other data",
                where="per-record gradients",
                measured=f"{total - own} of {total} in a step do not depend on its batch",
                meaning="They are clipped and noised beside those of the batch. That costs nothing if their "
                "data is public; of other private data nothing is accounted.",
            )
        if len(self._scaled) >= _LOOKS and not [*self.findings()]:
            yield Note(
                check="loss divided by the batch",
                where="loss",
                measured=f"gradients of all records that change by {max(self._scaled):.1%} with the others",
                meaning="A mean over class weights or tokens divides by those of the batch. Sum, and divide "
                "by a constant: below the clipping norm a record scales the gradients of others.",
            )
