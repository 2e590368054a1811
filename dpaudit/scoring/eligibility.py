"""Which estimators the design of some scores allows, at which share of alpha, and why not the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.stats import binomtest

from dpaudit.accounting import EpsilonDeltaFamily, Family, family_for
from dpaudit.check import in_range
from dpaudit.claim import Adjacency, Claim, Ledger
from dpaudit.errors import UsageError
from dpaudit.estimate import Estimate
from dpaudit.evidence import TwoSample
from dpaudit.scoring import evidence as evidence_of
from dpaudit.scoring.scores import Design, Scores
from dpaudit.stats import credible, evalues, exposure, known_null, one_run, parametric, two_sample

ANY, GAUSSIAN, LEDGER = "any mechanism", "Gaussian", "claimed ledger"
_IMPLAUSIBLE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is tested and how, all of it settled before the scores are looked at.

    Attributes:
        alpha: error probability of the verdict, spent over all lines that decide it.
        ledger: the steps that were said to have run; their own curve is then tested.
        adjacency: the neighbouring relation of the claim.
        inserted: what was done with a record that was not in: left out ("add-remove") or exchanged for
            another one ("replace-one"). None for the relation of the claim.
        gaussian: the whole run is declared to be a Gaussian mechanism, so that its curve decides as well.
        threshold: of independent runs, fixed in advance; None places thresholds by the scores.
        guesses: of one run, fixed in advance; None shares alpha over several numbers.
        kappa: of known nulls, the share of ranks that counts as found, fixed in advance; it then decides
            against a bare (epsilon, delta), where None takes the rank sum.
        seed: of the order of rows and of ties.
    """

    alpha: float = 0.05
    ledger: Ledger = ()
    adjacency: Adjacency = Adjacency.ADD_REMOVE
    inserted: Adjacency | None = None
    gaussian: bool = False
    threshold: float | None = None
    guesses: int | None = None
    kappa: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a level that no test can have."""
        in_range("alpha", self.alpha, 0.0, 0.5, open_low=True, open_high=True)
        if any(phase.noise_multiplier == 0 for phase in self.ledger):
            raise UsageError(
                "Expected a claimed noise multiplier above 0, found 0. Leave it out: nothing is claimed."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """An estimator that the design allows.

    Attributes:
        name: unique among the lines: the estimator, and what it is tested against.
        estimator: which of the two it is.
        weight: of its share of alpha; 0 for a line that stands beside the verdict at alpha of its own.
        why: what makes it valid here.
        estimate: from its share of alpha.
        descriptive: it guarantees nothing, and never decides.
    """

    name: str
    estimator: str
    weight: float
    why: str
    estimate: Callable[[float], Estimate]
    descriptive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An estimator that the design does not allow, or that would add nothing."""

    name: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Against:
    """What evidence is tested against: a family, its name, and whether it decides."""

    label: str
    family: Family
    decides: bool

    def line(self, name: str, weight: float, why: str, estimate: Callable[..., Estimate]) -> Line:
        """A line that runs an estimator `(family, *, alpha)` against this family."""
        full = f"{name}, {self.label}"

        def run(alpha: float) -> Estimate:
            found = estimate(self.family, alpha=alpha)
            return replace(found, source=full, guarantee=found.guarantee and self.decides)

        return Line(name=full, estimator=name, weight=weight if self.decides else 0.0, why=why, estimate=run)

    def described(self, name: str, why: str, estimate: Callable[..., Estimate]) -> Line:
        """A line that stands beside the verdict whatever is declared."""
        line = self.line(name, 0.0, why, estimate)

        def run(alpha: float) -> Estimate:
            return replace(line.estimate(alpha), guarantee=False)

        return replace(line, estimate=run, descriptive=True)


