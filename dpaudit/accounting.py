"""What a ledger is worth: epsilons by independent accountants, and the families that invert bounds.

Poisson phases get the amplification proven for them. For shuffled phases no tight accountant exists:
they are bracketed by an upper figure without amplification (`pld_epsilon`) and a lower one (`epsilon_lower`).
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

from dp_accounting import dp_event, rdp

from dpaudit.check import in_range, one_of
from dpaudit.claim import Adjacency, Claim, Ledger
from dpaudit.stats import composition
from dpaudit.stats.composition import pld_epsilon, pld_profile
from dpaudit.stats.family import EpsilonDeltaFamily, Family, GaussianFamily
from dpaudit.stats.ledger_family import LedgerFamily
from dpaudit.stats.shuffle import epsilon_lower, shuffle_epsilon
from dpaudit.stats.tradeoff import gaussian_epsilon, gaussian_mu

__all__ = [
    "EpsilonDeltaFamily",
    "Family",
    "GaussianFamily",
    "LedgerFamily",
    "epsilon_lower",
    "family_for",
    "gdp_epsilon",
    "pld_epsilon",
    "pld_profile",
    "prv_epsilon",
    "rdp_epsilon",
    "shuffle_epsilon",
]


_WHOLE_ORDERS = (*range(2, 64), 128, 256, 512, 1024)
_ORDERS_BETWEEN = tuple(tenths / 10 for tenths in range(11, 110) if tenths % 10)


@lru_cache(maxsize=64)
def rdp_epsilon(ledger: Ledger, delta: float, adjacency: Adjacency = Adjacency.ADD_REMOVE) -> float | None:
    """Epsilon by Renyi accounting (Mironov 2017, arXiv:1702.07476): an upper figure, 8-23 % loose.

    Returns:
        Epsilon; None for subsampled phases under replace-one, which this accountant does not support.

    Raises:
        UsageError: an empty ledger or an impossible delta.
    """
    in_range("delta", delta, 0.0, 1.0, open_high=True)
    running = composition.running(ledger)
    if not running:
        return 0.0
    if delta == 0.0 or composition.silent(running):
        return math.inf
    mu, poisson = composition.parts(running, adjacency)
    if poisson and adjacency is Adjacency.REPLACE_ONE:
        return None

    def at(orders: Sequence[float]) -> tuple[float, float]:
        """Least epsilon over these orders, and the order that gives it."""
        accountant = rdp.RdpAccountant(orders)
        if mu:
            accountant.compose(dp_event.GaussianDpEvent(1 / mu))
        for phase in poisson:
            step = dp_event.GaussianDpEvent(phase.noise_multiplier)
            accountant.compose(dp_event.PoissonSampledDpEvent(phase.sample_rate, step), phase.steps)
        epsilon, order = accountant.get_epsilon_and_optimal_order(delta)
        return float(epsilon), float(order)

    with _orders_left_out_in_silence():
        whole, order = at(_WHOLE_ORDERS)
        # Any set of orders gives a bound. Those between whole ones cost ten times as much: only near ones.
        near = [between for between in _ORDERS_BETWEEN if abs(between - order) < 1]
        return min(whole, at(near)[0]) if near else whole


@contextmanager
def _orders_left_out_in_silence() -> Iterator[None]:
    """Drop the library's line for each Renyi order whose series does not converge.

    It leaves such an order out, which makes the figure no less valid, and tells nobody anything here.
    """

    def kept(entry: logging.LogRecord) -> bool:
        return "failed to converge" not in entry.getMessage()

    logger = logging.getLogger("absl")
    logger.addFilter(kept)
    try:
        yield
    finally:
        logger.removeFilter(kept)


@lru_cache(maxsize=64)
def prv_epsilon(ledger: Ledger, delta: float, *, error: float = 0.01) -> float:
    """Epsilon by the accountant of Opacus (Gopi, Lee and Wutschitz 2021, arXiv:2106.02848), add/remove.

    It shares no code with `pld_epsilon`. Unamplified phases count as there.

    Args:
        ledger: the phases that ran.
        delta: in (0, 1).
        error: by how much the figure may exceed the exact one.

    Raises:
        UsageError: an empty ledger or an impossible delta.
    """
    in_range("delta", delta, 0.0, 1.0, open_low=True, open_high=True)
    running = composition.running(ledger)
    if not running:
        return 0.0
    if composition.silent(running):
        return math.inf
    # Opacus loads torch, which everything that only reads a record must start without.
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [
        (phase.noise_multiplier, 1.0, releases)
        if (releases := composition.releases(phase))
        else (phase.noise_multiplier, phase.sample_rate, phase.steps)
        for phase in running
    ]
    with warnings.catch_warnings(), remembered():
        # At a sample rate of 1 it takes the logarithm of 0 on a branch that it then discards.
        warnings.filterwarnings("ignore", category=RuntimeWarning, module="opacus")
        return float(accountant.get_epsilon(delta=delta, eps_error=error))


@contextmanager
def remembered() -> Iterator[None]:
    """Let Opacus keep what its PRV accountant computes again for each figure, and takes most of its time for.

    The Renyi divergences of a step depend on rate, noise and order alone, and the law of a history on that.
    """
    from opacus.accountants import PRVAccountant
    from opacus.accountants.analysis import rdp as analysis

    divergence, law = analysis._compute_rdp, PRVAccountant._get_dprv

    def kept(accountant: PRVAccountant, /, **errors: float) -> Any:
        if type(accountant) is not PRVAccountant:
            return law(accountant, **errors)
        return _laws(law)(tuple(tuple(phase) for phase in accountant.history), **errors)

    analysis._compute_rdp, PRVAccountant._get_dprv = _keeping(divergence), kept
    try:
        yield
    finally:
        analysis._compute_rdp, PRVAccountant._get_dprv = divergence, law


@lru_cache(maxsize=4)
def _keeping(function: Callable[..., float]) -> Callable[..., float]:
    return lru_cache(maxsize=4096)(function)


@lru_cache(maxsize=4)
def _laws(law: Callable[..., Any]) -> Callable[..., Any]:
    from opacus.accountants import PRVAccountant

    @lru_cache(maxsize=8)
    def of(history: tuple[tuple[float, float, int], ...], **errors: float) -> Any:
        accountant = PRVAccountant()
        accountant.history = list(history)
        return law(accountant, **errors)

    return of


def gdp_epsilon(ledger: Ledger, delta: float) -> float:
    """Epsilon by the central limit theorem (Bu et al. 2020, arXiv:1911.11607), add/remove: for information.

    What `accountant="gdp"` of Opacus states. It is the limit of many steps and no bound: up to 41 % too low.

    Args:
        ledger: the phases that ran; those without Poisson sampling count as unamplified releases.
        delta: in (0, 1).

    Raises:
        UsageError: an empty ledger or an impossible delta.
    """
    in_range("delta", delta, 0.0, 1.0, open_low=True, open_high=True)
    running = composition.running(ledger)
    if not running:
        return 0.0
    if composition.silent(running):
        return math.inf
    mu, poisson = composition.parts(running, Adjacency.ADD_REMOVE)
    squares = sum(p.sample_rate**2 * p.steps * math.expm1(p.noise_multiplier**-2) for p in poisson)
    return gaussian_epsilon(math.sqrt(mu * mu + squares), delta)


def family_for(
    claim: Claim | None, *, adjacency: Adjacency | None = None, delta: float = 1e-5, shape: str = "auto"
) -> Family:
    """The family by which evidence against a claim becomes an epsilon.

    Args:
        claim: None for a run without one; epsilons are then stated at `delta`.
        adjacency: of the evidence; the claim is translated to it. By default the claim's own.
        delta: used without a claim, or where the claim's delta is 0 and a Gaussian shape is asked for.
        shape: "auto" (the ledger if there is one, else Gaussian), or "epsilon-delta".

    Returns:
        A family whose `claimed_epsilon` is None where nothing, or nothing under this adjacency, is claimed.

    Raises:
        UsageError: another shape.
    """
    one_of("shape", shape, ("auto", "epsilon-delta"))
    if claim is None:
        return GaussianFamily(mu=1.0, delta=delta, adjacency=adjacency or Adjacency.ADD_REMOVE)
    target = adjacency or claim.adjacency
    if shape == "epsilon-delta" or (claim.delta == 0.0 and not claim.ledger):
        return _bare(claim, target)
    return _ledger_family(claim, target, delta) if claim.ledger else _gaussian(claim, target)


def _reachable(claim: Claim, target: Adjacency) -> bool:
    """Whether a claim without ledger says anything under the other adjacency.

    A replacement is a removal and an addition; an addition is not made of replacements.
    """
    return math.isfinite(claim.epsilon) and (claim.adjacency is target or target is Adjacency.REPLACE_ONE)


def _bare(claim: Claim, target: Adjacency) -> EpsilonDeltaFamily:
    if not _reachable(claim, target):
        return EpsilonDeltaFamily(base_epsilon=1.0, delta=claim.delta, adjacency=target)
    epsilon, delta = claim.epsilon, claim.delta
    if claim.adjacency is not target:
        # Group privacy of two (Dwork and Roth 2014, Theorem 2.2 and its approximate form).
        epsilon, delta = 2 * epsilon, min(delta * (1 + math.exp(min(epsilon, 700.0))), 1 - 1e-12)
    return EpsilonDeltaFamily(
        base_epsilon=epsilon or 1.0, delta=delta, adjacency=target, claimed_epsilon=epsilon
    )


def _gaussian(claim: Claim, target: Adjacency) -> GaussianFamily:
    if not _reachable(claim, target):
        return GaussianFamily(mu=1.0, delta=claim.delta, adjacency=target)
    mu = gaussian_mu(claim.epsilon, claim.delta) * (1.0 if claim.adjacency is target else 2.0)
    claimed = gaussian_epsilon(mu, claim.delta)
    return GaussianFamily(mu=mu, delta=claim.delta, adjacency=target, claimed_epsilon=claimed)


def _ledger_family(claim: Claim, target: Adjacency, delta: float) -> Family:
    delta = claim.delta or delta
    if not composition.running(claim.ledger):
        return GaussianFamily(mu=1.0, delta=delta, adjacency=target)
    if composition.silent(claim.ledger) or math.isinf(claim.epsilon) or claim.delta == 0.0:
        # Without noise there is nothing to scale: epsilons are read off the same steps with noise.
        noisy = tuple(replace(p, noise_multiplier=p.noise_multiplier or 1.0) for p in claim.ledger)
        return LedgerFamily(ledger=noisy, delta=delta, adjacency=target)
    own = LedgerFamily(
        ledger=claim.ledger, delta=delta, adjacency=claim.adjacency, claimed_epsilon=claim.epsilon
    )
    if target is claim.adjacency:
        return own
    other = replace(own, adjacency=target, claimed_epsilon=None)
    return replace(other, claimed_epsilon=other.epsilon(own.claimed_scale))
