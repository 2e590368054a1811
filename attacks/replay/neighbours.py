"""Batches that differ in one record, each pair chosen to defeat one way to get the clip wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dpaudit.check import FloatArray
from dpaudit.protocols import RowArray

ALONE, LATER, ALIGNED, THREE, SMALL, REAL, SPLIT = (
    "no other record",
    "no other record after a step on small ones",
    "four aligned records",
    "three aligned records",
    "small records",
    "the real batch",
    "three micro-batches",
)
SHAPES = ("normal", "equal", "sparse", "one coordinate")
_GROUP = 4
_FIRST = 12
_SCALES = (2.0, 1.0, 30.0, 1e8, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A record of the search: a gradient made from a few numbers.

    Attributes:
        weights: (parameters,) share of the squared norm that each parameter gets.
        shape: of the gradient within a parameter.
        scale: norm over the clipping norm.
        sign: +1 or -1.
        base: batch that it enters.
        position: in that batch, 0 first to 1 last.
        seed: of its direction.
    """

    weights: FloatArray
    shape: str = "normal"
    scale: float = 1e4
    sign: int = 1
    base: str = ALONE
    position: float = 1.0
    seed: int = 2

    def words(self) -> str:
        """The record in words."""
        place = {0.0: "first", 1.0: "last"}.get(self.position, "in the middle")
        where = f"with {self.base}" if self.base in (ALONE, LATER) else f"{place} among {self.base}"
        return f"a {self.shape} gradient of {self.sign * self.scale:.3g} clipping norms, {where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A batch that differs from a named one.

    Attributes:
        where: the difference in words.
        base: name of the other batch.
        batch: micro-batches of per-record gradients.
        records: records removed and added together: 1, or 2 for a replacement.
    """

    where: str
    base: str
    batch: Sequence[RowArray]
    records: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbourhood:
    """The batches of one step and their neighbours.

    Attributes:
        names: of the parameters.
        sizes: of the parameters.
        clip: clipping norm.
        scale: norm of a huge record, in clipping norms.
        largest: norm beyond which gradients of this precision overflow.
        bases: batches by name.
        after: batches that a step is made on before, by the name of the base.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    clip: float
    scale: float
    largest: float
    bases: dict[str, Sequence[RowArray]]
    after: dict[str, Sequence[RowArray]]

    def spread(self, **fields: object) -> Recipe:
        """A huge record with the same norm in every coordinate: in these, little noise shows first."""
        return self.even(weights=np.array(self.sizes, dtype=np.float64), **fields)

    def even(self, **fields: object) -> Recipe:
        """A huge record with equal norm in every parameter: a parameter that the clip forgets shows."""
        recipe = Recipe(weights=np.ones(len(self.sizes)), scale=self.scale)
        return replace(recipe, **fields)  # type: ignore[arg-type]

    def gradient(self, recipe: Recipe) -> RowArray:
        """The record's gradient, (d,)."""
        rng = np.random.default_rng([recipe.seed, len(self.sizes)])
        parts = []
        for size, weight in zip(self.sizes, recipe.weights, strict=True):
            part = _shaped(recipe.shape, size, rng)
            parts.append(part * (np.sqrt(weight) / max(float(np.linalg.norm(part)), 1e-30)))
        row = np.concatenate(parts)
        length = min(recipe.scale * self.clip, self.largest) / float(np.linalg.norm(row))
        return np.asarray(row * (recipe.sign * length), dtype=np.float32)

    def add(self, recipe: Recipe) -> Neighbour:
        """The base with the record in it, in the micro-batch and at the place where it belongs."""
        batch = list(self.bases[recipe.base])
        part = round(recipe.position * (len(batch) - 1))
        at = round(recipe.position * len(batch[part]))
        batch[part] = np.insert(batch[part], at, self.gradient(recipe), axis=0)
        return Neighbour(where=recipe.words(), base=recipe.base, batch=batch)

    def without(self, base: str, index: int, words: str) -> Neighbour:
        """The base less one of its records."""
        first, *rest = self.bases[base]
        return Neighbour(where=words, base=base, batch=[np.delete(first, index, axis=0), *rest])

    def battery(self, rng: np.random.Generator) -> Iterator[Neighbour]:
        """Neighbours in order of how often they decide."""
        yield self.add(self.spread())
        against = self.spread(base=ALIGNED, sign=-1, seed=1)
        yield self.add(against)
        # No size of a micro-batch divides both three and four.
        yield self.add(replace(against, base=THREE))
        yield self.add(self.even(base=SMALL, position=0.0))
        yield self.add(self.even(base=LATER))
        yield self.add(self.even())
        order = rng.permutation(len(self.sizes))
        yield from map(self._alone, order[:_FIRST])
        for scale in _SCALES:
            yield self.add(self.even(scale=scale))
        for shape in SHAPES[1:]:
            for sign in (1, -1):
                yield self.add(self.even(shape=shape, sign=sign))
        for position in (0.0, 0.5):
            yield self.add(replace(against, position=position))
        yield self.without(ALIGNED, 0, "one of several aligned records removed")
        if SPLIT in self.bases:
            for position in (0.0, 0.5, 1.0):
                yield self.add(replace(against, base=SPLIT, position=position))
        if REAL in self.bases:
            yield from self._real()
        yield from map(self._alone, order[_FIRST:])

    def _alone(self, i: int) -> Neighbour:
        """A huge record in one parameter only: what is left out of the noise, or has a clip of its own."""
        only = np.zeros(len(self.sizes))
        only[i] = 1.0
        found = self.add(self.even(weights=only))
        return replace(found, where=f"{found.where}, in parameter {self.names[i]} only")

    def _real(self) -> Iterator[Neighbour]:
        """Records among, and instead of, those that are really there."""
        rows = self.bases[REAL][0]
        total = rows.astype(np.float64).sum(axis=0)
        norm = float(np.linalg.norm(total))
        if norm > 0:
            for sign, word in ((-1, "against"), (1, "along")):
                length = min(self.scale * self.clip, self.largest)
                row = np.asarray(total * (sign * length / norm), dtype=np.float32)
                yield Neighbour(
                    where=f"a huge gradient {word} the batch", base=REAL, batch=[np.vstack([rows, row])]
                )
        largest = int(np.linalg.norm(rows, axis=1).argmax())
        yield self.without(REAL, largest, "the largest record of the batch removed")
        twice = [np.vstack([rows, rows[largest]])]
        yield Neighbour(where="the largest record of the batch twice", base=REAL, batch=twice)
        swapped = rows.copy()
        swapped[largest] = self.gradient(self.even(seed=3))
        yield Neighbour(
            where="the largest record replaced by a huge one", base=REAL, batch=[swapped], records=2
        )

    def mutated(self, recipe: Recipe, rng: np.random.Generator) -> Recipe:
        """One or two of the numbers drawn anew."""
        changed = recipe
        for kind in rng.choice(7, size=rng.integers(1, 3), replace=False):
            match int(kind):
                case 0:
                    factors = np.exp(1.5 * rng.standard_normal(len(self.sizes)))
                    changed = replace(changed, weights=changed.weights * factors + 1e-12)
                case 1:
                    kept = rng.random(len(self.sizes)) < 0.5
                    weights = np.where(kept, changed.weights, 0.0)
                    changed = replace(changed, weights=weights if weights.any() else changed.weights)
                case 2:
                    changed = replace(changed, shape=str(rng.choice(SHAPES)))
                case 3:
                    changed = replace(changed, scale=float(10.0 ** rng.uniform(-0.5, 6)))
                case 4:
                    changed = replace(changed, sign=-changed.sign)
                case 5:
                    base = str(rng.choice([name for name in self.bases if name != REAL]))
                    changed = replace(changed, base=base, position=float(rng.choice([0.0, 0.5, 1.0])))
                case _:
                    changed = replace(changed, seed=int(rng.integers(2**31)))
        return changed


