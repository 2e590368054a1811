"""The last unknown record of a released linear model, rebuilt by an adversary who knows all others.

At the optimum of a convex loss the gradients of all records and of the regulariser add up to zero. Whoever
knows all of them but one therefore knows that one, and the gradient of one record of a linear model is the
record itself, times a number (Balle, Cherubin and Hayes 2022, arXiv:2201.04845).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import softmax

from dpaudit.asking import Asked
from dpaudit.attacks.reconstruction import cards, likeness
from dpaudit.attacks.reconstruction.model_inversion import as_pictures
from dpaudit.check import FloatArray, IntArray, in_range
from dpaudit.evidence import Access, Rebuilt
from dpaudit.likeness import Panel, picture
from dpaudit.protocols import View

EXACT = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Informed:
    """The closed form for models that are one dense layer, trained on the mean cross-entropy.

    Attributes:
        records: members that are rebuilt, each by an adversary who knows all others.
        weight_decay: of the training, as torch's optimizers have it: on weights and bias alike.
        height: of a picture, where a record is a flat row of its pixels; 0 to go by the shape of a record.
        width: likewise.
    """

    name: str = "informed"
    access: Access = Access.FINAL_MODEL
    records: int = 64
    weight_decay: float = 0.0
    height: int = 0
    width: int = 0
    show_records: bool = False
    descriptive: bool = True

    def __post_init__(self) -> None:
        """Refuse what no training can have."""
        in_range("records", self.records, 2, 10**6)
        in_range("weight_decay", self.weight_decay, 0.0, math.inf)

    def with_records(self) -> Informed:
        """The same attack, keeping pictures."""
        return replace(self, show_records=True)

    @property
    def asked(self) -> Asked:
        """The weights of a linear model."""
        return Asked(linear=True)

    def rebuilt(self, view: View) -> tuple[Rebuilt, ...] | str:
        """How near each rebuilt record comes to the one that the adversary did not know."""
        if not view.scores.size:
            return "there is no final model"
        if not view.linear.size:
            return "its log-probabilities are not those of one dense layer, for which there is a closed form"
        pool = view.canaries
        low, high = float(pool.x.min()), float(pool.x.max())
        span, x = max(high - low, 1e-12), pool.train_x.reshape(len(pool.train_x), -1)
        count = min(self.records, len(x))
        if count < 2:
            return "it has fewer than two members"
        found, labels = closed_form(view.linear, x, pool.train_y, self.weight_decay)
        found, wanted = np.clip(np.nan_to_num(found[:count]), low, high), x[:count]
        scores = [
            likeness.summed_up(
                "psnr",
                likeness.psnr(found, wanted, span),
                blind=float(likeness.psnr(found, np.roll(wanted, 1, axis=0), span).mean()),
                high=likeness.BEST_PSNR,
            ),
            likeness.share("labels", labels[:count] == pool.train_y[:count]),
        ]
        size = picture(pool.x.shape[1:], self.height, self.width)
        panels: tuple[Panel, ...] = ()
        if size is not None:
            shown, originals = (as_pictures(each, size) for each in (found, wanted))
            like = likeness.ssim(shown, originals, span)
            blind = float(likeness.ssim(shown, np.roll(originals, 1, axis=0), span).mean())
            scores = [
                likeness.summed_up("ssim", like, blind=blind, low=-1.0, high=1.0),
                likeness.share("rebuilt", like >= EXACT),
                *scores,
            ]
            if self.show_records:
                panels = cards.panels(originals[:8], low, high, "original", real=True)
                panels += cards.panels(shown[:8], low, high, "as released", real=True)
        return (
            Rebuilt(
                method="informed adversary",
                condition="as released",
                subject="the last unknown record",
                real=True,
                batch=1,
                scores=tuple(scores),
                source=self.name,
                access=self.access,
                panels=panels,
            ),
        )


def closed_form(
    weights: FloatArray, x: FloatArray, y: IntArray, weight_decay: float
) -> tuple[FloatArray, IntArray]:
    """Each record as whoever knows all others reads it off the released weights.

    The gradient of a linear model for record z with label y is (p(z) - e_y) (z, 1)^T. Its last column divides
    the row in which that is largest.

    Args:
        weights: (classes, d + 1) weights and then bias, at the optimum.
        x: records (n, d); of record i, all but row i are used.
        y: (n,) labels.
        weight_decay: of all weights.

    Returns:
        (n, d) records and (n,) labels. Costs n * classes * d.
    """
    n = len(x)
    ones = np.concatenate([x, np.ones((n, 1))], axis=1)
    apart = softmax(ones @ weights.T, axis=1) - np.eye(len(weights))[y]
    own = apart[:, :, None] * ones[:, None, :]
    # Everything but the record itself; at the optimum it is minus the gradient of that record.
    unknown = -(apart.T @ ones + n * weight_decay * weights - own)
    last = unknown[:, :, -1]
    row = np.abs(last).argmax(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = unknown[np.arange(n), row, :-1] / last[np.arange(n), row, None]
    return found, last.argmin(axis=1).astype(np.int64)
