"""Files that nobody vouches for: of bounded size and depth, with numbers of 64 bits and whole text."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from dpaudit.address import Address, Place

MOST_BYTES = 32 << 20
"""A record of a hundred targets has two million."""
DEEPEST = 64
_UNPACKED, _TIMES = 1 << 28, 50
"""Bytes that any archive may unpack to, and how often its own size a large one may. Scores hardly shrink."""
_LARGEST = 2**63


def bomb(unpacked: int, packed: int) -> bool:
    """Whether so many bytes of an archive unpack to more than any that was written in earnest."""
    return unpacked > max(_UNPACKED, _TIMES * packed)


def contents(path: Place, most: int = MOST_BYTES) -> bytes:
    """The bytes of a file, never more than `most` of them in memory.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is no regular file, such as a pipe that nobody writes to; or larger.
    """
    if isinstance(path, Address):
        return path.read(most)
    if path.exists() and not path.is_file():
        raise ValueError("a folder, or something else that is no file")
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"more than {most:,} bytes")
    return data


def json_of(data: bytes) -> Any:
    """The document.

    Raises:
        ValueError: no JSON, deeper than 64 levels, an integer beyond 64 bits, or half a character.
    """
    try:
        return _sound(json.loads(data, parse_int=_integer), 0)
    except RecursionError:
        raise _too_deep() from None


def toml_of(text: str) -> dict[str, Any]:
    """The document; TOML's own integers have 64 bits.

    Raises:
        ValueError: no TOML, or as in `json_of`.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES:,} characters")
    try:
        document: dict[str, Any] = _sound(tomllib.loads(text), 0)
    except RecursionError:
        raise _too_deep() from None
    return document


def _integer(digits: str) -> int:
    if len(digits) > len(str(_LARGEST)) + 1:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _too_deep() -> ValueError:
    return ValueError(f"more than {DEEPEST} levels, one within the other")


def _sound(value: Any, depth: int) -> Any:
    """The value itself, looked through."""
    if depth > DEEPEST:
        raise _too_deep()
    if isinstance(value, str):
        value.encode()  # Half of a surrogate pair fits in no file.
    elif isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise ValueError("an integer beyond 64 bits")
    elif isinstance(value, dict):
        for key, item in value.items():
            _sound(key, depth + 1)
            _sound(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _sound(item, depth + 1)
    return value
