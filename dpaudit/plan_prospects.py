"""What each attack of a plan could show of each audited target, before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy.special import ndtr

from dpaudit import accounting, measure
from dpaudit.asking import Extracts, Game, LineUp, Reconstructs
from dpaudit.canary import Pool
from dpaudit.claim import Adjacency, Claim, Ledger, Phase
from dpaudit.errors import UsageError
from dpaudit.estimate import Estimate
from dpaudit.evidence import Access, Guesses, KnownNull, NoiseSample, OneRun, Replay, TwoSample
from dpaudit.plan import AuditPlan, TargetPlan
from dpaudit.prospects import TWICE, Prospect
from dpaudit.protocols import ModelAttack
from dpaudit.recovery import tests_of
from dpaudit.riding import Describes
from dpaudit.stats import clusters, evalues, known_null, noise, one_run, power, reconstruction
from dpaudit.stats.family import Family, GaussianFamily
from dpaudit.stats.multiplicity import split
from dpaudit.trial import attacks_of, pool_of

_DRAWS = 5
_STATE = "state --claim-noise-multiplier, --sample-rate and --steps"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What is known of a target before it is trained.

    Attributes:
        claim: with its ledger, or with the declared epsilon alone.
        parameters: sizes of the model's parameters; empty where they are not known.
    """

    claim: Claim
    parameters: tuple[int, ...] = ()


def of_plan(plan: AuditPlan, folder: Path, ledger: Ledger = ()) -> dict[str, tuple[Planned, list[Prospect]]]:
    """Prospects of every audited target, by its name.

    Args:
        plan: the audit plan.
        folder: where the user's modules are.
        ledger: the steps that training will make, where the plan does not say.

    Raises:
        UsageError: nothing is known of the claim of a target.
    """
    pool = pool_of(plan, folder)
    alphas = split(plan.alpha, {target.name: 1.0 for target in plan.targets})
    found = {}
    for target in plan.targets:
        if target.role == "audited":
            planned = _planned(plan, target, pool, ledger)
            shares = split(alphas[target.name], measure.weights(plan))
            found[target.name] = planned, list(_of_target(plan, planned, pool, shares))
    return found


