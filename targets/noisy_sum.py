"""Whether what an optimizer releases is post-processing of the noisy sum, and then that sum in its place.

Sign, threshold, filter and shrinkage of what is noisy already cost no privacy, but neither sensitivity nor
noise can be measured behind them. Batches are executed whose noise is chosen so that their noisy sums are the
same. If what is released is the same, too, nothing of a batch goes past its noisy sum, where all is measured.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from opacus.optimizers import DPOptimizer

from dpaudit.protocols import Execution, RowArray
from dpaudit.targets.noise_tap import NoiseTap
from dpaudit.targets.rows import flatten

_EVERY = 8
_MOST, _FEWEST, _FLOATS = 32, 4, 2**24
_HUGE = 1e4
_COARSE = 1e-5
_ULPS = 4
_OF_THE_BATCH = ("grad_sample", "summed_grad")
Batch = Sequence[RowArray] | None


class Executes(Protocol):
    """`Executor.execute`."""

    def __call__(
        self, batch: Batch = None, *, after: Sequence[RowArray] | None = None, frozen: bool = False
    ) -> Execution:
        """Execute the step."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What one execution released, its noisy sum, and all that it left behind."""

    outer: RowArray
    inner: RowArray
    left: tuple[object, ...]


class NoisySum:
    """What is released of the steps of one optimizer."""

    def __init__(
        self,
        optimizer: DPOptimizer,
        parameters: Callable[[], Sequence[torch.nn.Parameter]],
        execute: Executes,
        *,
        clipped: bool,
    ):
        """Listen to an optimizer.

        Args:
            optimizer: makes the steps.
            parameters: of which it releases gradients, in order.
            execute: executes one of them.
            clipped: whether the optimizer is handed gradients that are clipped already.
        """
        self.compared = 0
        self.trusted = False
        self._optimizer = optimizer
        self._parameters = parameters
        self._execute = execute
        self._clipped = clipped
        self._tap = NoiseTap(optimizer, parameters)
        self._examining = False
        self._since = 0
        self._outer: RowArray | None = None
        self._left = ""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the noise of a step, if it matters."""
        if not self._examining:
            self._tap.heard.clear()
        self._since = len(self._tap.heard)
        if self._examining or self.trusted:
            with self._tap.on():
                yield
        else:
            yield

    def released(self, outer: RowArray) -> RowArray:
        """What attacks are told of a step that handed over `outer` (d,)."""
        if self._examining:
            # A memory of the batch may lie idle for steps before it is released: it must not be kept at all.
            self._outer, self._left = outer, _fingerprint(self._optimizer, self._parameters())
        inner = self._inner() if self.trusted and not self._examining else None
        return outer if inner is None else inner

    def look(self, index: int, parts: int, clip: float) -> None:
        """Examine a step that is about to be made: the first one, and some of those after it if need be.

        Args:
            index: of the step.
            parts: micro-batches of the step.
            clip: clipping norm.
        """
        later = index < _EVERY or index % _EVERY == 0
        if (index and not (self.trusted and later)) or not self._possible():
            return
        size = sum(p.numel() for p in self._parameters())
        batches = [_split(rows, parts) for rows in _batches(size, clip, self._clipped, index)]
        self._examining = True
        try:
            if index:
                other = batches[1 + index % (len(batches) - 1)]
                self.trusted = self._agree(batches[0], [other], [batches[0], other])
            else:
                self.trusted = self._differs(batches) and self._post_processes(batches)
        finally:
            self._examining = self._tap.exchanging = False
            self._tap.heard.clear()
            self._tap.targets = None

    def _possible(self) -> bool:
        """Not without noise, on coarse numbers, or where other machines would have to take part."""
        spread = torch.distributed.is_available() and torch.distributed.is_initialized()
        fine = all(torch.finfo(p.dtype).eps < _COARSE for p in self._parameters())
        return fine and not spread and float(self._optimizer.noise_multiplier) > 0

    def _inner(self) -> RowArray | None:
        """The noisy sum of the last step; None unless each parameter's noise was drawn once."""
        heard = dict(self._tap.heard[self._since :])
        n = len(self._parameters())
        if len(self._tap.heard) - self._since != n or sorted(heard) != list(range(n)):
            return None
        return flatten([heard[i] for i in range(n)])

    def _sent(
        self, batch: Batch, after: Sequence[RowArray] | None = None, *, frozen: bool = True
    ) -> Sent | None:
        """What comes of the step on a batch; None where it does not make one release of one noisy sum."""
        self._tap.heard.clear()
        self._outer = None
        try:
            done = self._execute(batch, after=after, frozen=frozen)
        except Exception:
            return None
        inner = self._inner()
        if inner is None or self._outer is None or done.updates != 1:
            return None
        left = (self._left, done.beside, done.random_state, done.accounted)
        return Sent(outer=self._outer, inner=inner, left=left)

    def _differs(self, batches: Sequence[Sequence[RowArray]]) -> bool:
        """Whether a release is not the noisy sum itself, on nothing or on much, or after another step."""
        for batch, after in ((batches[0], None), (batches[1], batches[2])):
            sent = self._sent(batch, after)
            if sent is None:
                return False
            room = 16 * float(np.finfo(np.float32).eps) * float(np.abs(sent.inner).max(initial=0.0))
            if not float(np.abs(sent.outer - sent.inner).max(initial=0.0)) <= room:
                return True
        return False

    def _post_processes(self, batches: Sequence[Sequence[RowArray]]) -> bool:
        """Whether batches of one noisy sum release the same, also after steps of one noisy sum."""
        first, *others = batches
        # The batch at hand comes first; after another step, it is no longer at hand.
        alike = self._agree(first, [None, *others]) and self._agree(first, others, batches)
        return alike and not self._adds_noise(batches)

    def _agree(
        self,
        first: Sequence[RowArray],
        others: Sequence[Batch],
        before: Sequence[Sequence[RowArray]] | None = None,
    ) -> bool:
        """Whether the others release what the first does once their noisy sums are made equal.

        Args:
            first: a batch.
            others: batches; None is the one at hand.
            before: batches, of which the step before the first is made on one and those before the others on
                the rest, with equal noisy sums, too; None for no step before.
        """
        self._tap.exchanging, self._tap.targets = True, None
        wanted = self._sent(first, None if before is None else before[0])
        if wanted is None or not np.isfinite(wanted.outer).all():
            return False
        self._tap.targets = [noisy for _, noisy in self._tap.heard]
        for i, batch in enumerate(others):
            after = None if before is None else before[1 + i % (len(before) - 1)]
            sent = self._sent(batch, after)
            drawn = len(self._tap.heard) == len(self._tap.targets)
            if sent is None or not drawn or sent.left != wanted.left or not _same(wanted.outer, sent.outer):
                return False
            self.compared += 1
        return True

    def _adds_noise(self, batches: Sequence[Sequence[RowArray]]) -> bool:
        """Whether noise of its own is added to the noisy sum: both together are then what protects."""
        self._tap.exchanging, self._tap.targets = True, None
        wanted = self._sent(batches[0])
        self._tap.targets = [noisy for _, noisy in self._tap.heard]
        other = self._sent(batches[0], frozen=False)
        self._tap.exchanging = False
        if wanted is None or other is None or _same(wanted.outer, other.outer):
            return False
        nothing, much = self._sent(batches[0]), self._sent(batches[1])
        if nothing is None or much is None:
            return False
        moved, by = much.outer - nothing.outer, much.inner - nothing.inner
        return float(np.linalg.norm(moved - by)) <= 1e-3 * float(np.linalg.norm(by))


