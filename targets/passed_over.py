"""Batches of a private loader that no noisy step was made on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from dpaudit.check import IntArray
from dpaudit.claim import Sampler
from dpaudit.evidence import Access, Finding, Note
from dpaudit.stats.selection import chosen_by
from dpaudit.targets.draws import Loaders
from dpaudit.targets.steps import Step
from dpaudit.targets.taken import Handed, Taken

_BY_CHANCE = 1e-5
_OUTRIGHT = 1e-6


class PassedOver:
    """Counts the batches that steps were made on, and those between them."""

    def __init__(self, loaders: Loaders, private: Callable[[Any], bool]):
        self._loaders = loaders
        self._private = private
        self._modules: list[nn.Module] = []
        self._last: Taken | None = None
        self._used: list[IntArray] = []
        self._over: list[IntArray] = []
        self._most = 1
        self._poisson = True
        self.used = self.over = 0
        loaders.training = self._training

    def made(self, module: nn.Module) -> None:
        """Know a private model: while none of them is in training mode, batches are for something else."""
        self._modules.append(module)

    def _training(self) -> bool:
        return torch.is_grad_enabled() and any(module.training for module in self._modules)

    def step_made(self, taken: Taken | None) -> None:
        """Count the batches of a step and those before it."""
        if taken is None or taken is self._last or not self._private(taken.root):
            return
        self._last = taken
        number = taken.used[-1].number
        over = [h for h in taken.left if h.trained and (h.number == number or self._ended(h))]
        self.used, self.over = self.used + len(taken.used), self.over + len(over)
        self._most = max(self._most, len(taken.used))
        self._poisson = self._poisson and taken.rule.sampler is Sampler.POISSON
        self._used += [handed.content for handed in taken.used]
        self._over += [handed.content for handed in over]

    def _ended(self, handed: Handed) -> bool:
        """Whether its pass was gone through to the end: what follows the last step before a break is none."""
        return handed.number in self._loaders.ended

    def _after(self) -> list[Handed]:
        """Batches of whole passes after the last step, if more than a sum of gradients may wait for."""
        after = [h for h in self._loaders.since if self._private(h.root) and h.trained and self._ended(h)]
        return after if self.used and len(after) >= self._most else []

    def findings(self, steps: Sequence[Step]) -> Iterator[Finding]:
        """Batches passed over for their size, or for how many records of a class they have."""
        found = [*_extremes(steps)] or [*self._chosen()]
        yield from found

    def _chosen(self) -> Iterator[Finding]:
        over = self._over + [handed.content for handed in self._after()]
        # Parts of batches are not alike, and batches of a shuffle depend on each other.
        if self._most > 1 or not self._poisson or not over:
            return
        width = max(len(content) for content in (*self._used, *over))
        features = np.array([np.pad(c, (0, width - len(c))) for c in (*self._used, *over)])
        used = np.arange(len(features)) < len(self._used)
        p, which = chosen_by(features, used)
        if p > _OUTRIGHT:
            return
        of = f"records of class {which - 1}" if which else "records"
        means = [float(features[part, which].mean()) for part in (used, ~used)]
        yield _control_flow(
            "one noisy step for each batch that was drawn, whatever is in it",
            f"{means[0]:.3g} {of} in the {used.sum()} batches used, {means[1]:.3g} in the {len(over)} passed "
            f"over (p = {p:.1g})",
            "Step on every batch of the private loader, or choose without looking at them.",
        )

    def notes(self) -> Iterator[Note]:
        """Nobody but the loop knows why."""
        over = self.over + len(self._after())
        if over:
            yield Note(
                check="batches passed over",
                where="training loop",
                measured=f"{over} of {self.used + over} batches were drawn and no step was made on them",
                meaning="If what is in them decides that, the guarantee does not hold.",
                source="ledger",
                access=Access.LEDGER,
            )


def _extremes(steps: Sequence[Step]) -> Iterator[Finding]:
    """Batches passed over for their size: by chance they would not be the smallest or largest of all."""
    used = [step.size for step in steps if step.poisson and step.size is not None]
    over = [size for step in steps if step.poisson for size in step.passed_over]
    if not used or not over:
        return
    extreme = max(over) < min(used) or min(over) > max(used)
    chance = 2 / math.comb(len(used) + len(over), len(over)) if extreme else 1.0
    if chance <= _BY_CHANCE:
        sizes = f"{min(over)}" if min(over) == max(over) else f"{min(over)} to {max(over)}"
        yield _control_flow(
            "one noisy step for each batch that was drawn, whatever its size",
            f"no step for {len(over)} batches of {sizes} records, and one for each of the "
            f"{len(used)} with {min(used)} to {max(used)} (p = {chance:.1g})",
            "Step on every batch of the private loader, empty and large ones included.",
        )


def _control_flow(expected: str, measured: str, remedy: str) -> Finding:
    return Finding(
        check="control flow",
        where="training loop",
        expected=expected,
        measured=measured,
        epsilon=None,
        remedy=remedy,
        source="ledger",
        access=Access.LEDGER,
    )
