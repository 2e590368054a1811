"""The last unknown record of a network, rebuilt by one who knows all others and has trained with many more.

The informed adversary of Balle, Cherubin and Hayes 2022 (arXiv:2201.04845) knows every record but one, the
training algorithm and its initial weights. It trains shadow models, each with one record of its own in the
open place, learns from them what weights say of that record, and applies this to released models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dpaudit.attacks.reconstruction import cards, likeness, radial
from dpaudit.attacks.reconstruction.informed import EXACT
from dpaudit.attacks.reconstruction.line_up import secret_first
from dpaudit.attacks.reconstruction.model_inversion import as_pictures
from dpaudit.attacks.reconstruction.tally import Tally, sizes_of, tests_of
from dpaudit.check import FloatArray, IntArray, in_range, one_of
from dpaudit.errors import UsageError
from dpaudit.evidence import Access, Guesses, Rebuilt
from dpaudit.likeness import Panel, Score, picture

_KNOWN = {"recipe": "", "known": "initial weights known", "fitted": "initial weights chosen"}
_PICTURES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstructor:
    """One of n candidates is in each model; the game is won where it is nearest to what was rebuilt.

    Attributes:
        models: games, each with a model of its own.
        shadows: models of the adversary, each on a record that is no candidate; there is one after another of
            those outside the training set, and then they come again.
        candidates: n, or several, such as [10, 100]; of the most, one is drawn for each model.
        label: of candidates and of the adversary's records: "wrong", the one that a model finds least likely
            before training, which leaks most; or "own", for what ordinary records leak.
        start: of training: "known", the recipe's own initial weights, which the adversary knows; "fitted",
            weights at which all other records are fitted, which it may have chosen; "recipe", weights that
            are drawn anew for each model.
        batches: "own", drawn anew for each model; or "known", as where the seed of training is known. Then,
            without noise, training is no random mechanism, so that nothing is tested.
        height: of a picture, where a record is a flat row of its pixels; 0 to go by the shape of a record.
        width: likewise.
    """

    name: str = "reconstructor"
    access: Access = Access.FINAL_MODEL
    models: int = 64
    shadows: int = 448
    candidates: int | Sequence[int] = 100
    label: str = "wrong"
    start: str = "fitted"
    batches: str = "own"
    height: int = 0
    width: int = 0
    show_records: bool = False

    def __post_init__(self) -> None:
        """Refuse a game without a choice, and known batches beside unknown initial weights."""
        in_range("models", self.models, 2, 10**6)
        in_range("shadows", self.shadows, 8, 10**5)
        one_of("label", self.label, ("own", "wrong"))
        one_of("start", self.start, tuple(_KNOWN))
        one_of("batches", self.batches, ("own", "known"))
        sizes_of(self.candidates)
        if self.batches == "known" and self.start == "recipe":
            raise UsageError(
                "Expected known initial weights beside known batches, found start='recipe'. Set start to "
                "'known': whoever knows the seed knows both."
            )

    def with_records(self) -> Reconstructor:
        """The same attack, keeping pictures."""
        return replace(self, show_records=True)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Every n, smallest first."""
        return sizes_of(self.candidates)

    @property
    def tests(self) -> tuple[str, ...]:
        """Source of the evidence of each n; none where nothing is tested."""
        return () if self.batches == "known" else tests_of(self.name, self.sizes)

    def labels(self, log_probabilities: FloatArray, own: IntArray) -> IntArray:
        """(n,) labels of records, given (n, classes) before training and their own."""
        return own if self.label == "own" else np.argmin(log_probabilities, axis=1).astype(np.int64)

    def reconstructed(
        self,
        known: FloatArray,
        records: FloatArray,
        weights: FloatArray,
        candidates: FloatArray,
        secrets: IntArray,
        rng: np.random.Generator,
    ) -> tuple[Guesses | Rebuilt, ...]:
        """What was rebuilt, and games won and played.

        Args:
            known: (S, p) weights of shadow models.
            records: (S, ...) the one of each that is no member.
            weights: (M, p) of the models that are attacked.
            candidates: (n, ...) records of which one was in each.
            secrets: (M,) which.
            rng: of the order of the others, and of ties.
        """
        flat, pool = (each.reshape(len(each), -1) for each in (records, candidates))
        low, high = float(flat.min()), float(flat.max())
        found = np.clip(radial.rebuild(known, flat, weights), low, high)
        apart = ((found**2).sum(axis=1)[:, None] - 2 * found @ pool.T) + (pool**2).sum(axis=1)
        told = self._rebuilt(found, flat, pool, apart, secrets, records.shape[1:])
        if not self.tests:
            return (told,)
        tally = Tally(self.sizes)
        tally.count(secret_first(-apart, secrets, rng), rng)
        return (told, *tally.evidence(self.name, self.access, "run"))

    def _rebuilt(
        self,
        found: FloatArray,
        known: FloatArray,
        pool: FloatArray,
        apart: FloatArray,
        secrets: IntArray,
        shape: tuple[int, ...],
    ) -> Rebuilt:
        """How near it came, beside other records, the mean record, and the nearest that is known."""
        low, high = float(known.min()), float(known.max())
        wanted, others = pool[secrets], pool[(secrets + 1) % len(pool)]
        size = picture(shape, self.height, self.width)
        scores = _scores(found, wanted, others, known)
        right = apart.argmin(axis=1) == secrets
        scores.append(likeness.share("picked", right, blind=1 / len(pool)))
        panels: tuple[Panel, ...] = ()
        if size is not None:
            shown, originals, wrong = (as_pictures(each, size) for each in (found, wanted, others))
            like, span = likeness.ssim(shown, originals, high - low), high - low
            blind = float(likeness.ssim(shown, wrong, span).mean())
            scores = [
                likeness.summed_up("ssim", like, blind=blind, low=-1.0, high=1.0),
                likeness.share("rebuilt", like >= EXACT),
                *scores,
            ]
            if self.show_records:
                panels = cards.panels(originals[:_PICTURES], low, high, "original", real=True)
                panels += cards.panels(shown[:_PICTURES], low, high, "as released", real=True)
        seed = "order of batches known" if self.batches == "known" else ""
        words = "; ".join(filter(None, (_KNOWN[self.start], seed, f"{self.label} label")))
        return Rebuilt(
            method=f"reconstructor network, {len(known)} shadow models",
            condition="as released",
            subject=f"the last unknown record ({words})",
            real=True,
            batch=1,
            scores=tuple(scores),
            source=self.name,
            access=self.access,
            panels=panels,
        )


def _scores(found: FloatArray, wanted: FloatArray, others: FloatArray, known: FloatArray) -> list[Score]:
    """PSNR of what was rebuilt and of the mean record, and how often it beats every record that is known."""
    span = max(float(known.max() - known.min()), 1e-12)
    typical = np.broadcast_to(known.mean(axis=0), wanted.shape)
    error = ((found - wanted) ** 2).sum(axis=1)
    squares = (wanted**2).sum(axis=1)[:, None] - 2 * wanted @ known.T + (known**2).sum(axis=1)
    return [
        likeness.summed_up(
            "psnr",
            likeness.psnr(found, wanted, span),
            blind=float(likeness.psnr(found, others, span).mean()),
            high=likeness.BEST_PSNR,
        ),
        likeness.summed_up("mean record", likeness.psnr(typical, wanted, span), high=likeness.BEST_PSNR),
        likeness.share("beyond known", error < squares.min(axis=1)),
    ]
