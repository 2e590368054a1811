"""Hypothesis as the search engine: neighbouring data sets on which the outputs differ most.

A test body that asks "do a few outputs refute the claim?" is what Hypothesis is made for: `target()` leads
it to worse pairs, and its shrinking makes the pair small. Outputs are drawn under seeds that derive from
the pair, so that the body is a function of its example and no example is flaky. Nothing that is seen here
counts as evidence.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import hypothesis

from dpaudit.attacks.event_search.selection import Learn, Samples, together
from dpaudit.claim import Adjacency
from dpaudit.domains import Domain
from dpaudit.errors import DpauditError, UsageError
from dpaudit.mechanism.budget import Budget
from dpaudit.mechanism.pairs import Screen, Tried
from dpaudit.mechanism.stated import drawing
from dpaudit.strategies import Neighbours

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


_WITH_RECORDS = 8
_SIMPLEST = 3
_LONG, _LONGEST, _STAGE = 8, 4, 97
_SHRINKING = 4
"""How many times as many pairs as planned may be tried where one is being made smaller."""


class _Found(DpauditError):
    """Raised inside the test body so that Hypothesis shrinks the example."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What the search came to.

    Attributes:
        found: the pair that a few outputs refute the claim by; None where none is, or was not asked for.
        examples: how many pairs were tried.
        notes: what the mechanism did with some of them.
    """

    found: Tried | None
    examples: int
    notes: tuple[str, ...]


def search(
    domains: Sequence[Domain],
    screen: Screen,
    budget: Budget,
    *,
    quick: bool,
    seconds: float,
    progress: Progress,
) -> Searched:
    """Try pairs.

    Args:
        domains: of the data; the next one is searched where nothing was found in the one before.
        screen: looks at pairs.
        budget: of outputs.
        quick: whether the first pair that refutes the claim clearly is enough; else the worst is looked for.
        seconds: after which no further pair is tried.
        progress: is told.

    Raises:
        UsageError: the mechanism takes none of the data.
    """
    found = None
    for i, domain in enumerate(domains):
        # A record that the domain does not have is a weaker reason: such pairs come last.
        share = replace(budget, examples=-(-budget.examples // len(domains)) * (i + 1))
        end = time.monotonic() + seconds / len(domains)
        found = _patterns(domain, screen, share, quick, end, progress)
        if found is None:
            found = _generated(domain, screen, share, quick, end, progress)
        if found is not None:
            break
    if found is None and not any(tried.choice for tried in screen.tried.values()):
        found = _step(domains, screen, budget)
        found = found if quick else None
    if found is not None and not _has_records(found.pair):
        _try_records(domains, screen, budget)
    tried = list(screen.tried.values())
    _refuse_if_rejected(tried)
    notes = dict.fromkeys(each.noted for each in tried if each.noted)
    return Searched(found=found, examples=len(tried), notes=tuple(notes))


def _patterns(
    domain: Domain, screen: Screen, budget: Budget, quick: bool, end: float, progress: Progress
) -> Tried | None:
    """Pairs that are known to break mechanisms; stops at the first that does, if that is enough."""
    for i, pair in enumerate(domain.patterns):
        if time.monotonic() > end:
            break
        if screen.knows(pair.swapped()):  # events are compared in both directions
            continue
        progress("trying pairs", i, budget.examples)
        # What is rare and needs no other record shows on them, or not at all.
        simple = sum(known in screen.patterns for known in screen.tried) < _SIMPLEST
        tried = screen.look(pair, budget.simplest if simple else budget.patterns)
        screen.patterns.add(tried.text)
        if tried.strong and quick:
            return tried
    return None


def _step(domains: Sequence[Domain], screen: Screen, budget: Budget) -> Tried | None:
    """Where outputs change, although on no pair: two halves of a data set are tried again and again.

    A mechanism that draws nothing, and puts out something else on some data set than on the empty one,
    does so at one of the records between.
    """
    pairs = (pair for domain in domains for pair in domain.patterns if not pair.outside)
    added = (pair for pair in pairs if pair.adjacency is Adjacency.ADD_REMOVE)
    long = [pair for pair in added if isinstance(pair.second, list) and len(pair.second) > _LONG]
    for pair in sorted(long, key=lambda pair: -len(pair.second))[:_LONGEST]:
        data = pair.second

        def put_out(records: int, data: list[Any] = data) -> int:
            drawn = screen.drawer.draw(data[:records], 1, (screen.root, _STAGE, records))
            return int(drawn.fingerprints[0])

        low, high, first = 0, len(data), put_out(0)
        if put_out(high) == first:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if put_out(middle) == first else (low, middle)
        step = replace(pair, first=data[:low], second=data[:high], index=low)
        return screen.look(step, budget.patterns)
    return None


def _generated(
    domain: Domain, screen: Screen, budget: Budget, quick: bool, end: float, progress: Progress
) -> Tried | None:
    """Pairs that Hypothesis draws; the smallest one that refutes the claim clearly, if any does."""
    failing: list[Tried] = []

    @hypothesis.settings(
        max_examples=max(1, budget.examples - len(screen.tried)),
        database=None,
        deadline=None,
        derandomize=False,
        report_multiple_bugs=False,
        verbosity=hypothesis.Verbosity.quiet,
        phases=(hypothesis.Phase.generate, hypothesis.Phase.target, hypothesis.Phase.shrink),
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.seed(screen.root)
    @hypothesis.given(domain.pairs)
    def refuted_by(pair: Neighbours[Any]) -> None:
        over = time.monotonic() > end or len(screen.tried) >= _SHRINKING * budget.examples
        if over and not screen.knows(pair):
            return
        tried = screen.look(pair)
        progress("trying pairs", min(len(screen.tried), budget.examples), budget.examples)
        if math.isfinite(tried.rated):
            hypothesis.target(tried.rated)
        if tried.strong and quick:
            failing.append(tried)
            raise _Found

    try:
        with drawing(domain):
            refuted_by()
    except _Found:
        return failing[-1]
    return None


def _has_records(pair: Neighbours[Any]) -> bool:
    """Whether neither data set is empty."""
    return all(len(data) > 0 for data in (pair.first, pair.second) if hasattr(data, "__len__"))


def _try_records(domains: Sequence[Domain], screen: Screen, budget: Budget) -> None:
    """Try data sets with records until one is taken: what takes only the empty one has another domain."""
    pairs = (pair for domain in domains for pair in domain.patterns if not pair.outside)
    for pair in islice(filter(_has_records, pairs), _WITH_RECORDS):
        if not screen.look(pair, budget.patterns).rejected:
            return


def _refuse_if_rejected(tried: list[Tried]) -> None:
    """Say so where the mechanism takes none of the data, or only those without a record.

    With `outside` records it need not.
    """
    inside = [each for each in tried if not each.pair.outside]
    inside = [each for each in inside if _has_records(each.pair)] or inside
    rejected = [each for each in inside if each.rejected]
    if inside and len(rejected) == len(inside):
        broken = rejected[0].rejected.startswith(("ModuleNotFoundError", "ImportError", "NameError"))
        remedy = "Mend that first." if broken else "Give it the domain that it is made for."
        raise UsageError(
            f"Expected a mechanism that takes data of this domain, found that it raised on all {len(inside)} "
            f"pairs: {rejected[0].rejected[:200]}. {remedy}"
        )


def _first_round(screen: Screen, order: Callable[[Tried], Any], places: int) -> list[Tried]:
    """Half of the places in order, a quarter for the best of the patterns, the last for hopeful ones of them.

    Few outputs rate a small leak by chance, and then patterns that break other mechanisms are likelier to
    show it than what was drawn.
    """
    every = sorted((tried for tried in screen.tried.values() if tried.choice is not None), key=order)
    half, quarter = -(-places // 2), places // 4
    patterns = [tried for tried in every[half:] if tried.text in screen.patterns]
    hopeful = sorted(patterns[quarter:], key=lambda tried: -tried.hopeful)[: places - half - quarter]
    chosen = {tried.text for tried in [*every[:half], *patterns[:quarter], *hopeful]}
    return sorted(every, key=lambda tried: tried.text not in chosen)


def narrowed(
    screen: Screen, budget: Budget, *, n_candidates: int, seconds: float, progress: Progress
) -> tuple[Tried, ...]:
    """Successive halving (Karnin, Koren & Somekh 2013): fewer pairs, more outputs on each.

    Args:
        screen: with the pairs that were tried.
        budget: of outputs.
        n_candidates: at most so many are left.
        seconds: that all outputs of a round's pairs may take.
        progress: is told.

    Returns:
        Pairs to confirm, the most promising first.
    """

    def order(tried: Tried) -> tuple[bool, float, int]:
        # What breaks the claim within its domain comes first; of pairs that look alike the simplest to read.
        within = not tried.pair.outside and tried.rated > screen.guarantee.claimed
        return not within, -tried.expected, len(tried.text)

    left = _first_round(screen, order, budget.rounds[0].pairs)
    total = sum(min(r.pairs, len(left)) for r in budget.rounds)
    done = 0
    # What was drawn of a pair stays: each round adds to it.
    seen: dict[str, list[Samples]] = {}
    for stage, each in enumerate(budget.rounds, start=3):
        looked = []
        for tried in left[: each.pairs]:
            progress("choosing the event", done, total)
            last = each is budget.rounds[-1]
            # Fewer outputs than a pair was screened with would rate it anew by chance.
            size = max(each.size, tried.drawn)
            parts = seen.setdefault(tried.text, [])
            size = tried.affordable(size, seconds / total)
            parts.append(screen.samples(tried, stage, size, coupled=True))
            learn = Learn.ALL if last else Learn.LINEAR
            looked.append(screen.weigh(tried, together(parts), size=budget.confirm, learn=learn))
            done += 1
        left = [*sorted(looked, key=order), *left[each.pairs :]]
        seen = {tried.text: seen[tried.text] for tried in looked}
    return tuple(tried for tried in left[:n_candidates] if tried.choice is not None)
