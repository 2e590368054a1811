"""How often a canary ranks within the best share kappa of its references: bounds from (epsilon, delta) alone.

The exposure of a secret (Carlini et al. 2019, arXiv:1802.08232) is log2 of references over its rank. As a
bound it has no cap in the number of canaries: m secrets that all rank first of K give
log((alpha^(1/m) - delta) K), 13.5 for ten of them among a million.
"""

from __future__ import annotations

import numpy as np

from dpaudit.check import in_range
from dpaudit.errors import UsageError
from dpaudit.estimate import Estimate
from dpaudit.evidence import KnownNull
from dpaudit.stats.binomial import tail
from dpaudit.stats.family import Family
from dpaudit.stats.inversion import Found, check_inputs, conclude, detectable_epsilon, epsilon_at

_ASSUMED = (
    "references are exchangeable with the canary and were never inserted",
    "the runs are independent",
    "the share kappa was fixed before the ranks were seen",
)


def within(evidence: KnownNull, family: Family, kappa: float, *, alpha: float) -> Estimate:
    """Bound from the number of canaries whose rank p-value is at most kappa.

    Under the member of the family with the curve f each of them is with probability at most 1 - f(kappa):
    the count is at most binomial. Against a bare (epsilon, delta) this is
    log((CP_lower - delta) / kappa).

    Args:
        evidence: n independent runs with one canary each.
        family: under the adjacency of the evidence.
        kappa: share of ranks that counts as found, fixed in advance; rounded down to whole ranks.
        alpha: error probability.

    Returns:
        An estimate; without runs one that says so. 30 curves of the family, whatever n.

    Raises:
        UsageError: steps of one run, several canaries of one run, another adjacency, or a kappa that not
            even the first rank attains.
    """
    check_inputs(evidence.adjacency, family, alpha)
    in_range("kappa", kappa, 0.0, 1.0, open_low=True, open_high=True)
    n, places = evidence.p_values.size, evidence.n_references + 1
    shared = evidence.cluster is not None and np.unique(evidence.cluster).size < n
    if evidence.unit != "run" or shared:
        raise UsageError(
            "Expected one canary in each of several runs, found canaries that share a run. Use `fixed` for "
            "the steps of a run, and `clustered_betting` for several canaries of one."
        )
    ranks = int(kappa * places * (1 + 1e-12))
    if ranks < 1:
        raise UsageError(
            f"Expected kappa of at least 1/{places}, a first rank among {places - 1} references, found "
            f"{kappa:g}. Score more references, or raise it."
        )
    hits = int(np.count_nonzero(evidence.p_values <= (ranks + 1e-6) / places))
    found = _within(hits, n, ranks / places, family, alpha) if n else Found()
    return conclude(
        evidence, family, found, alpha=alpha, method=f"ranks within {kappa:g}", n=n, assumptions=_ASSUMED
    )


def _within(hits: int, n: int, share: float, family: Family, alpha: float) -> Found:
    def chance(scale: float) -> float:
        return float(np.clip(family.curve(scale).tpr(np.array([share]))[0], 0.0, 1.0))

    counts = np.arange(n + 1)
    claimed = tail(counts, n, chance(family.claimed_scale))
    refuting = np.flatnonzero(claimed <= alpha)
    return Found(
        epsilon_lower=epsilon_at(lambda scale: float(tail(hits, n, chance(scale))), family, alpha),
        p_value=float(claimed[hits]),
        ceiling=epsilon_at(lambda scale: float(tail(n, n, chance(scale))), family, alpha),
        detectable=detectable_epsilon(lambda scale: float(tail(refuting[0], n, chance(scale))), family)
        if refuting.size
        else None,
    )