def _planned(plan: AuditPlan, target: TargetPlan, pool: Pool, ledger: Ledger) -> Planned:
    options = plan.options_of(target)
    sizes: tuple[int, ...] = ()
    if target.train == "opacus":
        hidden = options.get("hidden", (32,))
        widths = [math.prod(pool.x.shape[1:]), *hidden, int(pool.y.max()) + 1]
        sizes = tuple(size for a, b in pairwise(widths) for size in (a * b, b))
        ledger = ledger or _opacus_ledger(options, len(pool.y) // 2)
    if ledger:
        epsilon = accounting.pld_epsilon(ledger, plan.delta)
        return Planned(
            claim=Claim(epsilon=epsilon, delta=plan.delta, ledger=ledger, source="PLD, from the plan"),
            parameters=sizes,
        )
    if target.claim is not None:
        return Planned(claim=Claim(epsilon=target.claim.epsilon, delta=plan.delta, source="the plan"))
    raise UsageError(
        f"Expected the settings of DP-SGD for target {target.name!r}, found train={target.train!r}, which "
        f"says them only when it runs: {_STATE}, or give the target a claim."
    )


def _opacus_ledger(options: dict[str, Any], records: int) -> Ledger:
    """The steps of Opacus's own loader: Poisson batches at rate 1 / len(loader)."""
    sigma = float(options.get("noise_multiplier", 1.5))
    batches = math.ceil(records / int(options.get("batch_size", 64)))
    if sigma <= 0:
        raise UsageError(f"Expected noise_multiplier={sigma!r} above 0 in an audited target. Set it so.")
    steps = batches * int(options.get("epochs", 40))
    return (Phase(noise_multiplier=sigma, sample_rate=1 / batches, steps=steps),)


def _of_target(plan: AuditPlan, planned: Planned, pool: Pool, shares: dict[str, float]) -> Iterator[Prospect]:
    claim = planned.claim
    for name, attack in attacks_of(plan).items():
        if isinstance(attack, Describes) or not tests_of(attack, name):
            yield Prospect(name=name, observations="-", alpha=0.0, note="it describes, and tests no claim")
            continue
        if isinstance(attack, (LineUp, Reconstructs)) or (hasattr(attack, "sizes") and claim.ledger):
            yield from _guessing(attack, claim, shares)
            continue
        tests = tests_of(attack, name)
        alpha = shares[f"{name}, anytime" if isinstance(attack, Game) else tests[0]]
        empty = Prospect(name=name, observations="-", alpha=alpha)
        if isinstance(attack, ModelAttack):
            of = _one_run if plan.one_run(name) else _runs
            yield of(plan, attack, pool, claim, alpha)
        elif isinstance(attack, Game):
            yield _game(attack, claim, alpha)
        elif isinstance(attack, Extracts):
            yield (
                _extraction(attack, pool, claim, alpha)
                if plan.one_run(name)
                else replace(empty, note="over several runs it does not say what it could show")
            )
        elif not claim.ledger:
            yield replace(empty, note=f"the steps are not known: {_STATE}")
        elif hasattr(attack, "references") and hasattr(attack, "replays"):
            yield _step_ranks(attack, claim, alpha)
        elif hasattr(attack, "stride") and hasattr(attack, "repeats"):
            yield _noise(attack, planned, alpha)
        else:
            yield replace(empty, note="this attack does not say what it could show")


def _steps(claim: Claim) -> int:
    return sum(phase.steps for phase in claim.ledger)


def _prospect(name: str, observations: str, estimate: Estimate, *, expected: float | None) -> Prospect:
    return Prospect(
        name=name,
        observations=observations,
        alpha=estimate.alpha,
        claimed=estimate.claimed_epsilon,
        expected=expected,
        ceiling=estimate.ceiling,
        detectable=estimate.detectable,
    )


def _step_ranks(attack: Any, claim: Claim, alpha: float) -> Prospect:
    family = accounting.family_for(claim)
    n = _steps(claim) * (int(attack.replays) + 1)
    references = attack.planted - 1 if getattr(attack, "planted", 0) else int(attack.references)
    evidence = KnownNull(
        p_values=np.full(n, 0.5),
        n_references=references,
        unit="step",
        source=attack.name,
        access=Access.STEP,
    )
    could = known_null.fixed(evidence, family, alpha=alpha)
    expected = power.expected_bound(family, n, alpha=alpha, n_references=references, unit="step")
    needed = power.observations_needed(
        family, TWICE * claim.epsilon, alpha=alpha, n_references=references, unit="step"
    )
    return replace(
        _prospect(attack.name, f"{n:,} steps", could, expected=expected),
        needed="" if needed is None else f"{needed:,} steps",
    )


def _guessing(attack: Any, claim: Claim, shares: dict[str, float]) -> Iterator[Prospect]:
    """Games of one of n candidates, for every n: one a step, or one a model."""
    if isinstance(attack, (LineUp, Reconstructs)):
        family = accounting.family_for(claim, shape="auto" if claim.ledger else "epsilon-delta")
        games = attack.models - (attack.models // 4 if isinstance(attack, LineUp) else 0)
        unit = "run"
        note = "if the training function declares its recipe; the best that any attack can do"
    else:
        family = accounting.family_for(claim, adjacency=Adjacency(attack.adjacency))
        games, unit = _steps(claim) * int(attack.games), "step"
        note = "beyond the size of a batch among directions; real records leak less than the best canary"
    for n, test in zip(attack.sizes, attack.tests, strict=True):
        won = reconstruction.success_limit(family, 1.0 / n, unit, scale=family.claimed_scale)
        evidence = Guesses(
            successes=round(games * won),
            trials=games,
            baseline=1.0 / n,
            unit=unit,
            source=test,
            access=attack.access,
            adjacency=family.adjacency,
        )
        found = reconstruction.guesses(evidence, family, alpha=shares[test])
        yield replace(_prospect(test, f"{games:,} games", found, expected=found.epsilon_lower), note=note)


def _noise(attack: Any, planned: Planned, alpha: float) -> Prospect:
    looked = min(int(attack.steps), math.ceil(_steps(planned.claim) / int(attack.stride)))
    if not planned.parameters:
        return Prospect(
            name=attack.name,
            observations=f"{looked} steps",
            alpha=alpha,
            note="sensitivity and control flow exactly; the noise as well as the model has parameters",
        )
    sigma, draws = planned.claim.ledger[0].noise_multiplier, looked * (int(attack.repeats) - 1)
    evidence = Replay(
        sensitivity=1.0,
        sensitivity_where="imagined",
        noise=tuple(
            NoiseSample(
                where=str(i), sum_of_squares=sigma**2 * size * draws, count=size * draws, claimed_std=sigma
            )
            for i, size in enumerate(planned.parameters)
        ),
        executions=draws,
        steps=looked,
    )
    estimate = noise.replay(evidence, accounting.family_for(planned.claim), alpha=alpha)
    count = sum(planned.parameters) * draws
    return _prospect(attack.name, f"{count:,} noises", estimate, expected=estimate.epsilon_lower)


def _runs(plan: AuditPlan, attack: ModelAttack, pool: Pool, claim: Claim, alpha: float) -> Prospect:
    """Ranks of the members of whole runs, as `measure` takes them: replace-one, clustered by run."""
    total = plan.shadows + 1
    runs = (total + 1) // 2 if attack.shadows else total
    each = int(pool.canary.sum()) or len(pool.y)
    inside, outside = each // 2, each - each // 2
    words = f"{runs} runs of {inside}"
    if runs < 2 or (attack.shadows and total - runs < 2) or outside < 2:
        return Prospect(name=attack.name, observations=words, alpha=alpha, note="too few runs for a bound")
    family = _replace_one(claim)
    rng = np.random.default_rng(plan.seed)
    draws = [
        clusters.clustered(_imagined(attack, family, runs, inside, outside, rng), family, alpha=alpha)
        for _ in range(_DRAWS)
    ]
    found = sorted(draws, key=lambda draw: draw.detectable or math.inf)[_DRAWS // 2]
    return _leaking(attack.name, words, found, draws, "every")


def _one_run(plan: AuditPlan, attack: ModelAttack, pool: Pool, claim: Claim, alpha: float) -> Prospect:
    """Coins of the audited run, a pair of records each, as `measure` takes them."""
    pairs = (int(pool.canary.sum()) or len(pool.y)) // 2
    words = f"1 run of {pairs} pairs"
    if attack.shadows and plan.shadows < 2:
        return Prospect(name=attack.name, observations=words, alpha=alpha, note="too few shadow models")
    family = _replace_one(claim)
    rng = np.random.default_rng(plan.seed)
    mu = family.mu if isinstance(family, GaussianFamily) else 1.0
    first = np.arange(pairs) % 2 == 0
    draws = [
        one_run.f_dp(
            OneRun(
                scores=np.where(first, 1, -1) * (rng.normal(size=pairs) + mu / 2),
                included=first,
                source=attack.name,
                access=attack.access,
            ),
            family,
            alpha=alpha,
        )
        for _ in range(_DRAWS)
    ]
    return _leaking(attack.name, words, draws[0], draws, "every")


def _extraction(attack: Extracts, pool: Pool, claim: Claim, alpha: float) -> Prospect:
    """Choices among candidates in the audited run, if every secret leaks what the claim allows."""
    wanted = attack.asked.secrets
    if pool.secrets is None or wanted is None or not pool.secrets.references:
        note = 'no secret is planted: data.canary_kind = "secret"'
        return Prospect(name=attack.name, observations="-", alpha=alpha, note=note)
    family = _replace_one(claim)
    games, baseline = int(pool.canary.sum()) // 2, 1.0 / (min(wanted.references, pool.secrets.references) + 1)
    right = reconstruction.success_limit(family, baseline)
    guesses = Guesses(
        successes=round(games * right),
        trials=games,
        baseline=baseline,
        unit="run",
        source=attack.name,
        access=attack.access,
        adjacency=Adjacency.REPLACE_ONE,
    )
    estimate = one_run.choices(guesses, family, alpha=alpha)
    words = f"{games} secrets of {round(1 / baseline)}"
    return _leaking(attack.name, words, estimate, [estimate], "every")


def _game(attack: Game, claim: Claim, alpha: float) -> Prospect:
    """Models with and without one record, if they leak what a Gaussian mechanism with this epsilon does."""
    family = accounting.family_for(replace(claim, ledger=()), adjacency=Adjacency.ADD_REMOVE)
    mu = family.mu if isinstance(family, GaussianFamily) else 1.0
    rng, half = np.random.default_rng(0), attack.models // 2
    draws = [
        evalues.anytime(
            TwoSample(
                scores_in=rng.normal(size=half) + mu,
                scores_out=rng.normal(size=half),
                source=attack.name,
                access=attack.access,
            ),
            family,
            alpha=alpha,
        )
        for _ in range(_DRAWS)
    ]
    return _leaking(attack.name, f"{2 * half} models of its own", draws[0], draws, "the")


def _leaking(name: str, words: str, found: Estimate, draws: Sequence[Estimate], which: str) -> Prospect:
    """What scores that leak as much as the claim allows are expected to show."""
    expected = median(draw.epsilon_lower or 0.0 for draw in draws)
    note = f"if {which} record leaks what the claim allows; by the curve of a Gaussian mechanism"
    return replace(_prospect(name, words, found, expected=expected), note=note)


def _replace_one(claim: Claim) -> GaussianFamily | Family:
    """A Gaussian mechanism with the epsilon of the claim under replace-one neighbours; fast to invert."""
    epsilon = claim.epsilon
    if claim.ledger:
        epsilon = accounting.pld_epsilon(claim.ledger, claim.delta, Adjacency.REPLACE_ONE)
        claim = Claim(epsilon=epsilon, delta=claim.delta, adjacency=Adjacency.REPLACE_ONE)
    bare = replace(claim, ledger=())
    return accounting.family_for(bare, adjacency=Adjacency.REPLACE_ONE)


def _imagined(
    attack: ModelAttack, family: Family, runs: int, inside: int, outside: int, rng: np.random.Generator
) -> KnownNull:
    mu = family.mu if isinstance(family, GaussianFamily) else 1.0
    # Of K - 1 exchangeable references, those above a score are binomial given it.
    above = rng.binomial(outside - 1, ndtr(-(rng.normal(size=runs * inside) + mu)))
    return KnownNull(
        p_values=(1.0 + above) / outside,
        n_references=outside - 1,
        unit="run",
        source=attack.name,
        access=attack.access,
        adjacency=Adjacency.REPLACE_ONE,
        cluster=np.repeat(np.arange(runs), inside),
    )