def _same(one: RowArray, other: RowArray) -> bool:
    """To a few units in the last place of each value: a sign leaves a great deal of room below it."""
    room = _ULPS * np.finfo(np.float32).eps * np.maximum(np.abs(one), np.abs(other))
    return bool((np.abs(one - other) <= room).all())


def _fingerprint(optimizer: DPOptimizer, parameters: Sequence[torch.nn.Parameter]) -> str:
    """Of what a step keeps for the next, on the optimizer and on its parameters."""
    digest = hashlib.blake2b(digest_size=16)

    def enter(value: Any) -> None:
        match value:
            case torch.nn.Parameter():
                return
            case torch.Tensor():
                digest.update(
                    value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
                )
            case np.ndarray():
                digest.update(value.tobytes())
            case dict():
                for name, part in value.items():
                    digest.update(repr(name).encode())
                    enter(part)
            case list() | tuple() | deque():
                digest.update(str(len(value)).encode())
                for part in value:
                    enter(part)
            case bool() | int() | float() | str() | None:
                digest.update(repr(value).encode())

    enter(vars(optimizer))
    for parameter in parameters:
        kept = vars(parameter).items()
        enter({name: value for name, value in kept if name not in _OF_THE_BATCH})
    return digest.hexdigest()


def _batches(size: int, clip: float, clipped: bool, seed: int) -> list[RowArray]:
    """A record of nothing, many records one way, few small ones, and others that are as far from these."""
    rng = np.random.default_rng([size, seed])
    many = int(np.clip(_FLOATS // max(size, 1), _FEWEST, _MOST))

    def along(count: int, norms: float, *, ways: int = 1) -> RowArray:
        way = rng.standard_normal((ways, size), dtype=np.float32)
        length = clip * (min(norms, 1.0) if clipped else norms)
        way *= np.float32(length) / np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-30)
        return np.repeat(way, count // ways, axis=0)

    one = np.zeros((1, size), dtype=np.float32)
    one[0, rng.integers(size)] = clip if clipped else clip * _HUGE
    much = along(many, 10.0)
    return [
        np.zeros((1, size), dtype=np.float32),
        much,
        along(_FEWEST, 1e-3),
        along(1, _HUGE),
        much[:0],
        np.zeros((8, size), dtype=np.float32),
        -much,
        along(_FEWEST, 1.0, ways=_FEWEST),
        one,
    ]


def _split(rows: RowArray, parts: int) -> list[RowArray]:
    return list(np.array_split(rows, parts))
