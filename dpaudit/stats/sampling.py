"""Whether batches were drawn as Poisson sampling draws them: each record by its own coin at each step.

Everything here is a test of one hypothesis about the inclusion matrix (steps by records): its entries are
independent, each 1 with the same probability, at most q. Each test looks at one consequence; p-values are
valid for any number of records and steps, by tail bounds instead of limit theorems, except that of pairs.
All but that of the rate hold whatever the rate is: a smaller one than stated is no fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.special import betaincinv, gammaincc, gammaln
from scipy.stats import binom

from dpaudit.check import FloatArray, IntArray
from dpaudit.evidence import Draws
from dpaudit.stats import binomial, chernoff

_REACH = 12.0
_ROUNDING = 1e-15
_PAIR_SKEWNESS = 1.0
_MOST_PAIRS = 2_000_000
_MOST_LAGGED = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """One consequence of Poisson sampling.

    Attributes:
        name: of what was looked at.
        p_value: of the hypothesis; not adjusted for the number of tests.
        expected: in words, with the number.
        measured: in words, with the number.
    """

    name: str
    p_value: float
    expected: str
    measured: str


RATE, RECORDS, SIZES, CONSECUTIVE, PASSES, PAIRS, EQUAL = (
    "inclusion rate",
    "inclusions per record",
    "batch sizes",
    "consecutive batches",
    "batches one pass apart",
    "pairs of records",
    "equal batches",
)


def tests(draws: Draws) -> tuple[Tested, ...]:
    """Every test that the draws allow; where only sizes are known, those of the sizes."""
    found = [_rate(draws), _sizes(draws)]
    if draws.records.size or not draws.sizes.sum():
        matrix = inclusion(draws)
        found += [_records(draws), _lagged(draws, matrix, 1, CONSECUTIVE)]
        if draws.period > 1:
            found.append(_lagged(draws, matrix, draws.period, PASSES))
        found += [_pairs(draws, matrix), _equal(draws)]
    return tuple(found)


def inclusion(draws: Draws) -> sparse.csr_matrix:
    """The inclusion matrix (steps, records), sparse; a record that is drawn twice counts twice."""
    starts = np.concatenate([[0], np.cumsum(draws.sizes)])
    ones = np.ones(draws.records.size, dtype=np.float64)
    return sparse.csr_matrix((ones, draws.records, starts), shape=(draws.sizes.size, draws.n_records))


def rate_interval(draws: Draws, error: float) -> tuple[float, float]:
    """Clopper-Pearson interval of the probability with which a record enters a step."""
    lower, upper = binomial.two_sided(float(draws.sizes.sum()), float(_trials(draws)), error)
    return float(lower), float(upper)


def detectable_rate(draws: Draws, error: float) -> float:
    """Smallest true rate that the test of the rate at level `error` rejects nine times in ten."""
    trials = _trials(draws)
    critical = float(binom.isf(error, trials, draws.promised)) + 1
    # P(Binomial(n, p) >= k) = 0.9 at the 0.9 quantile of Beta(k, n - k + 1).
    return float(betaincinv(critical, max(trials - critical + 1, 1e-9), 0.9))


def detectable_spread(draws: Draws, error: float) -> tuple[float, float]:
    """Relative deviations of the variances of batch sizes and of counts per record, seen nine times in ten.

    Normal approximation: sqrt(2/n) is the relative deviation of a variance of n terms.
    """
    quantiles = float(np.sqrt(2 * np.log(1 / error))) + 1.2816
    steps, records = (quantiles * np.sqrt(2 / n) for n in (max(draws.sizes.size, 1), draws.n_records))
    return float(steps), float(records)


def _trials(draws: Draws) -> int:
    return draws.n_records * draws.sizes.size


def _rate(draws: Draws) -> Tested:
    """Exact binomial test of "no more often than q". Too seldom costs no privacy and is not accused.

    Where q differs from step to step, the tail at the mean of q bounds that of the sum (Hoeffding 1956).
    """
    total, trials = int(draws.sizes.sum()), _trials(draws)
    p = float(binomial.tail(float(total), float(trials), draws.promised)) if trials else 1.0
    return Tested(
        name=RATE,
        p_value=p,
        expected=f"a record in each batch with probability at most {draws.promised:.5g}",
        measured=f"{total / max(trials, 1):.5g} ({total} of {trials})",
    )


def _spread(counts: IntArray, trials: int) -> float:
    """P-value of the spread of independent binomial counts of one rate about their mean, two-sided.

    Given their total, the law of the counts does not depend on the rate, and is that of binomial counts of
    any rate over the probability of the total: P(A | S) <= P(A) / P(S). With the rate at which this total
    is likeliest the price is sqrt(2 pi var S), and nothing has to be known of the rate.
    """
    total = int(counts.sum())
    if not total or total == counts.size * trials:
        return 1.0
    rate = total / (counts.size * trials)
    likelihood = float(binom.pmf(total, counts.size * trials, rate))
    return min(1.0, _spread_at(counts, trials, rate) / likelihood)


def _spread_at(counts: IntArray, trials: int, rate: float) -> float:
    """The same for a known rate. Squares are cut at 12 deviations, so that the law has few values."""
    mean, deviation = trials * rate, max(float(np.sqrt(trials * rate * (1 - rate))), 1.0)
    reach = _REACH * deviation
    low, high = max(0, int(mean - reach)), min(trials, int(mean + reach) + 1)
    support = np.arange(low, high + 1)
    beyond = binom.cdf(low - 1, trials, rate) + binom.sf(high, trials, rate)
    with np.errstate(divide="ignore"):
        log_weights = np.append(binom.logpmf(support, trials, rate), np.log(beyond))
    squares = np.append(np.minimum((support - mean) ** 2, reach**2), reach**2)
    total = float(np.minimum((counts - mean) ** 2, reach**2).sum())
    return chernoff.either(squares[None], log_weights[None], np.array([float(counts.size)]), total)


def _sizes(draws: Draws) -> Tested:
    """Batch sizes are independent Binomial(N, q): fixed sizes have no variance, siblings too much."""
    expected = draws.n_records * draws.sample_rate * (1 - draws.sample_rate)
    return Tested(
        name=SIZES,
        p_value=_spread(draws.sizes, draws.n_records),
        expected=f"variance {expected:.4g} of the batch size, N q (1 - q)",
        measured=f"{draws.sizes.var():.4g} over {draws.sizes.size} batches",
    )


def _records(draws: Draws) -> Tested:
    """Inclusions per record are independent Binomial(T, q): once per pass is too even."""
    steps = draws.sizes.size
    counts = np.bincount(draws.records, minlength=draws.n_records)
    return Tested(
        name=RECORDS,
        p_value=_spread(counts, steps),
        expected=f"variance {steps * draws.sample_rate * (1 - draws.sample_rate):.4g} "
        "of the number of batches that a record is in, T q (1 - q)",
        measured=f"{counts.var():.4g} over {draws.n_records} records",
    )


def overlaps(matrix: sparse.csr_matrix, lag: int) -> IntArray:
    """Records that steps t and t + lag have in common, for every t: (T - lag,)."""
    common = matrix[lag:].multiply(matrix[:-lag]).sum(axis=1)
    result: IntArray = np.asarray(common).ravel().astype(np.int64)
    return result


def _lagged(draws: Draws, matrix: sparse.csr_matrix, lag: int, name: str) -> Tested:
    """Overlap of batches at one distance, given their sizes.

    Pairs (t, t + lag) form a forest, in which overlaps of independent random subsets are independent
    hypergeometric counts: adding a step to a tree adds one overlap, whose law does not depend on the others.
    """
    steps = draws.sizes.size
    if steps <= lag:
        return Tested(name=name, p_value=1.0, expected="more than one batch", measured=f"{steps} batches")
    observed = overlaps(matrix, lag)[:_MOST_LAGGED]
    first, second = draws.sizes[:-lag][:_MOST_LAGGED], draws.sizes[lag:][:_MOST_LAGGED]
    pairs, index, times = np.unique(
        np.stack([first, second], axis=1), axis=0, return_inverse=True, return_counts=True
    )
    values, log_weights = _hypergeometric(draws.n_records, pairs[:, 0], pairs[:, 1])
    seen = np.where(np.isfinite(log_weights), values, -1.0).max(axis=1)[index.reshape(-1)]
    total = float(np.clip(observed, values[:, 0][index.reshape(-1)], seen).sum())
    mean = float((first * second).sum() / draws.n_records / len(observed))
    return Tested(
        name=name,
        p_value=chernoff.either(values, log_weights, times.astype(np.float64), total),
        expected=f"{mean:.4g} records in common on average, as independent batches of these sizes have",
        measured=f"{observed.mean():.4g} over {len(observed)} pairs",
    )


def _hypergeometric(total: int, first: IntArray, second: IntArray) -> tuple[FloatArray, FloatArray]:
    """Values and log-probabilities of overlaps (pairs, k) of random subsets, cut at 12 deviations.

    Overlaps beyond count as the last one within, which keeps the bound valid.
    """
    mean = first * second / total
    spread = np.sqrt(mean * (1 - first / total) * (1 - second / total))
    reach = _REACH * np.maximum(spread, 1.0)
    low = np.maximum(np.maximum(0, first + second - total), np.floor(mean - reach).astype(np.int64))
    high = np.minimum(np.minimum(first, second), np.ceil(mean + reach).astype(np.int64))
    values = low[:, None] + np.arange(int((high - low).max()) + 1)
    k, a, b = np.minimum(values, high[:, None]), first[:, None], second[:, None]
    log_weights = _log_choose(a, k) + _log_choose(total - a, b - k) - _log_choose(np.asarray(total), b)
    log_weights = np.where(values <= high[:, None], log_weights, -np.inf)
    beyond = np.log(np.maximum(1 - np.exp(log_weights).sum(axis=1), _ROUNDING))
    rows = np.arange(len(low))
    for end in (0, high - low):
        log_weights[rows, end] = np.logaddexp(log_weights[rows, end], beyond)
    return values.astype(np.float64), log_weights


def _log_choose(n: IntArray, k: IntArray) -> FloatArray:
    result: FloatArray = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
    return result


def _pairs(draws: Draws, matrix: sparse.csr_matrix) -> Tested:
    """Squared deviations of the overlaps of all pairs of batches, which equal those of all pairs of records.

    With X the centred matrix, the squared entries of X X' (steps) and of X' X (records) add up to the same
    number, so that records which travel together show in the smaller of both. Given the sizes, overlaps
    are pairwise independent: mean and variance of the sum are exact. Its tail is taken from a gamma law
    of skewness 1, which is more than was found wherever there are enough pairs.
    """
    steps = min(draws.sizes.size, int(np.sqrt(2 * _MOST_PAIRS)))
    skipped = Tested(name=PAIRS, p_value=1.0, expected="enough pairs", measured="too few to look at")
    if steps < 10:
        return skipped
    common = (matrix[:steps] @ matrix[:steps].T).toarray()
    i, j = np.triu_indices(steps, 1)
    n, a, b = float(draws.n_records), draws.sizes[i].astype(float), draws.sizes[j].astype(float)
    if n < 4 or (a * b).sum() / n < 50:
        return skipped
    variance = a * b * (n - a) * (n - b) / (n * n * (n - 1))
    used = variance > 0
    i, j, a, b, variance = i[used], j[used], a[used], b[used], variance[used]
    excess = _hypergeometric_excess(n, a, b)
    deviation = float(np.sqrt((variance**2 * (2 + excess)).sum()))
    z = float(((common[i, j] - a * b / n) ** 2 - variance).sum()) / deviation
    shape = 4 / _PAIR_SKEWNESS**2
    p = float(gammaincc(shape, max(shape + z * np.sqrt(shape), 0.0)))
    return Tested(
        name=PAIRS,
        p_value=p,
        expected="records that enter batches independently of each other",
        measured=f"co-inclusions {z:.3g} standard deviations above that",
    )


def _hypergeometric_excess(n: float, a: FloatArray, b: FloatArray) -> FloatArray:
    """Excess kurtosis of the overlap of random subsets of sizes a and b among n >= 4."""
    top = (n - 1) * n * n * (n * (n + 1) - 6 * a * (n - a) - 6 * b * (n - b))
    top = top + 6 * a * b * (n - a) * (n - b) * (5 * n - 6)
    result: FloatArray = top / (a * b * (n - a) * (n - b) * (n - 2) * (n - 3))
    return result


def batches(draws: Draws) -> Iterator[bytes]:
    """Each batch as bytes that are equal where batches are."""
    for part in np.split(draws.records, np.cumsum(draws.sizes)[:-1]):
        yield np.sort(part).tobytes()


def _equal(draws: Draws) -> Tested:
    """Two independent batches are equal with probability (q^2 + (1-q)^2)^N: the expected number bounds p."""
    steps = draws.sizes.size
    _, copies = np.unique(np.array([hash(batch) for batch in batches(draws)]), return_counts=True)
    equal = int((copies * (copies - 1) // 2).sum())
    # Given the total, as in `_spread`: the smaller the rate, the likelier are equal batches, empty ones.
    total, trials = int(draws.sizes.sum()), _trials(draws)
    q = total / trials
    log_each = draws.n_records * np.log(q * q + (1 - q) ** 2)
    expected = float(steps * (steps - 1) / 2 * np.exp(log_each) / binom.pmf(total, trials, q))
    return Tested(
        name=EQUAL,
        p_value=min(1.0, expected) if equal else 1.0,
        expected="no two batches with the same records" if expected < 0.01 else f"{expected:.3g} equal pairs",
        measured=f"{equal} equal pairs of batches",
    )