def lines(
    scores: Scores, claim: Claim | None, delta: float, terms: Terms
) -> tuple[tuple[Line, ...], tuple[Refused, ...]]:
    """Every estimator, either as a line or as refused.

    Args:
        scores: with their design.
        claim: what is tested; None for bounds alone.
        delta: at which epsilons are stated without a claim.
        terms: see `Terms`.
    """
    against, refused = _families(claim, delta, terms)
    builder = {
        Design.INDEPENDENT_RUNS: _independent_runs,
        Design.KNOWN_NULL: _known_null,
        Design.SEVERAL_RUNS: _several_runs,
        Design.ONE_RUN: _one_run,
    }[scores.design]
    found = list(builder(scores, against, terms))
    return (
        tuple(item for item in found if isinstance(item, Line)),
        (*(item for item in found if isinstance(item, Refused)), *refused),
    )


def _families(
    claim: Claim | None, delta: float, terms: Terms
) -> tuple[tuple[_Against, ...], tuple[Refused, ...]]:
    adjacency = _adjacency(terms)
    bare: Family = EpsilonDeltaFamily(base_epsilon=1.0, delta=delta, adjacency=adjacency)
    if claim is not None:
        bare = family_for(claim, adjacency=adjacency, shape="epsilon-delta")
    found = [_Against(label=ANY, family=bare, decides=True)]
    if terms.ledger:
        curve = family_for(claim, adjacency=adjacency, delta=delta)
        return (_Against(label=LEDGER, family=curve, decides=True), *found), ()
    if delta == 0.0:
        return tuple(found), (
            Refused(name=GAUSSIAN, why="a Gaussian mechanism has no finite epsilon at delta 0"),
        )
    curve = family_for(claim, adjacency=adjacency, delta=delta)
    beside = _Against(label=GAUSSIAN, family=curve, decides=terms.gaussian)
    return ((beside, *found) if terms.gaussian else (*found, beside)), ()


def _adjacency(terms: Terms) -> Adjacency:
    return terms.inserted or terms.adjacency


def _rng(terms: Terms) -> np.random.Generator:
    return np.random.default_rng(terms.seed)


def _independent_runs(
    scores: Scores, against: tuple[_Against, ...], terms: Terms
) -> Iterator[Line | Refused]:
    evidence = evidence_of.two_sample(scores, "scores", _adjacency(terms), _rng(terms))
    for each in against:
        if terms.threshold is None:
            yield each.line(
                "order-statistic grid",
                1.0,
                "the runs are independent, and thresholds sit at order statistics fixed in advance",
                partial(two_sample.grid, evidence),
            )
        else:
            yield each.line(
                "fixed threshold",
                1.0,
                "the runs are independent, and the threshold was declared",
                partial(two_sample.at_threshold, evidence, threshold=terms.threshold),
            )
        yield each.line(
            "certified betting",
            2.0,
            "runs are independent, and pairs of them are bet on at odds that nothing under the claim beats",
            partial(evalues.anytime, evidence),
        )
    yield from _descriptive(evidence, against, terms)
    yield Refused(
        name="known-null ranks", why="no records that were never inserted were scored beside each canary"
    )
    yield Refused(name="one-run guesses", why="valid, yet weaker than using that the runs are independent")


def _descriptive(
    evidence: TwoSample, against: tuple[_Against, ...], terms: Terms
) -> Iterator[Line | Refused]:
    for each in against:
        if each.label != ANY:
            yield each.described(
                "normal scores",
                "the tightest bound if the scores of either kind are normal, and no guarantee if not",
                partial(parametric.gauss_t, evidence),
            )
        elif terms.threshold is not None:
            yield each.described(
                "posterior at the threshold",
                "what a Bayesian believes after these scores, which is no guarantee",
                partial(credible.joint_beta, evidence, threshold=terms.threshold),
            )


