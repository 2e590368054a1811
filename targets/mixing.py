"""Records that reach each other anywhere between loader and gradients, by the operations that ran there.

At a few steps these are taken down (`dpaudit.targets.tape`) and executed again with every record of the batch
but one replaced by another one of the batch: no gradient of the one that stayed may change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from dpaudit.evidence import Finding, Note
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
        self._counted: list[tuple[int, int]] = []
        self._moved: list[float] = []
        self._scaled: list[float] = []

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
        self, parameters: Sequence[torch.nn.Parameter], handed: Sequence[torch.Tensor], rows: int | None
    ) -> None:
        """A private step is about to be made on what the loader handed out, of so many records."""
        due = self.stop() and rows is not None and rows > 1
        self._steps += 1
        if not due or rows is None:
            return
        try:
            own = [t for t in handed if t.dim() and len(t) == rows]
            self._count(parameters, own, rows)
            self._test(parameters, own, rows)
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
            after = self._played(handed, formed, torch.arange(rows).roll(1))
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
        self, parameters: Sequence[torch.nn.Parameter], handed: Sequence[torch.Tensor], rows: int
    ) -> None:
        formed = [found for p in parameters if (found := _formed(p)) is not None]
        if not formed or not handed or any(len(each) != rows for each in formed):
            raise Untestable("no gradients with a row for each record of the loader's batch")
        before = _fingerprint(formed)
        tolerance = max(_ROUNDING, 16 * self.tape.coarsest)
        same = self._played(handed, formed, torch.arange(rows))
        if not bool(torch.isfinite(before).all()) or not torch.allclose(same, before, rtol=1e-4, atol=1e-7):
            raise Untestable("the operations between loader and step give something else when executed again")
        kept, copied = _pair(before)
        index = torch.full((rows,), copied)
        index[kept] = kept
        handed, after = self._as_far_as_possible(handed, formed, index)
        self.looked += 1
        by_place = self.tape.drew(rows)
        distance = _moved(before, after)
        if _vanished(before, after, kept) or (not by_place and _copies_differ(after, tolerance)):
            distance = 1.0
        if distance <= tolerance or (by_place and _survives(before, after, tolerance)):
            return
        half = torch.arange(rows)
        half[max(2, rows // 2) :] = 0
        factor = _common_factor(before, self._played(handed, formed, half), max(2, rows // 2), tolerance)
        if factor is None or abs(factor - 1) <= tolerance:
            self._moved.append(distance)
        else:
            self._scaled.append(abs(factor - 1))

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
        """The gradients had the batch been these records of it."""
        changed = [(tensor, tensor.detach()[index.to(tensor.device)]) for tensor in handed]
        played = self.tape.played(changed, formed)
        if played is None or any(one.shape != two.shape for one, two in zip(played, formed, strict=True)):
            raise Untestable("gradients that were not formed between loader and step")
        return _fingerprint(played)

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
        if len(self._scaled) >= _LOOKS and len(self._moved) < _LOOKS:
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


def _pair(before: torch.Tensor) -> tuple[int, int]:
    """One record that stays and one that is copied: of the smallest and of the largest gradient.

    What a rank or a threshold decides is most likely to be decided otherwise for these. The ends of the batch
    are where code that sorts would put the one that stays.
    """
    norms = before.norm(dim=1)
    eligible = norms > _SMALL * norms.max()
    eligible[[0, -1]] &= len(norms) < _FEW
    return int(norms.where(eligible, torch.inf).argmin()), int(norms.argmax())


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
    one, two, norms = one[used], two[used], norms[used]
    factors = (one * two).sum(dim=1) / norms**2
    residual = (two - factors[:, None] * one).norm(dim=1) / norms
    alike = float((factors.max() - factors.min()) / factors.mean().abs())
    if bool((residual > tolerance).any()) or alike > max(_COMMON, tolerance) or float(factors.mean()) <= 0:
        return None
    return float(factors.mean())
