import logging
import math
import subprocess
import sys

import numpy as np
import pytest

from dpaudit.accounting import (
    EpsilonDeltaFamily,
    GaussianFamily,
    LedgerFamily,
    family_for,
    pld_epsilon,
    pld_profile,
    prv_epsilon,
    rdp_epsilon,
)
from dpaudit.claim import Adjacency, Claim, Phase, Sampler
from dpaudit.errors import UsageError
from dpaudit.stats.tradeoff import EpsilonDelta, gaussian_epsilon, gaussian_mu

ADD, SWAP = Adjacency.ADD_REMOVE, Adjacency.REPLACE_ONE
DELTA = 1e-5


def ledger(sigma=1.0, q=0.02, steps=500, sampler=Sampler.POISSON):
    return (Phase(noise_multiplier=sigma, sample_rate=q, steps=steps, sampler=sampler),)


R2 = ledger()

TABLE = [
    ((1.0, 0.02, 500), 2.773, 4.214, 3.144, 2.784),
    ((1.0, 0.01, 1000), 1.828, 2.843, 2.101, 1.838),
    ((0.8, 0.01, 1000), 3.141, 4.228, 3.695, 3.151),
    ((0.6, 0.01, 1000), 7.434, 8.767, 8.666, 7.444),
    ((2.0, 0.05, 400), 2.246, 4.377, 2.461, 2.257),
    ((4.0, 0.01, 1000), 0.272, 0.561, 0.301, 0.282),
    ((5.0, 0.5, 100), 4.488, 9.936, 4.862, 4.498),
]


@pytest.mark.parametrize(("setting", "add", "swap", "rdp", "prv"), TABLE)
def test_accountants_give_the_known_figures(setting, add, swap, rdp, prv):
    assert pld_epsilon(ledger(*setting), DELTA, coarsest=5e-4) == pytest.approx(add, abs=2e-3)
    assert pld_epsilon(ledger(*setting), DELTA, SWAP, coarsest=5e-4) == pytest.approx(swap, abs=2e-3)
    assert rdp_epsilon(ledger(*setting), DELTA) == pytest.approx(rdp, abs=2e-2)


@pytest.mark.parametrize(("setting", "add", "swap", "rdp", "prv"), TABLE[:2])
def test_the_accountant_of_opacus_agrees(setting, add, swap, rdp, prv):
    pytest.importorskip("opacus")
    assert prv_epsilon(ledger(*setting), DELTA) == pytest.approx(prv, abs=2e-3)
    assert add < prv_epsilon(ledger(*setting), DELTA) < add + 0.012


def test_profile_is_the_curve_of_the_ledger():
    profile = pld_profile(R2)
    at = np.array([0.1, 0.01, 0.001])
    # By Monte Carlo over the likelihood ratio of all 500 steps.
    assert profile.tpr(at) == pytest.approx([0.2434, 0.0431, 0.0069], rel=8e-3)
    index = int(np.searchsorted(np.array(profile.deltas)[::-1], DELTA))
    assert profile.epsilons[::-1][index] == pytest.approx(2.773, abs=0.1)
    assert pld_profile(ledger(0.0)).tpr(at) == pytest.approx([1.0, 1.0, 1.0])
    assert pld_profile(ledger(steps=0)).tpr(at) == pytest.approx(at)


@pytest.mark.parametrize("accountant", [pld_epsilon, rdp_epsilon, prv_epsilon])
def test_edges(accountant):
    assert accountant(ledger(0.0), DELTA) == math.inf
    assert accountant(ledger(steps=0), DELTA) == 0.0
    with pytest.raises(UsageError, match="at least one phase"):
        accountant((), DELTA)
    with pytest.raises(UsageError, match=r"delta=1\.5"):
        accountant(R2, 1.5)


def test_renyi_accounting_says_what_it_does_not_know():
    assert rdp_epsilon(R2, DELTA, SWAP) is None
    assert rdp_epsilon(ledger(2.0, 1.0, 4), DELTA, SWAP) == pytest.approx(
        rdp_epsilon(ledger(1.0, 1.0, 4), DELTA), rel=1e-6
    )
    assert rdp_epsilon(R2, 0.0) == math.inf


def test_shuffled_batches_get_no_amplification():
    shuffled = ledger(1.0, 0.01, 200, Sampler.SHUFFLE)
    assert pld_epsilon(shuffled, DELTA) == pytest.approx(gaussian_epsilon(math.sqrt(2), DELTA))
    assert rdp_epsilon(shuffled, DELTA) > pld_epsilon(shuffled, DELTA)


def test_accountants_are_imported_without_torch():
    code = "import sys, dpaudit.accounting; sys.exit('torch' in sys.modules or 'opacus' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


FAMILIES = [
    LedgerFamily(ledger=R2, delta=DELTA, claimed_epsilon=2.784),
    LedgerFamily(ledger=R2, delta=DELTA, adjacency=SWAP),
    LedgerFamily(ledger=ledger(1.0, 0.02, 50, Sampler.SHUFFLE), delta=DELTA, claimed_epsilon=1.15),
    GaussianFamily(mu=1.0, delta=DELTA, claimed_epsilon=4.0),
    EpsilonDeltaFamily(base_epsilon=2.0, delta=DELTA, claimed_epsilon=2.0),
]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_a_family(family):
    low, high = family.scales
    scales = [low, *np.geomspace(max(low, 0.3), min(high, 5.0), 6), high]
    epsilons = [family.epsilon(float(scale)) for scale in scales]
    assert np.all(np.diff(epsilons) <= 1e-9)
    assert epsilons[0] > 100
    assert epsilons[-1] < 0.01
    assert family.epsilon(0.0) == math.inf
    assert family.epsilon(low / 10) >= epsilons[0]
    at = np.array([1e-3, 0.1, 0.5])
    allowed = np.stack([family.curve(float(scale)).tpr(at) for scale in scales])
    assert np.all(np.diff(allowed, axis=0) <= 1e-9)
    for epsilon in (0.7, 3.0):
        assert family.epsilon(family.scale_for(epsilon)) == pytest.approx(epsilon, rel=5e-3)
    if family.claimed_epsilon is None:
        assert family.claimed_scale == 1.0
    else:
        assert family.epsilon(family.claimed_scale) == pytest.approx(family.claimed_epsilon, rel=5e-3)
    assert str(family.adjacency) in family.assumption


