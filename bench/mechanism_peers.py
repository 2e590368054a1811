"""Other ways to falsify the claim of a mechanism on one pair of data sets, behind one signature.

`peer(sample, first, second, epsilon, samples, rng)`: `sample(data, size, rng)` gives `size` outputs, and each
of the two data sets is released `samples` times in all, whatever a peer divides them into. Three peers:

* `privacy_estimates(method)`: the package of that name (Zanella-Beguelin et al. 2022, arXiv:2206.05199),
  which makes a bound of the four counts of an attack. It brings no attack: here a score and a threshold are
  chosen on one half, and the counts are those of the other. Needs `pip install privacy-estimates pandas`; it
  imports the second without asking for it.
* `diffprivlib_neighbours`: the test that diffprivlib's own suite makes of each of its noise mechanisms.
* `statdp`: the selection of an event and the test of Ding et al. (2018, arXiv:1805.10277), re-stated.

Only delta = 0 is asked about: neither of the last two knows another.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import beta, hypergeom

ALPHA = 0.05
Sample = Callable[[Any, int, np.random.Generator], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerResult:
    """What a peer says.

    Attributes:
        bound: lower bound on epsilon at level 95 %, where the peer gives one.
        p_value: of its test of the claim, where it makes one.
        refuted: whether it calls the claim false.
        samples: outputs drawn, of both data sets together.
        seconds: wall clock, with the drawing.
        applies: whether the outputs are of a kind that the peer can read.
        failure: what the peer raised in place of an answer.
    """

    bound: float | None = None
    p_value: float | None = None
    refuted: bool = False
    samples: int = 0
    seconds: float = 0.0
    applies: bool = True
    failure: str = ""


Peer = Callable[[Sample, Any, Any, float, int, np.random.Generator], PeerResult]


def columns(outputs: Any) -> np.ndarray | None:
    """Outputs as numbers (size, d); None if they are of another kind."""
    try:
        numbers = np.asarray(outputs, dtype=float)
    except (TypeError, ValueError):
        return None
    return numbers.reshape(len(numbers), -1)


def drawn(
    sample: Sample, pair: Iterable[Any], size: int, rng: np.random.Generator
) -> list[np.ndarray] | None:
    """`size` outputs (size, d) of each data set; None if the peer cannot read them."""
    read = [columns(sample(data, size, rng)) for data in pair]
    return None if any(each is None for each in read) else read


def timed(peer: Peer) -> Peer:
    """The peer with its wall clock in the result."""

    def call(*arguments: Any) -> PeerResult:
        started = time.perf_counter()
        found = peer(*arguments)
        return replace(found, seconds=time.perf_counter() - started)

    return call


def privacy_estimates(method: str = "joint-beta") -> Peer:
    """Make the peer of one method: "joint-beta", "jeffreys" or "beta" (Clopper-Pearson).

    Only "beta" is a confidence bound in the strict sense; the others are credible bounds under
    Jeffreys priors. "joint-beta" never exceeds 10 and is not among PEERS: it integrates over the unit square
    for up to a minute, and from 100,000 counts on its integrator misses the narrow posterior, so that it
    overstates the bound or raises an error.
    """

    def peer(
        sample: Sample, first: Any, second: Any, epsilon: float, samples: int, rng: np.random.Generator
    ) -> PeerResult:
        from privacy_estimates import AttackResults, compute_eps_lo

        half = samples // 2
        fitting = drawn(sample, (first, second), half, rng)
        if fitting is None:
            return PeerResult(samples=2 * half, applies=False)
        score = scoring(*fitting)
        threshold = best_threshold(*map(score, fitting))
        fresh = drawn(sample, (first, second), samples - half, rng)
        assert fresh is not None
        positives, negatives = (int((score(each) > threshold).sum()) for each in fresh)
        size = samples - half
        counts = AttackResults(FN=size - positives, FP=negatives, TN=size - negatives, TP=positives)
        try:
            bound = float(compute_eps_lo(counts, 0.0, ALPHA, method))
        except ValueError as error:
            return PeerResult(samples=2 * samples, failure=str(error))
        return PeerResult(bound=bound, refuted=bound > epsilon, samples=2 * samples)

    return timed(peer)


def scoring(ins: np.ndarray, outs: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The score of an output: itself if it is one number, else the logit of a logistic regression."""
    if ins.shape[1] == 1:
        return lambda outputs: finite(outputs[:, 0])
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(finite(np.vstack([ins, outs])), np.repeat([1, 0], [len(ins), len(outs)]))
    return lambda outputs: np.asarray(model.decision_function(finite(outputs)))