def neighbourhood(
    *,
    names: tuple[str, ...],
    sizes: tuple[int, ...],
    clip: float,
    scale: float,
    largest: float,
    rows: RowArray,
    micro_batches: int,
) -> Neighbourhood:
    """The batches that records are added to: none, several alike, several small ones, and the real ones.

    Args:
        names: of the parameters.
        sizes: of the parameters, d together.
        clip: clipping norm.
        scale: norm of a huge record, in clipping norms.
        largest: norm beyond which gradients overflow.
        rows: (b, d) per-record gradients of the real batch; none where they are not formed.
        micro_batches: in how many parts the real batch came.
    """
    made = Neighbourhood(
        names=names, sizes=sizes, clip=clip, scale=scale, largest=largest, bases={}, after={}
    )
    along = np.repeat(made.gradient(made.spread(scale=10.0, seed=1))[None], _GROUP, axis=0)
    small = np.asarray(along * 1e-3, dtype=np.float32)
    made.bases.update({ALONE: [along[:0]], LATER: [along[:0]], ALIGNED: [along], SMALL: [small]})
    made.bases[THREE] = [along[:3]]
    made.after[LATER] = [small]
    if micro_batches > 1:
        made.bases[SPLIT] = [along, small, along]
    elif len(rows):
        made.bases[REAL] = [rows]
    return made


def _shaped(shape: str, size: int, rng: np.random.Generator) -> FloatArray:
    """A direction within one parameter."""
    match shape:
        case "equal":
            return np.ones(size)
        case "one coordinate" | "sparse":
            part = np.zeros(size)
            count = 1 if shape == "one coordinate" else max(1, size // 20)
            part[rng.choice(size, size=count, replace=False)] = 1.0
            return part
        case _:
            return rng.standard_normal(size)