def _known_null(scores: Scores, against: tuple[_Against, ...], terms: Terms) -> Iterator[Line | Refused]:
    if np.unique(scores.cluster).size < scores.n_runs:
        yield Refused(
            name="known-null rank sum", why="some runs share one draw of their canary, hence are dependent"
        )
        yield from _clustered(scores, against, terms)
    else:
        for each in against:
            evidence = replace(evidence_of.ranks(scores, "scores", each.family.adjacency), cluster=None)
            if terms.kappa is not None and each.label == ANY:
                yield each.line(
                    "known-null ranks within kappa",
                    1.0,
                    "a canary ranks among exchangeable records its run never saw, and kappa was declared",
                    partial(exposure.within, evidence, kappa=terms.kappa),
                )
                continue
            yield each.line(
                "known-null rank sum",
                1.0,
                "each run has one canary among exchangeable records that it never saw, so that its rank is "
                "uniform without it",
                partial(known_null.fixed, evidence),
            )
    yield Refused(name="order-statistic grid", why="a canary and its references share their run")
    yield Refused(name="one-run guesses", why="one canary a run was put in by design, not by a coin")


def _several_runs(scores: Scores, against: tuple[_Against, ...], terms: Terms) -> Iterator[Line | Refused]:
    yield from _clustered(scores, against, terms)
    coins = _why_no_coins(scores, terms)
    if coins:
        yield Refused(name="one-run guesses, runs together", why=coins)
    else:
        yield from _guessed(scores, against, terms, "one-run guesses, runs together", 1.0)
    yield Refused(
        name="order-statistic grid", why="scores of one run are dependent: as independent ones they err"
    )


def _clustered(scores: Scores, against: tuple[_Against, ...], terms: Terms) -> Iterator[Line | Refused]:
    if np.unique(scores.cluster).size < 2:
        yield Refused(
            name="known-null run means",
            why="only one independent draw of members: the same ones, or the others, went in each time",
        )
        return
    evidence = evidence_of.ranks(scores, "scores", _adjacency(terms))
    for each in against:
        yield each.line(
            "run means, betting",
            1.0,
            "draws are independent; records of one draw may depend on each other in any way",
            partial(known_null.clustered_betting, evidence),
        )
        yield each.described(
            "run means, t",
            "tighter if the means of runs are close to normal, which nothing vouches for",
            partial(known_null.clustered, evidence),
        )


def _one_run(scores: Scores, against: tuple[_Against, ...], terms: Terms) -> Iterator[Line | Refused]:
    yield from _guessed(scores, against, terms, "one-run guesses", 1.0)
    yield Refused(
        name="order-statistic grid",
        why="scores of one run are dependent through the model: Clopper-Pearson needs independent runs",
    )
    yield Refused(
        name="known-null ranks",
        why="several canaries of one run are dependent: pooled as independent they err in 31-44 % of audits",
    )


def _guessed(
    scores: Scores, against: tuple[_Against, ...], terms: Terms, name: str, weight: float
) -> Iterator[Line]:
    evidence = evidence_of.one_run(scores, "scores", _adjacency(terms), _rng(terms))
    for each in against:
        estimator = one_run.epsilon_delta if each.label == ANY else one_run.f_dp
        yield each.line(
            name,
            weight,
            "each record was in or out by its own coin, whatever the dependence through the model",
            partial(estimator, evidence, guesses=terms.guesses, rng=_rng(terms)),
        )


def _why_no_coins(scores: Scores, terms: Terms) -> str:
    """Why several runs cannot be taken as coins; empty where they can."""
    if evidence_of.exact_halves(scores) and scores.n_runs > 2:
        return "every run has exactly half of its records in, which are drawn halves and not coins"
    evidence = evidence_of.one_run(scores, "scores", _adjacency(terms), _rng(terms))
    inside, n = int(evidence.included.sum()), evidence.included.size
    if inside in (0, n) or binomtest(inside, n, 0.5).pvalue < _IMPLAUSIBLE:
        return f"{inside} of {n} records in are no fair coins; state --inclusion-probability"
    return ""