def finite(outputs: np.ndarray) -> np.ndarray:
    """Numbers whose squares are numbers, too: sparse vectors are filled with infinity."""
    return np.nan_to_num(outputs, posinf=1e6, neginf=-1e6)


def best_threshold(ins: np.ndarray, outs: np.ndarray) -> float:
    """Of 200 quantiles of the scores, where Clopper-Pearson bounds promise most in any direction."""
    candidates = np.unique(np.quantile(np.concatenate([ins, outs]), np.linspace(0, 1, 202)[:-1]))
    above = [len(x) - np.searchsorted(np.sort(x), candidates, side="right") for x in (ins, outs)]
    sides = [(above[0], above[1]), (above[1], above[0])]
    sides += [(len(ins) - a, len(ins) - b) for a, b in sides]
    with np.errstate(divide="ignore"):
        promised = np.max([np.log(low(a, len(ins)) / high(b, len(ins))) for a, b in sides], axis=0)
    return float(candidates[int(np.argmax(promised))])


def low(count: np.ndarray, size: int) -> np.ndarray:
    """Lower Clopper-Pearson bound at level 1 - ALPHA / 2; 0 for a count of 0."""
    return np.where(count > 0, beta.ppf(ALPHA / 2, np.maximum(count, 1), size - count + 1), 0.0)


def high(count: np.ndarray, size: int) -> np.ndarray:
    """Upper Clopper-Pearson bound at level 1 - ALPHA / 2; 1 for a count of `size`."""
    return np.where(count < size, beta.ppf(1 - ALPHA / 2, count + 1, np.maximum(size - count, 1)), 1.0)


SLACK = 0.1


def _diffprivlib_neighbours(
    sample: Sample, first: Any, second: Any, epsilon: float, samples: int, rng: np.random.Generator
) -> PeerResult:
    """Test one event with a slack of 0.1 on probabilities: `test_neighbours_prob` of diffprivlib.

    The event is an output at most the smaller of two neighbouring numbers. The claim is called false if
    the smaller one's frequency is more than e^epsilon times the other's and 0.1, or if it is not the larger
    of the two. The suite takes 0 and 1 and 5,000 to 20,000 releases of each. It has no such test for
    mechanisms that select, nor for its tools and models.
    """
    numbers = [np.asarray(data, dtype=object) for data in (first, second)]
    if any(each.ndim for each in numbers) or not all(isinstance(d, int | float) for d in (first, second)):
        return PeerResult(applies=False)
    smaller, larger = sorted((first, second))
    read = drawn(sample, (smaller, larger), samples, rng)
    if read is None:
        return PeerResult(samples=2 * samples, applies=False)
    at_most = [float((each[:, 0] <= smaller).mean()) for each in read]
    broken = at_most[0] > math.exp(epsilon) * at_most[1] + SLACK
    return PeerResult(refuted=broken or at_most[0] <= at_most[1], samples=2 * samples)


diffprivlib_neighbours = timed(_diffprivlib_neighbours)

