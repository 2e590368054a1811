"""A number never travels alone: a bound with its level, ceiling and assumptions."""

from __future__ import annotations

from dataclasses import dataclass

from dpaudit.claim import Adjacency
from dpaudit.evidence import Access


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A lower bound of epsilon and the test of the claim that goes with it.

    Attributes:
        epsilon_lower: lower bound at `delta`, valid at level `alpha`; None when there is no data.
        delta: the delta at which it is stated.
        alpha: the error probability that this bound alone may spend.
        p_value: of the test "the claim holds"; None without a claim.
        adjacency: the neighbouring relation it speaks of.
        method: the estimator.
        source: the attack.
        access: what the attack saw.
        claimed_epsilon: the claim's epsilon under the same adjacency; None without a claim.
        ceiling: the largest bound that this many observations could have shown.
        detectable: the smallest true epsilon that this design refutes the claim at with
            probability 0.9; None if none is.
        n_observations: size of the evidence.
        assumptions: what must hold for the bound to be valid.
        guarantee: False for lines that are descriptive and never decide a verdict.
    """

    epsilon_lower: float | None
    delta: float
    alpha: float
    adjacency: Adjacency
    method: str
    source: str
    access: Access
    ceiling: float
    n_observations: int
    p_value: float | None = None
    claimed_epsilon: float | None = None
    detectable: float | None = None
    assumptions: tuple[str, ...] = ()
    guarantee: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A measured proportion or area with its interval: a disclosure metric, not an epsilon.

    Attributes:
        name: such as "tpr_at_fpr_0.01", "auc", "reconstruction_success".
        value: the point value.
        lower: lower end of the interval; None where the design allows none.
        upper: upper end; None likewise.
        alpha: what the interval may miss with.
        source: the attack.
        slice: the group of records it is about.
        n: number of records or games.
        limit: what the claim allows at most, where that follows from it.
        fine: whether the slice is one of many small ones, which are shown and which no policy judges.
        assumptions: what must hold for the interval to be valid, beyond what its design sees to.
    """

    name: str
    value: float
    lower: float | None
    upper: float | None
    alpha: float
    source: str
    slice: str = "all"
    n: int = 0
    limit: float | None = None
    fine: bool = False
    assumptions: tuple[str, ...] = ()
