"""Audit a release mechanism: search, choose, confirm, judge, and write the witness."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis.strategies import SearchStrategy

from dpaudit.claim import Adjacency
from dpaudit.domains import Domain
from dpaudit.errors import UsageError
from dpaudit.mechanism.budget import Budget, affordable, budget
from dpaudit.mechanism.confirmation import CONFIRM_STAGE, Confirmation, confirm
from dpaudit.mechanism.normality import remark
from dpaudit.mechanism.pairs import Screen, Tried
from dpaudit.mechanism.search import Progress, narrowed, search
from dpaudit.mechanism.settings import Settings
from dpaudit.mechanism.stated import some_data, stated_claim, stated_domains
from dpaudit.mechanism.verdicts import judged, strongest
from dpaudit.mechanism.witness import Witness, witness
from dpaudit.stats.guarantees import Guarantee
from dpaudit.targets.releases.calls import Call, call_of
from dpaudit.targets.releases.drawing import Drawer, InlineDrawer, cost
from dpaudit.targets.releases.randomness import Randomness, Source, randomness
from dpaudit.targets.releases.reading import OUT_OF_TIME
from dpaudit.targets.releases.workers import WorkerDrawer
from dpaudit.verdict import Status, Verdict

_WEIGHTS = (0.8, 0.15, 0.05)
"""How the candidates share alpha: the first is nearly always the one."""
_CONFIRMS = (1.0, 0.1, 0.1)
"""Share of the planned outputs that each is confirmed with."""
_QUICK = 0.5
"""Share of alpha for a pair that a few outputs already refuted the claim by, where there is one."""
_STAGES_EACH, _LEAST_CONFIRM = 40, 64
_HUNG = 3
_REMARKED, _REMARK_STAGE = 1000, 40


@dataclass(frozen=True, slots=True, kw_only=True)
class MechanismAudit:
    """What was found out about a mechanism.

    Attributes:
        mechanism: its name.
        guarantee: the claim.
        domain: of the data.
        verdict: REFUTED, NOT REFUTED or INCONCLUSIVE.
        confirmations: tests on fresh outputs; the first is of the most promising pair.
        witness: of the strongest one; None where nothing could be tested.
        notes: what else a user should know.
        examples: pairs that were tried.
        outputs: that were drawn in all.
        alpha: error probability of the verdict.
        seconds: it took.
    """

    mechanism: str
    guarantee: Guarantee
    domain: str
    verdict: Verdict
    confirmations: tuple[Confirmation, ...]
    witness: Witness | None
    notes: tuple[str, ...]
    examples: int
    outputs: int
    alpha: float
    seconds: float


def _silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def audit_mechanism(
    mechanism: Any,
    *,
    epsilon: float | None = None,
    delta: float | None = None,
    domain: str | Domain | SearchStrategy[Any] | None = None,
    adjacency: Adjacency | str | None = None,
    guarantee: Guarantee | None = None,
    inside: bool = False,
    name: str = "",
    settings: Settings | None = None,
    path: Path | None = None,
    progress: Progress = _silent,
) -> MechanismAudit:
    """Try to refute a claim about a mechanism, on pairs and events that are searched for.

    Validity rests on the outputs being independent, whatever the mechanism is.

    Args:
        mechanism: `f(data, rng)`, `f(data)`, `f(data, size, rng)`, or an object with
            `sample(data, size, rng)`.
        epsilon: claimed; by default the mechanism's own `epsilon`.
        delta: claimed; by default its own `delta`, else 0.
        domain: of the data, such as "list(float(0, 10))", or a strategy of `Neighbours`; by default its own
            `domain`.
        adjacency: between data sets; by default its own `adjacency`, else that of the domain.
        guarantee: the claim where it is not (epsilon, delta).
        inside: whether to leave out records that lie outside of the domain.
        name: for reports.
        settings: how hard to look.
        path: a folder in which a domain's own module lies.
        progress: is told how far things are.

    Returns:
        The audit; its verdict is wrong with probability at most alpha if it is REFUTED.

    Raises:
        UsageError: no claim, no domain, a mechanism that cannot be called, or one that takes none of the
            data.
    """
    settings = settings or Settings()
    claim = guarantee or stated_claim(mechanism, epsilon, delta)
    domains = stated_domains(mechanism, domain, adjacency, inside, path)
    title = name or getattr(mechanism, "__qualname__", type(mechanism).__name__)
    return _audited(call_of(mechanism), title, claim, domains, settings, progress)


def _audited(
    call: Call,
    title: str,
    claim: Guarantee,
    domains: tuple[Domain, ...],
    settings: Settings,
    progress: Progress,
) -> MechanismAudit:
    start = time.monotonic()
    with ExitStack() as stack:
        drawer_of = _drawers(settings, stack)
        first = _in_time(drawer_of(call), some_data(domains[-1]), settings)
        source = randomness(call, drawer_of, first)
        # A generator that a module makes when it is imported is the same one in every worker, whose outputs
        # would be copies of each other: what cannot be seeded is drawn by one worker alone.
        alone = source.source is Source.OWN
        drawer = drawer_of(source.call, min(settings.workers, 1) if alone else settings.workers)
        screen = Screen(drawer=drawer, guarantee=claim, size=1, root=settings.seed)
        each = cost(screen.drawer, first[0], (settings.seed, 8))
        confirmations, notes, examples = _confirmed(screen, domains, settings, each, progress)
        notes = (source.note, _planned(settings, each), *notes, *_remarks(confirmations, screen))
    return MechanismAudit(
        mechanism=title,
        guarantee=claim,
        domain=domains[-1].text,
        verdict=judged(confirmations, claim, nothing=_nothing(source)),
        confirmations=confirmations,
        witness=_witness(confirmations, screen, title, domains[-1], settings, source),
        notes=tuple(note for note in notes if note),
        examples=examples,
        outputs=screen.drawn,
        alpha=settings.alpha,
        seconds=time.monotonic() - start,
    )


def _planned(settings: Settings, each: float) -> str:
    """That a slow mechanism, or a slow machine, planned fewer outputs than others do."""
    planned = affordable(each)
    if settings.samples is not None or planned == affordable(0.0):
        return ""
    return (
        f"Planned {planned:,} outputs of {affordable(0.0):,}, for they are slow to draw: "
        "another machine may plan another number unless samples is set."
    )


def _drawers(settings: Settings, stack: ExitStack) -> Callable[..., Drawer]:
    """Makes a drawer of a call and a number of workers, once for each: processes take a second to start."""

    @cache
    def made(call: Call, workers: int) -> Drawer:
        if not workers or call.many:
            return InlineDrawer(call=call, timeout=settings.timeout)
        drawer = WorkerDrawer(call, timeout=settings.timeout, workers=workers)
        return stack.enter_context(drawer)

    def drawer_of(call: Call, workers: int = settings.workers) -> Drawer:
        return made(call, workers)

    return drawer_of


def _in_time(drawer: Drawer, data: Sequence[Any], settings: Settings) -> Sequence[Any]:
    """The data sets on which a call comes to an end: of others each output takes a whole time-out."""
    kept: list[Any] = []
    for i, each in enumerate(data):
        if i == _HUNG and not kept:
            break
        if OUT_OF_TIME.label not in drawer.draw(each, 1, (settings.seed, 6, i)).labels:
            kept.append(each)
    if not kept:
        raise UsageError(
            f"Expected a call to end within {settings.timeout:g} seconds, found that none did on the first "
            "data sets. Give it more time (`timeout`), or a domain of smaller data."
        )
    return kept


def _confirmed(
    screen: Screen, domains: Sequence[Domain], settings: Settings, each: float, progress: Progress
) -> tuple[tuple[Confirmation, ...], tuple[str, ...], int]:
    """Search, then test the candidates in order until one refutes."""
    plan = budget(
        affordable(each) if settings.samples is None else settings.samples,
        examples=settings.examples,
        # Each stands in the list in both directions.
        patterns=sum(-(-len(domain.patterns) // 2) for domain in domains),
    )
    screen.size = plan.screen
    searched = search(
        domains, screen, plan, quick=settings.stop_early, seconds=settings.seconds, progress=progress
    )
    tests = _Tests(screen=screen, plan=plan, settings=settings, progress=progress)
    quick = 0.0 if searched.found is None else _QUICK
    if searched.found is not None and tests.refutes(searched.found, quick, 1.0):
        return tuple(tests.done), searched.notes, searched.examples
    left = narrowed(screen, plan, n_candidates=len(_WEIGHTS), seconds=settings.seconds, progress=progress)
    # A further candidate that does not look as if it broke the claim is worth neither outputs nor alpha.
    left = (*left[:1], *(tried for tried in left[1:] if tried.rated > screen.guarantee.claimed))
    weights = _WEIGHTS[: len(left)]
    for tried, weight, part in zip(left, weights, _CONFIRMS, strict=False):
        if tests.refutes(tried, (1.0 - quick) * weight / sum(weights), part):
            break
    return tuple(tests.done), searched.notes, searched.examples


@dataclass(slots=True, kw_only=True)
class _Tests:
    """Confirmations so far; each draws under seeds of its own."""

    screen: Screen
    plan: Budget
    settings: Settings
    progress: Progress
    done: list[Confirmation] = field(default_factory=list)

    def refutes(self, tried: Tried, share: float, part: float) -> bool:
        """Whether one more test, at its share of alpha, refutes the claim."""
        size = max(int(self.plan.confirm * part), _LEAST_CONFIRM)
        confirmation = confirm(
            tried,
            self.screen,
            size=tried.affordable(size, self.settings.seconds),
            alpha=self.settings.alpha * share,
            stop_early=self.settings.stop_early,
            stage=CONFIRM_STAGE + len(self.done) * _STAGES_EACH,
            progress=self.progress,
        )
        self.done.append(confirmation)
        return confirmation.refuted


def _nothing(source: Randomness) -> str:
    if source.source is Source.NOWHERE:
        return "It put out the same on both data sets of each pair that was tried: there was nothing to test."
    return "Nothing told the outputs on any two data sets apart, so that there was nothing to test."


def _witness(
    confirmations: tuple[Confirmation, ...],
    screen: Screen,
    name: str,
    data: Domain,
    settings: Settings,
    source: Randomness,
) -> Witness | None:
    if not confirmations:
        return None
    return witness(
        strongest(confirmations),
        screen.guarantee,
        mechanism=name,
        domain=data.text,
        seed=settings.seed,
        random_state=str(source.source),
    )


def _remarks(confirmations: tuple[Confirmation, ...], screen: Screen) -> list[str]:
    """What the tested outputs look like, and where the pair lies."""
    closed = sorted(screen.closed)
    notes = [f"An output of a type that tells nothing: {label}. Return numbers or texts." for label in closed]
    if screen.dropped:
        notes.append(f"Of an output {screen.dropped:,} numbers or texts were not looked at.")
    if not confirmations:
        return notes
    best = strongest(confirmations)
    if best.tried.affordable(_REMARKED, 1.0) == _REMARKED:
        notes.append(remark(screen.samples(best.tried, _REMARK_STAGE, _REMARKED), screen.guarantee))
    if best.refuted and best.tried.pair.outside:
        notes.append(
            "A record of this pair lies outside of the stated domain. "
            "If none such can reach the mechanism, say so with `inside`."
        )
    return notes


def assert_dp(mechanism: Any, **claim: Any) -> MechanismAudit:
    """Fail a test unless a mechanism stands up to `audit_mechanism`.

    Args:
        mechanism: as for `audit_mechanism`.
        **claim: its other arguments.

    Returns:
        The audit, if the claim was not refuted.

    Raises:
        AssertionError: the claim was refuted, or the test had no power to refute it.
        UsageError: as for `audit_mechanism`.
    """
    from dpaudit.mechanism.text import short

    audit = audit_mechanism(mechanism, **claim)
    if audit.verdict.status is not Status.NOT_REFUTED:
        raise AssertionError(short(audit))
    return audit