SELECTION = 1 / 6
"""Ding et al. select on 100,000 releases and test on 500,000."""
THINNINGS = 200
ENDS = 10
DENSEST = 0.7
FEW = 0.002
EVENTS = 2000
WHOLE = 3
JUDGED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An atom (a number) or an open half-line (up to a number) for each column of an output."""

    parts: tuple[tuple[bool, float], ...]

    def holds(self, outputs: np.ndarray) -> np.ndarray:
        """Whether each of (n, d) outputs lies in the event; (n,)."""
        inside = np.ones(len(outputs), dtype=bool)
        for column, (atom, value) in zip(outputs.T, self.parts, strict=True):
            inside &= column == value if atom else column < value
        return inside


def _statdp(
    sample: Sample, first: Any, second: Any, epsilon: float, samples: int, rng: np.random.Generator
) -> PeerResult:
    """StatDP on one given pair: the event with the least p-value, tested on fresh releases.

    The bound is not part of the paper, which draws the p-value over claims: it is the claim at which the
    p-value of the chosen event crosses 5 %. The direction is chosen with the event. Of vectors with more
    than three entries one entry at a time is restricted, or their sum or largest entry, for products of
    ten half-lines per entry are too many; and the averaged p-value is computed for the twenty best of a quick
    ranking.
    """
    selecting = max(1, round(samples * SELECTION))
    read = drawn(sample, (first, second), selecting, rng)
    if read is None:
        return PeerResult(samples=2 * selecting, applies=False)
    event, swapped = select([summary(each) for each in read], epsilon, rng)
    testing = samples - selecting
    fresh = drawn(sample, (first, second), testing, rng)
    assert fresh is not None
    counts = [int(event.holds(summary(each)).sum()) for each in fresh]
    more, less = reversed(counts) if swapped else counts
    p_value = averaged(more, less, testing, epsilon, rng)
    return PeerResult(
        bound=crossing(more, less, testing, rng),
        p_value=p_value,
        refuted=p_value < ALPHA,
        samples=2 * samples,
    )


statdp = timed(_statdp)


def summary(outputs: np.ndarray) -> np.ndarray:
    """Outputs (n, d) as they are up to d = 3, else with sum and largest entry appended; (n, d + 2)."""
    if outputs.shape[1] <= WHOLE:
        return outputs
    return np.column_stack([outputs, outputs.sum(axis=1), outputs.max(axis=1)])


def select(pair: list[np.ndarray], epsilon: float, rng: np.random.Generator) -> tuple[Event, bool]:
    """The event with the least p-value, and whether the second data set is the one that has it more often.

    Events that are too rare, with counts of at most 0.001 n e^epsilon together, are left out.
    """
    size = len(pair[0])
    events = space(np.vstack(pair), size, rng)
    counts = np.array([[int(event.holds(each).sum()) for each in pair] for event in events])
    frequent = counts.sum(axis=1) > 0.001 * size * math.exp(epsilon)
    if not frequent.any():
        frequent[np.argmax(counts.sum(axis=1))] = True
    kept = np.flatnonzero(frequent)
    more, less = counts[kept].max(axis=1), counts[kept].min(axis=1)
    thinned = np.rint(more * math.exp(-epsilon)).astype(int)
    quick = hypergeom.logsf(thinned - 1, 2 * size, size, thinned + less)
    order = np.argsort(quick, kind="stable")[:JUDGED]
    values = [averaged(int(more[i]), int(less[i]), size, epsilon, rng) for i in order]
    best = kept[order[int(np.argmin(values))]]
    return events[best], bool(counts[best, 1] > counts[best, 0])


def space(outputs: np.ndarray, size: int, rng: np.random.Generator) -> list[Event]:
    """The events of outputs (2 size, d): atoms or half-lines of columns; products of them up to d = 3."""
    choices = [column_events(column, size) for column in outputs.T]
    if len(choices) > WHOLE:
        free = [(False, math.inf)] * len(choices)
        singles = [(i, part) for i, row in enumerate(choices) for part in row]
        return [Event(parts=(*free[:i], part, *free[i + 1 :])) for i, part in singles]
    if math.prod(map(len, choices)) <= EVENTS:
        return [Event(parts=parts) for parts in itertools.product(*choices)]
    picked = [[row[i] for i in rng.integers(len(row), size=EVENTS)] for row in choices]
    return [Event(parts=parts) for parts in zip(*picked, strict=True)]


def column_events(column: np.ndarray, size: int) -> list[tuple[bool, float]]:
    """Atoms where a column has few values; else half-lines that end in its densest 70 %."""
    # The original knows no outputs that are missing: of a list that ended early they are left out.
    column = column[np.isfinite(column)]
    distinct = np.unique(column)
    if len(distinct) < FEW * size:
        return [(True, float(value)) for value in distinct] or [(False, math.inf)]
    ordered = np.sort(column)
    span = int(DENSEST * len(ordered))
    start = int(np.nanargmin(ordered[span:] - ordered[: len(ordered) - span]))
    ends = np.linspace(ordered[start], ordered[start + span], ENDS)
    return [(False, float(end)) for end in ends]


def averaged(more: int, less: int, size: int, epsilon: float, rng: np.random.Generator) -> float:
    """Mean p-value of Fisher's exact test over 200 binomial thinnings of the larger count by e^-epsilon.

    Under the claim the thinned count has a probability that is at most the other's.
    """
    thinned = rng.binomial(more, math.exp(-epsilon), size=THINNINGS)
    values, times = np.unique(thinned, return_counts=True)
    return float(np.average(hypergeom.sf(values - 1, 2 * size, size, values + less), weights=times))


def crossing(more: int, less: int, size: int, rng: np.random.Generator) -> float:
    """The greatest claim whose p-value is below 5 %, by bisection; 0 if none is."""
    bottom, top = 0.0, math.log(max(size, 2))
    if averaged(more, less, size, bottom, rng) >= ALPHA:
        return 0.0
    for _ in range(30):
        middle = (bottom + top) / 2
        below = averaged(more, less, size, middle, rng) < ALPHA
        bottom, top = (middle, top) if below else (bottom, middle)
    return bottom


PEERS: dict[str, Peer] = {
    "privacy-estimates jeffreys": privacy_estimates("jeffreys"),
    "privacy-estimates beta": privacy_estimates("beta"),
    "diffprivlib neighbours": diffprivlib_neighbours,
    "StatDP, re-stated": statdp,
}
