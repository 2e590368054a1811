"""Two records side by side: comparable where unit, neighbours, delta, confidence and method agree."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from dpaudit.claim import Claim
from dpaudit.estimate import Estimate, Rate
from dpaudit.record import AuditRecord, TargetRecord

UNKNOWN = "not comparable"
SEPARATE_UP = "higher: the intervals separate"
SEPARATE_DOWN = "lower: the intervals separate"
TOGETHER = "not told apart: the intervals overlap"
_DIGITS = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One number of both records.

    Attributes:
        target: it is about.
        metric: such as "auc" or "epsilon_lower".
        source: the attack, with its slice; empty for numbers of the target.
        before: in the first record; None where there is none.
        after: in the second.
        comparable: whether the two may be compared.
        word: how they compare, or why they may not be.
    """

    target: str
    metric: str
    source: str
    before: float | str | None
    after: float | str | None
    comparable: bool
    word: str

    @property
    def differs(self) -> bool:
        """Whether both are there and are not equal."""
        return self.comparable and self.before != self.after


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Rows by target, and what differs in how the records came about."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def compare(before: AuditRecord, after: AuditRecord) -> Comparison:
    """Compare two records, target by target.

    Lower bounds of epsilon are listed, and never called better: one that is smaller shows less, and does not
    say that less leaks. Rates are told apart where their intervals are disjoint, which errs less often than
    either interval does.
    """
    rows: list[Row] = []
    one = {target.name: target for target in before.targets}
    two = {target.name: target for target in after.targets}
    for name in dict.fromkeys((*one, *two)):
        if name not in one or name not in two:
            where = "first" if name in one else "second"
            rows.append(_apart(name, "verdict", "", f"only the {where} record has this target"))
            continue
        rows += _target(one[name], two[name])
    return Comparison(rows=tuple(rows), notes=tuple(_notes(before, after)))


def claims_differ(one: Claim | None, two: Claim | None) -> str:
    """Why two claims are about different things; empty if they are not. Epsilon may differ."""
    if one is None or two is None:
        return "" if one is two else "one of them has no claim"
    if one.unit != two.unit:
        return f"per {one.unit} and per {two.unit}"
    if one.adjacency != two.adjacency:
        return f"{one.adjacency} and {two.adjacency}"
    if not math.isclose(one.delta, two.delta):
        return f"at delta {one.delta:g} and {two.delta:g}"
    return ""


def _target(one: TargetRecord, two: TargetRecord) -> Iterator[Row]:
    name = one.name
    yield _words(name, "verdict", str(one.verdict.status), str(two.verdict.status))
    why = claims_differ(one.claim, two.claim) or (
        "" if one.role == two.role else f"{one.role} and {two.role}"
    )
    if why:
        yield _apart(name, "epsilon", "", why)
    else:
        if one.claim is not None and two.claim is not None:
            yield _numbers(name, "epsilon_claimed", "", one.claim.epsilon, two.claim.epsilon)
        yield from _bounds(one, two)
    yield from _rates(one, two)
    for metric in ("test_accuracy", "train_accuracy"):
        yield _numbers(name, metric, "", getattr(one, metric), getattr(two, metric))


def _bounds(one: TargetRecord, two: TargetRecord) -> Iterator[Row]:
    first, second = _by_source(one), _by_source(two)
    for source in sorted({*first, *second}):
        if source not in first or source not in second:
            record = "first" if source in first else "second"
            yield _apart(one.name, "epsilon_lower", source, f"only the {record} record has it")
            continue
        a, b = first[source], second[source]
        for method in sorted({*a, *b}):
            where = f"{source}, {method}"
            if method not in a or method not in b:
                others = ", ".join(sorted(b if method in a else a))
                why = f"method {method} here and {others} there"
                yield _apart(one.name, "epsilon_lower", where, why)
            elif why := _estimates_differ(a[method], b[method]):
                yield _apart(one.name, "epsilon_lower", where, why)
            else:
                low, high = a[method].epsilon_lower, b[method].epsilon_lower
                yield _numbers(one.name, "epsilon_lower", where, low, high)


def _by_source(target: TargetRecord) -> dict[str, dict[str, Estimate]]:
    """Guaranteed estimates by attack, then by method; of several of one method, the largest bound."""
    found: dict[str, dict[str, Estimate]] = {}
    for item in sorted(
        target.estimates, key=lambda e: -math.inf if e.epsilon_lower is None else e.epsilon_lower
    ):
        if item.guarantee:
            found.setdefault(item.source, {})[f"{item.method} ({item.adjacency})"] = item
    return found


