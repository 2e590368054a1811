"""What a final model takes for each of its classes, beside the records that it was trained on.

A class representative is what all records of a class have in common, as the model sees it: no record, unless
a class is one person. It shows what a model says of a class, and is compared with no epsilon.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from dpaudit.asking import Asked, RepresentativesAsked
from dpaudit.attacks.reconstruction import cards, likeness
from dpaudit.check import BoolArray, FloatArray, in_range
from dpaudit.evidence import Access, Rebuilt
from dpaudit.likeness import Panel, Score, picture
from dpaudit.protocols import View

ROWS = ("class representative", "nearest record trained on", "nearest record not trained on")
_NO_PICTURES = "its records are no pictures (height and width say how a flat row of pixels is one)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInversion:
    """Gradient ascent on the log-probability of each class, smoothed (Fredrikson et al. 2015).

    Attributes:
        restarts: searches for each class; the best is kept.
        iterations: steps of each search.
        smoothness: weight of the total variation.
        height: of a picture, where a record is a flat row of its pixels; 0 to go by the shape of a record.
        width: likewise.
    """

    name: str = "model-inversion"
    access: Access = Access.FINAL_MODEL
    restarts: int = 4
    iterations: int = 200
    smoothness: float = 0.1
    height: int = 0
    width: int = 0
    show_records: bool = False
    descriptive: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be searched."""
        in_range("restarts", self.restarts, 1, 1000)
        in_range("iterations", self.iterations, 1, 100_000)
        in_range("smoothness", self.smoothness, 0.0, math.inf)

    def with_records(self) -> ModelInversion:
        """The same attack, keeping pictures."""
        return replace(self, show_records=True)

    @property
    def asked(self) -> Asked:
        """A representative of each class."""
        wanted = RepresentativesAsked(
            restarts=self.restarts,
            iterations=self.iterations,
            smoothness=self.smoothness,
            height=self.height,
            width=self.width,
        )
        return Asked(representatives=wanted)

    def rebuilt(self, view: View) -> tuple[Rebuilt, ...] | str:
        """How near each representative comes to its nearest record of the class, trained on or not.

        Costs the SSIM of every record of the pool with one representative. Canaries are left out: their
        labels are wrong.
        """
        pool = view.canaries
        size = picture(pool.x.shape[1:], self.height, self.width)
        reason = _why_not(view, size)
        if reason or size is None:
            return reason
        pictures, made = as_pictures(pool.x, size), as_pictures(view.representatives, size)
        low, span = float(pool.x.min()), max(float(np.ptp(pool.x)), 1e-12)
        clean = ~pool.canary
        pairs = [
            (each, *_beside(pictures, clean & (pool.y == label), pool.member))
            for label, each in enumerate(made)
        ]
        pairs = [pair for pair in pairs if len(pair[1])]
        if not pairs:
            return "no class has records that were trained on and others"
        found = [(near(*pair[:2], span), near(pair[0], pair[2], span)) for pair in pairs]
        panels = self._panels(pairs, found, low, low + span) if self.show_records else ()
        return (
            Rebuilt(
                method="model inversion",
                condition="as released",
                subject="class representatives",
                real=True,
                batch=0,
                scores=(
                    *(_score(name, found) for name in ("ssim", "psnr", "correlation")),
                    _averages([each for each, _, _ in pairs], [inside for _, inside, _ in pairs]),
                ),
                source=self.name,
                access=self.access,
                panels=panels,
                qualitative=True,
            ),
        )

    def _panels(
        self,
        pairs: list[tuple[FloatArray, FloatArray, FloatArray]],
        found: list[tuple[dict[str, FloatArray], dict[str, FloatArray]]],
        low: float,
        high: float,
    ) -> tuple[Panel, ...]:
        shown = (
            [each for each, _, _ in pairs],
            [inside[int(a["ssim"].argmax())] for (_, inside, _), (a, _) in zip(pairs, found, strict=True)],
            [outside[int(b["ssim"].argmax())] for (_, _, outside), (_, b) in zip(pairs, found, strict=True)],
        )
        return tuple(
            panel
            for row, each in zip(ROWS, shown, strict=True)
            for panel in cards.panels(np.stack(each), low, high, row, real=True)
        )


def as_pictures(x: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Records (n, ...) as grey pictures (n, h, w): the mean of their channels."""
    shown: FloatArray = x.reshape(len(x), -1, *size).mean(axis=1)
    return shown


def near(one: FloatArray, others: FloatArray, span: float) -> dict[str, FloatArray]:
    """SSIM, PSNR and correlation of one picture (h, w) with each of (n, h, w); (n,) each."""
    repeated = np.broadcast_to(one, others.shape)
    a, b = (each - each.mean(axis=(-2, -1), keepdims=True) for each in (one, others))
    norms = np.sqrt(np.square(a).sum() * np.square(b).sum(axis=(1, 2)))
    return {
        "ssim": likeness.ssim(repeated, others, span),
        "psnr": likeness.psnr(repeated, others, span),
        "correlation": (a * b).sum(axis=(1, 2)) / np.maximum(norms, 1e-300),
    }


def _beside(pictures: FloatArray, chosen: BoolArray, member: BoolArray) -> tuple[FloatArray, FloatArray]:
    """As many records that were trained on as others: of more, the nearest is nearer by chance."""
    inside, outside = pictures[chosen & member], pictures[chosen & ~member]
    count = min(len(inside), len(outside))
    return inside[:count], outside[:count]


def _score(name: str, found: list[tuple[dict[str, FloatArray], dict[str, FloatArray]]]) -> Score:
    inside, outside = (np.array([float(pair[i][name].max()) for pair in found]) for i in (0, 1))
    low, high = (-math.inf, likeness.BEST_PSNR) if name == "psnr" else (-1.0, 1.0)
    return likeness.summed_up(name, inside, blind=float(outside.mean()), low=low, high=high)


def _averages(made: list[FloatArray], inside: list[FloatArray]) -> Score:
    """Correlation with the average of the own class, beside that with the averages of the others."""
    pictures = np.stack([*made, *(each.mean(axis=0) for each in inside)]).reshape(2 * len(made), -1)
    flat = pictures - pictures.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-300)
    table = flat[: len(made)] @ flat[len(made) :].T
    others = table[~np.eye(len(made), dtype=bool)]
    blind = float(others.mean()) if others.size else None
    return likeness.summed_up("average", np.diagonal(table).copy(), blind=blind, low=-1.0, high=1.0)


def _why_not(view: View, size: tuple[int, int] | None) -> str:
    if not view.scores.size:
        return "there is no final model"
    if view.scores.shape[1] == 1:
        return "the model gives one likelihood a record, and no classes"
    if size is None:
        return _NO_PICTURES
    return "" if view.representatives.size else "no gradients of the model by its input can be had"
