"""Spans of token sequences that look like a secret of a format: the tagger of what models say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from dpaudit.check import FloatArray, IntArray
from dpaudit.secret import Format, Tokens

_FIRST = 0x10000
"""Token ids become characters from here on: an expression over tokens is then one over text."""


def spelt(tokens: IntArray | FloatArray) -> list[str]:
    """One character for each token of each row (n, t); padding, which is negative, is left out."""
    return ["".join(chr(_FIRST + int(token)) for token in row if token >= 0) for row in tokens.tolist()]


def matching(formats: Sequence[Format], texts: Iterable[str]) -> set[str]:
    """Different spans of texts that are secrets of a format; the leftmost where two overlap."""
    joined = [re.compile("".join(_slot(slot) for slot in each.slots)) for each in formats]
    return {match.group() for text in texts for pattern in joined for match in pattern.finditer(text)}


def _slot(alternatives: Sequence[Tokens]) -> str:
    said = ["".join(chr(_FIRST + token) for token in tokens) for tokens in alternatives]
    # Characters from this plane have no meaning of their own in an expression.
    return f"[{''.join(said)}]" if all(len(text) == 1 for text in said) else f"(?:{'|'.join(said)})"
