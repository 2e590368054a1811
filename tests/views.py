"""Views of models that never were: log-odds drawn from Gaussians whose in and out means are known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dpaudit.canary import Pool
from dpaudit.check import FloatArray, IntArray
from dpaudit.protocols import View


@dataclass(frozen=True, kw_only=True)
class World:
    """Records with difficulties, and models whose log-odds of a record move when it is in.

    Attributes:
        hardness: (n,) mean log-odds of a model without the record.
        shift: (n,) how much being in adds.
        spread: (n,) standard deviation of a model's log-odds.
        population: (k,) mean log-odds outside the game.
        blur: standard deviation of what every single answer about a record is off by.
    """

    pool: Pool
    hardness: FloatArray
    shift: FloatArray
    spread: FloatArray
    population: FloatArray
    blur: float = 0.0

    def view(self, seed: int, *, copies: int = 0) -> View:
        """One model, trained on a draw of its own."""
        rng = np.random.default_rng(seed)
        drawn = self.pool.draw(rng)
        mean = self.hardness + self.shift * drawn.member
        phi = mean + self.spread * rng.standard_normal(len(mean))
        outside = self.population + rng.standard_normal(len(self.population))
        off = self.blur or 0.3
        queries = [
            log_probabilities(phi + off * rng.standard_normal(len(mean)), drawn.y, rng) for _ in range(copies)
        ]
        return View(
            canaries=drawn,
            scores=log_probabilities(phi + self.blur * rng.standard_normal(len(mean)), drawn.y, rng),
            test_scores=log_probabilities(outside, drawn.test_y, rng),
            queries=np.stack(queries) if queries else np.zeros((0, 0, 0)),
            distances=np.exp(0.1 * phi + rng.standard_normal((3, len(phi)))),
            gradient_norms=np.exp(-phi),
            test_accuracy=0.5,
            train_accuracy=0.5,
            n_parameters=1,
            claim=None,
        )

    def views(self, count: int, *, seed: int = 0, copies: int = 0) -> list[View]:
        """Several models."""
        return [self.view(1000 * seed + i, copies=copies) for i in range(count)]


def log_probabilities(phi: FloatArray, y: IntArray, rng: np.random.Generator, classes: int = 4) -> FloatArray:
    """(n, classes) with log-odds `phi` of the label, the rest shared out at random."""
    own = -np.logaddexp(0.0, -phi)
    left = -np.logaddexp(0.0, phi)
    raw = rng.standard_normal((len(phi), classes))
    raw[np.arange(len(phi)), y] = -np.inf
    share = raw - np.log(np.exp(raw).sum(axis=1, keepdims=True))
    scores: FloatArray = left[:, None] + share
    scores[np.arange(len(phi)), y] = own
    return scores


def world(n: int = 60, k: int = 40, *, seed: int = 0, shift: float = 1.0, unequal: float = 0.0) -> World:
    """Records of different difficulty; `unequal` is the spread of the log of their spreads."""
    rng = np.random.default_rng([7, seed])
    pool = Pool(
        x=rng.standard_normal((n, 5)),
        y=rng.integers(0, 4, n),
        canary=np.zeros(n, dtype=np.bool_),
        test_x=rng.standard_normal((k, 5)),
        test_y=rng.integers(0, 4, k),
    )
    return World(
        pool=pool,
        hardness=1.0 + 1.5 * rng.standard_normal(n),
        shift=np.full(n, shift),
        spread=np.exp(unequal * rng.standard_normal(n)),
        population=1.0 + 1.5 * rng.standard_normal(k),
    )


def likelihoods(view: View) -> View:
    """The same model as one that gives a record a single likelihood."""
    rows = np.arange(len(view.canaries.y))
    outside = np.arange(len(view.canaries.test_y))
    return replace(
        view,
        scores=view.scores[rows, view.canaries.y][:, None],
        test_scores=view.test_scores[outside, view.canaries.test_y][:, None],
        queries=np.zeros((0, 0, 0)),
        distances=np.zeros((0, 0)),
    )
