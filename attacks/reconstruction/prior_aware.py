"""Which of n known candidates was used? A guess from one noisy gradient, against 1 - f(1/n).

One candidate, drawn at random, is inserted; the adversary knows the rest of the batch and picks the likeliest
(Hayes, Mahloujifar & Balle 2023, arXiv:2302.07225). Up to as many candidates as the batch has records they
are those records, with gradients from the user's own model, loss and preprocessing. Beyond that they are
random directions, which the clip brings down to the clipping norm: nearly the worst case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpaudit.attacks.candidates import Directions
from dpaudit.attacks.reconstruction.tally import Tally, sizes_of, tests_of
from dpaudit.canary import Canaries
from dpaudit.check import FloatArray, one_of
from dpaudit.claim import Adjacency
from dpaudit.evidence import Access, Evidence
from dpaudit.protocols import RowArray, StepOracle

_COORDINATES, _SCALE = 4096, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorAware:
    """Games at each step: of n candidates, for every n that is asked for.

    The slot of the candidate is empty otherwise (add-remove), or holds another record of the batch
    (replace-one). Either way a guesser who saw nothing is right with probability 1/n exactly, and a step that
    satisfies its claim under that relation lets nobody be right more often than 1 - f(1/n).

    Attributes:
        candidates: n, so that a blind guess succeeds with probability 1/n; or several, such as
            [10, 100, 1000]: one test each, which share the weight of the attack.
        games: executions of each step, each with fresh candidates and fresh noise. Up to the size of the
            batch, and again beyond it, one execution serves every n.
        adjacency: "add-remove" or "replace-one".
    """

    name: str = "prior-aware"
    access: Access = Access.STEP
    candidates: int | Sequence[int] = 10
    games: int = 2
    adjacency: str = "add-remove"

    def __post_init__(self) -> None:
        """Refuse a game without a choice."""
        one_of("adjacency", self.adjacency, [str(each) for each in Adjacency])
        sizes_of(self.candidates)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Every n, smallest first."""
        return sizes_of(self.candidates)

    @property
    def tests(self) -> tuple[str, ...]:
        """Source of the evidence of each n."""
        return tests_of(self.name, self.sizes)

    def begin(self, canaries: Canaries, rng: np.random.Generator) -> PriorAwareSession:
        """Start counting."""
        return PriorAwareSession(self, rng)


class PriorAwareSession:
    """Games played and won over one run."""

    def __init__(self, attack: PriorAware, rng: np.random.Generator):
        self._attack = attack
        self._rng = rng
        self._tally = Tally(attack.sizes)
        self._directions: dict[int, Directions] = {}

    def observe(self, step: StepOracle) -> None:
        """Play.

        Costs an execution for what is known and one or two for each game, and memory b * d, or n * 4096 for
        directions.
        """
        raw = step.rows()
        removed = self._removed(raw)
        if removed is None and self._attack.adjacency != Adjacency.ADD_REMOVE:
            return
        others = np.delete(np.arange(len(raw)), [] if removed is None else [removed])
        known = step.release(remove=removed, noise=False)
        near = [n for n in self._attack.sizes if n <= len(others)]
        far = [n for n in self._attack.sizes if n > len(others)]
        for _ in range(self._attack.games):
            if near:
                drawn = raw[self._rng.choice(others, size=near[-1], replace=False)]
                seen = step.release(insert=drawn[0], remove=removed) - known
                self._tally.count(_likelihood(_clipped(drawn, step), seen)[None], self._rng, near)
            if far:
                among = self._among_directions(step, removed, known, far[-1])
                self._tally.count(among[None], self._rng, far)

    def released(self, gradient: RowArray) -> None:
        """Nothing was inserted into the real step."""

    def evidence(self) -> tuple[Evidence, ...]:
        """Successes of all games, for each n that was played."""
        attack = self._attack
        return self._tally.evidence(attack.name, attack.access, "step", Adjacency(attack.adjacency))

    def _removed(self, raw: RowArray) -> int | None:
        """Whose slot the candidate takes; None for a slot of its own."""
        if self._attack.adjacency == Adjacency.ADD_REMOVE or not len(raw):
            return None
        return int(self._rng.integers(len(raw)))

    def _among_directions(self, step: StepOracle, removed: int | None, known: RowArray, n: int) -> FloatArray:
        """Likelihoods (n,) of a game among random directions, the secret one first."""
        if step.optimizer not in self._directions:
            self._directions[step.optimizer] = Directions(
                self._rng, references=self._attack.sizes[-1] - 1, scale=_SCALE, coordinates=_COORDINATES
            )
        bank = self._directions[step.optimizer]
        order = self._rng.permutation(bank.prepare(step))[:n]
        seen = step.release(insert=bank.row(int(order[0]), step), remove=removed) - known
        return np.asarray(bank.scores(seen[None])[0][order], dtype=np.float64)


def _likelihood(candidates: RowArray, seen: RowArray) -> FloatArray:
    """(n,) how near each candidate is to what was seen: the likeliest under Gaussian noise is nearest."""
    squares = np.einsum("nd,nd->n", candidates, candidates)
    return np.asarray(candidates @ seen - 0.5 * squares, dtype=np.float64)


def _clipped(rows: RowArray, step: StepOracle) -> RowArray:
    """What a sound optimizer makes of the rows; without noise nothing is clipped either."""
    if step.noise_multiplier == 0:
        return rows
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows * np.minimum(1.0, step.max_grad_norm / np.maximum(norms, 1e-12)), dtype=np.float32)
