"""What is claimed of a mechanism and of which data: said by the caller, or by the mechanism itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis.strategies import SearchStrategy

from dpaudit.check import one_of
from dpaudit.claim import Adjacency
from dpaudit.domains import Domain, drawn_by, parse
from dpaudit.errors import DpauditError, UsageError
from dpaudit.stats.guarantees import ApproximateDP
from dpaudit.strategies import Neighbours

_SOME = 5
_EXACT = ("value(", "answers(")


def stated_claim(mechanism: Any, epsilon: float | None, delta: float | None) -> ApproximateDP:
    """(epsilon, delta) as the caller says or, where the caller says nothing, the mechanism."""
    stated = getattr(mechanism, "epsilon", None) if epsilon is None else epsilon
    if stated is None:
        raise UsageError(
            "Expected a claim, found neither epsilon nor a mechanism that states its own. State epsilon."
        )
    known = getattr(mechanism, "delta", 0.0) if delta is None else delta
    for name, value in (("epsilon", stated), ("delta", known)):
        if not isinstance(value, Real):
            raise UsageError(f"Expected {name} to be a number, found {value!r}. State it without quotes.")
    return ApproximateDP(claimed=float(stated), delta=float(known))


def stated_domains(
    mechanism: Any,
    domain: str | Domain | SearchStrategy[Any] | None,
    adjacency: Adjacency | str | None,
    inside: bool,
    path: Path | None,
) -> tuple[Domain, ...]:
    """The domain itself and, for data sets of records, the same with records that lie outside of it.

    A record that nobody expects can be in a data set; a single value or query answers are what the claim says
    they are. A strategy of the user's own is drawn as it is.
    """
    if isinstance(domain, Domain):
        return (domain,)
    between = adjacency
    if between is None:
        between = getattr(mechanism, "adjacency", None)
    if between is not None:
        between = Adjacency(one_of("adjacency", str(between), [str(name) for name in Adjacency]))
    if isinstance(domain, SearchStrategy):
        return (drawn_by(domain, adjacency=between, inside=inside),)
    text = getattr(mechanism, "domain", None) if domain is None else domain
    if not isinstance(text, str):
        found = "none" if text is None else type(text).__name__
        raise UsageError(
            f"Expected a domain of the data, found {found}. "
            "State one such as 'list(float(0, 10))' or 'array(float(0, 1), columns=3)'."
        )
    strict = parse(text, adjacency=between, inside=True, path=path)
    if inside or text.lstrip().startswith(_EXACT):
        return (strict,)
    whole = parse(text, adjacency=between, path=path)
    return (whole,) if ":" in text and "(" not in text else (strict, whole)


def some_data(data: Domain) -> Sequence[Any]:
    """Some data sets of the domain, to try the mechanism on: known patterns, and ones that are drawn."""
    spread = data.patterns[:: max(1, len(data.patterns) // _SOME)]
    return [pair.first for pair in (*spread[:_SOME], *_drawn(data))]


def _drawn(data: Domain) -> list[Neighbours[Any]]:
    found: list[Neighbours[Any]] = []

    @hypothesis.settings(
        max_examples=_SOME,
        database=None,
        deadline=None,
        phases=(hypothesis.Phase.generate,),
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.seed(0)
    @hypothesis.given(data.pairs)
    def keep(pair: Neighbours[Any]) -> None:
        found.append(pair)

    with drawing(data):
        keep()
    return found


@contextmanager
def drawing(data: Domain) -> Iterator[None]:
    """Turn what a strategy raises, or that it finds nothing to draw, into one clear error."""
    try:
        yield
    except DpauditError:
        raise
    except Exception as error:
        raise UsageError(
            f"Expected the domain {data.text} to draw pairs of data sets, found {type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}. Mend its strategy, or leave out --inside."
        ) from None
