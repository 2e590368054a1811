"""Strings that upset code which parses, counts, pads or prints them."""

from __future__ import annotations

LONG = 10_000
"""Characters of the very long one."""


def special_texts(max_size: int | None = None) -> tuple[str, ...]:
    """Return strings that break parsing, lengths and missing-value checks, the shortest first.

    Args:
        max_size: a limit on the length; a string one longer and one of twice that length are then among
            them, which code that cuts at the limit must survive.

    Returns:
        Empty, blank, NUL, what reads as a number or as a missing value, quotes and separators,
        combining and right-to-left characters, characters beyond 16 bits, and a very long one.
    """
    looks = ("0", "-1", "1e309", "nan", "inf", "None", "null", "NA", "True")
    marks = (" ", "\n", "\0", "a\0", ",", '"', "'", "\\", "%s", "{}", "<b>", "=1+1", "'; DROP TABLE t; --")
    scripts = (
        "e\N{COMBINING ACUTE ACCENT}",
        "\N{LATIN SMALL LETTER E WITH ACUTE}",
        "\N{RIGHT-TO-LEFT OVERRIDE}abc",
        "\N{HEBREW LETTER ALEF}\N{HEBREW LETTER BET}",
        "\N{LATIN SMALL LETTER SHARP S}",
        "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}",
        "\N{ZERO WIDTH SPACE}",
        "\N{GRINNING FACE}",
    )
    sizes = (LONG,) if max_size is None else (max_size, max_size + 1, 2 * max_size + 2)
    every = dict.fromkeys(("", "a", *looks, *marks, *scripts, *("a" * size for size in sizes)))
    return tuple(sorted(every, key=len))