def test_a_curve_obeys_its_epsilon():
    # Shuffled ledgers aside, whose epsilon is a lower and whose curve an upper figure.
    for family in (FAMILIES[0], FAMILIES[1], *FAMILIES[3:]):
        at = np.geomspace(1e-5, 0.5, 20)
        lines = EpsilonDelta(epsilon=family.epsilon(1.0), delta=family.delta).tpr(at)
        assert np.all(family.curve(1.0).tpr(at) <= lines * 1.01)


def test_steps_of_a_ledger_family():
    two = (*ledger(2.0), *ledger(4.0))
    family = LedgerFamily(ledger=two, delta=DELTA)
    assert family.step_mean() == 0.5
    assert LedgerFamily(ledger=two[::-1], delta=DELTA).step_mean() == 0.5
    assert family.step_mean(np.array([0, 1, 1])) == pytest.approx([0.5, 0.25, 0.25])
    assert LedgerFamily(ledger=two, delta=DELTA, adjacency=SWAP).step_mean() == 1.0
    with pytest.raises(UsageError, match="found 0 to 2"):
        family.step_mean(np.array([0, 2]))
    for bare in FAMILIES[3:]:
        with pytest.raises(UsageError, match="bare"):
            bare.step_mean()


def test_the_claim_names_its_scale():
    exact = Claim(epsilon=2.773, delta=DELTA, ledger=R2)
    assert family_for(exact).claimed_scale == 1.0
    loose = family_for(Claim(epsilon=3.144, delta=DELTA, ledger=R2))
    assert 0.9 < loose.claimed_scale < 0.95
    short = family_for(Claim(epsilon=2.382, delta=DELTA, ledger=R2))
    assert short.claimed_scale > 1.05


def test_a_ledger_is_translated_to_the_adjacency_of_the_evidence():
    family = family_for(Claim(epsilon=2.7735, delta=DELTA, ledger=R2), adjacency=SWAP)
    assert family.adjacency is SWAP
    assert family.claimed_epsilon == pytest.approx(4.214, rel=2e-3)
    assert family.claimed_scale == 1.0
    back = family_for(Claim(epsilon=4.2137, delta=DELTA, adjacency=SWAP, ledger=R2), adjacency=ADD)
    assert back.claimed_epsilon == pytest.approx(2.7735, rel=2e-3)


def test_a_bare_claim_is_gaussian_or_nothing_more():
    claim = Claim(epsilon=4.0, delta=DELTA)
    family = family_for(claim)
    assert isinstance(family, GaussianFamily)
    assert family.claimed_epsilon == pytest.approx(4.0)
    assert family.claimed_scale == pytest.approx(1.0)
    swapped = family_for(claim, adjacency=SWAP)
    assert swapped.claimed_epsilon == pytest.approx(gaussian_epsilon(2 * gaussian_mu(4.0, DELTA), DELTA))
    weak = family_for(claim, shape="epsilon-delta", adjacency=SWAP)
    assert isinstance(weak, EpsilonDeltaFamily)
    assert (weak.claimed_epsilon, weak.delta) == (8.0, pytest.approx(DELTA * (1 + math.exp(4))))
    assert isinstance(family_for(Claim(epsilon=1.0, delta=0.0)), EpsilonDeltaFamily)
    with pytest.raises(UsageError, match="'gausian'"):
        family_for(claim, shape="gausian")


def test_a_replacement_claim_says_nothing_of_insertions():
    claim = Claim(epsilon=4.0, delta=DELTA, adjacency=SWAP)
    assert family_for(claim, adjacency=ADD).claimed_epsilon is None
    assert family_for(claim, adjacency=ADD, shape="epsilon-delta").claimed_epsilon is None


def test_what_claims_nothing_has_no_claim():
    assert family_for(None, adjacency=SWAP, delta=1e-6) == GaussianFamily(mu=1.0, delta=1e-6, adjacency=SWAP)
    assert family_for(Claim(epsilon=math.inf, delta=DELTA)).claimed_epsilon is None
    silent = family_for(Claim(epsilon=math.inf, delta=DELTA, ledger=ledger(0.0)))
    assert isinstance(silent, LedgerFamily)
    assert silent.claimed_epsilon is None
    assert silent.step_mean() == 1.0
    idle = family_for(Claim(epsilon=1.0, delta=DELTA, ledger=ledger(steps=0)))
    assert idle.claimed_epsilon is None


def test_a_silent_ledger_cannot_be_scaled():
    with pytest.raises(UsageError, match="noisy steps"):
        LedgerFamily(ledger=ledger(0.0), delta=DELTA)


def test_orders_that_renyi_accounting_leaves_out_are_left_out_in_silence(caplog):
    rdp_epsilon.cache_clear()
    logging.getLogger("absl").addHandler(caplog.handler)
    try:
        assert rdp_epsilon(ledger(1.2, 0.125, 80), DELTA) == pytest.approx(6.4315, abs=1e-3)
        assert not caplog.records
        logging.getLogger("absl").warning("an order failed to converge")
        assert caplog.records
    finally:
        logging.getLogger("absl").removeHandler(caplog.handler)