def _estimates_differ(one: Estimate, two: Estimate) -> str:
    if not math.isclose(one.delta, two.delta):
        return f"at delta {one.delta:g} and {two.delta:g}"
    if not math.isclose(one.alpha, two.alpha):
        return f"at confidence {1 - one.alpha:.4g} and {1 - two.alpha:.4g}"
    return ""


def _rates(one: TargetRecord, two: TargetRecord) -> Iterator[Row]:
    first, second = _wide(one), _wide(two)
    for key in sorted({*first, *second}):
        metric, source, group = key
        where = source if group == "all" else f"{source}, {group}"
        if key not in first or key not in second:
            record = "first" if key in first else "second"
            yield _apart(one.name, metric, where, f"only the {record} record has it")
        elif not math.isclose(first[key].alpha, second[key].alpha):
            shares = 1 - first[key].alpha, 1 - second[key].alpha
            why = f"at confidence {shares[0]:.4g} and {shares[1]:.4g}"
            yield _apart(one.name, metric, where, why)
        else:
            yield _rate(one.name, where, first[key], second[key])


def _wide(target: TargetRecord) -> dict[tuple[str, str, str], Rate]:
    return {(rate.name, rate.source, rate.slice): rate for rate in target.rates if not rate.fine}


def _rate(target: str, where: str, one: Rate, two: Rate) -> Row:
    return Row(
        target=target,
        metric=one.name,
        source=where,
        before=_known(one.value),
        after=_known(two.value),
        comparable=True,
        word=relation(one, two),
    )


def relation(one: Rate, two: Rate) -> str:
    """Whether the interval of the second lies above or below that of the first."""
    if _known(one.value) is None or _known(two.value) is None:
        return "no data"
    if one == two:
        return "equal"
    if None in (one.lower, one.upper, two.lower, two.upper):
        return "not told apart: no interval"
    assert one.lower is not None and one.upper is not None
    assert two.lower is not None and two.upper is not None
    if two.lower > one.upper:
        return SEPARATE_UP
    return SEPARATE_DOWN if two.upper < one.lower else TOGETHER


def _numbers(target: str, metric: str, source: str, one: float | None, two: float | None) -> Row:
    one, two = _known(one), _known(two)
    if one is None or two is None:
        word = "no data"
    else:
        same = one == two or math.isclose(one, two, rel_tol=_DIGITS)
        word = "equal" if same else "higher" if two > one else "lower"
    return Row(target=target, metric=metric, source=source, before=one, after=two, comparable=True, word=word)


def _words(target: str, metric: str, one: str, two: str) -> Row:
    word = "equal" if one == two else "changed"
    return Row(target=target, metric=metric, source="", before=one, after=two, comparable=True, word=word)


def _apart(target: str, metric: str, source: str, why: str) -> Row:
    return Row(
        target=target,
        metric=metric,
        source=source,
        before=None,
        after=None,
        comparable=False,
        word=f"{UNKNOWN}: {why}",
    )


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _notes(before: AuditRecord, after: AuditRecord) -> Iterator[str]:
    """What differs in how they came about."""
    one, two = before.provenance, after.provenance
    if not math.isclose(before.alpha, after.alpha):
        yield f"error probability of the whole audit: {before.alpha:g} and {after.alpha:g}"
    for name, what in (
        ("plan_sha256", "plan"),
        ("code_sha256", "code"),
        ("lock_sha256", "installed packages"),
        ("policy_sha256", "policy"),
        ("seed", "seed"),
        ("device", "device"),
        ("dpaudit_version", "dpaudit"),
    ):
        a, b = getattr(one, name), getattr(two, name)
        if a != b:
            yield f"{what} differs: {_short(a)} and {_short(b)}"
    if one.salted or two.salted:
        if one.data_sha256 != two.data_sha256:
            yield "data: not known to be the same, each record hashes them with a salt of its own"
    elif one.data_sha256 != two.data_sha256:
        yield f"data differs: {_short(one.data_sha256)} and {_short(two.data_sha256)}"
    for name in sorted({*one.environment, *two.environment}):
        a, b = one.environment.get(name, "none"), two.environment.get(name, "none")
        if a != b:
            yield f"{name} differs: {a} and {b}"
    for target in {t.name: t for t in after.targets}.values():
        old = next((t.weights_sha256 for t in before.targets if t.name == target.name), "")
        if old and target.weights_sha256 and old != target.weights_sha256:
            yield f"weights of {target.name} differ: {_short(old)} and {_short(target.weights_sha256)}"


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text or "none"
