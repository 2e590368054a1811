"""Records that the weights of a small network seem to be made of, beside those that it was trained on.

Haim et al. 2022 (arXiv:2206.07758) rebuild training records from nothing but the weights of a binary network
that was trained until its cross-entropy was small. How many come back depends on the network and on how long
it was trained more than on any epsilon: it is shown, and compared with no claim.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dpaudit.asking import Asked, StationaryAsked
from dpaudit.attacks.reconstruction import cards, likeness
from dpaudit.attacks.reconstruction.model_inversion import as_pictures
from dpaudit.check import FloatArray, in_range
from dpaudit.evidence import Access, Rebuilt
from dpaudit.likeness import Panel, picture
from dpaudit.protocols import View

ROWS = ("rebuilt", "nearest record trained on")
_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class KKTReconstruction:
    """Search for the records of a two-layer ReLU network with two classes, from its weights alone.

    Attributes:
        candidates: records that are searched for together; best about as many as were trained on.
        iterations: steps of the search.
        height: of a picture, where a record is a flat row of its pixels; 0 to go by the shape of a record.
        width: likewise.
    """

    name: str = "kkt-reconstruction"
    access: Access = Access.FINAL_MODEL
    candidates: int = 100
    iterations: int = 2000
    height: int = 0
    width: int = 0
    show_records: bool = False
    descriptive: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be searched."""
        in_range("candidates", self.candidates, 2, 100_000)
        in_range("iterations", self.iterations, 1, 10**6)

    def with_records(self) -> KKTReconstruction:
        """The same attack, keeping pictures."""
        return replace(self, show_records=True)

    @property
    def asked(self) -> Asked:
        """Records that explain the weights."""
        return Asked(stationary=StationaryAsked(candidates=self.candidates, iterations=self.iterations))

    def rebuilt(self, view: View) -> tuple[Rebuilt, ...] | str:
        """How near the search came to each record that was trained on, beside as many that were not.

        Whether a record was trained on was drawn at random, so that without a leak both come as near.
        Canaries are left out: their labels are wrong. Costs a correlation for each candidate and record.
        """
        if not view.scores.size:
            return "there is no final model"
        if not view.stationary.size:
            return "it is no network of two dense layers with a ReLU between them and two classes"
        pool, made = view.canaries, view.stationary
        clean = ~pool.canary
        inside, outside = pool.x[clean & pool.member], pool.x[clean & ~pool.member]
        count = min(len(inside), len(outside))
        if not count:
            return "there are no records that were trained on and others"
        inside, outside = inside[:count], outside[:count]
        near, beside = _correlations(made, inside), _correlations(made, outside)
        scores = [
            likeness.summed_up(
                "correlation", near.max(axis=0), blind=float(beside.max(axis=0).mean()), low=-1.0, high=1.0
            ),
            # All are held against one maximum: an interval for independent records would not be theirs.
            replace(
                likeness.share("beyond others", near.max(axis=0) > beside.max(), blind=1 / (count + 1)),
                lower=None,
                upper=None,
            ),
        ]
        size = picture(pool.x.shape[1:], self.height, self.width)
        panels: tuple[Panel, ...] = ()
        if size is not None:
            low, high = float(pool.x.min()), float(pool.x.max())
            shown, *pictures = (as_pictures(each, size) for each in (made, inside, outside))
            like, unlike = (_most_alike(shown, each, max(high - low, 1e-12)) for each in pictures)
            scores.insert(0, likeness.summed_up("ssim", like, blind=float(unlike.mean()), low=-1.0, high=1.0))
            if self.show_records:
                best = np.argsort(-near.max(axis=0))[:_SHOWN]
                rows = (shown[near[:, best].argmax(axis=0)], pictures[0][best])
                for row, each in zip(ROWS, rows, strict=True):
                    panels += cards.panels(each, low, high, row, real=True)
        found = Rebuilt(
            method="stationary-point search",
            condition="as released",
            subject="training records from the weights",
            real=True,
            batch=0,
            scores=tuple(scores),
            source=self.name,
            access=self.access,
            panels=panels,
            qualitative=True,
        )
        return (found,)


def _correlations(made: FloatArray, records: FloatArray) -> FloatArray:
    """(m, n) of every candidate with every record, over its features."""
    tables = []
    for each in (made, records):
        flat = each.reshape(len(each), -1)
        apart = flat - flat.mean(axis=1, keepdims=True)
        tables.append(apart / np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), 1e-300))
    found: FloatArray = tables[0] @ tables[1].T
    return found


def _most_alike(made: FloatArray, records: FloatArray, span: float) -> FloatArray:
    """(n,) SSIM of each picture with the candidate (m, h, w) that is most like it."""
    found = [likeness.ssim(made, np.broadcast_to(each, made.shape), span).max() for each in records]
    return np.array(found)
