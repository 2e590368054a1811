"""Records that reach each other anywhere between loader and gradients, by the operations that ran there.

At a few steps these are taken down (`dpaudit.targets.tape`) and executed again with every record of the batch
but one replaced by another one of the batch: no gradient of the one that stayed may change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from dpaudit.check import BoolArray
from dpaudit.evidence import Finding, Note
from dpaudit.targets import scaling
from dpaudit.targets.forward import Untestable
from dpaudit.targets.tape import Tape

_LOOKS = 2
_MOST = 6
_COORDINATES = 2048
_ROUNDING = 1e-3
_SMALL = 1e-2
_COMMON = 1e-2
_ZERO = 1e-6
_FEW = 4


class Mixing:
    """What was seen of the batches of one run."""

    def __init__(self) -> None:
        self.tape = Tape()
        self.looked = 0
        self.untestable = ""
        self._entered = False
        self._steps = 0
        self._own = torch.zeros(0, dtype=torch.long)
        self._counted: list[tuple[int, int]] = []
        self._moved: list[float] = []
        self._scaled: list[float] = []
        self._sums_moved: list[tuple[float, int]] = []

    def begin(self, rows: int) -> None:
        """A private loader is about to hand out a batch."""
        if self._entered:
            self.tape.clear()
        elif self._due() and rows > 1 and _get_current_dispatch_mode() is None:
            self.tape.clear()
            self.tape.__enter__()  # type: ignore[no-untyped-call]
            self._entered = True

    def _due(self) -> bool:
        return self._steps & (self._steps - 1) == 0 and self.looked < _MOST

    def stop(self) -> bool:
        """Take nothing more down; whether something was."""
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
    ) -> None:
        """A private step is about to be made on what the loader handed out, of so many records.

        With `clip`, the norm of whole gradients, what one record does to the sum of clipped ones is measured.
        Rows of `left_out` have no gradients because the audit took their losses away.
        """
        due = self.stop() and rows is not None and rows > 1
        self._steps += 1
        if not due or rows is None:
            return
        try:
            own = [t for t in handed if t.dim() and len(t) == rows]
            self._own = torch.arange(rows) if left_out is None else torch.as_tensor(~left_out).nonzero()[:, 0]
            if not len(self._own) or (left_out is not None and len(left_out) != rows):
                raise Untestable("planted records of another batch than the loader's")
            self._count(parameters, own, rows)
            self._test(parameters, own, rows, clip)
        except Exception as error:
            # What cannot be executed again shows nothing, and training goes on.
            self.untestable = str(error) if isinstance(error, Untestable) else type(error).__name__
        finally:
            self.tape.clear()

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
            before = _fingerprint(formed)
            after = _fingerprint(self._rows(handed, formed, torch.arange(rows).roll(1)))
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
        formed = [found for p in parameters if (found := _formed(p)) is not None]
        if not formed or not handed or any(len(each) != rows for each in formed):
            raise Untestable("no gradients with a row for each record of the loader's batch")
        before = _fingerprint(formed)[self._own]
        tolerance = max(_ROUNDING, 16 * self.tape.coarsest)
        same = self._played(handed, formed, torch.arange(rows))
        if not bool(torch.isfinite(before).all()) or not torch.allclose(same, before, rtol=1e-4, atol=1e-7):
            raise Untestable("the operations between loader and step give something else when executed again")
        distance, together = self._among_copies(handed, formed, before, tolerance)
        if distance <= tolerance:
            return
        half, stay = torch.arange(rows), max(2, len(self._own) // 2)
        half[self._own[stay:]] = self._own[0]
        factor = _common_factor(before, self._played(handed, formed, half), stay, tolerance)
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
        pairs = _pairs(before)
        if self.looked >= _LOOKS:
            pairs = [pairs[self.looked % len(pairs)]]  # What happens at every batch was seen by now.
        for i, (kept, copied) in enumerate(pairs):
            index = torch.full((rows,), int(self._own[copied]))
            index[self._own[kept]] = self._own[kept]
            handed, after = self._as_far_as_possible(handed, formed, index)
            self.looked += not i
            distance = _moved(before, after)
            if _vanished(before, after, kept) or (
                not by_place and (_copies_differ(after, tolerance) or _gone(before, after, kept))
            ):
                distance = 1.0
            if distance > tolerance and not (by_place and _survives(before, after, tolerance)):
                both = torch.tensor([kept, copied])
                return distance, _common_factor(before[both], after[both], 2, tolerance) is not None
        return 0.0, False

    def _wakes(
        self, handed: Sequence[torch.Tensor], formed: Sequence[torch.Tensor], before: torch.Tensor
    ) -> bool:
        """Whether a record without a gradient has one among copies of itself: no divisor does that."""
        norms = before.norm(dim=1)
        asleep, largest = int(norms.argmin()), float(norms.max())
        if float(norms[asleep]) > _ZERO * largest:
            return False
        after = self._played(handed, formed, torch.full((len(formed[0]),), int(self._own[asleep])))
        return float(after[asleep].norm()) > _SMALL * largest

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
        return _fingerprint(self._rows(handed, formed, index))[self._own]

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


def _formed(parameter: torch.nn.Parameter) -> torch.Tensor | None:
    """What Opacus formed of single records: gradients, or their norms in ghost mode."""
    found = getattr(parameter, "grad_sample", None)
    found = found[-1] if isinstance(found, list) and found else found
    found = getattr(parameter, "_norm_sample", None) if found is None else found
    return found if isinstance(found, torch.Tensor) else None


def _fingerprint(formed: Sequence[torch.Tensor]) -> torch.Tensor:
    """(b, k) of each record's gradient; some coordinates of each parameter."""
    return torch.cat([t.detach().flatten(1)[:, :_COORDINATES].double().cpu() if t.dim() > 1
                      else t.detach()[:, None].double().cpu() for t in formed], dim=1)  # fmt: skip


