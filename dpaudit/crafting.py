"""How canary records are made: what an adversary who can only hand in data would hand in."""

from __future__ import annotations

import numpy as np

from dpaudit.check import FloatArray, IntArray, one_of
from dpaudit.errors import UsageError

SECRET = "secret"
KINDS = ("mislabelled", "in-distribution", "random", "blank", "adversarial", SECRET)


def choose(kind: str, x: FloatArray, y: IntArray, outside: tuple[FloatArray, IntArray]) -> IntArray:
    """Order in which records of a pool become canaries, (n,).

    Adversarial canaries are the outliers: those farthest from the mean of their class, which is taken from
    the records outside the game. For the others any order is as good.

    Raises:
        UsageError: unknown kind, with the nearest right one.
    """
    one_of("data.canary_kind", kind, KINDS)
    if kind != "adversarial":
        return np.arange(len(y))
    distance, classes = _distances(x, outside)
    of_own = np.where(classes[None, :] == y[:, None], distance, -np.inf).max(axis=1)
    return np.argsort(-of_own, kind="stable").astype(np.int64)


def craft(
    kind: str,
    x: FloatArray,
    y: IntArray,
    outside: tuple[FloatArray, IntArray],
    n_classes: int,
    rng: np.random.Generator,
) -> tuple[FloatArray, IntArray]:
    """Make canaries of records.

    Args:
        kind: "mislabelled": another label, drawn at random. "in-distribution": as they are. "random": every
            feature drawn uniformly between the extremes that it has outside the game, and a random label.
            "blank": every feature at zero, each with a label of its own (Jagielski et al. 2020,
            arXiv:2006.07709, and Annamalai and De Cristofaro 2024, arXiv:2405.14106, audit with one).
            "adversarial": the label of the class whose mean is farthest. "secret": as they are;
            `dpaudit.secret` plants a secret in each (Carlini et al. 2019, arXiv:1802.08232).
        x: (m, ...) features.
        y: (m,) labels.
        outside: (k, ...) features and (k,) labels of records outside the game.
        n_classes: number of classes.
        rng: source of labels and features.

    Raises:
        UsageError: more blank canaries than classes, which could not be told apart.
    """
    m = len(y)
    match kind:
        case "in-distribution" | "secret":
            return x, y
        case "random":
            low, high = outside[0].min(axis=0), outside[0].max(axis=0)
            return rng.uniform(low, high, x.shape).astype(x.dtype), rng.integers(0, n_classes, m)
        case "blank":
            if m > n_classes:
                raise UsageError(
                    f"Expected at most {n_classes} blank canaries, one of each class, found {m}. "
                    'Plant fewer, or use canary_kind = "random".'
                )
            return np.zeros_like(x), rng.permutation(n_classes)[:m].astype(y.dtype)
        case "adversarial":
            distance, classes = _distances(x, outside)
            return x, classes[distance.argmax(axis=1)].astype(y.dtype)
    return x, (y + rng.integers(1, n_classes, m)) % n_classes


def _distances(x: FloatArray, outside: tuple[FloatArray, IntArray]) -> tuple[FloatArray, IntArray]:
    """Squared distance (n, c) to the mean of each of c classes seen outside the game, and those classes."""
    features, labels = outside[0].reshape(len(outside[0]), -1), outside[1]
    classes, code = np.unique(labels, return_inverse=True)
    means = np.stack([features[code == i].mean(axis=0) for i in range(len(classes))])
    flat = x.reshape(len(x), -1)
    squared: FloatArray = (
        (flat**2).sum(axis=1)[:, None] - 2 * flat @ means.T + (means**2).sum(axis=1)[None, :]
    )
    return squared, classes.astype(np.int64)
