"""What is tried at a step that is looked at, the cheapest and most telling first."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from dpaudit.attacks.replay import flow
from dpaudit.attacks.replay.book import Book, releases
from dpaudit.attacks.replay.neighbours import ALIGNED, Neighbourhood, neighbourhood
from dpaudit.attacks.replay.search import Search
from dpaudit.protocols import Execution, RowArray, StepOracle

_ZERO = "one zero gradient"
_DECISIVE = 6
_COORDINATES = 20_000
_MOST_DRAWS = 60
_NOT_FINITE = (("not-a-number", np.nan), ("infinity", np.inf), ("1e30", 1e30))


def _zero(step: StepOracle) -> list[RowArray]:
    return [np.zeros((1, sum(step.sizes)), dtype=np.float32)]


def around(step: StepOracle, scale: float) -> Neighbourhood:
    """The batches of a step and their neighbours."""
    return neighbourhood(
        names=step.names,
        sizes=step.sizes,
        clip=step.max_grad_norm,
        scale=scale,
        largest=1e4 if step.precision == 2.0**-10 else 1e15,
        rows=step.rows(),
        micro_batches=step.micro_batches,
    )


def at_first_draws(step: StepOracle, book: Book) -> None:
    """Two draws of the noise alone: a batch of one zero gradient releases nothing else."""
    done = [book.run(step, _zero(step), _ZERO) for _ in range(2)]
    for one in done:
        if one is not None:
            book.found(flow.of_one(flow.Seen(batch=_ZERO, execution=one)))
    drawn = releases(done)
    if len(drawn) < 2:
        return
    if step.noise_multiplier > 0 and np.array_equal(drawn[0], drawn[1]) and drawn[0].any():
        book.found((flow.repeated(f"two executions of step {step.index}"),))
    else:
        where = f"the first executions of step {step.index}"
        book.noise((drawn[0] - drawn[1]) / np.sqrt(2.0), step, where)


def at_noise(step: StepOracle, book: Book, repeats: int) -> None:
    """More draws, about what the step releases without noise: nothing, unless state was carried over."""
    zero = _zero(step)
    quiet = releases(book.run(step, zero, _ZERO, noise=False) for _ in range(2 if book.looked == 1 else 1))
    if not quiet:
        return
    book.can_silence = book.can_silence and all(np.array_equal(quiet[0], q) for q in quiet)
    if book.can_silence:
        book.found(flow.residual(quiet[0], step.max_grad_norm, f"step {step.index}"))
        if step.forms_rows:
            ones = [zero[0] + np.float32(step.max_grad_norm)]
            after = book.run(step, zero, "a step after another", after=ones, noise=False)
            for release in releases((after,)):
                book.found(flow.residual(release, step.max_grad_norm, f"a step after step {step.index}"))
    enough = min(_MOST_DRAWS, _COORDINATES // max(sum(step.sizes), 1))
    for i in range(2, max(repeats, enough)):
        for release in releases((book.run(step, zero, _ZERO),)):
            z = release - quiet[0]
            # A base that is itself noisy doubles the variance.
            z = z if book.can_silence else z / np.sqrt(2.0)
            book.noise(z, step, f"execution {i} of step {step.index}")


def at_flow(step: StepOracle, book: Book) -> None:
    """The same updates, accounting and noise for no record, for one and for several."""
    zero = np.zeros((8, sum(step.sizes)), dtype=np.float32)
    sizes = {"an empty batch": 0, _ZERO: 1, "eight zero gradients": 8}
    seen: list[flow.Seen] = []
    for words, size in sizes.items():
        done = book.run(step, [zero[:size]], words, frozen=True)
        if done is not None:
            seen.append(flow.Seen(batch=words, execution=done))
            book.found(flow.of_one(seen[-1]))
    for one, other in pairwise(seen):
        book.found(flow.of_two(one, other))
        if book.can_freeze:
            first, second = releases((one.execution, other.execution))
            book.found(flow.noise_apart(first, second, f"{one.batch} and {other.batch}"))


def at_first_records(step: StepOracle, book: Book, search: Search, rng: np.random.Generator) -> None:
    """Whether the noise can be held still, and the neighbours that show most faults."""
    held = releases(book.run(step, _zero(step), _ZERO, frozen=True) for _ in range(2))
    book.can_freeze = len(held) == 2 and np.array_equal(held[0], held[1])
    search.run(_DECISIVE, rng)


def at_sensitivity(search: Search, budget: int, rng: np.random.Generator) -> None:
    """The directed search, after the neighbours that show most faults."""
    search.run(budget, rng, skip=_DECISIVE)


def search_at(step: StepOracle, book: Book, near: Neighbourhood) -> Search:
    """Under frozen noise where that works, and without noise where it does not."""
    first: list[Execution] = []

    def released(batch: Sequence[RowArray], after: Sequence[RowArray] | None) -> RowArray | None:
        if not (book.can_freeze or book.can_silence):
            return None
        words = "a record of the search"
        done = book.run(step, batch, words, after=after, noise=book.can_freeze, frozen=True)
        if done is None:
            return None
        first.append(done)
        ordinary = flow.Seen(batch="one batch", execution=first[0])
        book.found(flow.of_two(ordinary, flow.Seen(batch="one with a huge record", execution=done)))
        return done.released

    return Search(near, released, book.worst, step.index, book.settle)


def at_real_batch(step: StepOracle, book: Book) -> None:
    """The noise of the real batch is that of a batch of nothing, under the same random state."""
    if not (book.can_freeze and book.can_silence and step.micro_batches == 1):
        return
    empty = _zero(step)
    noisy, quiet = (book.run(step, None, "the real batch", noise=n, frozen=True) for n in (True, False))
    alone, silence = (book.run(step, empty, _ZERO, noise=n, frozen=True) for n in (True, False))
    found = releases((noisy, quiet, alone, silence))
    if len(found) == 4:
        words = f"{_ZERO} and the real batch"
        # Sum, noise, product and quotient are each rounded to the precision of the gradients.
        rounding = 2 * step.precision * sum(float(np.linalg.norm(release)) for release in found)
        book.found(flow.noise_apart(found[2] - found[3], found[0] - found[1], words, rounding))


def at_clip(step: StepOracle, book: Book, near: Neighbourhood) -> None:
    """Clipping norm and learning rates do not depend on one record, unless noise covers it."""
    bases = near.bases
    huge = near.add(near.even(base=ALIGNED, sign=-1)).batch
    one, again, other = (
        book.run(step, batch, words)
        for batch, words in ((bases[ALIGNED], ALIGNED), (bases[ALIGNED], ALIGNED), (huge, "a huge record"))
    )
    if one is not None and again is not None and other is not None:
        book.found(flow.settings_apart(one.settings, again.settings, other.settings, f"step {step.index}"))


def at_not_finite(step: StepOracle, book: Book, near: Neighbourhood) -> None:
    """What a record that is not a number does to a release."""
    d = sum(step.sizes)
    for words, value in _NOT_FINITE:
        row = np.zeros((1, d), dtype=np.float32)
        row[0, 0] = value
        batch = [np.vstack([near.bases[ALIGNED][0], row])]
        for release in releases((book.run(step, batch, f"a gradient of {words}", frozen=True),)):
            note = flow.not_finite(words, release)
            if note is not None:
                book.note(note)
