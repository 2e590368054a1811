"""Which runs drew their members independently, told from who was in and never from a score.

Ranks within a run are uniform because its members were drawn at random. Runs that share one draw (the same
canary in each, a fixed train and test split, a pair of models on either half) are one draw however many they
are: what is odd about their members is odd in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.special import kl_div
from scipy.stats import chi2

from dpaudit.check import BoolArray, IntArray

_IMPLAUSIBLE = 1e-9
_MOST_PAIRED = 2_000
_HASH_SEED = 20_260_101


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Runs by draw.

    Attributes:
        cluster: (runs,) number of the draw that each run belongs to.
        repeated: whether runs were joined because their members are the same records, or their complement.
        alike: whether runs were joined because their members agree, or differ, beyond chance.
        unequal: whether some records went in so much oftener than others that no equal chance explains it.
    """

    cluster: IntArray
    repeated: bool = False
    alike: bool = False
    unequal: bool = False


def independent_draws(run: IntArray, record: IntArray, member: BoolArray, *, anew: bool = False) -> Draws:
    """Join runs whose members were not drawn independently.

    Runs of the same members, or of complementary ones, are joined always: with few records chance repeats a
    draw, too, and joining then only costs power. With `anew` they are left apart unless chance is ruled out.
    Pairs over the same records are joined where the overlap of their members is implausible as that of
    two draws (1e-9 over all pairs). Costs n log n, and runs^2 * records on the first 2,000
    runs that scored all records.

    Args:
        run: (n,) index of the run, from 0.
        record: (n,) index of the record.
        member: (n,) whether it was in.
        anew: it is declared that members were drawn anew for each run, also where they repeat.
    """
    runs, records = int(run.max()) + 1, int(record.max()) + 1
    cluster = np.arange(runs) if anew else _same_members(run, record, member)
    repeated = bool(np.unique(cluster).size < runs)
    full = np.flatnonzero(np.bincount(run, minlength=runs) == records)
    full = full[np.unique(cluster[full], return_index=True)[1]][:_MOST_PAIRED]
    inside = _inside(run, record, member, full, records)
    first, second = _overlapping(inside)
    if first.size:
        start = np.concatenate([np.arange(runs), full[first]])
        cluster = _joined(runs, start, np.concatenate([runs + cluster, full[second]]))
    apart = np.unique(cluster[full], return_index=True)[1]
    return Draws(cluster=cluster, repeated=repeated, alike=bool(first.size), unequal=_unequal(inside[apart]))


def _same_members(run: IntArray, record: IntArray, member: BoolArray) -> IntArray:
    """(runs,) joined where members, or the members of one and the others of another, are the same records.

    Sets are compared by sums of random 64-bit numbers, one a record.
    """
    runs = int(run.max()) + 1
    code = np.random.default_rng(_HASH_SEED).integers(0, 2**64, int(record.max()) + 1, dtype=np.uint64)
    hashes = np.zeros((2, runs), dtype=np.uint64)
    for side in (0, 1):
        chosen = member == bool(side)
        np.add.at(hashes[side], run[chosen], code[record[chosen]])
    pooled = np.unique(hashes, return_inverse=True)[1].reshape(2, runs)
    # A node for each set and one for each run. A run meets the set of its members, and that of its others
    # only where these are the members of some run.
    paired = np.flatnonzero(np.isin(pooled[0], pooled[1]))
    start = np.concatenate([np.arange(runs), paired])
    return _joined(runs, start, runs + np.concatenate([pooled[1], pooled[0][paired]]))


def _joined(runs: int, start: IntArray, end: IntArray) -> IntArray:
    """(runs,) number of the connected component of each run, the first nodes of a graph of these edges."""
    size = int(max(start.max(), end.max())) + 1
    graph = csr_array((np.ones(start.size), (start, end)), shape=(size, size))
    component = connected_components(graph, directed=False)[1][:runs]
    return np.unique(component, return_inverse=True)[1].astype(np.int64)


def _inside(run: IntArray, record: IntArray, member: BoolArray, chosen: IntArray, records: int) -> BoolArray:
    """(chosen, records) whether each record was in each of the chosen runs."""
    place = np.full(int(run.max()) + 1, -1, dtype=np.int64)
    place[chosen] = np.arange(chosen.size)
    kept = member & (place[run] >= 0)
    inside = np.zeros((chosen.size, records), dtype=np.bool_)
    inside[place[run[kept]], record[kept]] = True
    return inside


def _overlapping(inside: BoolArray) -> tuple[IntArray, IntArray]:
    """Pairs of runs whose members overlap more, or less, than those of independent draws of their sizes.

    By Hoeffding's bound, which holds for draws without replacement (Hoeffding 1963, section 6).
    """
    runs, records = inside.shape
    sizes = inside.sum(axis=1)
    as_float = inside.astype(np.float32)
    first, second = np.triu_indices(runs, 1)
    overlap = np.rint(as_float @ as_float.T).astype(np.int64)[first, second]
    drawn, share = sizes[first], sizes[second] / records
    surprise = drawn * kl_div(overlap / np.maximum(drawn, 1), share)
    surprise += drawn * kl_div(1 - overlap / np.maximum(drawn, 1), 1 - share)
    unlikely = surprise > np.log(max(first.size, 1) / _IMPLAUSIBLE)
    return first[unlikely], second[unlikely]


def _unequal(inside: BoolArray) -> bool:
    """Whether the records' numbers of runs vary more than equal chances allow, by chi-squared."""
    if len(inside) < 2:
        return False
    share = inside.mean(axis=1)
    variance = float((share * (1 - share)).sum())
    if not variance:
        return False
    count = inside.sum(axis=0)
    spread = float(((count - share.sum()) ** 2).sum()) / variance
    return bool(chi2.sf(spread, inside.shape[1] - 1) < _IMPLAUSIBLE)
