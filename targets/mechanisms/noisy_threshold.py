"""Answers against a noisy threshold: the release, its exact law and its privacy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpaudit.check import BoolArray, FloatArray, in_range, one_of
from dpaudit.errors import UsageError
from dpaudit.targets.mechanisms.checks import answers, positive, pure, records
from dpaudit.targets.mechanisms.exact import finite_epsilon
from dpaudit.targets.mechanisms.threshold_law import flag_rows, log_chances, step_chances

ABOVE, BELOW, STOPPED = 1, 0, -1
"""Codes of a release of flags; a release of numbers has a number, -inf and NaN in their places."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseVector:
    """Says of each answer in turn whether it is above a noisy threshold, and stops after `cutoff` that are.

    Of answers q_1..q_d, the i-th is above if q_i + nu_i >= threshold + rho, with rho drawn once and
    nu_i for each. Releases are (size, d): int8 codes `ABOVE`, `BELOW` and `STOPPED` (after the last
    answer above), or floats, in which -inf says below and NaN says stopped.

    Attributes:
        delta: 0, pure differential privacy.
        epsilon: claimed.
        threshold: what answers are compared to.
        cutoff: c, number of answers above after which it stops; never if None.
        threshold_scale: scale of rho.
        answer_scale: scale of nu_i; 0 for none.
        value_scale: scale of the noise of "fresh" releases.
        refresh: whether rho is drawn again after every answer above.
        releases: for an answer above "flag", "noisy" q_i + nu_i, "gap" q_i + nu_i - threshold - rho, or
            "fresh", q_i with new noise.
        queries: "given": data are the answers (d,), each of which moves by at most 1. "sum" and "reveal":
            data are records, clipped to [0, 1], and the answers are d times their sum, or d - 1 times the
            last and once the one before (0 where there is none), all of which one record may move.
        dimension: number of answers d; of data that are answers, of the domain and `exact_epsilon` only.
    """

    delta: ClassVar[float] = 0.0
    epsilon: float = 0.1
    threshold: float = 1.0
    cutoff: int | None = 1
    threshold_scale: float = 20.0
    answer_scale: float = 40.0
    value_scale: float = 60.0
    refresh: bool = False
    releases: str = "flag"
    queries: str = "given"
    dimension: int = 10

    def __post_init__(self) -> None:
        for name in ("epsilon", "threshold_scale", "value_scale"):
            positive(name, getattr(self, name))
        in_range("threshold", self.threshold, -math.inf, math.inf, open_low=True, open_high=True)
        in_range("cutoff", 1 if self.cutoff is None else self.cutoff, 1, math.inf)
        in_range("answer_scale", self.answer_scale, 0.0, math.inf, open_high=True)
        in_range("dimension", self.dimension, 1, math.inf)
        one_of("releases", self.releases, ("flag", "noisy", "gap", "fresh"))
        one_of("queries", self.queries, ("given", "sum", "reveal"))

    @property
    def domain(self) -> str:
        """Answers, all of which may move, or records."""
        return f"answers({self.dimension})" if self.queries == "given" else "list(float(0, 1))"

    def answers(self, data: ArrayLike) -> FloatArray:
        """The answers that are compared to the threshold; (d,)."""
        if self.queries == "given":
            return answers("data", data)
        known = records(data, 0.0, 1.0)
        if self.queries == "sum":
            return np.full(self.dimension, known.sum())
        before, last = np.concatenate([[0.0, 0.0], known])[-2:]
        return np.append(np.full(self.dimension - 1, last), before)

    def sample(self, data: ArrayLike, size: int, rng: np.random.Generator) -> NDArray[Any]:
        """Codes or numbers; (size, d)."""
        values = self.answers(data)
        noisy = np.broadcast_to(values, (size, values.size))
        if self.answer_scale:
            noisy = values + rng.laplace(scale=self.answer_scale, size=noisy.shape)
        bars, above = self._compare(noisy, rng)
        stopped = self._stopped(above)
        if self.releases == "flag":
            return np.where(stopped, STOPPED, above).astype(np.int8)
        if self.releases == "gap":
            noisy = noisy - bars
        elif self.releases == "fresh":
            noisy = values + rng.laplace(scale=self.value_scale, size=noisy.shape)
        return np.where(stopped, math.nan, np.where(above, noisy, -math.inf))

    def log_probabilities(self, data: ArrayLike) -> FloatArray:
        """Log probability of each row of flags, by quadrature over rho; (k,), in the order of `outcomes`.

        Of releases of numbers these are the probabilities of where the numbers stand.
        """
        values = self.answers(data)
        rows = flag_rows(values.size, self.cutoff)
        if not self.answer_scale:
            return step_chances(rows, values - self.threshold, self.threshold_scale)
        scales = self.threshold_scale, self.answer_scale
        return log_chances(rows, values - self.threshold, *scales, refresh=self.refresh)

    def outcomes(self, data: ArrayLike) -> NDArray[np.int8]:
        """All rows of codes that can be released; (k, d)."""
        return flag_rows(self.answers(data).size, self.cutoff)

    def pair_epsilon(self, first: ArrayLike, second: ArrayLike, delta: float = 0.0) -> float:
        """Of one pair, of flags by enumeration; of fresh numbers too, at delta 0, as they are independent.

        Raises:
            UsageError: the numbers released depend on the comparison; only `epsilon_limit` is known.
        """
        p, q = self.log_probabilities(first), self.log_probabilities(second)
        if self.releases == "flag":
            return finite_epsilon(p, q, delta)
        if self.releases != "fresh":
            raise UsageError(
                f"Expected releases='flag' or 'fresh', found {self.releases!r}. Use epsilon_limit."
            )
        pure(delta)
        moved = np.abs(self.answers(first) - self.answers(second))
        numbers = (self.outcomes(first) == ABOVE) @ moved / self.value_scale
        return float((np.abs(p - q) + numbers).max())

    @property
    def epsilon_limit(self) -> float:
        """No pair of neighbours with d answers loses more, at delta 0; infinite where that is so.

        The least of two bounds. Shift rho by 1 and the noise of answers above by 2 (Lyu, Su & Li 2017,
        arXiv:1603.01699): one rho and two nu for every answer above. Or leave rho where it is and shift every
        nu by 1. Answers that all move alike ("sum") are matched by shifting rho alone.
        """
        tops = self.dimension if self.cutoff is None else min(self.cutoff, self.dimension)
        each = 1 / self.answer_scale if self.answer_scale else math.inf
        shared = (tops if self.refresh else 1) / self.threshold_scale
        by_rho = shared if self.queries == "sum" else shared + 2 * tops * each
        by_nu = self.dimension * each
        if self.releases == "noisy":
            return by_nu
        if self.releases == "gap":
            return by_rho
        return min(by_rho, by_nu) + (tops / self.value_scale if self.releases == "fresh" else 0.0)

    def exact_epsilon(self, delta: float = 0.0) -> float | None:
        """The supremum over all neighbouring answers (d,) at delta 0, or None where it is not known.

        It is `epsilon_limit` wherever that is approached: answers L above and L below the threshold, the
        former said to be below and the latter above, pin rho between them as L grows, and every noise is
        then in its tail, where a shift costs all it can. That takes enough of them; see `_approached`.
        """
        pure(delta)
        return self.epsilon_limit if self._approached() else None

    def _approached(self) -> bool:
        d, limit = self.dimension, self.epsilon_limit
        if not self.answer_scale:  # two answers that differ pin rho between them
            return self.queries != "sum" and d > 1
        each, shared = 1 / self.answer_scale, 1 / self.threshold_scale
        if self.releases == "noisy":  # all said to be below but the last, whose number tends to -inf
            return self.queries != "reveal"
        if self.queries != "given":
            return False
        tops = d if self.cutoff is None else min(self.cutoff, d)
        by_nu = d * each + (tops / self.value_scale if self.releases == "fresh" else 0.0)
        if self.releases != "gap" and limit == by_nu:  # half above, half below: rho may stay at 0
            return tops >= d // 2 and (d % 2 == 0 or each < shared)
        runs, carried = (tops, 1) if self.refresh else (1, tops)
        return (d - tops) // runs * each > shared + carried * each

    def _compare(self, noisy: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, BoolArray]:
        """The noisy thresholds, (size, 1) or (size, d), and where the noisy answers reach them."""
        size, d = noisy.shape
        bars = self.threshold + rng.laplace(scale=self.threshold_scale, size=(size, 1))
        if not self.refresh:
            return bars, noisy >= bars
        fresh = self.threshold + rng.laplace(scale=self.threshold_scale, size=noisy.shape)
        used = np.empty(noisy.shape)
        bar = bars[:, 0]
        for i in range(d):
            used[:, i] = bar
            bar = np.where(noisy[:, i] >= bar, fresh[:, i], bar)
        return used, noisy >= used

    def _stopped(self, above: BoolArray) -> BoolArray:
        if self.cutoff is None:
            return np.zeros(above.shape, dtype=np.bool_)
        return np.asarray(above.cumsum(axis=1) - above >= self.cutoff)