def _pairs(before: torch.Tensor) -> list[tuple[int, int]]:
    """One record that stays and one that is copied: of the smallest and of the largest gradient first.

    What a rank decides is most likely to be decided otherwise for these. A threshold that the batch sets is
    below one in the middle among copies of a smaller gradient, and not among copies of a larger one. The ends
    of the batch are where code that sorts would put the one that stays.
    """
    norms = before.norm(dim=1)
    eligible = norms > _SMALL * norms.max()
    eligible[[0, -1]] &= len(norms) < _FEW
    order = norms.where(eligible, torch.inf).argsort()
    smallest, middle = int(order[0]), int(order[int(eligible.sum()) // 2])
    pairs = [(smallest, int(norms.argmax())), (middle, int(norms.argmax())), (middle, smallest)]
    return [(kept, copied) for kept, copied in dict.fromkeys(pairs) if kept != copied] or pairs[:1]


def _moved(before: torch.Tensor, after: torch.Tensor) -> float:
    """How far a gradient is from all that the batch had, over its norm; 0 where each is one of these.

    All records are of the batch, whatever the order in which code puts them.
    """
    norms = after.norm(dim=1)
    used = norms > _ZERO * before.norm(dim=1).max()
    nearest = torch.cdist(after[used], before).min(dim=1).values
    return float((nearest / norms[used]).max()) if bool(used.any()) else 0.0


def _vanished(before: torch.Tensor, after: torch.Tensor, kept: int) -> bool:
    """Whether the record that stayed has no gradient any more, though the copies beside it have one each."""
    norms, largest = after.norm(dim=1), before.norm(dim=1).max()
    others = torch.arange(len(after)) != kept
    own_place = 0 < kept < len(after) - 1 and bool((norms[others] > _SMALL * largest).all())
    return own_place and float(norms[kept]) <= _ZERO * largest < float(before[kept].norm())


def _gone(before: torch.Tensor, after: torch.Tensor, kept: int) -> bool:
    """Whether no record has a gradient any more, though the one that stayed had one."""
    largest = float(before.norm(dim=1).max())
    return float(before[kept].norm()) > _SMALL * largest and float(after.norm(dim=1).max()) <= _ZERO * largest


def _copies_differ(after: torch.Tensor, tolerance: float) -> bool:
    """Whether copies of one record have different gradients, where at most one row is of another record."""
    largest = after.norm(dim=1).max()
    alike = (torch.cdist(after[:_FEW], after) <= tolerance * largest).sum(dim=1)
    return int(alike.max()) < len(after) - 1


def _survives(before: torch.Tensor, after: torch.Tensor, tolerance: float) -> bool:
    """Whether any record's gradient is still there: what is drawn by place differs for a row that moved."""
    norms = before.norm(dim=1)
    nearest = torch.cdist(before, after).min(dim=1).values
    return bool((nearest <= tolerance * norms)[norms > 0].any())


def _common_factor(before: torch.Tensor, after: torch.Tensor, kept: int, tolerance: float) -> float | None:
    """By what the gradients of the records that stayed were multiplied, if by one factor all of them."""
    one, two = before[:kept], after[:kept]
    norms = one.norm(dim=1)
    used = norms > _SMALL * norms.max()
    woken = two[~used].norm(dim=1)
    one, two, norms = one[used], two[used], norms[used]
    factors = (one * two).sum(dim=1) / norms**2
    residual = (two - factors[:, None] * one).norm(dim=1) / norms
    alike = float((factors.max() - factors.min()) / factors.mean().abs())
    if bool((woken > 2 * _SMALL * norms.max() * factors.mean().abs()).any()):
        return None
    if bool((residual > tolerance).any()) or alike > max(_COMMON, tolerance) or float(factors.mean()) <= 0:
        return None
    return float(factors.mean())
