"""What was found, in words that can be quoted: shares with their counts, and what they do not say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dpaudit.linkage.classes import Classes
from dpaudit.linkage.disclosure import Guessed
from dpaudit.linkage.register import Matches


def share(part: float, whole: int) -> str:
    """A share of 1 as a percentage of two digits or more."""
    value = 100 * part / whole if whole else 0.0
    return f"{value:.1f} %" if value >= 1 or value == 0 else f"{value:.2g} %"


def sentence(
    seen: Classes, matches: Matches | None, guessed: Sequence[Guessed], limit: float | None, epsilon: float
) -> str:
    """The whole of it for somebody who decides."""
    parts = [
        f"Without names, {seen.alone:,} of {seen.records:,} records ({share(seen.alone, seen.records)}) are "
        f"alone with their quasi-identifiers, and the smallest class has {seen.smallest}."
    ]
    if matches is not None:
        parts.append(_named(matches))
    raw = next((each for each in guessed if each.release == "table"), None)
    if raw is not None:
        parts.append(
            f"Whoever looks a person up in half of the table reads the sensitive value right for "
            f"{share(raw.right_in, raw.people_in)} of those who are in it, and for "
            f"{share(raw.right_out, raw.people_out)} of those who are not."
        )
    for noisy in (each for each in guessed if each.release != "table"):
        allowed = "" if limit is None else f"; of such a guess, epsilon allows {100 * limit:.1f} % at most"
        parts.append(
            f"From noisy counts with epsilon {epsilon:g} it is {share(noisy.right_in, noisy.people_in)} and "
            f"{share(noisy.right_out, noisy.people_out)}{allowed}."
        )
    parts.append("Removing names is not enough where what remains is known to others.")
    return " ".join(parts)


def _named(matches: Matches) -> str:
    found = (
        f"Of a register of {matches.persons:,}, exactly one entry matches {matches.one:,} records "
        f"({share(matches.one, matches.records)})"
    )
    if matches.right is None:
        return f"{found}; whether it is the right one, nobody said."
    return (
        f"{found}, and for {matches.right:,} ({share(matches.right, matches.records)} of all) it is the "
        f"right name, where guessing is right for {share(1, matches.persons)}."
    )


def checks(seen: Classes, matches: Matches | None, sensitive: str | None) -> Iterator[tuple[str, str]]:
    """Name and detail of what was counted."""
    yield "k-anonymity", f"k = {seen.smallest}: {seen.classes:,} classes of {seen.records:,} records"
    yield (
        "size of classes",
        "; ".join(
            f"{start if end == start else f'{start} to {end}' if end else f'{start} or more'}: "
            f"{count:,} records ({share(count, seen.records)})"
            for start, end, count in seen.sizes
        ),
    )
    yield (
        "alone without a column",
        "; ".join(
            f"without {name}: {count:,} ({share(count, seen.records)})"
            for name, count in seen.without.items()
        ),
    )
    if seen.diversity is not None and seen.known is not None:
        yield (
            "l-diversity",
            f"l = {seen.diversity} for {sensitive}: {seen.known:,} records "
            f"({share(seen.known, seen.records)}) are in classes with a single value, which is disclosed "
            "without naming anybody",
        )
    if matches is not None:
        yield (
            "register",
            f"no match {matches.none:,}, one {matches.one:,}, several {matches.several:,} of "
            f"{matches.records:,} records; {matches.unique:,} of {matches.persons:,} entries are alone in it",
        )
        if matches.lucky is not None:
            yield (
                "naming one of the matches at random",
                f"right for {matches.lucky:,.0f} records ({share(matches.lucky, matches.records)}) on "
                "average",
            )


def caveats(matches: Matches | None, truth: bool, guessed: bool) -> Iterator[tuple[str, str]]:
    """Name and detail of what the figures do not say."""
    yield (
        "population",
        "a record that is alone in the table need not be alone in the population: without a register of all "
        "of it, uniqueness here is an upper bound of uniqueness there; with other columns it is higher",
    )
    if matches is not None and not truth:
        yield (
            "names",
            "one match is the right one only if the register is complete and without errors",
        )
    if truth or guessed:
        yield (
            "intervals",
            "exact (Clopper-Pearson) for records drawn independently like these; the table itself is counted "
            "and needs none",
        )
