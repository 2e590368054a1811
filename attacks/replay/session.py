"""One ride of the replay on one training run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from dpaudit.attacks.replay import flow, looks
from dpaudit.attacks.replay.book import Book
from dpaudit.check import FloatArray
from dpaudit.evidence import Evidence, Movement
from dpaudit.protocols import RowArray, StepOracle

if TYPE_CHECKING:
    from dpaudit.attacks.replay import ReplayAttack

_IN_A_ROW = 3
_FEWEST = 2


@runtime_checkable
class ClipsInside(Protocol):
    """A step of which the clip was put to the test before it, where no per-record gradients are formed."""

    @property
    def clip_moved(self) -> Movement | None:
        """How far one record moved the clipped sum; None where that was not measured."""
        ...


@runtime_checkable
class PostProcesses(Protocol):
    """A step of which the noisy sum is looked at, and not what is made of it."""

    @property
    def post_processed(self) -> int:
        """For how many batches it was seen that a release shows nothing but their noisy sum; 0 if none."""
        ...


class ReplaySession:
    """Looks at the first steps in a row, at others by chance, and at the noise of every one."""

    several = True

    def __init__(self, attack: ReplayAttack, rng: np.random.Generator):
        self._attack = attack
        self._rng = rng
        self._books: dict[int, Book] = {}
        self._base: tuple[StepOracle, FloatArray, bool] | None = None

    def observe(self, step: StepOracle) -> None:
        """Look, if this step is due; costs about `repeats` + `budget` + 20 executions."""
        attack = self._attack
        if step.optimizer not in self._books:
            self._books[step.optimizer] = Book(step, stop_early=attack.stop_early)
        book = self._books[step.optimizer]
        book.at(step)
        if isinstance(step, PostProcesses) and step.post_processed:
            book.note(flow.post_processed(step.post_processed))
        due = step.index < _IN_A_ROW or self._rng.random() < 1.0 / attack.stride
        if not due or book.looked >= self._share(step.optimizer):
            return
        book.looked += 1
        looks.at_first_draws(step, book)
        if not step.forms_rows:
            looks.at_noise(step, book, attack.repeats)
            moved = step.clip_moved if isinstance(step, ClipsInside) else None
            if moved is None:
                book.blind("no per-record gradients are formed")
            else:
                book.moved(moved, step)
            return
        near = looks.around(step, attack.scale)
        budget = attack.budget if book.looked == 1 else attack.budget // 4
        search = looks.search_at(step, book, near)
        looks.at_first_records(step, book, search, self._rng)
        if not (book.can_freeze or book.can_silence):
            book.blind("two executions of one step differ even without noise and from one random state")
        looks.at_noise(step, book, attack.repeats)
        looks.at_flow(step, book)
        looks.at_sensitivity(search, budget, self._rng)
        looks.at_real_batch(step, book)
        if book.looked == 1:
            looks.at_clip(step, book, near)
            looks.at_not_finite(step, book, near)

    def _share(self, optimizer: int) -> int:
        """Looks at the steps of an optimizer: all at those of the first, fewer at each that came later."""
        return min(self._attack.steps, max(_FEWEST, self._attack.steps // (optimizer + 1)))

    def released(self, gradient: RowArray) -> None:
        """Nothing was inserted."""

    def about_to_step(self, step: StepOracle) -> None:
        """Execute the step that is about to happen without its noise, so that its noise will be known."""
        self._base, book = None, self._books.get(step.optimizer)
        if self._attack.watch and book is not None:
            silent = book.can_silence
            done = book.run(step, None, "the real batch", noise=not silent)
            if done is not None:
                self._base = step, done.released.astype(np.float64), silent

    def stepped(self, released: RowArray) -> None:
        """Take down the noise of the real step."""
        if self._base is None:
            return
        step, base, silent = self._base
        z = released.astype(np.float64) - base
        # Against a noisy execution, the difference of two draws has twice the variance of one.
        z = z if silent else z / np.sqrt(2.0)
        self._books[step.optimizer].noise(z, step, f"step {step.index}")

    def evidence(self) -> tuple[Evidence, ...]:
        """The measurements at each optimizer, and every contradiction that is beyond doubt."""
        books, alone = self._books.values(), len(self._books) == 1
        found: list[Evidence] = [book.measured(book.log.law(), whole=alone) for book in books]
        for book in books:
            found += (*book.findings, *book.notes)
        return tuple(found)
